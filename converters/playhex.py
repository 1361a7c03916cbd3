"""Games of PlayHex (https://playhex.org), as its site exports them: ``playhex-games-DATE.json.gz``, under CC0.

A JSON array of an object a game: ``boardsize``, ``moves`` as text (``a10 swap-pieces n4 pass``), ``winner`` (red or
blue), ``outcome`` (path, resign, time, forfeit) and, among others, ``rated``, ``playerRedType`` and ``playerBlueType``
(player or bot). Red moves first and connects top to bottom, as BLUE does here. After the export command of the site's
own source, src/server/commands/export-games.ts of github.com/playhex/playhex.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from hexshards.converters.game_lists import Ended, Game, GameLists, not_of_the_format, spelled
from hexshards.errors import printable
from hexshards.game.game_filter import Players
from hexshards.game.validation import Reject

MIN_GAME_BYTES = 40
"""A shorter object cannot state a game."""

_ENDED: dict[str, Ended] = {"path": "connected", "resign": "resigned", "time": "other", "forfeit": "other"}


class _Entry(msgspec.Struct):
    """What is used of an object; what else it holds is passed over."""

    boardsize: int
    moves: str
    winner: Literal["red", "blue"]
    outcome: str | None = None
    rated: bool | None = None
    playerRedType: str | None = None
    playerBlueType: str | None = None


_ENTRY = msgspec.json.Decoder(_Entry)
_ENTRIES = msgspec.json.Decoder(list[msgspec.Raw])


class PlayHexGames(GameLists):
    """Converter for PlayHex's export of its games; ``game`` is the number of the object, from 1."""

    patterns = ("playhex-games-*.json.gz", "playhex-games-*.json")
    named_patterns = ("*.json", "*.json.gz")

    def parse(self, data: bytes, *, where: str) -> Iterator[Game | Reject | str]:
        """See game_lists.GameLists."""
        # an array of other things would take 60 bytes for each that is written in two
        if data.count(b"{") > len(data) / MIN_GAME_BYTES or data.count(b",") > len(data) / 8:
            raise not_of_the_format("is no array of games", where)
        try:
            entries = _ENTRIES.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise not_of_the_format(f"is no JSON array of games ({printable(str(error), width=120)})", where) from None
        for number, raw in enumerate(entries, 1):
            yield _game(bytes(raw), number)


def _game(raw: bytes, number: int) -> Game | Reject:
    place = f"game {number}"
    try:
        entry = _ENTRY.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Reject(place, "not a game", printable(str(error), width=120))
    kinds = (entry.playerRedType, entry.playerBlueType)
    return Game(
        place=place,
        number=number,
        side=entry.boardsize,
        moves=spelled(entry.moves.split()),
        first_won=entry.winner == "red",
        # the export writes path where the site does not know
        ended=_ENDED.get(entry.outcome or "path", "other"),
        players=Players(rated=entry.rated, bots=None if None in kinds else "bot" in kinds),
    )
