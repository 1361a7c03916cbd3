"""Comments of a .trmph file that say more of its games: headers of self-play, and what a search said of each move.

A header is ``# Key: value``; of those that name the model, simulations, temperature, seed, commit or generation the
value is kept, and the generation holds for the games below it. A search is the line below a game:

    #13,a1b2c3 b
    # search 5c0e51b5 0.48:g7=120,a1=33 0.51 -

First the CRC-32 of the game's moves as they are written, so that a search is never read as that of another game. Then,
for each move in turn, what the search before it said: its value, 0 where BLUE wins and 1 where RED does; a colon and
the moves that it visited, each with how often; either may be left out, and ``-`` says nothing.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.errors import printable
from hexshards.game.board import move_name
from hexshards.game.columns import GENERATION, MAX_VISITED, SEARCH_VALUE, UNKNOWN, VISITS, Column
from hexshards.game.options import Selector
from hexshards.game.positions import Positions
from hexshards.game.records import GameRecords
from hexshards.game.visits import MAX_COUNT, Entries, visits_of
from hexshards.units import counted

FACTS = ("model", "simulations", "temperature", "seed", "commit", "generation")
"""What is kept of headers."""

MAX_VALUES, MAX_CHARS = 8, 100
"""Different values of one fact that are kept of a file, and how much of each."""

_HEADER = re.compile(rb"#[ \t]+([A-Za-z][A-Za-z0-9 _-]{0,40}+)[ \t]*+:[ \t]*+([^ \t].*+)")
_GENERATION = re.compile(r"gen(?:eration)?[-_ ]?([0-9]{1,9})(?![0-9])", re.IGNORECASE)

# no repeat here gives back what it took, so that a line of any length is read once
_SEARCH = re.compile(rb"# search ([0-9a-f]{8})(?= |\Z)(.*+)")
_VALUE = rb"(?:0(?:\.[0-9]{1,9}+)?+|1(?:\.0{1,9}+)?+)"
_VISIT = rb"[a-z][1-9][0-9]?+=[1-9][0-9]{0,4}+"
_SAID = rb"(?:-|%b(?::%b(?:,%b)*+)?+|:%b(?:,%b)*+)" % (_VALUE, _VISIT, _VISIT, _VISIT, _VISIT)
_ALL_SAID = re.compile(rb"(?: %b)*+" % _SAID)
_ONE_SAID = re.compile(_SAID)
_EACH_VISIT = re.compile(rb"([a-z][0-9]++)=([0-9]++)")


class Faulty(Exception):
    """A search that is none: the kind of fault, and what was found."""


class Search(NamedTuple):
    """What was said of the moves of a game: the value before each, NaN for none, and each visit that is noted."""

    value_M: NDArray[np.float64]
    ply_E: NDArray[np.int64]
    cell_E: NDArray[np.int64]
    count_E: NDArray[np.float64]


class Headers:
    """What the headers of a file say, as far as it is read."""

    def __init__(self) -> None:
        self.generation = UNKNOWN
        """Of the games that follow."""
        self._values: dict[str, list[str]] = {}

    def take(self, comment: bytes) -> None:
        """Note what a comment says, if it is a header."""
        if (header := _HEADER.fullmatch(comment)) is None:
            return
        key, text = header[1].decode().lower(), printable(header[2].decode().strip(), width=MAX_CHARS)
        if (fact := next((each for each in FACTS if each.removesuffix("s") in key), None)) is None:
            return
        values = self._values.setdefault(fact, [])
        if text not in values and len(values) <= MAX_VALUES:
            values.append(text if len(values) < MAX_VALUES else "…")
        if fact in ("model", "generation"):
            # a new network is of the generation that it or the header after it says
            named = _GENERATION.search(text if fact == "model" else f"generation {text}")
            self.generation = int(named[1]) if named else UNKNOWN

    @property
    def facts(self) -> dict[str, str]:
        """Each fact and its values."""
        return {fact: ", ".join(self._values[fact]) for fact in FACTS if fact in self._values}


def search_text(comment: bytes) -> bytes:
    """A comment, if it is a search, otherwise nothing."""
    return comment if _SEARCH.match(comment) else b""


def read_search(comment: bytes, *, moves: bytes, records: GameRecords, game: int) -> Search:
    """What a comment says of a sound game, whose ``moves`` are written so. Raises Faulty."""
    match = _SEARCH.fullmatch(comment)
    assert match
    if int(match[1], 16) != zlib.crc32(moves):
        raise Faulty("search of another game", f"checksum {match[1].decode()}, its moves have {zlib.crc32(moves):08x}")
    if not _ALL_SAID.fullmatch(match[2]):
        raise Faulty("search that cannot be read", _first_unreadable(match[2]))
    said = match[2].split(b" ")[1:]
    plies = int(records.plies_G[game])
    if len(said) != plies:
        raise Faulty("search of more or fewer moves than the game has", f"{len(said):,} of {counted(plies, 'move')}")
    search = _search(said, match[2], records.side)
    _check(search, records.ply_GC[game], records.side)
    return search


def _first_unreadable(text: bytes) -> str:
    odd = next((each for each in text.split(b" ")[1:] if not _ONE_SAID.fullmatch(each)), text)
    return printable(odd[:200].decode(errors="replace"), width=40)


def _search(said: Sequence[bytes], text: bytes, side: int) -> Search:
    values = [each.partition(b":")[0] for each in said]
    numbers = [each.count(b"=") for each in said]
    if max(numbers, default=0) > MAX_VISITED:
        move = next(move for move, number in enumerate(numbers) if number > MAX_VISITED)
        raise Faulty(f"visits of more than {MAX_VISITED} moves", f"{numbers[move]} before move {move + 1}")
    visits, cells = _EACH_VISIT.findall(text), _cells(side)
    if beyond := next((move for move, _ in visits if move not in cells), b""):
        raise Faulty("visits of a cell beyond the board", beyond.decode())
    return Search(
        value_M=np.array([float(value) if value and value != b"-" else math.nan for value in values]),
        ply_E=np.repeat(np.arange(len(said)), numbers),
        cell_E=np.array([cells[move] for move, _ in visits], dtype=np.int64),
        count_E=np.array([int(count) for _, count in visits], dtype=np.float64),
    )


@cache
def _cells(side: int) -> Mapping[bytes, int]:
    return {move_name(cell, side=side).encode(): cell for cell in range(side * side)}


def _check(search: Search, ply_C: NDArray[np.int16], side: int) -> None:
    """Raises Faulty for counts that no search of this game can have made."""
    place = search.ply_E * side * side + search.cell_E
    ordered = np.sort(place)
    for reason, bad in (
        ("visits on an occupied cell", place[ply_C[search.cell_E] < search.ply_E]),
        ("visits of a move twice", ordered[1:][ordered[1:] == ordered[:-1]]),
        (f"more than {MAX_COUNT} visits of a move", place[search.count_E > MAX_COUNT]),
    ):
        if len(bad):
            ply, cell = divmod(int(bad[0]), side * side)
            raise Faulty(reason, f"{move_name(cell, side=side)} before move {ply + 1}")


def with_remarks(
    positions: Positions,
    records: GameRecords,
    games: NDArray[np.int64],
    *,
    selector: Selector,
    searches: Mapping[int, Search],
    generations: Sequence[int],
) -> Positions:
    """The positions of some games, as GameRecords.positions has them, and what was said of each besides.

    searches: by the number of the game in ``records``. generations: of all its games, UNKNOWN where nobody says.
    """
    counts_G = records.plies_G[games] + 1 if selector == "all" else np.ones(len(games), dtype=np.int64)
    columns: dict[Column, NDArray[Any]] = {}
    if max(generations, default=UNKNOWN) != UNKNOWN and len(games):
        columns[GENERATION] = np.repeat(np.array(generations, dtype=np.int32)[games], counts_G)
    starts = np.cumsum(counts_G) - counts_G
    mine = [
        (slice(start, start + count), searches[game])
        for game, start, count in zip(games.tolist(), starts.tolist(), counts_G.tolist(), strict=True)
        if game in searches
    ]
    return positions.with_optional(columns | _searched(positions, mine)) if columns or mine else positions


def _searched(positions: Positions, searches: Sequence[tuple[slice, Search]]) -> dict[Column, NDArray[Any]]:
    """Values and visits of positions, of which some rows are of a game that was searched."""
    value_P = np.full(len(positions), np.nan, dtype=np.float32)
    parts = [Entries(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))]
    for rows, search in searches:
        # the rows are one ply after another, and the final one has no search
        first = int(positions.ply[rows.start])
        values = search.value_M[first : first + rows.stop - rows.start]
        value_P[rows.start : rows.start + len(values)] = values
        kept = (search.ply_E >= first) & (search.ply_E < first + len(values))
        parts.append(Entries(rows.start + search.ply_E[kept] - first, search.cell_E[kept], search.count_E[kept]))
    entries = Entries(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    columns: dict[Column, NDArray[Any]] = {}
    if not np.isnan(value_P).all():
        columns[SEARCH_VALUE] = value_P
    if len(entries.row_E):
        columns[VISITS] = visits_of(entries, rows=len(positions))
    return columns
