"""A window is the unit of reading: its blocks are fetched, checked, decompressed and mixed in one place, at one time.

A DataLoader hands windows back in the order in which they were asked for, whatever the number of its workers, so the
order of samples never depends on workers; and a window crosses between processes as a handful of packed columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards import order
from hexshards.errors import DataError
from hexshards.expand import Packed
from hexshards.index import Index
from hexshards.order import Plan, Window
from hexshards.positions import Positions
from hexshards.shard import open_shard, read_block
from hexshards.specs import LoaderSpec

COLUMNS = ("stones", "player", "policy", "value")
"""What a sample is made of; the other columns stay on disk."""


class Windows:
    """The windows of one epoch by number: a map-style dataset for a DataLoader without batching of its own."""

    def __init__(self, folder: Path, index: Index, plan: Plan, spec: LoaderSpec) -> None:
        self.folder, self.layout, self.spec, self.plan = folder, index.layout, spec, plan
        self.shards = index.splits[spec.split].shards
        self.first_block = np.cumsum([0, *(len(shard.block_bytes) for shard in self.shards)])

    def __len__(self) -> int:
        return len(self.plan.windows)

    def __getitem__(self, number: int) -> Packed | DataError:
        """Window ``number``, its rows in the order in which they are delivered; damage is returned, not raised.

        What a DataLoader's worker raises comes home as a RuntimeError around the text of a traceback.
        """
        try:
            return self._mixed(self.plan.windows[number])
        except DataError as error:
            return error

    def _mixed(self, window: Window) -> Packed:
        blocks = self._read(window.blocks)
        count = sum(len(block["stones"]) for block in blocks)
        rows = order.window_rows(window, count, spec=self.spec)
        places = self._places(window, [len(block["stones"]) for block in blocks])[rows]
        # take copies whole rows: 4 ns each at side 13, where indexing takes 80
        columns = {name: np.take(np.concatenate([block[name] for block in blocks]), rows, axis=0) for name in COLUMNS}
        symmetry = order.symmetries(places, window, augment=self.spec.augment, seed=self.spec.seed)
        return Packed(**columns, symmetry=symmetry)

    def _places(self, window: Window, counts: Sequence[int]) -> NDArray[np.int64]:
        """A number for each row that is its own in the whole split."""
        size = self.layout.block_positions
        parts = [block * size + np.arange(count) for block, count in zip(window.blocks, counts, strict=True)]
        return np.concatenate(parts)

    def _read(self, blocks: NDArray[np.int64]) -> list[dict[str, NDArray[Any]]]:
        """The columns of some blocks, in the order of ``blocks``; each shard is opened once."""
        homes = np.searchsorted(self.first_block, blocks, side="right") - 1
        found: dict[int, dict[str, NDArray[Any]]] = {}
        for home in np.unique(homes):
            shard = self.shards[home]
            with open_shard(self.folder, shard) as file:
                for block in blocks[homes == home]:
                    found[int(block)] = read_block(
                        file,
                        shard,
                        int(block - self.first_block[home]),
                        layout=self.layout,
                        names=COLUMNS,
                        where=str(self.folder / shard.name),
                    )
        return [found[int(block)] for block in blocks]


def first_positions(folder: Path, index: Index, *, split: str, count: int) -> Positions:
    """The first positions of a split, all columns. Raises DataError where the split is empty or damaged."""
    if split not in index.splits:
        raise DataError(f"has no split {split!r}", where=str(folder), fix=f"It has {', '.join(index.splits)}")
    shard = index.splits[split].shards[0]
    names = tuple(index.layout.columns())
    with open_shard(folder, shard) as file:
        found = read_block(file, shard, 0, layout=index.layout, names=names, where=str(folder / shard.name))
    return Positions(side=index.side, **{name: column[:count] for name, column in found.items()})
