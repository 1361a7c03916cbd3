"""Converter of raw games (``.trmph``): every sound game becomes its positions, every other line is named as a fault.

A line is a game, ``#13,a1b2c3 b``, with or without the address of a page before ``#``; or blank; or a comment, which
begins with ``#`` and a blank, as one may after a game. ``b`` says that BLUE won, ``r`` that RED did; throughout an old
file it is ``1`` or ``2``. A game is sound when its moves are cells of the board, none twice, and the last of them
connects the edges of the player who is said to have won. Comments may say more of games (trmph_remarks).

Legend of shapes: G games, M moves of all games one after another.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.options import CONVERT, ConvertSpec
from hexshards.conversion.sources import Chunk, Contents, Games, source_name
from hexshards.converters.trmph_remarks import Faulty, Headers, Search, read_search, search_text, with_remarks
from hexshards.errors import DataError, or_refusal, printable
from hexshards.game.board import BLUE, MAX_SIDE, MIN_SIDE, RED
from hexshards.game.columns import UNKNOWN
from hexshards.game.positions import Positions
from hexshards.game.records import NOBODY, PLAYER_NAMES, GameRecords
from hexshards.game.validation import Reject
from hexshards.storage.files import gunzip
from hexshards.units import counted

CHUNK_GAMES = 512
"""Games checked together: 26,000 positions of real 13x13 games, 4 MB at work; with side 19 at most 40 MB."""

MAX_STRAY_LINES = 100_000
"""A file with more unreadable lines than this, and than games, is refused: it bounds what is remembered of them."""

# no repeat here gives back what it took, so that a line of any length is read once
_PAGE = rb"(?:(?:https?://|(?:www\.)?trmph\.com/)[!-\"$-~]*+)?"
_MOVE = re.compile(rb"[a-z][1-9][0-9]?+")
_MOVES = re.compile(rb"(?:%b){0,%d}+" % (_MOVE.pattern, MAX_SIDE**2))
_SIDE = b"|".join(b"%d" % side for side in range(MAX_SIDE, MIN_SIDE - 1, -1))
_HEAD = re.compile(rb"%b#([0-9]++)," % _PAGE)
_GAME = re.compile(rb"[ \t]*+%b#(%b),(%b)[ \t]++([br12])[ \t]*+" % (_PAGE, _SIDE, _MOVES.pattern))
_LINE = re.compile(rb"[^\n]++")
_COMMENT = re.compile(rb"[ \t]#(?=[ \t]|\Z)")

_PLAYERS = {b"b": BLUE, b"r": RED}
_OLD_PLAYERS = {b"1": BLUE, b"2": RED}

_NOT_A_GAME, _NOT_TEXT, _NO_WINNER = "not a game", "bytes that are not UTF-8", "no winner"
_NO_GAMES = (_NOT_A_GAME, _NOT_TEXT)
"""Faults of lines that are of no file of games."""

_Fault = tuple[int, str, str]
"""A line by its number in the file, the kind of fault, and what stood there."""


class _Unreadable(Exception):
    """A line that is no game: the kind of fault, and what was found."""


class TrmphFiles:
    """Converter for files of raw games.

    ``game`` is the number of the game's line among the lines that are not blank, comments included, from 1: so hex_ai
    counts, so that a game has one name, and falls in one split, whether it comes from here or by a processed file.
    Rejects name the line as an editor counts it. ``tier`` is UNKNOWN: it is drawn when a processed file is made.
    """

    patterns = ("*.trmph", "*.trmph.gz")
    named_patterns = ("*.txt",)

    def read(
        self, data: bytes, *, name: str, where: str, spec: ConvertSpec = CONVERT, skip: Collection[int] = ()
    ) -> Iterator[Chunk]:
        """Yield the file's positions; see sources.Source. The games numbered in ``skip`` are passed over."""
        return _chunks(_opened(Contents(data, name, where, skip)), spec)

    def games(self, data: bytes, *, name: str, where: str, spec: ConvertSpec = CONVERT) -> Games:
        """The games whose positions ``read`` yields, so that repeats can be found over all files and be skipped.

        As fast as ``read`` or faster: it checks the same, and makes keys in place of positions.
        """
        return _games(_opened(Contents(data, name, where)), spec)

    def read_each(self, files: Iterable[Contents], *, spec: ConvertSpec = CONVERT) -> Iterator[list[Chunk] | DataError]:
        """What ``read`` yields of each of some files; the games of small ones are checked together."""
        for gathered in _gathered(files):
            if isinstance(gathered, DataError):
                yield gathered
            elif len(gathered) > 1:
                yield from _chunks_together(gathered, spec)
            else:
                yield list(_chunks(gathered[0], spec))

    def games_each(self, files: Iterable[Contents], *, spec: ConvertSpec = CONVERT) -> Iterator[Games | DataError]:
        """What ``games`` finds in each of some files; the games of small ones are checked together."""
        for gathered in _gathered(files):
            if isinstance(gathered, DataError):
                yield gathered
            elif len(gathered) > 1:
                yield from _games_together(gathered, spec)
            else:
                yield _games(gathered[0], spec)


