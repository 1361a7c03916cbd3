"""Game records of any format: what a parser read becomes positions, and all that is not kept is named or counted.

A format's ``parse`` yields ``Game``s, whose moves are still text, and ``Reject``s. A game with a swap is stated as it
stands after the swap, so that it is the same game by whatever rule its site swaps: BLUE moved first, the players take
turns. What a file says soundly, but no dataset of one side can hold, is no fault: games of other sides, with a pass, or
without a connection are counted in a note.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.options import CONVERT, ConvertSpec
from hexshards.conversion.sources import Chunk, Games, source_name
from hexshards.errors import DataError, printable
from hexshards.game.board import BLUE, MAX_SIDE, MIN_SIDE
from hexshards.game.columns import VISITS, Array, Column
from hexshards.game.game_filter import NOT_SAID, GameFilter, Players
from hexshards.game.positions import Positions, no_positions
from hexshards.game.records import NOBODY, GameRecords, selected
from hexshards.game.validation import Reject
from hexshards.game.visits import Entries, visits_of
from hexshards.storage.files import gunzip
from hexshards.units import counted

CHUNK_GAMES = 512
"""Games checked together; see trmph."""

MAX_STRAYS = 1_000
"""A file of lines with more that are no games than this, and than games, is refused."""

Ended = Literal["connected", "resigned", "other", "unknown"]
"""How a game ended: as the file says, by a connection; by a resignation; by a clock or a forfeit; it does not say."""

SWAP_PIECES, SWAP_SIDES, PASS = "swap-pieces", "swap-sides", "pass"


@dataclass(frozen=True, slots=True)
class Game:
    """A game as a file states it; the first mover connects top to bottom."""

    place: str
    """Where in the file, e.g. ``game 6``."""
    number: int
    """What the file calls it: its place among the games of the file, from 1."""
    side: int
    moves: Sequence[str]
    """Letters and number of each (``a10``, ``aa1``), SWAP_PIECES, SWAP_SIDES or PASS."""
    first_won: bool | None
    """Whether the first mover is said to have won; None: nothing is said."""
    ended: Ended = "unknown"
    players: Players = NOT_SAID
    extras: Sequence[Mapping[Column, object]] = ()
    """Of the position before each move, and after the last, what it says for optional columns; none, or one each."""


class GameLists(ABC):
    """Converter of a format of game records: a subclass says what its files are called, and parses one.

    See sources.GameSource.
    """

    patterns: tuple[str, ...]
    named_patterns: tuple[str, ...] = ()

    @abstractmethod
    def parse(self, data: bytes, *, where: str) -> Iterable[Game | Reject | str]:
        """The games of a file, decompressed; what is not well-formed in it; why a game is passed over, to be counted.

        Raises DataError where it is no file of this format.
        """

    def read(
        self, data: bytes, *, name: str, where: str, spec: ConvertSpec = CONVERT, skip: Collection[int] = ()
    ) -> Iterator[Chunk]:
        """Yield the file's positions. The games numbered in ``skip`` are passed over."""
        source, skipped = (source_name(name),), frozenset(skip)
        file = self._file(data, where, spec)
        yield Chunk(no_positions(file.side), source, file.rejects, file.notes)
        for part in _parts(file.games):
            checked = _checked(part, spec)
            rows = [row for row in np.flatnonzero(checked.sound).tolist() if part[row].number not in skipped]
            every = checked.records.positions(np.array(rows, dtype=np.int64), "all")
            positions = selected(_with_extras(every, [part[row] for row in rows]), spec.positions)
            yield Chunk(positions, source, checked.rejects, file.notes)

    def games(self, data: bytes, *, name: str, where: str, spec: ConvertSpec = CONVERT) -> Games:
        """The games whose positions ``read`` yields."""
        keys, numbers = [np.zeros((0, 2), dtype=np.uint64)], [np.zeros(0, dtype=np.int32)]
        for part in _parts(self._file(data, where, spec).games):
            checked = _checked(part, spec)
            rows = np.flatnonzero(checked.sound)
            keys.append(checked.records.keys(rows))
            numbers.append(checked.records.number[rows])
        return Games(np.concatenate(keys), np.concatenate(numbers))

    def _file(self, data: bytes, where: str, spec: ConvertSpec) -> _File:
        plain = gunzip(data, where=where) if data.startswith(b"\x1f\x8b") else data
        return _sorted_out(self.parse(plain, where=where), spec)


