"""A window is the unit of reading: its blocks are fetched, checked, decompressed and mixed in one place, at one time.

A DataLoader hands windows back in the order in which they were asked for, whatever the number of its workers, so the
order of samples never depends on workers; and a window crosses between processes as a handful of packed columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards import order
from hexshards.errors import DataError
from hexshards.expand import Packed
from hexshards.index import Index
from hexshards.order import Plan, Window
from hexshards.positions import Positions
from hexshards.shard import Shard, open_shard, read_block
from hexshards.specs import LoaderSpec
from hexshards.storage import Home

COLUMNS = ("stones", "player", "policy", "value")
"""What a sample is made of; the other columns stay on disk."""


Columns = dict[str, NDArray[Any]]


class Mixed(NamedTuple):
    """The rows of a window in the order in which they are delivered, and what others stand in for."""

    rows: Packed
    damage: tuple[DataError, ...]
    """A finding for each block that could not be read, with ``on_error="skip"``."""
    lost: int
    """Rows of those blocks."""


class Windows:
    """The windows of one epoch by number: a map-style dataset for a DataLoader without batching of its own."""

    def __init__(self, home: Home, index: Index, plan: Plan, spec: LoaderSpec) -> None:
        self.home, self.layout, self.spec, self.plan = home, index.layout, spec, plan
        self.shards = index.splits[spec.split].shards
        self.first_block = np.cumsum([0, *(len(shard.block_bytes) for shard in self.shards)])
        self.block_rows = index.block_rows(spec.split)

    def __len__(self) -> int:
        return len(self.plan.windows)

    def __getitem__(self, number: int) -> Mixed | DataError:
        """Window ``number``; damage is returned, not raised.

        What a DataLoader's worker raises comes home as a RuntimeError around the text of a traceback.
        """
        try:
            return self._mixed(self.plan.windows[number])
        except DataError as error:
            return error

    def _mixed(self, window: Window) -> Mixed:
        found = self._read(window.blocks)
        damage = tuple(block for block in found if isinstance(block, DataError))
        sizes = self.block_rows[window.blocks]
        lost = sum(int(size) for block, size in zip(found, sizes, strict=True) if isinstance(block, DataError))
        blocks = self._without_gaps(found, sizes)
        count = int(sizes.sum())
        rows = order.window_rows(window, count, spec=self.spec)
        places = self._places(window, sizes.tolist())[rows]
        # take copies whole rows: 4 ns each at side 13, where indexing takes 80
        columns = {name: np.take(np.concatenate([block[name] for block in blocks]), rows, axis=0) for name in COLUMNS}
        symmetry = order.symmetries(places, window, augment=self.spec.augment, seed=self.spec.seed)
        return Mixed(Packed(**columns, symmetry=symmetry), damage, lost)

    def _places(self, window: Window, counts: Sequence[int]) -> NDArray[np.int64]:
        """A number for each row that is its own in the whole split."""
        size = self.layout.block_positions
        parts = [block * size + np.arange(count) for block, count in zip(window.blocks, counts, strict=True)]
        return np.concatenate(parts)

    def _without_gaps(self, found: Sequence[Columns | DataError], sizes: NDArray[np.int64]) -> list[Columns]:
        """The blocks, with rows of the sound ones in the place of those that could not be read.

        A window keeps its length, so that batches, steps and states do not depend on which rank met the damage.
        """
        sound = [block for block in found if not isinstance(block, DataError)]
        damage = [block for block in found if isinstance(block, DataError)]
        if damage and (self.spec.on_error == "raise" or not sound):
            raise damage[0]
        if not damage:
            return sound
        joined = {name: np.concatenate([block[name] for block in sound]) for name in COLUMNS}
        whole, taken = list[Columns](), 0
        for block, size in zip(found, sizes.tolist(), strict=True):
            if isinstance(block, DataError):
                rows = np.arange(taken, taken + size) % len(joined["stones"])
                taken += size
                whole.append({name: column[rows] for name, column in joined.items()})
            else:
                whole.append(block)
        return whole

    def _read(self, blocks: NDArray[np.int64]) -> list[Columns | DataError]:
        """The columns of some blocks, or what is wrong with them, in the order of ``blocks``."""
        homes = np.searchsorted(self.first_block, blocks, side="right") - 1
        found: dict[int, Columns | DataError] = {}
        for home in np.unique(homes):
            members = blocks[homes == home]
            read = self._read_shard(self.shards[home], (members - self.first_block[home]).tolist())
            found.update(zip(members.tolist(), read, strict=True))
        return [found[int(block)] for block in blocks]

    def _read_shard(self, shard: Shard, numbers: Sequence[int]) -> list[Columns | DataError]:
        """Blocks of one shard, which is opened once, or once more when it was only a damaged copy."""
        read = self._blocks_of(shard, numbers)
        damaged = any(isinstance(block, DataError) for block in read)
        if damaged and self.home.renewed(shard.name, sha256=shard.sha256):
            return self._blocks_of(shard, numbers)
        return read

    def _blocks_of(self, shard: Shard, numbers: Sequence[int]) -> list[Columns | DataError]:
        try:
            file = open_shard(self.home, shard)
        except DataError as error:
            return [error] * len(numbers)
        with file:
            return [self._block(file, shard, number) for number in numbers]

    def _block(self, file: BinaryIO, shard: Shard, number: int) -> Columns | DataError:
        where = self.home.where(shard.name)
        try:
            return read_block(file, shard, number, layout=self.layout, names=COLUMNS, where=where)
        except DataError as error:
            return error


def first_positions(home: Home, index: Index, *, split: str, count: int) -> Positions:
    """The first positions of a split, all columns. Raises DataError where the split is empty or damaged."""
    if split not in index.splits:
        raise DataError(f"has no split {split!r}", where=str(home), fix=f"It has {', '.join(index.splits)}")
    shard = index.splits[split].shards[0]
    names = tuple(index.layout.columns())
    with open_shard(home, shard) as file:
        found = read_block(file, shard, 0, layout=index.layout, names=names, where=home.where(shard.name))
    return Positions(side=index.side, **{name: column[:count] for name, column in found.items()})
