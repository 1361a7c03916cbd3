"""Random access to blocks by number, each shard opened once; a damaged one is returned as its error, not raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.dataset.index import Index
from hexshards.dataset.shard import OpenShard, open_shard
from hexshards.errors import DataError, Misused, or_refusal
from hexshards.game.positions import Positions
from hexshards.rng import MOST, permutation
from hexshards.storage.files import Home

Columns = Mapping[str, NDArray[Any]]

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""What ``map`` does, here or elsewhere."""


class Stored(NamedTuple):
    """A block that is not yet decoded."""

    block: int
    file: OpenShard | None
    number: int
    """Which block of the file."""
    data: bytes | DataError
    """Its bytes, or why there are none."""


class Blocks:
    """The blocks of a split, numbered over all its shards in their order."""

    def __init__(self, home: Home, index: Index, split: str) -> None:
        self.home, self.layout, self.sources = home, index.layout, len(index.sources)
        self.shards = index.splits[split].shards
        self.per_shard = [len(shard.block_bytes) for shard in self.shards]
        self.first = np.cumsum([0, *self.per_shard])
        self.rows = index.block_rows(split)
        self._sound_stones: set[int] = set()

    def __len__(self) -> int:
        return len(self.rows)

    def drawn(self, positions: int, seed: int, path: int, *, least: int = 1) -> NDArray[np.int64]:
        """Random sample of blocks, in the order in which they are drawn: so many that hold enough positions."""
        order = permutation(min(len(self), MOST), seed, path, 0)
        enough = int(np.searchsorted(np.cumsum(self.rows[order]), positions)) + 1
        return order[: max(enough, least)]

    def read(self, blocks: NDArray[np.int64], names: Sequence[str], *, mapped: Map = map) -> list[Columns | DataError]:
        """The columns of some blocks, or what is wrong with them, in the order of ``blocks``; no file for no names.

        This thread reads the bytes of blocks; they are decoded as ``mapped`` does it.
        """
        if not names:
            return [{} for _ in blocks]
        homes = np.searchsorted(self.first, blocks, side="right") - 1
        by_block = self._read(blocks, homes, names, mapped)
        for home in np.unique(homes).tolist():
            members, shard = blocks[homes == home], self.shards[home]
            damaged = any(isinstance(by_block[block], DataError) for block in members.tolist())
            if damaged and self.home.renewed(shard.name, sha256=shard.sha256):
                by_block |= self._read(members, np.full(len(members), home), names, map)
        return [by_block[block] for block in blocks.tolist()]

    def _read(
        self, blocks: NDArray[np.int64], homes: NDArray[np.int64], names: Sequence[str], mapped: Map
    ) -> dict[int, Columns | DataError]:
        """The columns of blocks that lie in the shards ``homes``, by number."""
        return dict(mapped(partial(self._decoded, names), self._stored(blocks, homes)))

    def _stored(self, blocks: NDArray[np.int64], homes: NDArray[np.int64]) -> Iterator[Stored]:
        """Read the bytes of blocks, each shard opened once."""
        for home in np.unique(homes).tolist():
            members = blocks[homes == home].tolist()
            file = or_refusal(open_shard, self.home, self.shards[home])
            if isinstance(file, DataError):
                yield from (Stored(block, None, 0, file) for block in members)
                continue
            with file:
                for block in members:
                    number = block - int(self.first[home])
                    yield Stored(block, file, number, or_refusal(file.stored, number))

    def _decoded(self, names: Sequence[str], stored: Stored) -> tuple[int, Columns | DataError]:
        block, file, number, data = stored
        if isinstance(data, DataError):
            return block, data
        assert file is not None
        # stones are looked at once: at side 13 that takes as long as all else that is checked
        again, layout = block in self._sound_stones, self.layout
        columns = or_refusal(file.decode, data, number, layout=layout, sources=self.sources, names=names, again=again)
        if not isinstance(columns, DataError) and "stones" in columns:
            self._sound_stones.add(block)
        return block, columns


def first_positions(home: Home, index: Index, *, split: str, count: int) -> Positions:
    """The first positions of a split, all columns. Raises DataError where the split is empty or damaged."""
    if split not in index.splits:
        raise Misused(f"has no split {split!r}", where=str(home), fix=f"It has {', '.join(index.splits)}")
    shard = index.splits[split].shards[0]
    names = tuple(index.layout.columns())
    with open_shard(home, shard) as file:
        columns = file.read_block(0, layout=index.layout, sources=len(index.sources), names=names)
    return Positions.of(index.side, {name: column[:count] for name, column in columns.items()}, index.layout.optional)
