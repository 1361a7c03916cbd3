"""Games as links to the board of HexWorld (https://hexworld.org/board), one a line: ``.hexworld``, or named ``.txt``.

``https://hexworld.org/board/#11r9c1,a2:sb3c4:rw``: the side, how the board is shown (any letters and digits), and after
the comma the moves; ``:s`` swaps pieces, ``:p`` passes, ``:rb`` and ``:rw`` say that the first or the second mover
resigned, ``:fb`` and ``:fw`` that one forfeited. Who connected has won. After the site's own page about.html, and
after src/shared/app/hexworld.ts of github.com/playhex/playhex for resignations. Lines that begin with ``#`` and a blank
are comments; what stands after the link is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hexshards.converters.game_lists import (
    MAX_STRAYS,
    PASS,
    SWAP_PIECES,
    Ended,
    Game,
    GameLists,
    not_of_the_format,
    numbered_lines,
    spelled,
)
from hexshards.errors import printable
from hexshards.game.board import MAX_SIDE
from hexshards.game.validation import Reject

MAX_MOVES = MAX_SIDE**2 + 2
"""Moves of a game at most: each cell, a swap, and one that is one too many."""

_LINK = re.compile(r"(?:https?://)?(?:www\.)?hexworld\.org/board/?#([!-~]++)")
_BOARD = re.compile(r"([0-9]{1,3})(?:x([0-9]{1,3}))?[a-z0-9]{0,20}+,(.*+)")
_MOVE = re.compile(r"[a-z]{1,2}[0-9]{1,3}+|:s|:p|:[rf][bw]")
_TOKENS = {":s": SWAP_PIECES, ":p": PASS}


class HexWorldLinks(GameLists):
    """Converter for lists of links to boards of HexWorld; ``game`` is the number of the line that is not blank."""

    patterns = ("*.hexworld", "*.hexworld.txt", "*.hexworld.gz")
    named_patterns = ("*.txt",)

    @staticmethod
    def recognises(head: bytes) -> bool:
        """Whether the first bytes of a file are of one of these."""
        return b"hexworld.org/board" in head

    def parse(self, data: bytes, *, where: str) -> Iterator[Game | Reject | str]:
        """See game_lists.GameLists."""
        links, strays = 0, list[Reject]()
        for place, number, text in numbered_lines(data):
            if text.startswith("# "):
                continue
            if link := _LINK.search(text):
                links += 1
                yield _game(link[1], place, number)
            else:
                strays.append(Reject(place, "not a link to a board", printable(text[:200], width=40)))
                if len(strays) > MAX_STRAYS + links:
                    break
        if (not links and strays) or len(strays) > MAX_STRAYS + links:
            raise not_of_the_format("holds no list of links like https://hexworld.org/board/#11c1,a2b3", where)
        yield from strays


def _game(link: str, place: str, number: int) -> Game | Reject:
    board = _BOARD.fullmatch(link)
    if board is None:
        return Reject(place, "not a game", printable(link[:200], width=40))
    side, other, text = int(board[1]), board[2], board[3]
    if other is not None and int(other) != side:
        return Reject(place, "board that is no rhombus of one side", f"{board[1]}x{other}")
    tokens, end = list[str](), 0
    while (token := _MOVE.match(text, end)) and len(tokens) <= MAX_MOVES:
        tokens.append(token[0])
        end = token.end()
    if end < len(text):
        many = len(tokens) > MAX_MOVES
        fault = "more moves than any board has cells" if many else "move that is not a letter and a number"
        return Reject(place, fault, f"more than {MAX_SIDE**2}" if many else printable(text[end : end + 40], width=40))
    ended: Ended = "unknown"
    first_won = None
    if tokens and tokens[-1][:2] in (":r", ":f"):
        last = tokens.pop()
        ended = "resigned" if last[1] == "r" else "other"
        first_won = last[2] == "w"
    if early := [token for token in tokens if token[:2] in (":r", ":f")]:
        return Reject(place, "moves after the end", early[0])
    return Game(place, number, side, spelled(_TOKENS.get(token, token) for token in tokens), first_won, ended)
