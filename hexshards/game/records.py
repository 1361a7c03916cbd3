"""Game records: games as lists of moves, checked on the board and turned into positions. For converters.

A record is sound when its moves are cells of the board, none twice, and the last of them connects the edges of the
player who is said to have won. BLUE moves first and the players take turns; a format with a swap move states the game
as it is after the swap (``swapped``).

Legend of shapes: G games, M moves of all games one after another, P positions, S side, C = S * S cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hexshards.game.board import BLUE, RED, connects
from hexshards.game.columns import NO_POLICY, UNKNOWN, stone_bytes
from hexshards.game.options import Selector
from hexshards.game.positions import Positions
from hexshards.units import counted

NOBODY = -1
"""Who connected where nobody did."""

NEVER = np.int16(np.iinfo(np.int16).max)
"""Ply of a stone that is never played."""

PLAYER_NAMES = {BLUE: "BLUE", RED: "RED"}

_Rule = tuple[str, NDArray[np.bool_], Callable[[int], str]]
"""A fault's name, the games that have it, and what to say was found in a game."""


class Spelling(Protocol):
    """How a file spells its games, for what is said of a fault. Both count games from 0."""

    def move(self, game: int, move: int) -> str:
        """The text of a move, counted from 0."""
        ...

    def winner(self, game: int) -> str:
        """The text that names the winner."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class GameRecords:
    """Some games of one side, laid on boards.

    number int32, winner int8 (G,): what the file calls a game, and who is said to have won. cell_M int16: the cell of
    each move, -1 off the board. first_G, plies_G: a game's moves begin at first and are so many. ply_GC int16: when
    each cell is played, NEVER where it is not; of two moves to a cell one counts.
    """

    side: int
    number: NDArray[np.int32]
    winner: NDArray[np.int8]
    cell_M: NDArray[np.int16]
    first_G: NDArray[np.int64]
    plies_G: NDArray[np.int64]
    ply_GC: NDArray[np.int16]

    @classmethod
    def laid(
        cls,
        side: int,
        *,
        number: NDArray[np.int32],
        winner: NDArray[np.int8],
        cell_M: NDArray[np.int16],
        plies_G: NDArray[np.int64],
    ) -> GameRecords:
        """Games whose moves stand one after another, so many of each."""
        first_G = np.cumsum(plies_G) - plies_G
        game_M = np.repeat(np.arange(len(plies_G)), plies_G)
        ply_M = np.arange(len(cell_M)) - first_G[game_M]
        on_board = cell_M >= 0
        ply_GC = np.full((len(plies_G), side**2), NEVER)
        ply_GC[game_M[on_board], cell_M[on_board]] = ply_M[on_board]
        return cls(side, number, winner, cell_M, first_G, plies_G, ply_GC)

    def __len__(self) -> int:
        return len(self.plies_G)

    def moves(self, game: int) -> NDArray[np.int16]:
        """The cells of a game's moves."""
        return self.cell_M[self.first_G[game] : self.first_G[game] + self.plies_G[game]]

    def playable(self) -> NDArray[np.bool_]:
        """Which games have each move in a cell of its own."""
        return np.asarray((self.ply_GC < NEVER).sum(axis=1) == self.plies_G)

    def joined(self) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """Who connects by all moves of each game, and who by all but the last."""
        # a connection never goes away, so that nobody won too early if nobody had one move before the end
        plies_2G1 = np.stack([self.plies_G, self.plies_G - 1])[:, :, None]
        played_2GC = self.ply_GC < plies_2G1
        red_GC = self.ply_GC % 2 == 1
        joined = np.full((2, len(self)), NOBODY, dtype=np.int8)
        for player, own_GC in ((BLUE, ~red_GC), (RED, red_GC)):
            boards = (played_2GC & own_GC).reshape(-1, self.side, self.side)
            joined[connects(boards, player=player).reshape(joined.shape)] = player
        return joined[0], joined[1]

    def check(
        self, spelling: Spelling, *, unfinished: bool | NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], dict[int, tuple[str, str]]]:
        """Which games are sound, and of each of the others its first fault and what was found.

        ``unfinished``: whether the stated winner of a game in which nobody connected is trusted, or that of each.
        """
        rules = self._rules(spelling, unfinished=unfinished)
        faulty = np.stack([bad for _, bad, _ in rules])
        first, sound = faulty.argmax(axis=0), ~faulty.any(axis=0)
        faults = dict[int, tuple[str, str]]()
        for game in np.flatnonzero(~sound).tolist():
            reason, _, stood = rules[first[game]]
            faults[game] = (reason, stood(game))
        return np.asarray(sound), faults

    def _rules(self, spelling: Spelling, *, unfinished: bool | NDArray[np.bool_]) -> list[_Rule]:
        joined, before = self.joined()
        missing = np.concatenate([[0], np.cumsum(self.cell_M < 0)])
        off = missing[self.first_G + self.plies_G] > missing[self.first_G]

        def cells(game: int) -> list[int]:
            moves: list[int] = self.moves(game).tolist()
            return moves

        def name(game: int, move: int) -> str:
            return f"{spelling.move(game, move)}, move {move + 1}"

        def repeat(game: int) -> int:
            moves = cells(game)
            return next(move for move, cell in enumerate(moves) if cell in moves[:move])

        return [
            ("no moves", self.plies_G == 0, lambda game: "none"),
            ("move off the board", off, lambda game: name(game, cells(game).index(-1))),
            ("cell played twice", ~self.playable(), lambda game: name(game, repeat(game))),
            (
                "moves after the win",
                before != NOBODY,
                lambda game: f"{PLAYER_NAMES[int(before[game])]} had connected before move {self.plies_G[game]}",
            ),
            (
                "unfinished game",
                (joined == NOBODY) & ~np.asarray(unfinished),
                lambda game: f"nobody connected in {counted(self.plies_G[game], 'move')}",
            ),
            (
                "winner did not connect",
                (joined != NOBODY) & (joined != self.winner),
                lambda game: f"{spelling.winner(game)}, but {PLAYER_NAMES[int(joined[game])]} connected",
            ),
        ]

    def keys(self, games: NDArray[np.int64]) -> NDArray[np.uint64]:
        """(len(games), 2): equal for two games of the same moves and winner, also if one is turned by 180 degrees."""
        keys = []
        for game in games.tolist():
            moves = self.moves(game)
            same = min(moves.astype(">i2").tobytes(), (self.side**2 - 1 - moves).astype(">i2").tobytes())
            keys.append(blake2b(bytes([self.side, self.winner[game]]) + same, digest_size=16).digest())
        return np.frombuffer(b"".join(keys), dtype="<u8").astype(np.uint64).reshape(-1, 2)

    def positions(self, games: NDArray[np.int64], selector: Selector = "all") -> Positions:
        """The chosen positions of some sound games, game by game and ply by ply.

        From a game of M moves come M + 1 positions; the policy of ply i is move i + 1, and the final one has none.
        """
        counts_G = self.plies_G[games] + 1
        game_P = np.repeat(games, counts_G)
        start_P = np.repeat(np.cumsum(counts_G) - counts_G, counts_G)
        ply_P = np.arange(len(game_P)) - start_P
        plies_P = self.plies_G[game_P]
        final_P = ply_P == plies_P
        next_P = self.cell_M[self.first_G[game_P] + ply_P - final_P]
        every = Positions(
            side=self.side,
            stones=_stones(next_P, ply_P, start_P, self.side),
            policy=np.where(final_P, np.int16(NO_POLICY), next_P),
            player=(ply_P % 2).astype(np.uint8),
            value=self.winner[game_P].astype(np.float32),
            source=np.zeros(len(game_P), dtype=np.uint32),
            game=self.number[game_P],
            ply=ply_P.astype(np.int16),
            plies=plies_P.astype(np.int16),
            tier=np.full(len(game_P), UNKNOWN, dtype=np.int8),
        )
        return selected(every, selector)


def selected(positions: Positions, selector: Selector) -> Positions:
    """Those positions of whole games that a selector takes."""
    if selector == "all":
        return positions
    return positions.take(positions.ply == positions.plies - (selector == "penultimate"))


def _stones(
    next_P: NDArray[np.int16], ply_P: NDArray[np.int64], start_P: NDArray[np.int64], side: int
) -> NDArray[np.uint8]:
    """Packed stones of whole games, whose rows begin at ``start_P``: each row is the one before it and one stone."""
    (placed,) = np.nonzero(ply_P)
    bit = next_P[placed - 1] + np.where(ply_P[placed] % 2, 0, side**2)
    stones_PW = np.zeros((len(ply_P), stone_bytes(side)), dtype=np.uint8)
    stones_PW[placed, bit >> 3] = 0x80 >> (bit & 7)
    # running over all games at once and taking away what lay there before each began is 4 times faster than comparing
    # the ply of every cell with the ply of every position: 13 M positions/s at side 13
    np.bitwise_xor.accumulate(stones_PW, axis=0, out=stones_PW)
    stones_PW ^= stones_PW[start_P]
    return stones_PW
