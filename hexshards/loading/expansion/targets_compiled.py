"""Show policy targets with visits in one pass of compiled code: the same bits as ``policy_targets.show`` makes.

Legend of shapes: B rows, C = S * S cells, T moves of a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from hexshards.game.board import symmetry_cells
from hexshards.loading.expansion.policy_targets import WHOLE
from hexshards.units import counted


def show(targets: NDArray[np.int16], symmetry: NDArray[np.uint8], side: int, policy_BC: NDArray[np.float32]) -> None:
    """Write targets (B, 2, T) under each row's symmetry to ``policy_BC``, which is all zero.

    Raises IndexError for a cell beyond the board.
    """
    wrong = _show(targets, symmetry, side, WHOLE, symmetry_cells(side), policy_BC.reshape(-1))
    if wrong >= 0:
        raise IndexError(f"row {wrong:d} has visits beyond {counted(side * side, 'cell')}")


def _read(dtype: Any, dimensions: int) -> Any:
    return types.Array(dtype, dimensions, "C", readonly=True)


_TARGETS = (_read(types.int16, 3), _read(types.uint8, 1), types.int64, types.float32, _read(types.int64, 2))


@njit(types.int64(*_TARGETS, types.float32[::1]), nogil=True, cache=True)
def _show(targets, symmetry, side, whole, sends, policy):  # type: ignore[no-untyped-def]
    """Add the targets to ``policy``, which is flat and all zero. Returns the first wrong row, or -1."""
    count, _, places = targets.shape
    cells = side * side
    for number in range(count):
        shown, total, first = symmetry[number], np.int64(0), cells * number
        for place in range(places):
            if not 0 <= targets[number, 0, place] < cells:
                return number
        for place in range(places - 1):
            total += targets[number, 1, place] & 0xFFFF
        played = np.float32(targets[number, 1, places - 1] & 0xFFFF) / whole
        scale = (np.float32(1) - played) / np.float32(total if total > 0 else np.int64(1))
        for place in range(places - 1):
            visits = targets[number, 1, place] & 0xFFFF
            if visits:
                policy[first + sends[shown, targets[number, 0, place]]] += np.float32(visits) * scale
        policy[first + sends[shown, targets[number, 0, places - 1]]] += played
    return -1