# files --------------------------------------------------------------------------------------------------------------


class _Opened(NamedTuple):
    """A file that was read and not checked yet."""

    contents: Contents
    file: _File


def _opened(contents: Contents) -> _Opened:
    data, name, where, _ = contents
    return _Opened(contents, _parse(_text(data, name, where), where))


def _gathered(files: Iterable[Contents]) -> Iterator[list[_Opened] | DataError]:
    """Files one after another, as many of one side together as have no more games than are checked at once."""
    together, games = list[_Opened](), 0
    for contents in files:
        opened = or_refusal(_opened, contents)
        lines = 0 if isinstance(opened, DataError) else len(opened.file.lines)
        side = 0 if isinstance(opened, DataError) else opened.file.side
        # a file without games ends a gathering as one that is refused does: it has no side
        if together and (not lines or games + lines > CHUNK_GAMES or side != together[0].file.side):
            yield together
            together, games = [], 0
        if isinstance(opened, DataError):
            yield opened
            continue
        together.append(opened)
        games += lines
        if not lines:
            yield together
            together = []
    if together:
        yield together


def _chunks(opened: _Opened, spec: ConvertSpec) -> Iterator[Chunk]:
    """The positions of a file, some games at a time."""
    for batch, sound, faults in _checked(opened.file, spec):
        rows = np.flatnonzero(sound & ~_passed_over(batch.records.number, opened.contents))
        yield _chunk(opened, _positions(batch, rows, spec), faults)


def _chunk(opened: _Opened, positions: Positions, faults: Sequence[_Fault]) -> Chunk:
    rejects = [Reject(f"line {line}", reason, finding) for line, reason, finding in faults]
    return Chunk(positions, (source_name(opened.contents.name),), rejects, opened.file.notes, opened.file.headers)


def _positions(batch: _Batch, games: NDArray[np.int64], spec: ConvertSpec) -> Positions:
    return with_remarks(
        batch.records.positions(games, spec.positions),
        batch.records,
        games,
        selector=spec.positions,
        searches=batch.searches,
        generations=[line.generation for line in batch.lines],
    )


def _passed_over(numbers: NDArray[np.int32], contents: Contents) -> NDArray[np.bool_]:
    if not len(contents.skip):
        return np.zeros(len(numbers), dtype=bool)
    return np.isin(numbers, np.fromiter(contents.skip, dtype=np.int64, count=len(contents.skip)))


def _games(opened: _Opened, spec: ConvertSpec) -> Games:
    keys, numbers = [np.zeros((0, 2), dtype=np.uint64)], [np.zeros(0, dtype=np.int32)]
    for batch, sound, _ in _checked(opened.file, spec, searched=False):
        rows = np.flatnonzero(sound)
        keys.append(batch.records.keys(rows))
        numbers.append(batch.records.number[rows])
    return Games(np.concatenate(keys), np.concatenate(numbers))