def numbered_lines(data: bytes) -> Iterator[tuple[str, int, str]]:
    """The lines of a text that are not blank: the place of each, its number among them from 1, and its text."""
    number = 0
    for line, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if text := raw.decode(errors="replace").strip():
            number += 1
            yield f"line {line}", number, text


# files --------------------------------------------------------------------------------------------------------------


class _File(NamedTuple):
    """The games of a file that a dataset of one side can hold."""

    side: int
    games: list[Game]
    rejects: list[Reject]
    notes: list[str]


def _sorted_out(parsed: Iterable[Game | Reject | str], spec: ConvertSpec) -> _File:
    """The games of the side that is asked for, or that most of them have."""
    games, rejects, passed_over = list[Game](), list[Reject](), Counter[str]()
    for each in parsed:
        if isinstance(each, Reject):
            rejects.append(each)
        elif isinstance(each, str):
            passed_over[each] += 1
        elif PASS in each.moves:
            passed_over["with a pass"] += 1
        elif not MIN_SIDE <= each.side <= MAX_SIDE:
            passed_over[f"of a side outside {MIN_SIDE} to {MAX_SIDE}"] += 1
        else:
            games.append(each)
    sides = Counter(game.side for game in games)
    side = spec.side or max(sides.items(), key=lambda each: (each[1], each[0]), default=(MIN_SIDE, 0))[0]
    passed_over.update({f"of side {other}": count for other, count in sorted(sides.items()) if other != side})
    kept, asked_for = list[Game](), GameFilter.parse(spec.games)
    for game in games:
        if game.side != side:
            continue
        if not asked_for.keeps(game.players):
            passed_over["that are not asked for"] += 1
        elif why := _not_trusted(game, spec):
            passed_over[why] += 1
        else:
            kept.append(game)
    notes = [f"passed over: {counted(count, 'game')} {why}" for why, count in sorted(passed_over.items())]
    return _File(side, kept, rejects, notes or ([] if kept or rejects else ["holds no games"]))


def _not_trusted(game: Game, spec: ConvertSpec) -> str:
    """Why the stated winner of a game that did not end by a connection is not taken; empty where it is."""
    if game.ended == "resigned" and spec.unfinished == "reject":
        return "that ended by resignation (unfinished=resigned takes their results)"
    if game.ended == "other" and spec.unfinished != "keep":
        return "that ended on time or by forfeit (unfinished=keep takes their results)"
    return ""


def _parts(games: list[Game]) -> Iterator[list[Game]]:
    waiting = iter(games)
    while part := list(islice(waiting, CHUNK_GAMES)):
        yield part


# games --------------------------------------------------------------------------------------------------------------


class _Checked(NamedTuple):
    """Some games on boards, which of them are sound, and the faults of the others."""

    records: GameRecords
    sound: NDArray[np.bool_]
    rejects: list[Reject]


class _Spelled(NamedTuple):
    """See records.Spelling."""

    games: list[Game]
    moves: list[list[str]]

    def move(self, game: int, move: int) -> str:
        return printable(self.moves[game][move], width=20)

    def winner(self, game: int) -> str:
        first = self.games[game].first_won
        return "nobody is said to have won" if first is None else f"{'first' if first else 'second'} mover won"


def _checked(games: list[Game], spec: ConvertSpec) -> _Checked:
    after_swaps = [_after_swap(game) for game in games]
    cells = [cells for _, cells, _ in after_swaps]
    winner = np.array([winner for _, _, winner in after_swaps], dtype=np.int8)
    records = GameRecords.laid(
        games[0].side,
        number=np.array([game.number for game in games], dtype=np.int32),
        winner=winner,
        cell_M=np.array([cell for of_game in cells for cell in of_game], dtype=np.int16),
        plies_G=np.array([len(of_game) for of_game in cells], dtype=np.int64),
    )
    unknown = winner == NOBODY
    if unknown.any():
        # who connected has won; where nobody did, a winner that the check cannot trust stands in for nobody
        joined = np.where(unknown, records.joined()[0], winner)
        unknown = joined == NOBODY
        records = replace(records, winner=np.where(unknown, BLUE, joined).astype(np.int8))
    trusted = np.array([game.ended in ("resigned", "other") or spec.unfinished == "keep" for game in games])
    spelling = _Spelled(games, [moves for moves, _, _ in after_swaps])
    sound, faults = records.check(spelling, unfinished=trusted & ~unknown)
    rejects = [Reject(games[game].place, *fault) for game, fault in sorted(faults.items())]
    return _Checked(records, sound, rejects)


