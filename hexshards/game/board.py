"""Geometry of the Hex board: cells, neighbours, the four symmetries, who connects. Pure NumPy.

Cell ``c`` of a board of side ``S`` is ``row * S + col``; a move is the column's letter and the row's number, so
``a1`` is cell 0 and ``b1`` cell 1. BLUE moves first and connects the top row to the bottom row, RED connects the
left column to the right one.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from hexshards.game.options import MAX_SIDE as MAX_SIDE
from hexshards.game.options import MIN_SIDE as MIN_SIDE

BLUE, RED = 0, 1
"""Players, plane numbers, and the value of a position that this player wins: 0.0 BLUE, 1.0 RED."""

SYMMETRIES = ("identity", "rotation by 180", "transpose + colour swap", "anti-transpose + colour swap")
"""The four symmetries of Hex, in the order of their numbers 0 to 3; each is its own inverse."""

SWAPS_COLOURS = np.array([False, False, True, True])
"""Whether symmetry ``s`` exchanges BLUE and RED: then the value becomes 1 - value and the player flips."""

NEIGHBOURS = ((-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0))
"""Row and column offsets of the six cells that touch a cell."""


def check_side(side: int) -> int:
    """The side itself. Raises ValueError outside 3 to 19."""
    if not MIN_SIDE <= side <= MAX_SIDE:
        raise ValueError(f"side must be {MIN_SIDE} to {MAX_SIDE}, got {side}")
    return side


@cache
def symmetry_cells(side: int) -> NDArray[np.int64]:
    """Where each symmetry sends a cell: (4, C) int64, ``out[table[s]] = in``; each is its own inverse."""
    cell = np.arange(side * side, dtype=np.int64).reshape(side, side)
    turned = cell[::-1, ::-1]
    table = np.stack([cell, turned, cell.T, turned.T]).reshape(4, -1)
    table.flags.writeable = False
    return table


def move_name(cell: int, *, side: int) -> str:
    """Letter and number of a cell: 0 is ``a1``, 1 is ``b1``."""
    return f"{chr(ord('a') + cell % side)}{cell // side + 1}"


def connects(stones_PSS: NDArray[np.bool_], *, player: int) -> NDArray[np.bool_]:
    """Which boards hold a chain of one player's stones between this player's two edges.

    stones_PSS bool: that player's stones, row then column. Returns (P,) bool.
    """
    stones = stones_PSS if player == BLUE else stones_PSS.swapaxes(1, 2)
    # eight boards to a byte (B bytes), boards last: each step is one pass over contiguous memory. 4,096 boards of side
    # 13 take 0.9 us each, with a byte to a cell 26 us
    stones_SSB = np.packbits(np.moveaxis(stones, 0, -1), axis=-1)
    # a frame of empty cells lets every neighbour be a plain slice; the six offsets are symmetric under transposition
    side, _, width = stones_SSB.shape
    reached = np.zeros((side + 2, side + 2, width), dtype=np.uint8)
    inner = reached[1:-1, 1:-1]
    inner[0] = stones_SSB[0]
    while True:
        near = inner.copy()
        for row, col in NEIGHBOURS:
            near |= reached[1 + row : 1 + row + side, 1 + col : 1 + col + side]
        near &= stones_SSB
        if np.array_equal(near, inner):
            across = np.bitwise_or.reduce(inner[-1], axis=0)
            return np.unpackbits(across, count=len(stones)).astype(bool)
        inner[...] = near
