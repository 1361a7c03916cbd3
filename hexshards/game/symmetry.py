"""Symmetries of Hex: a position has four images; packed columns go in and packed columns come out.

Two positions of real games are equal up to symmetry exactly when one is the other turned by 180 degrees: the symmetries
that swap the colours change who is to move, and in a game that BLUE began the number of stones says who is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards import rng
from hexshards.game.board import SWAPS_COLOURS, symmetry_cells
from hexshards.game.columns import Column
from hexshards.game.positions import Positions
from hexshards.game.visits import moved_visits
from hexshards.rng import Words

TURN, TRANSPOSE = 1, 2
"""Numbers of two symmetries: rotation by 180, and transpose + colour swap."""

_TOGETHER = 4096


def image(positions: Positions, symmetry: int) -> Positions:
    """Every position in one of its symmetries. Source, game and plies stay those of the game that was played."""
    if symmetry == 0:
        return positions
    held = positions.columns()
    changed = {each.name: _shown(held[each.name], each, positions, symmetry) for each in positions.declared}
    return positions.changed(**changed)


def _shown(column: NDArray[Any], kind: Column, positions: Positions, symmetry: int) -> NDArray[Any]:
    """One column in a symmetry."""
    if kind.symmetry == "cells move, colours swap":
        return _stones(positions, symmetry)
    if kind.symmetry == "cells move":
        return moved(column, symmetry_cells(positions.side)[symmetry])
    if kind.symmetry == "visited cells move":
        return moved_visits(column, symmetry_cells(positions.side)[symmetry])
    if kind.symmetry == "colours swap" and SWAPS_COLOURS[symmetry]:
        return np.asarray(column.dtype.type(1) - column)
    return column


def canonical(positions: Positions) -> Positions:
    """Every position as it is or turned by 180 degrees: the one whose stones come first as bytes."""
    return _chosen(positions, image(positions, TURN), _turned_is_less(positions))


def upright(positions: Positions) -> Positions:
    """Every position with the colours of a game that BLUE began: those with swapped colours are swapped back."""
    return _chosen(positions, image(positions, TRANSPOSE), ~of_blues_start(positions))


def of_blues_start(positions: Positions) -> NDArray[np.bool_]:
    """Which positions have the colours of a game that BLUE began."""
    blue, red = (positions.planes().sum(axis=(2, 3), dtype=np.int64)).T
    return np.asarray(blue - red == positions.player)


def stone_keys(stones: NDArray[np.uint8], *, seed: int) -> Words:
    """A word for each row of packed stones: equal stones, equal words; otherwise as good as random."""
    keys = np.repeat(rng.raw(1, seed, rng.CONVERT), len(stones))
    for words in stone_words(stones).T:
        keys = rng.mix(keys ^ words)
    return keys


def stone_words(stones: NDArray[np.uint8]) -> Words:
    """Packed stones as words that sort as their bytes do: (P, W / 8)."""
    padded = np.pad(stones, [(0, 0), (0, -stones.shape[1] % 8)])
    return np.ascontiguousarray(padded).view(">u8").astype(np.uint64)


def _stones(positions: Positions, symmetry: int) -> NDArray[np.uint8]:
    cells = symmetry_cells(positions.side)[symmetry]  # a symmetry is its own inverse
    places = np.concatenate([cells, cells + len(cells)])
    if SWAPS_COLOURS[symmetry]:
        places = np.roll(places, len(cells))
    moved = np.empty_like(positions.stones)
    # unpacked, a position is eight times as large: a few thousand at a time stay in the cache
    for start in range(0, len(moved), _TOGETHER):
        rows = slice(start, start + _TOGETHER)
        bits = np.unpackbits(positions.stones[rows], axis=1)
        moved[rows] = np.packbits(np.take(bits, places, axis=1), axis=1)
    return moved


def moved(column: NDArray[Any], cells: NDArray[np.int64]) -> NDArray[Any]:
    """Cells (P,), -1 for none, or an entry for each cell (P, C), where a symmetry sends them."""
    if column.ndim == 2:
        return np.ascontiguousarray(column[:, cells])
    # a cell of -1 finds the last entry: itself
    return np.asarray(np.append(cells, -1).astype(column.dtype)[column])


def _turned_is_less(positions: Positions) -> NDArray[np.bool_]:
    own, turned = positions.stones, _stones(positions, TURN)
    first = np.argmax(own != turned, axis=1)
    rows = np.arange(len(own))
    less: NDArray[np.bool_] = turned[rows, first] < own[rows, first]
    return less


def _chosen(one: Positions, other: Positions, take_other: NDArray[np.bool_]) -> Positions:
    rows = np.flatnonzero(take_other)
    merged = {name: column.copy() for name, column in one.columns().items()}
    for name, column in other.columns().items():
        merged[name][rows] = column[rows]
    return one.changed(**merged)
