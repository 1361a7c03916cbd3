"""Compact a dataset: neighbouring small shards become one, whole or not at all; no position is changed or lost.

Shards that follow one another, and together fit one, are merged, from the oldest on; so none is cut, and the order of
shards stays that in which files were added. The rows of a merged shard are shuffled, in an order that the index tells
(hexshards.dataset.merged_shards): a window of the newest positions holds the same ones as before. Index last; the old
shards stay until later compactions forget them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from hexshards.arguments import checked
from hexshards.conversion.convert import disk_named, settled
from hexshards.conversion.options import CONVERT
from hexshards.conversion.workdir import clear, held, remove_stale
from hexshards.dataset.earlier import forget, keep_state, kept_shards, listed
from hexshards.dataset.index import SPLITS, Index, read_index
from hexshards.dataset.index_schema import LAST_NUMBER, next_number, shard_name
from hexshards.dataset.layout import Part, Shard
from hexshards.dataset.merged_shards import ages
from hexshards.dataset.shard import open_shard, write_shard
from hexshards.errors import escaped
from hexshards.game.positions import Positions
from hexshards.storage.files import Folder, free_bytes, publishing
from hexshards.storage.remote import is_url, shown
from hexshards.units import show_bytes

KEEP = 1
"""Earlier states that stay: an epoch that began before this compaction ends on the old shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What a compaction did, or would do."""

    dataset: str
    shards_before: dict[str, int]
    shards_after: dict[str, int]
    left_before: dict[str, int]
    """Shards of the splits that were left as they are."""
    left_after: dict[str, int]
    """How many these would be, were they merged too."""
    positions: int
    """Positions of the shards that were merged."""
    written_bytes: int
    """Size of the shards that they became, about that of the old ones."""
    kept_bytes: int
    """Size of old shards that stay for runs that still read them."""
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring shards that become one; a single one stays, under its name or, behind merged ones, a new one."""

    shards: tuple[Shard, ...]
    name: str

    @property
    def merges(self) -> bool:
        """Whether it is more than one."""
        return len(self.shards) > 1