def _chunks_together(gathered: Sequence[_Opened], spec: ConvertSpec) -> Iterator[list[Chunk]]:
    """What ``_chunks`` makes of each of some files of one side, all with few games."""
    batch, places = _laid_together(gathered)
    records = batch.records
    sound, faults = _check(batch, spec)
    for opened, place in zip(gathered, places, strict=True):
        sound[place] &= ~_passed_over(records.number[place], opened.contents)
    # a sound game has a final position and, as it has moves, a penultimate one
    counts = np.where(sound, records.plies_G + 1 if spec.positions == "all" else 1, 0)
    ends = [0, *np.cumsum(counts).tolist()]
    positions = _positions(batch, np.flatnonzero(sound), spec)
    for opened, place in zip(gathered, places, strict=True):
        mine = [faults[game] for game in range(place.start, place.stop) if game in faults]
        rows = slice(ends[place.start], ends[place.stop])
        yield [_chunk(opened, positions.take(rows), sorted([*opened.file.faults, *mine]))]


def _games_together(gathered: Sequence[_Opened], spec: ConvertSpec) -> Iterator[Games]:
    """What ``_games`` makes of each of some files of one side, all with few games."""
    batch, places = _laid_together(gathered)
    sound, _ = _check(batch, spec, searched=False)
    for place in places:
        rows = place.start + np.flatnonzero(sound[place])
        yield Games(batch.records.keys(rows), batch.records.number[rows])


def _laid_together(gathered: Sequence[_Opened]) -> tuple[_Batch, list[slice]]:
    """The games of some files of one side on boards, and which of them are of which file."""
    ends = np.cumsum([0, *(len(opened.file.lines) for opened in gathered)]).tolist()
    lines = [line for opened in gathered for line in opened.file.lines]
    winners = [winner for opened in gathered for winner in _winners(opened.file.lines, opened.file)]
    return _laid(lines, winners, side=gathered[0].file.side), [slice(*ends_2) for ends_2 in pairwise(ends)]


# lines --------------------------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """A line that reads as a game."""

    line: int
    number: int
    side: int
    moves: bytes
    mark: bytes
    """The letter or digit that names the winner."""
    generation: int = UNKNOWN
    search: bytes = b""
    """The comment below it that says what a search said."""
    search_line: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    """The games of a file, all of one side, the faults of its other lines, and who is meant by a mark."""

    side: int
    lines: list[_Line]
    faults: list[_Fault]
    players: Mapping[bytes, int]
    notes: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


def _text(data: bytes, name: str, where: str) -> bytes:
    """The file's bytes, decompressed, without byte-order mark, each line ended by a newline alone."""
    if name.endswith(".gz") or data.startswith(b"\x1f\x8b"):
        data = gunzip(data, where=where)
    data = data.removeprefix(b"\xef\xbb\xbf")
    # Python's text files know these three ends of a line, and hex_ai counts by them
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def _parse(data: bytes, where: str) -> _File:
    """The games of the side that most games of the file have."""
    lines, faults, headers = _scan(data, where)
    if not (lines or _of_games(data, faults)):
        raise _refusal("holds no line that reads as a game, like #13,a1b2c3 b" if data else "is empty", faults, where)
    side = max(Counter(line.side for line in lines).most_common(1), default=(MIN_SIDE, 0))[0]
    old = bool(lines) and all(line.mark in _OLD_PLAYERS for line in lines)
    players = _OLD_PLAYERS if old else _PLAYERS
    kept = []
    for line in lines:
        if line.side != side:
            faults.append((line.line, "game of another side", f"side {line.side}, most games here are of side {side}"))
        elif line.mark not in players:
            faults.append((line.line, "winner 1 or 2 in a file that has b or r", line.mark.decode()))
        else:
            kept.append(line)
    notes = () if lines or faults else ("holds no games",)
    file = _File(side, kept, sorted(faults), players, notes, headers.facts)
    return _corrected(file) if old else file


