"""Device cache: what is used of a split stays on a GPU, packed; windows are drawn in the order of any other loader."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import closing
from math import prod

import numpy as np
import torch

from hexshards.dataset.filters import Selection
from hexshards.errors import DataError, escaped
from hexshards.loading.batching import sent
from hexshards.loading.expansion.expand import Packed, Rows
from hexshards.loading.threads import ordered_map
from hexshards.loading.window import COLUMNS, Windows
from hexshards.units import show_bytes

BLOCKS_AT_ONCE = 64
"""Blocks that are read before they are sent on: 27 MB with the defaults, at side 13."""


_WANTS_MEMORY = re.compile(r"out of memory|allocate memory|enough memory|buffer size|size calculation overflowed", re.I)
"""What torch says on CUDA and MPS, on the CPU, on Windows, of a buffer beyond what Metal has, and of more than 2^63."""


def wants_memory(error: RuntimeError) -> bool:
    """Whether torch had too little memory. It has a class for that on CUDA alone; elsewhere only its words tell."""
    return _WANTS_MEMORY.search(str(error)) is not None


class Resident:
    """A split on a device: the columns that samples are made of, of the blocks that any epoch draws from.

    50 bytes a row at side 13.
    Raises DataError where a block is damaged, whatever is to be skipped, ValueError where the device has too little
    memory.
    """

    def __init__(self, selection: Selection, device: torch.device) -> None:
        self.device = device
        layout, blocks = selection.index.layout, selection.blocks
        used = np.flatnonzero(selection.block_rows)
        rows = len(used) * layout.block_positions
        self._block_positions = layout.block_positions
        self._moved = np.zeros(len(blocks), dtype=np.int64)
        """From a block's places in the split to its rows here."""
        self._moved[used] = (np.arange(len(used)) - used) * layout.block_positions
        kinds = {name: kind for name, kind in layout.columns().items() if name in COLUMNS}
        try:
            self.columns = {
                name: torch.empty((rows, *shape), dtype=torch.from_numpy(np.empty(0, dtype)).dtype, device=device)
                for name, (dtype, shape) in kinds.items()
            }
        except RuntimeError as error:
            if not wants_memory(error):
                raise
            size = show_bytes(rows * sum(dtype.itemsize * prod(shape) for dtype, shape in kinds.values()))
            raise ValueError(f"resident would keep {size} on {escaped(device)}, which has too little memory") from None
        for first in range(0, len(used), BLOCKS_AT_ONCE):
            numbers = used[first : first + BLOCKS_AT_ONCE]
            for row, columns in enumerate(blocks.read(numbers, COLUMNS), start=first):
                if isinstance(columns, DataError):
                    raise columns
                start = row * layout.block_positions
                for name, column in self.columns.items():
                    # a copy that waits until it is there, so that any stream may read it
                    column[start : start + len(columns[name])] = torch.from_numpy(columns[name].copy())

    def draw(self, windows: Windows, numbers: Sequence[int]) -> Generator[Rows, None, None]:
        """Rows of these windows on the device; only their order and their symmetries cross over."""
        with closing(
            ordered_map(lambda number: windows.read(number, ("place",)), numbers, threads=1, depth=1)
        ) as in_turn:
            for window in in_turn:
                places = window.columns["place"]
                places = places + self._moved[places // self._block_positions]
                place = sent(places.astype(np.int32), self.device)
                columns = {name: column.index_select(0, place) for name, column in self.columns.items()}
                yield Packed(**columns, symmetry=sent(window.columns["symmetry"], self.device))
