"""Legal random games: game ``i`` is a function of (side, seed, i), and a file a function of its games.

BLUE moves first, every legal move is as likely as any other, and play stops at the move that connects. Of
NumPy's random numbers only ``random_raw`` is used, whose stream no release of NumPy may change.

Shapes: G games, P positions, C cells (side*side), S side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexshards.game.board import NEIGHBOURS, check_side
from hexshards.game.options import SYNTH

EDGE, NEVER = np.int16(-1), np.int16(np.iinfo(np.int16).max)
"""Plies of what is there before the first move, and of what is never there."""


@dataclass(frozen=True, slots=True)
class Game:
    """One finished game: cells in the order they were played, BLUE first, and who connected."""

    side: int
    moves: tuple[int, ...]
    winner: int


def play(games: int, *, side: int = SYNTH.side, seed: int = SYNTH.seed, first: int = 0) -> list[Game]:
    """Play random games ``first`` to ``first + games - 1`` of a seed. Raises ValueError for a side outside 3 to 19."""
    order_GC = _orders(range(first, first + games), side=check_side(side), seed=seed)
    winner, plies = _results(order_GC, side=side)
    return [
        Game(side, tuple(order[:count]), won)
        for order, count, won in zip(order_GC.tolist(), plies.tolist(), winner.tolist(), strict=True)
    ]


def _orders(games: range, *, side: int, seed: int) -> NDArray[np.int64]:
    """A random order of all cells for each game: (G, C) int64, of which the game is a beginning."""
    keys_GC = np.empty((len(games), side * side), dtype=np.uint64)
    for row, game in zip(keys_GC, games, strict=True):
        row[:] = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(side, game))).random_raw(len(row))
    return np.argsort(keys_GC, axis=1, kind="stable")


def _results(order_GC: NDArray[np.int64], *, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who connects first when the cells are played in this order, after how many stones: two (G,) int64."""
    # the games come last, so that each step below is one pass over contiguous memory
    ply_CG = np.argsort(order_GC, axis=1).T.astype(np.int16)
    ply_SSG = np.ascontiguousarray(ply_CG).reshape(side, side, -1)
    blue = np.where(ply_SSG % 2 == 0, ply_SSG, NEVER)
    red = np.where(ply_SSG % 2 == 1, ply_SSG, NEVER).swapaxes(0, 1)
    connected_2G = np.stack([_connected_at(blue), _connected_at(red)])
    return connected_2G.argmin(axis=0), connected_2G.min(axis=0).astype(np.int64) + 1


def _connected_at(ply_SSG: NDArray[np.int16]) -> NDArray[np.int16]:
    """The ply that joins the first row to the last, given the plies of one player's stones: (G,) int16.

    A chain is whole once its latest stone is there, and of the chains from the first row to a cell the one
    that is whole first counts. These plies fall from NEVER until no neighbour offers an earlier one.
    """
    side, _, games = ply_SSG.shape
    whole = np.full((side + 2, side + 2, games), NEVER)
    whole[0] = EDGE
    inner = whole[1:-1, 1:-1]
    while True:
        near = inner.copy()
        for row, col in NEIGHBOURS:
            np.minimum(near, whole[1 + row : 1 + row + side, 1 + col : 1 + col + side], out=near)
        np.maximum(near, ply_SSG, out=near)
        if np.array_equal(near, inner):
            joined: NDArray[np.int16] = inner[-1].min(axis=0)
            return joined
        inner[...] = near
