"""Games in SGF, Smart Game Format FF[4] with GM[11], Hex, and Little Golem's HSGF; several a file, main lines only.

``(;FF[4]GM[11]SZ[13];B[c4];W[swap-pieces];B[d7] ... RE[B+])``: a move is letters and a number (``c4``), or two letters
(``cd``: column, row) as Little Golem (https://littlegolem.net) and Go-like programs write it; ``swap-pieces`` or
``swap``, ``swap-sides``, ``pass``, ``resign``. Whoever moves first, Black or White, is BLUE here and connects top to
bottom. RE names the winner by colour: B+, W+R (resigned), B+T (time), B. https://www.red-bean.com/sgf/ has the grammar.

KataGo and KataHex write GM[1] and, in the comment of a move, what the search said of the position before it, seen from
White: ``C[0.95 0.05 0.00 v=28]``, win, loss and draw (``search_value``). After writeSgf in cpp/dataio/sgf.cpp and
ValueTargets in trainingwrite.h of github.com/lightvector/KataGo.

GM[hex] and GM[hex_11x11] are MiniZero's: see minizero.

Parsed by sgfmill, which knows the grammar and nothing of Go's rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from hexshards.converters import minizero
from hexshards.converters.game_lists import (
    PASS,
    SWAP_PIECES,
    SWAP_SIDES,
    Ended,
    Game,
    GameLists,
    not_of_the_format,
    spelled,
)
from hexshards.converters.minizero import Node, node_text
from hexshards.errors import DataError, printable
from hexshards.game.board import MAX_SIDE
from hexshards.game.columns import SEARCH_VALUE, Column
from hexshards.game.game_filter import Players
from hexshards.game.validation import Reject
from hexshards.units import counted

MAX_GAME_BYTES = 1 << 20
"""A longer game is none: 361 moves with 2.9 kB of comments each."""

MAX_PARENTHESES = 1_000
"""More variations than that in one game are refused."""

MAX_UNCLOSED = 20
"""Games without an end in a file at most: to look for the end of one takes half a second."""

_START, _NEXT = re.compile(rb"\(\s*;"), re.compile(rb"\n\s*\(\s*;")
_WORDS = {"swap-pieces": SWAP_PIECES, "swap": SWAP_PIECES, "swap-sides": SWAP_SIDES, "pass": PASS, "": PASS}
_RESULT = re.compile(r"([BW])(?:\+(.*))?", re.IGNORECASE | re.DOTALL)
_SEARCH = re.compile(r"\s*([01]?\.[0-9]+|[01])\s+([01]?\.[0-9]+|[01])\s+([01]?\.[0-9]+|[01])(?:\s+v=([0-9]+))?")
_MINIZERO = re.compile(r"hex(_[0-9]+x[0-9]+)?")
_RATING = re.compile(r"\s*([0-9]{1,5})")


class SgfGames(GameLists):
    """Converter for games in SGF and HSGF; ``game`` is the number of the game in the file, from 1."""

    patterns = ("*.sgf", "*.hsgf", "*.sgf.gz", "*.sgfs")
    needs = ("sgfmill", "hexshards[sgf]")

    def parse(self, data: bytes, *, where: str) -> Iterator[Game | Reject | str]:
        """See game_lists.GameLists."""
        grammar = _grammar(where)
        number = at = unclosed = 0
        while start := _START.search(data, at):
            number += 1
            place = f"game {number}"
            tokens, end = grammar.tokenise(data[start.start() : start.start() + MAX_GAME_BYTES])
            whole = _is_whole(tokens)
            at = start.start() + (end if whole else 2)
            if not whole:
                unclosed += 1
                if unclosed > MAX_UNCLOSED:
                    raise not_of_the_format(
                        f"has more than {counted(MAX_UNCLOSED, 'game')} whose parentheses are not closed", where
                    )
                # what comes next may be a game again, and begins a line
                following = _NEXT.search(data, at)
                at = following.start() if following else len(data)
                yield Reject(place, "not a game", "its parentheses are not closed, or it is longer than any game")
            elif sum(token == b"(" for kind, token in tokens if kind == "D") > MAX_PARENTHESES:
                yield Reject(place, "not a game", f"more than {MAX_PARENTHESES:,} variations")
            else:
                yield _game(grammar, data[start.start() : at], place, number)
        if not number and data.strip():
            raise not_of_the_format("holds no SGF game, like (;FF[4]GM[11]SZ[13];B[a1])", where)


def _grammar(where: str) -> Any:
    try:
        from sgfmill import sgf_grammar
    except ImportError:
        raise DataError("is SGF, which needs sgfmill", where=where, fix="pip install 'hexshards[sgf]'") from None
    return sgf_grammar


def _is_whole(tokens: list[tuple[str, bytes]]) -> bool:
    depth = 0
    for kind, token in tokens:
        if kind == "D":
            depth += (token == b"(") - (token == b")")
    return bool(tokens) and depth == 0


def _game(grammar: Any, text: bytes, place: str, number: int) -> Game | Reject | str:
    try:
        nodes = list(grammar.main_sequence_iter(grammar.parse_sgf_game(text)))
    except ValueError as error:
        return Reject(place, "not a game", printable(str(error), width=120))
    root = nodes[0]
    kind = node_text(root, "GM")
    if kind not in ("", "11", "1") and not _MINIZERO.fullmatch(kind):
        return f"of another kind than Hex (GM[{printable(kind, width=10)}])"
    side = re.fullmatch(r"([0-9]{1,3})(?::([0-9]{1,3}))?", node_text(root, "SZ"))
    if side is None or side[2] not in (None, side[1]):
        return Reject(place, "no side of the board", printable(f"SZ[{node_text(root, 'SZ')}]", width=40))
    if any(setup in node for node in nodes for setup in ("AB", "AW", "AE")):
        return "with stones that were set up"
    return (minizero.game_of if _MINIZERO.fullmatch(kind) else _of_nodes)(nodes, int(side[1]), place, number)


def _of_nodes(nodes: list[Node], side: int, place: str, number: int) -> Game | Reject | str:
    moves, colours, extras, resigned = list[str](), list[str](), list[float | None](), ""
    for node in nodes:
        colour = "B" if "B" in node else "W" if "W" in node else ""
        if not colour:
            continue
        if resigned or len(moves) > MAX_SIDE**2 + 1:
            return Reject(place, "moves after the end", printable(node_text(node, colour), width=20))
        text = node_text(node, colour).strip().lower()
        if text == "resign":
            resigned = colour
            continue
        moves.append(_WORDS.get(text) or _move(text))
        colours.append(colour)
        extras.append(_search(node))
    if any(one == other for one, other in pairwise(colours)):
        return "in which a player moves twice"
    result = _RESULT.match(node_text(nodes[0], "RE").strip())
    winner = result[1].upper() if result else ({"B": "W", "W": "B"}.get(resigned, ""))
    ended: Ended = "resigned" if resigned else _ended(result[2] if result else None)
    first = colours[0] if colours else "B"
    # whose win a search before a swap speaks of, programs do not say
    swapped = moves[1:2] in ([SWAP_PIECES], [SWAP_SIDES])
    searched = (
        [] if swapped or all(each is None for each in extras) else [*(_of_red(each, first) for each in extras), {}]
    )
    ratings = tuple(float(each[1]) for key in ("BR", "WR") if (each := _RATING.match(node_text(nodes[0], key))))
    return Game(
        place=place,
        number=number,
        side=side,
        moves=spelled(moves),
        first_won=None if not winner else winner == first,
        ended=ended,
        players=Players(ratings=ratings if len(ratings) == 2 else None),
        extras=searched,
    )


def _ended(how: str | None) -> Ended:
    word = (how or "").strip().lower()
    if word.startswith("r"):
        return "resigned"
    return "other" if word.startswith(("t", "f")) else "unknown"


def _move(text: str) -> str:
    """Column's letter and row's number; two letters are those of column and row."""
    if re.fullmatch(r"[a-s][a-s]", text):
        return f"{text[0]}{ord(text[1]) - ord('a') + 1}"
    return text


def _search(node: Node) -> float | None:
    """How likely White wins, as the comment of a move says; None where it says nothing."""
    comment = _SEARCH.match(node_text(node, "C"))
    if comment is None:
        return None
    win, loss, draw = (float(each) for each in comment.groups()[:3])
    return (win + draw / 2) / (win + loss + draw) if 0.97 <= win + loss + draw <= 1.03 else None


def _of_red(white_wins: float | None, first: str) -> dict[Column, object]:
    if white_wins is None:
        return {}
    return {SEARCH_VALUE: np.float32(white_wins if first == "B" else 1 - white_wins)}
