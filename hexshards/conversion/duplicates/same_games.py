"""Keys of positions and games (hashes): the same, by whatever way they come, have the same words.

A position is known by its game, which a file and a line name, and by what is on the board. A game of which a file holds
all positions is also known by them: by its moves and its result, as they are or turned by 180 degrees.

Legend of shapes: P positions, G whole games.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hexshards.game.columns import UNKNOWN
from hexshards.game.positions import Positions
from hexshards.game.symmetry import TURN, image, stone_words
from hexshards.rng import SAME, Words, mix, raw

MARK = np.dtype([("word", "<u8"), ("whole", "<u4")])
"""``word``: the move to learn, above what is known besides (the less, the larger). ``whole``: 1 + the number of the
whole game that the position is of; 0 for one of which only some positions are here; NO_GAME where none is named."""

NO_GAME = (1 << 32) - 1
KNOWN_BITS = np.uint64(24)
NO_MOVE = np.uint64((1 << 40) - 1)
"""The move of a position without one: the last of all."""

_SEVERAL = np.uint64(1 << 38)


def position_keys(positions: Positions, games: Words, *, seed: int) -> Words:
    """A word for each position: that of its game, board, player and value."""
    return _chained(positions, games ^ raw(1, seed, SAME)[0])


def marks(positions: Positions, whole_P: NDArray[np.uint32]) -> NDArray[np.void]:
    """The mark of each position; of those with equal keys and moves the one with the smallest says most."""
    marked = np.zeros(len(positions), dtype=MARK)
    plies = np.minimum(positions.plies.view(np.uint16), _UNKNOWN_PLIES).astype(np.uint64)
    known = _lacking(positions) << np.uint64(18) | plies << np.uint64(8) | positions.tier.view(np.uint8)
    marked["word"] = moves(positions) << KNOWN_BITS | known
    marked["whole"] = np.where(positions.game == UNKNOWN, NO_GAME, whole_P)
    return marked


_UNKNOWN_PLIES = np.uint16((1 << 10) - 1)
_MOST_SAID = 63
"""What optional columns say counts more than plies and tier: of these 10 and 8 bits are taken."""


def _lacking(positions: Positions) -> Words:
    """How many more optional columns a position might say something in."""
    said = np.zeros(len(positions), dtype=np.uint64)
    for kind, column in positions.optional.items():
        unknown = np.isnan(column) if kind.may_be_nan else column == kind.unknown
        said += ~unknown if unknown.ndim == 1 else ~unknown.reshape(len(column), -1).all(axis=1)
    return np.uint64(_MOST_SAID) - np.minimum(said, np.uint64(_MOST_SAID))


def moves(positions: Positions) -> Words:
    """A word of 40 bits for each policy; that of a distribution of one move is the word of the move."""
    if not positions.soft:
        return np.where(positions.policy < 0, NO_MOVE, positions.policy.astype(np.uint64))
    entries = np.count_nonzero(positions.policy, axis=1)
    words = np.zeros(len(positions), dtype=np.uint64)
    for column in stone_words(np.ascontiguousarray(positions.policy).view(np.uint8)).T:
        words = mix(words ^ column)
    one = np.where(entries == 1, positions.policy.argmax(axis=1).astype(np.uint64), words >> np.uint64(26) | _SEVERAL)
    return np.where(entries == 0, NO_MOVE, one)


def whole_games(positions: Positions, games: Words) -> tuple[NDArray[np.uint32], Words]:
    """Which game each position is of, 1 + its number, if all of it are there; and for each game its words.

    Words (G, 3): two that games of the same moves and result share, also turned by 180 degrees; and that of its name.
    """
    known = np.flatnonzero(positions.game != UNKNOWN)
    number_P = np.zeros(len(positions), dtype=np.uint32)
    if not len(known):
        return number_P, np.zeros((0, 3), dtype=np.uint64)
    rows = known[np.lexsort((positions.ply[known], games[known]))]
    names, first, count = np.unique(games[rows], return_index=True, return_counts=True)
    ply = np.arange(len(rows)) - np.repeat(first, count)
    fits = (positions.ply[rows] == ply) & (positions.plies[rows] == np.repeat(count - 1, count))
    whole = np.logical_and.reduceat(fits, first)
    inside = np.repeat(whole, count)
    number_P[rows[inside]] = np.repeat(np.cumsum(whole), count)[inside]
    if not whole.any():
        return number_P, np.zeros((0, 3), dtype=np.uint64)
    mine = positions.take(rows[inside])
    starts = np.cumsum([0, *count[whole][:-1]])
    sums = [np.add.reduceat(contents(each), starts) for each in (mine, image(mine, TURN))]
    return number_P, np.stack([np.minimum(*sums), np.maximum(*sums), names[whole]], axis=1)


def contents(positions: Positions) -> Words:
    """A word for each position, whatever game it is of."""
    return mix(_chained(positions, np.repeat(raw(1, 0, SAME), len(positions))) ^ mix(moves(positions)))


def _chained(positions: Positions, words: Words) -> Words:
    value = (positions.value + np.float32(0)).view(np.uint32)  # 0 for -0
    for column in (*stone_words(positions.stones).T, positions.player, value):
        words = mix(words ^ column.astype(np.uint64))
    return words


def changes(*columns: Words) -> NDArray[np.bool_]:
    """Where a row differs from the one before."""
    new = np.zeros(len(columns[0]), dtype=bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return new
