"""Limit per game: of each game exactly so many positions an epoch, chosen by arithmetic on their ranks in the game.

A game's rows have the ranks 0 to n - 1 in the order of the dataset, from a place on that a hash of seed and game draws.
In epoch e, with at most k of a game, those are shown for which

    (rank + e) * k mod n < k

which are min(k, n) of the n, spread evenly over them: of n steps of k round a circle of n, k pass its top. The next
epoch shows the neighbours, so that no position comes twice in n // k epochs, and each once in n / k, rounded up.

Ranks are counted once, in one pass over the columns ``source`` and ``game``. Memory: 2 bytes a row where no game has
more than 255, else 4 or 8; while counting 5 to 8 more, and about 32 a game.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from hexshards.game.columns import UNKNOWN
from hexshards.rng import GAMES, mix, raw

AT_ONCE = 1 << 22
"""Rows whose choice is reckoned at once: 50 MB."""


class GameRanks:
    """Each row's rank in its game, and how many rows the game has.

    Rows are counted over all blocks. A row that does not say its game is one of its own.
    """

    def __init__(self, games: Iterable[tuple[NDArray[np.uint32], NDArray[np.int32]]], *, seed: int) -> None:
        """``games``: the columns ``source`` and ``game`` of the rows, some at a time."""
        counted, parts = _Counted(), list[tuple[NDArray[np.int32], NDArray[np.unsignedinteger]]]()
        self.without_game = 0
        for source, game in games:
            parts.append(counted.add(source.astype(np.uint64) << np.uint64(32) | game.view(np.uint32), game != UNKNOWN))
            self.without_game += int((game == UNKNOWN).sum())
        most = int(counted.rows.max(initial=1))
        self.games, self.largest = len(counted.rows), most
        shifts = (mix(counted.keys ^ raw(1, seed, GAMES)) % counted.rows.astype(np.uint64)).astype(np.int64)
        size = sum(len(ranks) for _, ranks in parts)
        self.ranks, self.of = (np.zeros(size, np.min_scalar_type(most)), np.ones(size, np.min_scalar_type(most)))
        end = size
        while parts:  # from the end, so that memory is given back as it is filled
            numbers, ranks = parts.pop()
            known, start = numbers >= 0, end - len(ranks)
            of = counted.rows[numbers[known]]
            self.of[start:end][known] = of
            self.ranks[start:end][known] = (ranks[known].astype(np.int64) + shifts[numbers[known]]) % of
            end = start

    def chosen(self, first: int, end: int, *, epoch: int, most: int) -> NDArray[np.bool_]:
        """Which of the rows from ``first`` to ``end`` an epoch shows, at most ``most`` of a game."""
        of = self.of[first:end]
        if most >= self.largest:
            return np.ones(len(of), dtype=np.bool_)
        # no product is above the square of the largest game
        word = np.uint32 if of.itemsize < 4 else np.uint64
        of = of.astype(word)
        ranks = (self.ranks[first:end] + word(epoch)) % of
        ranks *= word(most)
        chosen: NDArray[np.bool_] = ranks % of < word(most)
        return chosen

    def rows(self, blocks: NDArray[np.int64], *, epoch: int, most: int) -> NDArray[np.int64]:
        """How many rows of each block an epoch shows, the blocks having so many each, one after another."""
        ends = np.concatenate([[0], np.cumsum(blocks)])
        counts = np.zeros(len(blocks), np.int64)
        for first in range(0, len(self.of), AT_ONCE):
            chosen = np.flatnonzero(self.chosen(first, first + AT_ONCE, epoch=epoch, most=most)) + first
            counts += np.diff(np.searchsorted(chosen, ends))
        return counts


class _Counted:
    """Games by number, in the order in which they are met, and the rows that each has so far."""

    def __init__(self) -> None:
        self.keys = np.empty(0, np.uint64)
        self.rows = np.empty(0, np.int64)
        self._sorted = np.empty(0, np.uint64)
        self._numbers = np.empty(0, np.int64)

    def add(
        self, keys: NDArray[np.uint64], known: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32], NDArray[np.unsignedinteger]]:
        """The game's number of each row, -1 where it is not known, and the row's rank in it."""
        order = np.argsort(keys[known], kind="stable")
        in_turn = keys[known][order]
        starts = np.flatnonzero(np.concatenate([[True], in_turn[1:] != in_turn[:-1]])[: len(in_turn)])
        counts = np.diff(np.append(starts, len(in_turn)))
        of_games = self._numbers_of(in_turn[starts])
        numbers, ranks = np.empty((2, len(order)), np.int64)
        numbers[order] = np.repeat(of_games, counts)
        ranks[order] = np.arange(len(order)) + np.repeat(self.rows[of_games] - starts, counts)
        self.rows[of_games] += counts
        all_numbers, all_ranks = np.full(len(keys), -1, np.int32), np.zeros(len(keys), np.int64)
        all_numbers[known], all_ranks[known] = numbers, ranks
        return all_numbers, all_ranks.astype(np.min_scalar_type(int(all_ranks.max(initial=0))))

    def _numbers_of(self, met: NDArray[np.uint64]) -> NDArray[np.int64]:
        places = np.searchsorted(self._sorted, met)
        new = np.ones(len(met), np.bool_)
        inside = places < len(self._sorted)
        new[inside] = self._sorted[places[inside]] != met[inside]
        if new.any():
            numbers = np.arange(len(self.keys), len(self.keys) + int(new.sum()))
            self.keys = np.concatenate([self.keys, met[new]])
            self.rows = np.concatenate([self.rows, np.zeros(len(numbers), np.int64)])
            self._sorted = np.insert(self._sorted, places[new], met[new])
            self._numbers = np.insert(self._numbers, places[new], numbers)
            places = np.searchsorted(self._sorted, met)
        return self._numbers[places]
