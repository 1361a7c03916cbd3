"""Validation of a block's columns when it is read: a checksum says what was written, not that a position can be so.

Each column is held against the lowest and the highest number that it may hold, so that whoever reads may index by it,
and no cell may have two stones. What only several columns together can tell, verify looks at.
Legend of shapes: P positions, C cells, W bytes of packed stones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.errors import DataError
from hexshards.game.columns import MOVE, SOFT, STONES, VISITS, Column, stone_bytes

_FIX = "No release of hexshards writes that: fetch the dataset from where you trust it, or convert again"

_ROWS_AT_ONCE = 8192
"""Rows whose stones are looked at together: all of a block of the usual size, and 0.7 MB of memory at side 13."""


def check_numbers(
    columns: Mapping[str, NDArray[Any]], kinds: Mapping[str, Column], *, side: int, sources: int, where: str
) -> None:
    """Hold every number against what its column may hold; ``sources``: how many the index lists.

    Raises DataError naming column and row.
    """
    cells = side * side
    highest = {"source": sources - 1, "ply": cells, "policy": cells - 1 if kinds["policy"] is MOVE else SOFT.high}
    highest[VISITS.name] = cells - 1
    for name, column in columns.items():
        if name == STONES.name:
            continue
        kind = kinds[name]
        if name == VISITS.name:
            column = column[:, 0]  # the cells; a count may be any number
        low = -np.inf if kind.low is None else kind.low
        top = highest.get(name, kind.high)
        high = np.inf if top is None else top
        if _within(column, low, high) or (kind.may_be_nan and kind.within(column).all()):
            continue
        beyond = np.argwhere(~(((column >= low) & (column <= high)) | (np.isnan(column) & kind.may_be_nan)))[0]
        allowed = f"at least {low:g}" if high == np.inf else f"{low:g} to {high:.12g}"
        problem = f"row {beyond[0]} holds {column[tuple(beyond)]:.10g}, where it must be {allowed}"
        raise DataError(problem, where=f"{where}, {name}", fix=_FIX)


Look = Callable[[NDArray[np.uint8], int], bool]
"""Whether packed stones (P, W) on boards of a side are sound."""

_first_look = list[Look]()


def look_first(look: Look) -> None:
    """From now on NumPy looks only at stones that ``look`` does not find sound, to say what is wrong with them."""
    _first_look[:] = [look]


def check_stones(stones_PW: NDArray[np.uint8], *, side: int, where: str) -> None:
    """See that no cell has two stones, and no bit is set behind the last cell. Raises DataError naming a row."""
    if _first_look and _first_look[0](stones_PW, side):
        return
    behind = stones_PW[:, -1] & np.uint8((1 << (-2 * side * side % 8)) - 1)
    if behind.any():
        problem = f"row {behind.argmax()} has bits behind its last cell that should be 0"
        raise DataError(problem, where=f"{where}, stones", fix=_FIX)
    for first in range(0, len(stones_PW), _ROWS_AT_ONCE):
        twice = _twice(stones_PW[first : first + _ROWS_AT_ONCE], side)
        if twice.max(initial=0):
            row, cell = divmod(int(np.unpackbits(twice).argmax()), 8 * stone_bytes(side))
            raise DataError(f"row {first + row} has two stones on cell {cell}", where=f"{where}, stones", fix=_FIX)


def _within(column: NDArray[Any], low: float, high: float) -> bool:
    """Whether all numbers of a column are in a range; never for NaN."""
    if low == -np.inf and high == np.inf:
        return True
    if column.dtype.kind == "f":
        # from 0 on, floats are ordered as their bits are, and behind them come NaN and what is negative: at side 13
        # 8,192 soft policies take 75 us, float16's own minimum and maximum 20 ms. Only -0.0 needs a closer look
        bits = np.dtype(f"<u{column.dtype.itemsize}")
        if low == 0 and column.view(bits).max(initial=0) <= np.array(high, column.dtype).view(bits):
            return True
        return bool(((column >= low) & (column <= high)).all())
    if column.dtype.kind == "u" and low <= 0:
        return bool(column.max(initial=0) <= high)
    return bool(not column.size or (column.max() <= high and column.min() >= low))


class _Scratch(threading.local):
    """Scratch memory for the words of some rows, kept by each thread.

    In a loader's thread a block takes 185 us with it, 320 with fresh memory: a page fault for every 4 KiB.
    """

    def __init__(self) -> None:
        self.words = np.empty((2, 0), dtype=np.uint64)

    def of(self, count: int) -> NDArray[np.uint64]:
        """Two rows of so many words."""
        if self.words.shape[1] < count:
            self.words = np.empty((2, count), dtype=np.uint64)
        return self.words[:, :count]


_scratch = _Scratch()


def _twice(stones_PW: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Packed rows (P * W bytes) in which the bit of a cell is set that has a stone in both planes, and no other bit.

    RED's bits are moved onto BLUE's in all rows at once, eight bytes at a time; what spills over a byte is masked.
    The answer stands in memory that the next one of the same thread is written to.
    """
    whole, bit = divmod(side * side, 8)
    flat = stones_PW.reshape(-1)
    if flat.size % 8:
        flat = np.concatenate([flat, np.zeros(-flat.size % 8, dtype=np.uint8)])
    words = flat.view(np.uint64)
    high, low = _scratch.of(len(words))
    np.left_shift(words, np.uint64(bit), out=high)
    np.right_shift(words, np.uint64(8 - bit), out=low)
    high &= _repeated(0xFF << bit & 0xFF)
    low &= _repeated(0xFF >> (8 - bit))
    twice: NDArray[np.uint8] = high.view(np.uint8)[whole:]
    twice[:-1] |= low.view(np.uint8)[whole + 1 :]
    twice = twice[: stones_PW.size]
    twice &= flat[: len(twice)]
    twice &= _blue(side)[: len(twice)]
    return twice


def _repeated(byte: int) -> np.uint64:
    return np.uint64(int.from_bytes(bytes([byte]) * 8))


@lru_cache(maxsize=4)
def _blue(side: int) -> NDArray[np.uint8]:
    """Packed stones of boards full of BLUE ones, one after another."""
    return np.tile(np.packbits(np.arange(8 * stone_bytes(side)) < side * side), _ROWS_AT_ONCE)
