"""Index of a dataset, index.json: what is not in it does not exist; what is in it is checked by its fingerprint.

It is read before anything else, so NumPy is loaded where there are arrays, and not for what commands say of a dataset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import UNSET

from hexshards.arguments import checked
from hexshards.dataset.index_schema import (
    ColumnEntry,
    Entry,
    Head,
    LayoutEntry,
    PartEntry,
    SplitEntry,
    named,
    shards_of,
    with_names_apart,
)
from hexshards.dataset.layout import Layout, Part, Shard
from hexshards.errors import DataError, escaped, printable
from hexshards.storage.files import Folder, Home, nearest_path, write_whole
from hexshards.storage.remote import home_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hexshards.game.columns import Column
    from hexshards.game.positions import Positions

NAME = "index.json"
VERSIONS = (1, 2)
"""Versions of the format; readers refuse others. The first is of datasets without optional columns, headers of files
and merged shards; the second lists these. The order is the same."""

SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")

_REDO = "Fetch the dataset again, or convert again into a new folder"


FEW_GAMES = 200
"""Fewer say little when they are validated on: all positions of a game have one winner. With 50 games of an engine the
share of winners that are right was 8 to 10 points off (benchmarks/learning.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts of some positions: labels, games, plies."""

    blue_wins: int
    """Positions of value 0."""
    red_wins: int
    """Positions of value 1."""
    without_policy: int
    plies: tuple[int, ...]
    """How many positions have 0, 1, 2, ... stones."""

    @classmethod
    def none(cls, side: int) -> Counts:
        """Counts of no positions."""
        return cls(blue_wins=0, red_wins=0, without_policy=0, plies=(0,) * (side**2 + 1))

    @classmethod
    def of(cls, positions: Positions) -> Counts:
        """Count some positions."""
        import numpy as np

        policy = positions.policy
        return cls(
            blue_wins=int((positions.value == 0).sum()),
            red_wins=int((positions.value == 1).sum()),
            without_policy=int((~policy.any(axis=1) if positions.soft else policy < 0).sum()),
            plies=tuple(np.bincount(positions.ply, minlength=positions.side**2 + 1).tolist()),
        )

    @classmethod
    def sum(cls, parts: Sequence[Counts]) -> Counts:
        """Counts of all the parts together; there must be one."""
        return cls(
            blue_wins=sum(part.blue_wins for part in parts),
            red_wins=sum(part.red_wins for part in parts),
            without_policy=sum(part.without_policy for part in parts),
            plies=tuple(map(sum, zip(*(part.plies for part in parts), strict=True))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Split(Counts):
    """The shards of a split, and what is in them."""

    shards: tuple[Shard, ...]
    games: int
    """Distinct games."""

    @property
    def positions(self) -> int:
        """Positions in all shards."""
        return sum(shard.positions for shard in self.shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """A file that the dataset was made from."""

    name: str
    format: str
    size_bytes: int
    sha256: str
    positions: int
    rejected: int
    without_game: int
    """Positions that do not say which game they are from: split by file, so their games may straddle the splits."""
    notes: str
    """What its converter says of it: its generation, and what was read otherwise than it is written."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What it says of how its games were made: model, simulations, temperature, seed, commit, generation."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """Index of a dataset: all but the positions themselves."""

    layout: Layout
    splits: Mapping[str, Split]
    """Only those that hold positions."""
    sources: tuple[str, ...]
    """Names of the files the games came from; the column ``source`` counts along them."""
    inputs: tuple[InputFile, ...]
    options: Mapping[str, int | float | str | bool]
    """The options of the conversion."""
    merged: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    """By the name of a shard that was made of others: all that it came from, the oldest first."""

    @property
    def version(self) -> int:
        """Version of the format that it is written in: see VERSIONS."""
        # 0.1 would add to merged shards under names that are taken, and remove those that stay for runs
        return VERSIONS[bool(self.layout.optional or self.merged or any(file.headers for file in self.inputs))]

    @property
    def few_val_games(self) -> int | None:
        """Games of validation, where these are so few that what it says is off by chance; None where they are not."""
        return self.few_games("val")

    def few_games(self, name: str) -> int | None:
        """The same of any split."""
        split, named = self.splits.get(name), not any(file.without_game for file in self.inputs)
        return split.games if split and named and split.games < FEW_GAMES else None

    @property
    def baked(self) -> bool:
        """Whether every position is there in all four symmetries, so that a loader must not augment."""
        return bool(self.options.get("bake_symmetries", False))

    @property
    def side(self) -> int:
        """Side of the boards."""
        return self.layout.side

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything the index says, 64 hexadecimal digits: two datasets with the same one are the same."""
        return _fingerprint(self)

    def written(self, split: str) -> tuple[str, ...]:
        """Checksums of the shards that a split's files were written to, the oldest first; merging changes none."""
        return tuple(part.sha256 for shard in self.splits[split].shards for part in self.parts_of(shard))

    def parts_of(self, shard: Shard) -> tuple[Part, ...]:
        """The shards that one was made of, the oldest first; or itself."""
        return self.merged.get(shard.name, (Part(shard.sha256, shard.positions),))

    def block_rows(self, split: str) -> NDArray[np.int64]:
        """Positions in each block of a split, over all its shards in their order."""
        import numpy as np

        full = self.layout.block_positions
        shards = self.splits[split].shards
        ends = np.cumsum([len(shard.block_bytes) for shard in shards])
        rows = np.full(ends[-1], full, dtype=np.int64)
        rows[ends - 1] = [shard.positions - (len(shard.block_bytes) - 1) * full for shard in shards]
        return rows

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from hexshards.dataset.facts import summary_of

        return summary_of(self)

    def write(self, folder: Path) -> None:
        """Publish the index: from now on the folder is a dataset."""
        # dataclasses.asdict would copy every leaf first: with thousands of files that takes 2.5 times as long
        entry = {"format": "hexshards", "version": self.version, "fingerprint": self.fingerprint, **_by_name(self)}
        entry["layout"] = _layout_entry(self.layout)
        write_whole(folder / NAME, json.dumps(entry, indent=1, sort_keys=True, default=_by_name).encode())


def _instead(home: Home) -> str:
    """Suggest what to give, by what stands where a dataset was looked for."""
    path = home.path if isinstance(home, Folder) else None
    if path is not None and path.is_file():
        what = {NAME: "the index of a dataset", ".tar": "a shard"}
        if kind := what.get(path.name) or what.get(path.suffix):
            return f"this is {kind}, not a dataset. Give the folder that holds it, {path.parent}"
        if path.suffix == ".pt":
            return "this is a checkpoint or a file of weights, not a dataset. Give the dataset that it was trained on"
        made = "make a dataset of it with `hexshards convert FILE --out DIR` and give DIR"
        return f"this is a file, and a dataset is a folder. If games or positions are in it, {made}"
    if path is not None and any((path / name).exists() for name in ("metrics.jsonl", "checkpoints")):
        return "this is the folder of a run, not a dataset. Give the dataset that it was trained on"
    hint = nearest_path(path, lambda beside: (beside / NAME).exists()) if path is not None and not path.exists() else ""
    return f"no dataset here (no {NAME}){hint or '. Make one with `hexshards convert`'}"


@checked
def read_index(dataset: str | Path | Home) -> Index:
    """Read and check a dataset's index. Raises FileNotFoundError where there is none, DataError where it is damaged."""
    home = home_of(dataset)
    path = home.where(NAME)
    try:
        data = home.read(NAME)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise FileNotFoundError(f"{escaped(home)}: {escaped(_instead(home))}") from None
    apart: dict[str, Any] = {}
    try:
        try:
            head = msgspec.json.decode(data, type=Head)
        except msgspec.DecodeError as error:
            if "surrogate" not in str(error):
                raise
            data, apart = with_names_apart(data)
            head = msgspec.json.decode(data, type=Head)
    except (ValueError, RecursionError) as error:
        reason = printable(error, width=200)
        raise DataError(f"is not the index of a dataset ({reason})", where=path, fix=_REDO) from None
    if head.version not in VERSIONS:
        fix = "Use the release of hexshards that wrote it, or convert again"
        version = printable(head.version)
        raise DataError(
            f"has format version {version}, this release reads {VERSIONS[0]} and {VERSIONS[1]}", where=path, fix=fix
        )
    try:
        entry = msgspec.json.decode(data, type=Entry)
        index = _index_of(entry, apart)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not well formed: {printable(error, width=300)}", where=path, fix=_REDO) from None
    if index.version != head.version:
        problem = f"has format version {head.version}, and what is in it is of version {index.version}"
        raise DataError(problem, where=path, fix=_REDO)
    fingerprint = _fingerprint(index, counted=False) if entry.layout.counted is UNSET else index.fingerprint
    if fingerprint != head.fingerprint:
        stated = printable(head.fingerprint, width=12)
        raise DataError(
            f"was edited: its contents have the fingerprint {fingerprint[:12]}, it states {stated}",
            where=path,
            fix=_REDO,
        )
    return index


def _index_of(entry: Entry, apart: dict[str, Any]) -> Index:
    """Build the index of a parsed entry. Raises ValueError where it contradicts itself."""
    said = {name: entry.splits[name] for name in SPLITS if name in entry.splits}
    splits: dict[str, Split] = {name: _split(name, split, entry.layout) for name, split in said.items()}
    return Index(
        layout=_layout_of(entry.layout),
        splits=splits,
        sources=tuple(named(entry, "sources", apart)),
        inputs=tuple(InputFile(**_by_name(file)) for file in named(entry, "inputs", apart)),
        options=named(entry, "options", apart),
        merged=_merged({} if entry.merged is UNSET else entry.merged, splits),
    )


def _merged(said: Mapping[str, list[PartEntry]], splits: Mapping[str, Split]) -> dict[str, tuple[Part, ...]]:
    """What merged shards were made of. Raises ValueError for a shard that is not listed or has other positions."""
    listed = {shard.name: shard.positions for split in splits.values() for shard in split.shards}
    for name, parts in said.items():
        if name not in listed:
            raise ValueError(f"a shard that no split lists - at `$.merged.{escaped(name)}`")
        if sum(part.positions for part in parts) != listed[name]:
            raise ValueError(f"parts of other sizes than the shard - at `$.merged.{escaped(name)}`")
    return {name: tuple(Part(**_by_name(part)) for part in parts) for name, parts in said.items()}


def _layout_of(said: LayoutEntry) -> Layout:
    """Build the layout of a parsed entry. Raises ValueError where it lists what is no column."""
    listed = () if said.optional is UNSET else _columns_of(said.optional)
    return Layout(**{**_by_name(said), "optional": listed})


def _columns_of(said: Sequence[ColumnEntry]) -> tuple[Column, ...]:
    from hexshards.game.columns import column_of, in_order

    listed = tuple(column_of(_by_name(each)) for each in said)
    if in_order(listed) != listed:
        raise ValueError("columns are not in their order, each once - at `$.layout.optional`")
    return listed


def _layout_entry(layout: Layout) -> dict[str, Any]:
    """A layout as JSON says it."""
    entry = _by_name(layout)
    del entry["optional"]
    if not layout.optional:
        return entry
    from hexshards.game.columns import entry_of

    return entry | {"optional": [entry_of(each) for each in layout.optional]}


def _split(name: str, said: SplitEntry, layout: LayoutEntry) -> Split:
    shards = tuple(
        Shard(
            name=each.name,
            positions=each.positions,
            size_bytes=each.size_bytes,
            sha256=each.sha256,
            block_bytes=tuple(each.block_bytes),
            block_crc32=tuple(each.block_crc32),
        )
        for each in shards_of(name, said, layout)
    )
    return Split(**{**_by_name(said), "shards": shards, "plies": tuple(said.plies)})


def _by_name(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, or of an entry, by their names."""
    names = value.__struct_fields__ if isinstance(value, msgspec.Struct) else [field.name for field in fields(value)]
    parts = {name: getattr(value, name) for name in names}
    # what is without headers, or merged shards, is described as before there were any
    later = ("headers", "merged")
    return {name: part for name, part in parts.items() if part is not UNSET and (part or name not in later)}


def _fingerprint(index: Index, *, counted: bool = True) -> str:
    digest = hashlib.sha256()
    for part in _compact(index, counted=counted):
        digest.update(part)
    return digest.hexdigest()


def _compact(index: Index, *, counted: bool) -> Iterator[bytes]:
    """The index as compact JSON with sorted keys, a shard at a time.

    counted: whether the layout says ``counted``; before it did, no dataset was.
    """
    layout = {name: part for name, part in _layout_entry(index.layout).items() if counted or name != "counted"}
    yield b'{"format":"hexshards","inputs":' + _json(index.inputs) + b',"layout":' + _json(layout)
    if index.merged:
        yield b',"merged":' + _json(index.merged)
    yield b',"options":' + _json(index.options) + b',"sources":' + _json(index.sources) + b',"splits":{'
    for number, (name, split) in enumerate(sorted(index.splits.items())):
        yield (b"," if number > 0 else b"") + _json(name) + b":"
        yield from _compact_split(split)
    yield b'},"version":' + _json(index.version) + b"}"


def _compact_split(split: Split) -> Iterator[bytes]:
    numbers = _by_name(split)
    del numbers["shards"]
    before, after = _json({**numbers, "shards": []}).split(b"[]")
    yield before + b"["
    for number, shard in enumerate(split.shards):
        # all ASCII and whole numbers: the same bytes as json.dumps, in a tenth of its time
        yield (b"," if number > 0 else b"") + _SORTED.encode(shard)
    yield b"]" + after


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_by_name).encode()


_SORTED = msgspec.json.Encoder(order="sorted")
