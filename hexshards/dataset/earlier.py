"""Earlier states of a dataset: before small shards were merged; whoever reads one goes on, for its shards are kept.

Each is the index as it was, in a folder of its own; the shards that it lists lie among the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hexshards.dataset.index import NAME, Index, read_index
from hexshards.errors import escaped
from hexshards.storage.files import write_whole

EARLIER = "earlier"
"""Folder in a dataset for its earlier states: ``000001``, ``000002``, ..."""

_STATE = re.compile(r"[0-9]{6,12}")


def earlier_states(folder: Path) -> list[Path]:
    """Folders of the earlier states that are kept, the oldest first."""
    states = [path.parent for path in (folder / EARLIER).glob(f"*/{NAME}") if _STATE.fullmatch(path.parent.name)]
    return sorted((state for state in states if not state.is_symlink()), key=lambda state: int(state.name))


def keep_state(folder: Path, index: Index) -> None:
    """Keep the state that a dataset is in, unless it is the last one that was kept.

    Raises FileExistsError where a link stands in the place of the folder for states: what it leads to is not ours.
    """
    if (folder / EARLIER).is_symlink():
        raise FileExistsError(
            f"{escaped(folder / EARLIER)} is a link, where earlier states are kept in a folder. Remove it"
        )
    states = earlier_states(folder)
    if states and read_index(states[-1]).fingerprint == index.fingerprint:
        return
    place = folder / EARLIER / f"{1 + (int(states[-1].name) if states else 0):06d}"
    place.mkdir(parents=True, exist_ok=True)
    write_whole(place / NAME, (folder / NAME).read_bytes())


def listed(index: Index | None) -> set[str]:
    """Names of the shards that an index lists."""
    return {shard.name for split in index.splits.values() for shard in split.shards} if index else set()


def kept_shards(folder: Path, states: Sequence[Path] | None = None) -> set[str]:
    """Names of the shards that all earlier states need, or some."""
    return set().union(
        *(listed(read_index(state)) for state in earlier_states(folder) if states is None or state in states)
    )


def forget(folder: Path, *, keep: int) -> None:
    """Remove earlier states but for the newest, and then the shards that no state lists."""
    if (folder / EARLIER).is_symlink():
        return
    states = earlier_states(folder)
    gone = states[: max(0, len(states) - keep)]
    needed = listed(read_index(folder)) | kept_shards(folder, states[len(gone) :])
    for state in gone:
        for name in sorted(listed(read_index(state)) - needed):
            (folder / name).unlink(missing_ok=True)
        (state / NAME).unlink()
        with suppress(OSError):  # it holds something that somebody put there
            state.rmdir()
    if (folder / EARLIER).is_dir() and not any((folder / EARLIER).iterdir()):
        (folder / EARLIER).rmdir()


def extends(index: Index, earlier: Index) -> bool:
    """Whether a dataset is another one that was added to, or whose small shards were merged."""
    # what is added may bring columns that the earlier files lack
    same = replace(index.layout, optional=()) == replace(earlier.layout, optional=())
    return same and all(
        name in index.splits and index.written(name)[: len(shards)] == shards
        for name in earlier.splits
        if (shards := earlier.written(name))
    )