def _after_swap(game: Game) -> tuple[list[str], list[int], int]:
    """The moves of a game as if nobody had swapped, as text and as cells, and who won it, NOBODY where nothing is said.

    Swapping pieces turns the one stone over the long diagonal and gives it to the other player. Seen in that mirror,
    with colours exchanged, the stone lies where it lay, and all that follows is turned over.
    """
    moves = list(game.moves)
    winner = NOBODY if game.first_won is None else int(not game.first_won)
    cell_of = _cells(game.side)
    if moves[1:2] == [SWAP_PIECES]:
        del moves[1]
        winner = winner if winner == NOBODY else 1 - winner
        turned = _cells(game.side, turned=True)
        return moves, [cell_of.get(moves[0], -1), *(turned.get(move, -1) for move in moves[1:])], winner
    if moves[1:2] == [SWAP_SIDES]:
        # sites differ in whether the winner is named by colour before or after it: who connected decides
        del moves[1]
        winner = NOBODY
    return moves, [cell_of.get(move, -1) for move in moves], winner


_SPELLED = {name: name for col in "abcdefghijklmnopqrs" for name in (f"{col}{row}" for row in range(1, MAX_SIDE + 1))}


def spelled(moves: Iterable[str]) -> list[str]:
    """Moves of which equal ones are one object: a file's games are held at once, and each text takes 50 bytes."""
    return [_SPELLED.get(move, move) for move in moves]


@cache
def _cells(side: int, *, turned: bool = False) -> dict[str, int]:
    """The cell of each move's text; ``turned``: over the long diagonal."""
    letters = "abcdefghijklmnopqrs"
    return {
        f"{letters[col]}{row + 1}": col * side + row if turned else row * side + col
        for row in range(side)
        for col in range(side)
    }


# positions ----------------------------------------------------------------------------------------------------------


def _with_extras(positions: Positions, games: list[Game]) -> Positions:
    """The positions of games with what they say for optional columns; a column that none names is left out."""
    if not any(game.extras for game in games):
        return positions
    rows = [extra for game in games for extra in (game.extras or [{}] * (_plies(game) + 1))]
    named = {column: None for extra in rows for column in extra}
    columns: dict[Column, Array] = {}
    for column in named:
        numbers = column.unknowns(len(positions), side=positions.side)
        for row, extra in enumerate(rows):
            if column in extra:
                numbers[row] = extra[column]
        columns[column] = numbers
    return positions.with_optional(columns)


def _plies(game: Game) -> int:
    return len(game.moves) - sum(move in (SWAP_PIECES, SWAP_SIDES) for move in game.moves[1:2])


SHARES = 10_000
"""Counts that a policy of shares becomes: the largest share is so many."""


def visits_before(cells: NDArray[np.int64], counts: NDArray[np.float64], *, side: int) -> dict[Column, object] | None:
    """What a position says of the visits of moves, or of their shares; None for what are none."""
    fits = np.isfinite(counts).all() and (counts >= 0).all() and counts.any()
    if not fits or (cells < 0).any() or (cells >= side * side).any():
        return None
    if (counts != np.rint(counts)).any():
        counts = np.rint(counts / counts.max() * SHARES)
    seen = counts > 0
    if len(np.unique(cells[seen])) < seen.sum():
        return None
    entries = Entries(np.zeros(int(seen.sum()), dtype=np.int64), cells[seen], counts[seen])
    return {VISITS: visits_of(entries, rows=1)[0]}


def not_of_the_format(what: str, where: str) -> DataError:
    """The refusal of a file that is no file of games."""
    return DataError(what, where=where, fix="Leave this file out, or mend it")
