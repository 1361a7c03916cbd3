"""Random access to blocks by number, each shard opened once; a damaged one is returned as its error, not raised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.dataset.index import Index
from hexshards.dataset.layout import Shard
from hexshards.dataset.shard import OpenShard, open_shard
from hexshards.errors import DataError, Misused, or_refusal
from hexshards.game.positions import Positions
from hexshards.rng import MOST, permutation
from hexshards.storage.files import Home

Columns = Mapping[str, NDArray[Any]]


class Blocks:
    """The blocks of a split, numbered over all its shards in their order."""

    def __init__(self, home: Home, index: Index, split: str) -> None:
        self.home, self.layout, self.sources = home, index.layout, len(index.sources)
        self.shards = index.splits[split].shards
        self.per_shard = [len(shard.block_bytes) for shard in self.shards]
        self.first = np.cumsum([0, *self.per_shard])
        self.rows = index.block_rows(split)
        self._sound_stones: set[tuple[str, int]] = set()

    def __len__(self) -> int:
        return len(self.rows)

    def drawn(self, positions: int, seed: int, path: int, *, least: int = 1) -> NDArray[np.int64]:
        """Random sample of blocks, in the order in which they are drawn: so many that hold enough positions."""
        order = permutation(min(len(self), MOST), seed, path, 0)
        enough = int(np.searchsorted(np.cumsum(self.rows[order]), positions)) + 1
        return order[: max(enough, least)]

    def read(self, blocks: NDArray[np.int64], names: Sequence[str]) -> list[Columns | DataError]:
        """The columns of some blocks, or what is wrong with them, in the order of ``blocks``; no file for no names."""
        if not names:
            return [{} for _ in blocks]
        homes = np.searchsorted(self.first, blocks, side="right") - 1
        by_block: dict[int, Columns | DataError] = {}
        for home in np.unique(homes):
            members = blocks[homes == home]
            read = self._read_shard(self.shards[home], (members - self.first[home]).tolist(), names)
            by_block.update(zip(members.tolist(), read, strict=True))
        return [by_block[int(block)] for block in blocks]

    def _read_shard(self, shard: Shard, numbers: Sequence[int], names: Sequence[str]) -> list[Columns | DataError]:
        """Blocks of one shard, which is opened once, or once more when it was only a damaged copy."""
        read = self._blocks_of(shard, numbers, names)
        damaged = any(isinstance(block, DataError) for block in read)
        if damaged and self.home.renewed(shard.name, sha256=shard.sha256):
            return self._blocks_of(shard, numbers, names)
        return read

    def _blocks_of(self, shard: Shard, numbers: Sequence[int], names: Sequence[str]) -> list[Columns | DataError]:
        file = or_refusal(open_shard, self.home, shard)
        if isinstance(file, DataError):
            return [file] * len(numbers)
        with file:
            return [self._block(file, number, names) for number in numbers]

    def _block(self, file: OpenShard, number: int, names: Sequence[str]) -> Columns | DataError:
        # stones are looked at once: at side 13 that takes as long as all else that is checked
        place, layout = (file.shard.name, number), self.layout
        again = place in self._sound_stones
        columns = or_refusal(file.read_block, number, layout=layout, sources=self.sources, names=names, again=again)
        if not isinstance(columns, DataError) and "stones" in columns:
            self._sound_stones.add(place)
        return columns


def first_positions(home: Home, index: Index, *, split: str, count: int) -> Positions:
    """The first positions of a split, all columns. Raises DataError where the split is empty or damaged."""
    if split not in index.splits:
        raise Misused(f"has no split {split!r}", where=str(home), fix=f"It has {', '.join(index.splits)}")
    shard = index.splits[split].shards[0]
    names = tuple(index.layout.columns())
    with open_shard(home, shard) as file:
        columns = file.read_block(0, layout=index.layout, sources=len(index.sources), names=names)
    return Positions.of(index.side, {name: column[:count] for name, column in columns.items()}, index.layout.optional)
