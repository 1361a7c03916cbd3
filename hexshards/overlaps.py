"""What several files hold of the same games, estimated: a sketch of each spill keeps the games of the smallest hashes.

Two sketches are compared below the smaller of their limits, where both are complete. Small spills are kept whole, so
that of small conversions the counts are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.images import stone_keys
from hexshards.order import Words, mix

MAX_ROWS, ROW_BYTES = 1 << 13, 16
"""Rows of a sketch, of two words each: 128 MiB for the most spills there can be."""

_ALL = np.uint64((1 << 64) - 1)


class Overlap(NamedTuple):
    """How much is there more than once, about."""

    games: int
    positions: int
    exact: bool


def sketch(games: Words, stones: NDArray[np.uint8]) -> Words:
    """Hashes of game and board of some positions, (n + 1, 2); the first row holds the limit of the games' hashes.

    games (P,): a word for each position that names its game. stones: those of the positions, packed.
    """
    order = mix(games)
    limit = np.partition(order, MAX_ROWS)[MAX_ROWS] if len(order) > MAX_ROWS else _ALL
    rows = np.flatnonzero(order < limit)
    found = np.zeros((len(rows) + 1, 2), dtype=np.uint64)
    found[0, 0] = limit
    found[1:, 0], found[1:, 1] = order[rows], stone_keys(stones[rows], seed=0)
    return found


def overlap(sketches: Sequence[Words]) -> Overlap:
    """What sketches have in common."""
    if not sketches:
        return Overlap(0, 0, exact=True)
    limit = min(found[0, 0] for found in sketches)
    rows = np.concatenate([found[1:] for found in sketches])
    rows = rows[rows[:, 0] < limit]
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    again = np.flatnonzero((rows[1:] == rows[:-1]).all(axis=1))
    scale = 2.0**64 / float(limit)
    games = len(np.unique(rows[again, 0]))
    return Overlap(round(games * scale), round(len(again) * scale), exact=bool(limit == _ALL))