@checked
def compact(
    dataset: str | Path,
    *,
    keep: int = KEEP,
    held_out: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Compaction:
    """Merge the small shards of a dataset's training split; the other splits too where ``held_out`` says so.

    ``keep`` earlier states stay, with their shards. ``dry_run`` writes nothing. ``progress`` is told positions done and
    in all.

    Raises FileNotFoundError where there is no dataset, FileExistsError where files are being added, DataError where a
    shard is damaged, OSError where the disk is or becomes full: then the dataset is what it was.
    """
    if is_url(dataset):
        raise ValueError(
            f"{shown(str(dataset))}: shards are merged in a folder. Compact a copy of it, and publish that"
        )
    if keep < 0:
        raise ValueError(f"keep must be at least 0, got {keep:d}")
    folder = Path(dataset)
    spec, index = settled({}, out=folder, append=True)
    assert index is not None
    taken = listed(index) | kept_shards(folder)
    plan = groups_of(index, spec.shard_positions, SPLITS if held_out else ("train",), taken=taken)
    if not dry_run:
        with disk_named(folder), held(folder, spec, base=index) as scratch:
            index = _carried_out(folder, index, plan, progress or (lambda done, total: None))
            forget(folder, keep=keep)
            clear(scratch)
    left = groups_of(index, spec.shard_positions, [name for name in index.splits if name not in plan])
    return _told(folder, index, plan, left)


def has_small_shards(index: Index, split: str) -> bool:
    """Whether neighbouring shards of a split fit one, as in a dataset to which files were added little by little."""
    return any(group.merges for group in groups_of(index, _most(index), (split,))[split])


def has_grown(index: Index, split: str) -> bool:
    """Whether a split was added to: the shards of one conversion are of no others, and all but the last are full."""
    most, shards = _most(index), index.splits[split].shards
    merges = index.options.get("dedupe") in ("positions", "symmetric")  # which leaves shards what it leaves
    return any(
        len(index.parts_of(shard)) > 1 or (shard.positions < most and shard is not shards[-1] and not merges)
        for shard in shards
    )


def _most(index: Index) -> int:
    """Positions in a full shard; an index that says no number of it does not say how it was made."""
    most = index.options.get("shard_positions")
    return most if isinstance(most, int) else CONVERT.shard_positions


def groups_of(
    index: Index, shard_positions: int, splits: Sequence[str], *, taken: Set[str] = frozenset()
) -> dict[str, list[Group]]:
    """How the shards of some splits are grouped: neighbours as long as they fit one shard, from the oldest on.

    ``taken``: names that no shard may have where numbers come to their end, and all are numbered anew.
    """
    shards = {name: index.splits[name].shards for name in splits if name in index.splits}
    return {name: _groups(name, each, shard_positions, taken) for name, each in shards.items()}


def _groups(split: str, shards: Sequence[Shard], shard_positions: int, taken: Set[str]) -> list[Group]:
    parts, held = list[list[Shard]](), 0
    for shard in shards:
        if parts and held + shard.positions <= shard_positions:
            parts[-1].append(shard)
            held += shard.positions
        else:
            parts.append([shard])
            held = shard.positions
    number, merged = next_number(shards), False
    if number + len(parts) > LAST_NUMBER:
        free = (name for name in map(partial(shard_name, split), count()) if name not in taken)
        return [Group(tuple(part), name) for part, name in zip(parts, free, strict=False)]
    groups = list[Group]()
    for part in parts:
        merged |= len(part) > 1  # names are in the order of time, so those behind a new one are new as well
        groups.append(Group(tuple(part), shard_name(split, number) if merged else part[0].name))
        number += merged
    return groups


def _carried_out(
    folder: Path,
    index: Index,
    plan: dict[str, list[Group]],
    tell: Callable[[int, int], None],
) -> Index:
    """Write the new shards, keep the state as it is, and publish the new one."""
    if read_index(folder).fingerprint != index.fingerprint:
        raise FileExistsError(f"{escaped(folder)}: files were added meanwhile. Give the same command again")
    remove_stale(folder, index)
    total = _merged_positions(plan)
    if not any(group.merges or group.name != group.shards[0].name for groups in plan.values() for group in groups):
        return index
    needed = sum(shard.size_bytes for group in _merging(plan) for shard in group.shards)
    if needed > (free := free_bytes(folder)):
        problem = f"the merged shards need {show_bytes(needed)}, while {show_bytes(free)} are free"
        raise OSError(errno.ENOSPC, problem, str(folder))
    splits, done = dict(index.splits), 0
    tell(done, total)
    for name, groups in plan.items():
        shards = list[Shard]()
        for group in groups:
            shards.append(_made(folder, index, group))
            if group.merges:
                tell(done := done + shards[-1].positions, total)
        splits[name] = replace(splits[name], shards=tuple(shards))
    compacted = replace(index, splits=splits, merged=_merged(index, plan))
    keep_state(folder, index)
    compacted.write(folder)
    return compacted


def _merged(index: Index, plan: dict[str, list[Group]]) -> dict[str, tuple[Part, ...]]:
    """What every merged shard was made of, also those of splits that are left as they are."""
    alone = {name: [Group((shard,), shard.name) for shard in split.shards] for name, split in index.splits.items()}
    groups = [group for each in {**alone, **plan}.values() for group in each]
    made = {group.name: _parts(index, group) for group in groups}
    return {name: parts for name, parts in made.items() if len(parts) > 1}


def _parts(index: Index, group: Group) -> tuple[Part, ...]:
    return tuple(part for shard in group.shards for part in index.parts_of(shard))


def _made(folder: Path, index: Index, group: Group) -> Shard:
    if group.merges:
        return write_shard(folder / group.name, _shuffled(folder, index, group), layout=index.layout)
    (shard,) = group.shards
    if shard.name != group.name:
        _link(folder / shard.name, folder / group.name)
    return replace(shard, name=group.name)


def _shuffled(folder: Path, index: Index, group: Group) -> Iterator[Positions]:
    """The rows of a merged shard, a block at a time; one copy of them is held, in which the oldest stands first."""
    layout = index.layout
    columns = layout.columns()
    order = ages(_parts(index, group))
    rows = np.empty(len(order), dtype=[(name, *kind) for name, kind in columns.items()])
    first = 0
    for shard in group.shards:
        homes = first + ages(index.parts_of(shard))
        first += shard.positions
        with open_shard(Folder(folder), shard) as file:
            for number in range(len(shard.block_bytes)):
                block = file.read_block(number, layout=layout, sources=len(index.sources), names=tuple(columns))
                here, homes = np.split(homes, [len(block["value"])])
                for name, column in block.items():
                    rows[name][here] = column
    for start in range(0, len(rows), layout.block_positions):
        taken = rows[order[start : start + layout.block_positions]]
        yield Positions.of(layout.side, {name: np.ascontiguousarray(taken[name]) for name in columns}, layout.optional)


def _link(old: Path, new: Path) -> None:
    """Give a shard a second name, or where a disk knows no such thing, a copy."""
    new.unlink(missing_ok=True)
    try:
        os.link(old, new)
    except OSError:
        with open(old, "rb") as file, publishing(new) as copy:
            while piece := file.read(1 << 20):
                copy.write(piece)


def _merging(plan: dict[str, list[Group]]) -> list[Group]:
    return [group for groups in plan.values() for group in groups if group.merges]


def _merged_positions(plan: dict[str, list[Group]]) -> int:
    return sum(shard.positions for group in _merging(plan) for shard in group.shards)


def _told(folder: Path, index: Index, plan: dict[str, list[Group]], left: dict[str, list[Group]]) -> Compaction:
    names = listed(index)
    old = kept_shards(folder) - names
    return Compaction(
        dataset=str(folder),
        shards_before=_before(plan),
        shards_after=_after(plan),
        left_before=_before(left),
        left_after=_after(left),
        positions=_merged_positions(plan),
        written_bytes=sum(shard.size_bytes for group in _merging(plan) for shard in group.shards),
        kept_bytes=sum((folder / name).stat().st_size for name in old if (folder / name).exists()),
        fingerprint=index.fingerprint,
    )


def _before(plan: dict[str, list[Group]]) -> dict[str, int]:
    return {name: sum(len(group.shards) for group in groups) for name, groups in plan.items()}


def _after(plan: dict[str, list[Group]]) -> dict[str, int]:
    return {name: len(groups) for name, groups in plan.items()}
