"""Games of MoHex-3HNN's training loop, neurobenzene (https://github.com/cgao3/neurobenzene): ``.shf``, one a line.

``#13 x 13 Hex`` names the side. ``B[a1] W[c2][a3 0.5; c2 0.5;] B[b3] -1.0`` is a game: moves of Black and White in
turn; behind some of them how likely the search took each move, also written ``[a3:0.5;c2:0.5]`` (``visits``); and at
the end 1.0 where the player to move after all of them has won, -1.0 where he has lost. Black connects top to bottom.
After closedloop/extractor.py, which also writes beginnings of games as lines of their own: those have no connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from hexshards.converters.game_lists import (
    MAX_STRAYS,
    Game,
    GameLists,
    not_of_the_format,
    numbered_lines,
    spelled,
    visits_before,
)
from hexshards.errors import printable
from hexshards.game.board import MAX_SIDE
from hexshards.game.columns import Column
from hexshards.game.validation import Reject
from hexshards.units import counted

_SIDE = re.compile(r"#\s*([0-9]{1,2})\s*x\s*([0-9]{1,2})\b.*")
_MOVE = re.compile(r"([BW])\[([a-z]{1,2}[0-9]{1,3})\](?:\[([^\]]{1,8000})\])?\s+")
_VALUE = re.compile(r"-?[0-9]{1,3}(?:\.[0-9]{0,20})?")
_SHARE = re.compile(r"\s*([a-z])([0-9]{1,2})[ :]\s*([0-9][0-9.e+-]{0,20})\s*")


class NeurobenzeneGames(GameLists):
    """Converter for games of MoHex-3HNN's training loop; ``game`` is the number of the line that is not blank."""

    patterns = ("*.shf", "*.shf.gz")

    def parse(self, data: bytes, *, where: str) -> Iterator[Game | Reject | str]:
        """See game_lists.GameLists."""
        side, games, strays = 0, 0, list[Reject]()
        for place, number, text in numbered_lines(data):
            if text.startswith("#"):
                header = _SIDE.fullmatch(text)
                side = int(header[1]) if header and header[1] == header[2] else side
                continue
            if not side:
                raise not_of_the_format("does not begin with the side of the board, like #13 x 13 Hex", where)
            game = _game(text, side, place, number)
            if isinstance(game, Game):
                games += 1
                yield game
            else:
                strays.append(game)
                if len(strays) > MAX_STRAYS + games:
                    raise not_of_the_format(f"has more than {counted(MAX_STRAYS, 'line')} that are no games", where)
        yield from strays


def _game(text: str, side: int, place: str, number: int) -> Game | Reject:
    moves, extras, end = list[str](), list[dict[Column, object]](), 0
    while (move := _MOVE.match(text, end)) and len(moves) <= MAX_SIDE**2:
        if move[1] != "BW"[len(moves) % 2]:
            return Reject(place, "a player moves twice", f"move {len(moves) + 1}")
        searched = _visits(move[3], side)
        if searched is None:
            return Reject(place, "policy that is no list of moves and shares", f"of move {len(moves) + 1}")
        moves.append(move[2])
        extras.append(searched)
        end = move.end()
    rest = text[end:]
    if not moves or not _VALUE.fullmatch(rest):
        return Reject(place, "not a game", printable(rest[:200], width=40))
    value = float(rest)
    to_move_is_first = len(moves) % 2 == 0
    return Game(
        place=place,
        number=number,
        side=side,
        moves=spelled(moves),
        first_won=(value > 0) == to_move_is_first if abs(value) == 1 else None,
        extras=[*extras, {}] if any(extras) else (),
    )


def _visits(text: str | None, side: int) -> dict[Column, object] | None:
    """What stands behind a move, of the position before it; None where it is no list of moves and shares."""
    if text is None:
        return {}
    shares = [_SHARE.fullmatch(part) for part in text.split(";") if part.strip()]
    try:
        cells = [(int(each[2]) - 1, ord(each[1]) - ord("a"), float(each[3])) for each in shares if each]
    except ValueError:
        return None
    if not cells or len(cells) < len(shares) or any(row >= side or col >= side for row, col, _ in cells):
        return None
    row, col, share = np.array(cells).T
    return visits_before((row * side + col).astype(np.int64), share, side=side)
