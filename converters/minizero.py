"""Games of MiniZero (https://github.com/rlglab/minizero) in its own SGF: what the search visited before each move.

``(;GM[hex_11x11]RE[1.000000]SZ[11];B[5]P[5:30,16:10]V[0.1]R[0];W[16]P[...]...)``: a move is ``y*SZ + x``, where row 0
lies at the bottom, B moves first and connects x = 0 to the last, and the neighbours of (x, y) are also (x+1, y+1) and
(x-1, y-1). Seen with x as the row from the top, and y counted from the right, that is the board here. P has the visits
of each move, or their shares (``visits``). A second move like the first is a swap of pieces. RE is 1 where B won, -1
where W did. V and R are passed over. After base_env.h and hex.cpp of its minizero/environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from hexshards.converters.game_lists import SWAP_PIECES, Game, spelled, visits_before
from hexshards.errors import printable
from hexshards.game.board import MAX_SIDE, move_name
from hexshards.game.columns import Column
from hexshards.game.validation import Reject

_COUNTS = re.compile(r"[0-9]{1,4}:[0-9.e+-]{1,20}(?:,[0-9]{1,4}:[0-9.e+-]{1,20}){0,399}")
_RETURN = re.compile(r"(-?1)(?:\.0*)?")

Node = Mapping[str, list[bytes]]


def game_of(nodes: list[Node], side: int, place: str, number: int) -> Game | Reject | str:
    """The game of a record's nodes."""
    moves, extras = list[str](), list[dict[Column, object]]()
    for node in nodes:
        colour = "B" if "B" in node else "W" if "W" in node else ""
        if not colour:
            continue
        text = node[colour][0].decode(errors="replace")
        if colour != "BW"[len(moves) % 2]:
            return "in which a player moves twice"
        if not re.fullmatch(r"[0-9]{1,4}", text) or len(moves) > MAX_SIDE**2:
            return Reject(place, "move that is no number", printable(text, width=20))
        moves.append(_name(int(text), side))
        visits = _visits(node, side)
        if visits is None:
            return Reject(place, "policy that is no list of moves and visits", f"before move {len(moves)}")
        extras.append(visits)
    swapped = len(moves) > 1 and moves[1] == moves[0]
    if swapped:
        moves[1] = SWAP_PIECES
    said = not swapped and any(extras)  # a search before a swap speaks of another board than the one after it
    won = _RETURN.fullmatch(node_text(nodes[0], "RE"))
    return Game(
        place=place,
        number=number,
        side=side,
        moves=spelled(moves),
        first_won=None if won is None else won[1] == "1",
        extras=[*extras, {}] if said else (),
    )


def node_text(node: Node, name: str) -> str:
    """The first value of a property; empty where there is none."""
    return node.get(name, [b""])[0].decode(errors="replace")


def _name(number: int, side: int) -> str:
    """The move's name here; a number beyond the board is one beyond it here too."""
    y, x = divmod(number, side)
    return move_name(x * side + side - 1 - y, side=side) if y < side else f"z{number}"


def _visits(node: Node, side: int) -> dict[Column, object] | None:
    """The visits before a move, as a row of the column; None where they are none."""
    text = node_text(node, "P").replace(" ", "")
    if not text:
        return {}
    if not _COUNTS.fullmatch(text):
        return None
    pairs = [entry.split(":") for entry in text.split(",")]
    try:
        count = np.array([float(each) for _, each in pairs])
    except ValueError:
        return None
    number = np.array([int(each) for each, _ in pairs])
    y, x = np.divmod(number, side)
    return visits_before(x * side + side - 1 - y, count, side=side)