def _of_games(data: bytes, faults: list[_Fault]) -> bool:
    """Whether a file in which no line reads as a game is one of games all the same."""
    return bool(data) and (not faults or any(reason not in _NO_GAMES for _, reason, _ in faults))


def _scan(data: bytes, where: str) -> tuple[list[_Line], list[_Fault], Headers]:
    """The lines that read as games, the faults of those that are neither that nor blank nor comments, and headers."""
    lines: list[_Line] = []
    faults: list[_Fault] = []
    headers = Headers()
    line, number, end = 1, 0, 0
    for match in _LINE.finditer(data):
        line += data.count(b"\n", end, match.start())
        end = match.end()
        game = _GAME.fullmatch(data, match.start(), end)
        if game is None and match[0].decode(errors="replace").isspace():
            continue
        number += 1
        try:
            if game is None and (game := _reread(match[0])) is None:
                _remark(match[0].strip(b" \t"), line, number, lines, headers)
        except _Unreadable as fault:
            faults.append((line, *fault.args))
            if len(faults) > max(MAX_STRAY_LINES, len(lines)):
                raise _refusal(
                    f"has {counted(len(faults), 'line', verb='that is no game/that are no games')}", faults, where
                ) from None
        if game is not None:
            lines.append(_Line(line, number, int(game[1]), game[2], game[3], headers.generation))
    return lines, faults, headers


def _remark(comment: bytes, line: int, number: int, lines: list[_Line], headers: Headers) -> None:
    """Take what a comment says of the game above it, or of those below. Raises _Unreadable for a search of no game."""
    if not (search := search_text(comment)):
        headers.take(comment)
        return
    if not lines or lines[-1].number != number - 1:
        raise _Unreadable("search below no game", "the line above it is no game that can be read")
    lines[-1] = lines[-1]._replace(search=search, search_line=line)


def _refusal(problem: str, faults: list[_Fault], where: str) -> DataError:
    if faults:
        line, reason, stood = faults[0]
        problem += f" (line {line}: {reason}, {stood})"
    return DataError(problem, where=where, fix="Leave this file out")


def _reread(content: bytes) -> re.Match[bytes] | None:
    """The game on a line that more than a game stands on; None for a comment. Raises _Unreadable for other lines."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        finding = f"byte 0x{content[error.start]:02x} after {error.start:,} others"
        raise _Unreadable(_NOT_TEXT, finding) from None
    content = content.strip(b" \t")
    if content[:1] == b"#" and content[1:2] in (b"", b" ", b"\t"):
        return None
    if comment := _COMMENT.search(content):
        content = content[: comment.start()]
    if (game := _GAME.fullmatch(content)) is None:
        raise _unreadable(content)
    return game


def _unreadable(content: bytes) -> _Unreadable:
    head = _HEAD.match(content)
    if head is None:
        return _Unreadable(_NOT_A_GAME, _shown(content))
    if not re.fullmatch(_SIDE, head[1]):
        return _Unreadable(f"side outside {MIN_SIDE} to {MAX_SIDE}", _shown(head[1]))
    moves = _MOVES.match(content, head.end())
    rest = content[moves.end() :] if moves else b""
    if not rest.strip(b" \t"):
        return _Unreadable(_NO_WINNER, "nothing after the moves: append b or r, who won")
    if rest[:1] in b" \t":
        return _Unreadable("unknown winner", _shown(rest.strip(b" \t")))
    if _MOVE.match(rest):
        return _Unreadable("more moves than any board has cells", f"more than {MAX_SIDE**2}")
    return _Unreadable("move that is not a letter and a number", _shown(rest))


def _shown(content: bytes) -> str:
    # cut before decoding: a line may be of any length
    return printable(content[:200].decode(errors="replace"), width=40)


# games --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Some games of one side: the lines on which they stand, and what they are on boards."""

    lines: list[_Line]
    records: GameRecords
    searches: dict[int, Search] = field(default_factory=dict)
    """What was said of the sound games, by their number here."""

    def move(self, game: int, move: int) -> str:
        """See records.Spelling."""
        moves: list[bytes] = _MOVE.findall(self.lines[game].moves)
        return moves[move].decode()

    def winner(self, game: int) -> str:
        """See records.Spelling."""
        return self.lines[game].mark.decode()


