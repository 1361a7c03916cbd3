"""Overlap of files, estimated by MinHash: a sketch of each spill keeps the games of the smallest hashes.

Two sketches are compared below the smaller of their limits, where both are complete. Small spills are kept whole, so
that of small conversions the counts are exact. What a dataset holds that is added to is sketched from its shards, which
are read for their games anyway: 0.13 us a position more, and nothing is stored for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.game.symmetry import stone_keys
from hexshards.rng import Words, mix

MAX_ROWS, ROW_BYTES = 1 << 13, 16
"""Rows of a sketch, of two words each: 128 MiB for the most spills there can be."""

MAX_SKETCHES = 1 << 10
"""More than so many are smaller in proportion."""

_ALL = np.uint64((1 << 64) - 1)


class Overlap(NamedTuple):
    """How much is there more than once."""

    games: int
    positions: int
    one_in: float = 1.0
    """Of so many games one was compared."""

    @property
    def exact(self) -> bool:
        """Whether all were."""
        return self.one_in == 1


def sketch(games: Words, stones: NDArray[np.uint8], *, of: int = 1) -> Words:
    """Hashes of game and board of some positions, (n + 1, 2); the first row holds the limit of the games' hashes.

    games (P,): a word for each position that names its game. stones: those of the positions, packed. ``of``: how many
    sketches there will be.
    """
    order = mix(games)
    most = MAX_ROWS * MAX_SKETCHES // max(of, MAX_SKETCHES)
    limit = np.partition(order, most)[most] if len(order) > most else _ALL
    rows = np.flatnonzero(order < limit)
    rows_and_limit = np.zeros((len(rows) + 1, 2), dtype=np.uint64)
    rows_and_limit[0, 0] = limit
    rows_and_limit[1:, 0], rows_and_limit[1:, 1] = order[rows], stone_keys(stones[rows], seed=0)
    return rows_and_limit


def overlap(sketches: Sequence[Words]) -> Overlap:
    """What sketches have in common."""
    limit = _limit(sketches)
    return _counted(_twice(_rows(sketches, limit)), limit)


def overlap_with(held: Sequence[Words], sketches: Sequence[Words]) -> Overlap:
    """What is in the sketches of a dataset, however often, and in one of the others as well."""
    limit = _limit([*held, *sketches])
    # a dataset may hold a board of a game several times, in its symmetries or as what overlapped before
    ours, theirs = (np.unique(_rows(each, limit), axis=0) for each in (sketches, held))
    return _counted(_twice(np.concatenate([ours, theirs])), limit)


def _limit(sketches: Sequence[Words]) -> np.uint64:
    return min((each[0, 0] for each in sketches), default=_ALL)


def _rows(sketches: Sequence[Words], limit: np.uint64) -> Words:
    rows = np.concatenate([np.zeros((0, 2), dtype=np.uint64), *(each[1:] for each in sketches)])
    return rows[rows[:, 0] < limit]


def _twice(rows: Words) -> Words:
    """Each row that another one equals, once for each other one."""
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    again: Words = rows[1:][(rows[1:] == rows[:-1]).all(axis=1)]
    return again


def _counted(rows: Words, limit: np.uint64) -> Overlap:
    scale = 2.0**64 / float(limit)
    return Overlap(round(len(np.unique(rows[:, 0])) * scale), round(len(rows) * scale), one_in=scale)
