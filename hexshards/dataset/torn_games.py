"""Split leakage of games, found by what is on the board: names may lie, the next position may not.

A position is torn off its game when it is in one split while the position before it and the one after it are in the
other, and it is not there itself. Repeats of a game, and games that share their beginning, do not look like that: their
positions are on both sides whole. Boards are compared by 64-bit hashes, equal for a board and the same one turned by
180 degrees.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from hexshards.game.positions import Positions
from hexshards.rng import TORN, Words, raw

HASHES = 0
"""Seed of the random words that boards are hashed by."""

MAX_KEPT = 1 << 23
"""Positions of val that are compared, 36 bytes each; of more, the first."""


class TornGames:
    """Give it all late positions of ``val``, then those of ``train``; memory: 36 bytes a late position of val.

    Of any two splits: ``val`` stands for the one that is remembered.
    """

    def __init__(self, val: str = "val", train: str = "train") -> None:
        self.val, self.train = val, train
        self._own, self._next = list[Words](), list[Words]()
        self._kept = 0
        self._known: _Val | None = None
        self._in_train = 0

    def add(self, split: str, positions: Positions) -> None:
        """Remember some positions of val, or compare some of train with all of val; those of others are none of it."""
        if split not in (self.val, self.train):
            return
        own, after = _keys(positions)
        if split == self.val:
            room = MAX_KEPT - self._kept
            self._own.append(own[:room])
            self._next.append(after[:room])
            self._kept += len(own[:room])
            return
        if self._known is None and self._own:
            self._known = _Val(np.concatenate(self._own), np.concatenate(self._next))
            self._own, self._next = [], []
        if self._known is not None:
            self._in_train += self._known.compare(own, after)

    @property
    def count(self) -> int:
        """Positions that were found torn off their games."""
        return self._in_train + (self._known.torn if self._known else 0)


class _Val:
    """The late positions of val, and which of the boards on them and after them were seen in train."""

    def __init__(self, own: Words, after: Words) -> None:
        self.own, self.own_of = np.unique(own, return_inverse=True)
        self.after, self.after_of = np.unique(after, return_inverse=True)
        self.final = after == 0
        self.here, self.before = (np.zeros(len(self.own), dtype=bool) for _ in range(2))
        self.behind = np.zeros(len(self.after), dtype=bool)

    def compare(self, own: Words, after: Words) -> int:
        """Note what of val is next to these positions; the number of these that are torn off games of val."""
        here, before = _mark(self.own, own, self.here), _mark(self.own, after, self.before)
        behind = _mark(self.after, own, self.behind)
        return int((~here & behind & (before | (after == 0))).sum())

    @property
    def torn(self) -> int:
        """Positions of val that are torn off games of train."""
        alone = (self.before & ~self.here)[self.own_of]
        return int((alone & (self.behind[self.after_of] | self.final)).sum())


def _mark(known: Words, words: Words, marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Look words up among the known ones, and set the marks of those that are there."""
    if not len(known):
        return np.zeros(len(words), dtype=bool)
    place = np.minimum(np.searchsorted(known, words), len(known) - 1)
    hits = (known[place] == words) & (words != 0)
    marks[place[hits]] = True
    return np.asarray(hits)


def _keys(positions: Positions) -> tuple[Words, Words]:
    """Hashes of each late position, and of the board after its move: 0 where it has none, or not one."""
    side = positions.side
    late = positions.take(np.flatnonzero(positions.ply >= side))
    cells = side * side
    own, turned = _hashes(late.stones, side), _hashes(late.stones, side, turned=True)
    move = late.policy
    if late.soft:
        one = (late.policy > 0).sum(axis=1) == 1
        move = np.where(one, late.policy.argmax(axis=1), -1)
    place = np.maximum(move, 0).astype(np.int64)
    player = late.player.astype(np.int64)
    words = _words(side)
    after = np.minimum(own ^ words[player, place], turned ^ words[player, cells - 1 - place])
    return np.minimum(own, turned), np.where(move < 0, np.uint64(0), after)


@cache
def _words(side: int) -> Words:
    """Zobrist words: a random one for each player and cell."""
    return raw(2 * side**2, HASHES, TORN, side).reshape(2, side**2)


@cache
def _tables(side: int, turned: bool) -> Words:
    """Zobrist tables: the hash of each byte of packed stones at each of its places, (bytes, 256)."""
    words = _words(side)[:, ::-1] if turned else _words(side)
    flat = np.concatenate([words.ravel(), np.zeros(-words.size % 8, dtype=np.uint64)]).reshape(-1, 8)
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(bool)
    keys = np.where(bits[None], flat[:, None, :], np.uint64(0))
    return np.asarray(np.bitwise_xor.reduce(keys, axis=2))


def _hashes(stones: NDArray[np.uint8], side: int, *, turned: bool = False) -> Words:
    tables = _tables(side, turned)
    keys = np.zeros(len(stones), dtype=np.uint64)
    for place, column in enumerate(stones.T):
        keys ^= tables[place][column]
    return keys