def _checked(
    file: _File, spec: ConvertSpec, *, searched: bool = True
) -> Iterator[tuple[_Batch, NDArray[np.bool_], list[_Fault]]]:
    """Games of the file, which of them are sound, and the faults of the others and of the lines among them."""
    faults = file.faults[::-1]
    starts = range(0, max(len(file.lines), 1), CHUNK_GAMES)
    for start in starts:
        batch = _laid_of(file, start)
        sound, of_games = _check(batch, spec, searched=searched)
        unsound = list(of_games.values())
        while faults and (start == starts[-1] or faults[-1][0] < batch.lines[-1].line):
            unsound.append(faults.pop())
        yield batch, sound, sorted(unsound)


def _winners(lines: list[_Line], file: _File) -> list[int]:
    return [file.players[line.mark] for line in lines]


def _laid_of(file: _File, start: int) -> _Batch:
    """Some games of a file, from one on, laid on boards."""
    lines = file.lines[start : start + CHUNK_GAMES]
    return _laid(lines, _winners(lines, file), side=file.side)


def _laid(lines: list[_Line], winners: list[int], *, side: int) -> _Batch:
    text = np.frombuffer(b"".join(line.moves for line in lines) + b"  ", dtype=np.uint8)
    (letter_M,) = np.nonzero(text >= ord("a"))
    col_M, tens_M, ones_M = text[letter_M] - ord("a"), text[letter_M + 1] - ord("0"), text[letter_M + 2] - ord("0")
    row_M = np.where(ones_M < 10, 10 * tens_M + ones_M, tens_M) - 1
    on_board = (col_M < side) & (row_M < side)
    cell_M = np.where(on_board, row_M.astype(np.int16) * side + col_M, -1).astype(np.int16)
    ends_G = np.searchsorted(letter_M, np.cumsum([len(line.moves) for line in lines], dtype=np.int64))
    records = GameRecords.laid(
        side,
        number=np.array([line.number for line in lines], dtype=np.int32),
        winner=np.array(winners, dtype=np.int8),
        cell_M=cell_M,
        plies_G=np.diff(ends_G, prepend=0),
    )
    return _Batch(lines, records)


def _check(batch: _Batch, spec: ConvertSpec, *, searched: bool = True) -> tuple[NDArray[np.bool_], dict[int, _Fault]]:
    """Which games are sound, and the first fault of each of the others, and of the searches of those that are.

    A game whose search is faulty stays, without it.
    """
    sound, of_games = batch.records.check(batch, unfinished=spec.unfinished == "keep")
    faults = {game: (batch.lines[game].line, *fault) for game, fault in of_games.items()}
    for game, line in enumerate(batch.lines if searched else ()):
        if line.search and sound[game]:
            try:
                batch.searches[game] = read_search(line.search, moves=line.moves, records=batch.records, game=game)
            except Faulty as fault:
                faults[game] = (line.search_line, *fault.args)
    return sound, faults


def _corrected(file: _File) -> _File:
    """A file with old marks: who connected decides over the whole file which player each of them means."""
    agreeing = finished = 0
    for start in range(0, len(file.lines), CHUNK_GAMES):
        records = _laid_of(file, start).records
        joined = np.where(records.playable(), records.joined()[0], NOBODY)
        finished += int((joined != NOBODY).sum())
        agreeing += int((joined == records.winner).sum())
    swapped = 2 * agreeing < finished
    players = {mark: player ^ swapped for mark, player in _OLD_PLAYERS.items()}
    meant = ", ".join(f"{mark.decode()} is {PLAYER_NAMES[player]}" for mark, player in players.items())
    borne_out = finished - agreeing if swapped else agreeing
    note = f"winners are written 1 and 2: {meant}, as {borne_out:,} of {finished:,} finished games bear out"
    return replace(file, players=players, notes=(note,))
