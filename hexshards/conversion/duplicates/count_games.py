"""Count distinct games by an external sort: each shard's keys sorted on disk, then all, a range of keys at a time.

A dataset that is added to is read again for them; what overlaps with it is told by a sketch that is made on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.duplicates.overlaps import sketch
from hexshards.conversion.sorted_runs import save_arrays
from hexshards.dataset.index import Index
from hexshards.dataset.layout import Shard
from hexshards.dataset.shard import open_shard
from hexshards.dataset.split import game_keys
from hexshards.game.columns import UNKNOWN
from hexshards.rng import Words
from hexshards.storage.files import Folder

COUNTED_TOGETHER = 1 << 21
"""Keys looked at together: 16 MB, and as much again to sort them."""


def note_games(scratch: Path, name: str, keys: Sequence[Words]) -> None:
    """Note the keys of the games that have a position in a shard."""
    words = np.sort(np.concatenate(keys))  # np.unique takes longer
    save_arrays(_path(scratch, name), words[np.append(True, words[1:] != words[:-1])[: len(words)]])


def note_games_of_shard(shard: Shard, *, folder: Path, scratch: Path, index: Index, sketched: int) -> None:
    """The same for a shard that is there already: its columns source and game are read again.

    Unless ``sketched`` is 0, stones are read as well, for a sketch of the shard: one of so many.
    """
    if _path(scratch, shard.name).exists():
        return
    keys, known, boards = list[Words](), list[Words](), list[NDArray[np.uint8]]()
    names = ("source", "game", "stones") if sketched else ("source", "game")
    with open_shard(Folder(folder), shard) as file:
        for number in range(len(shard.block_bytes)):
            columns = file.read_block(number, layout=index.layout, sources=len(index.sources), names=names)
            words = game_keys(index.sources, columns["source"], columns["game"])
            keys.append(np.unique(words))
            if sketched:
                rows = np.flatnonzero(columns["game"] != UNKNOWN)
                known.append(words[rows])
                boards.append(columns["stones"][rows])
    if sketched:
        save_arrays(_sketch(scratch, shard.name), sketch(np.concatenate(known), np.concatenate(boards), of=sketched))
    note_games(scratch, shard.name, keys)


def shard_sketches(scratch: Path, shards: Sequence[Shard]) -> list[Words]:
    """The sketches of shards that were there already."""
    return [np.load(_sketch(scratch, shard.name), allow_pickle=False) for shard in shards]


def distinct_games(scratch: Path, names: Sequence[str], *, together: int = COUNTED_TOGETHER) -> int:
    """How many different games have a position in one of the shards."""
    paths = [_path(scratch, name) for name in names]
    total = sum(len(np.load(path, mmap_mode="r")) for path in paths)
    distinct = 0
    for low, high in key_ranges(total, together):
        parts = [_between(np.load(path, mmap_mode="r"), low, high) for path in paths]
        distinct += len(np.unique(np.concatenate(parts)))
    return distinct


def key_ranges(total: int, together: int) -> Iterator[tuple[int, int | None]]:
    """Ranges of words, from and up to, each with about ``together`` of so many that are as good as random."""
    ranges = -(-total // together)
    edges = [number * (1 << 64) // ranges for number in range(1, ranges)]
    return zip([0, *edges], [*edges, None], strict=True)


def within(keys: Words, low: int, high: int | None) -> slice:
    """Where in sorted words those of a range are."""
    last = len(keys) if high is None else int(np.searchsorted(keys, np.uint64(high)))
    return slice(int(np.searchsorted(keys, np.uint64(low))), last)


def _between(keys: Words, low: int, high: int | None) -> Words:
    return np.array(keys[within(keys, low, high)])


def _sketch(scratch: Path, name: str) -> Path:
    return scratch / f"{name}.sketch.npy"


def _path(scratch: Path, name: str) -> Path:
    return scratch / f"{name}.games.npy"
