"""Diagrams: a position as Hex players know it, a rhombus of hexagons with stones, as SVG.

Columns have letters and rows numbers; BLUE's edges are at the top and the bottom, RED's left and right. Legend of
shapes: C = side * side cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hexshards.drawing.svg import FONT, Element, element, label, number, picture, points
from hexshards.game.board import BLUE, NEIGHBOURS, RED
from hexshards.game.columns import NO_POLICY, VISITS

if TYPE_CHECKING:
    from hexshards.game.positions import Positions

RADIUS = 10.0
"""Of a hexagon, from its middle to a corner, in pixels."""

ACROSS = RADIUS * math.sqrt(3)
"""From one column to the next."""

DOWN = RADIUS * 1.5
"""From one row to the next; each stands half a column further to the right."""

MARGIN = 2.2 * RADIUS
"""Around the middles of the outermost cells, with letters and numbers in it."""

COLOURS = ("#2b6cb0", "#c0392b")
"""Of BLUE and RED."""

NAMES = ("BLUE", "RED")

FAINTEST = 0.005
"""A share of a policy that is still shown."""

ACROSS_SHEET = 4
"""Diagrams in a row of a sheet."""

MOST_SHOWN = 8
"""Diagrams of a sheet, where more are there."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Diagram:
    """What is on a board, and what is marked on it."""

    side: int
    stones: NDArray[np.int64]
    """(C,): 0 BLUE, 1 RED, -1 none."""
    player: int = BLUE
    """Who is to move, in whose colour the target is."""
    target: int = NO_POLICY
    """The cell to learn, -1 for none."""
    heat: NDArray[Any] | None = None
    """(C,): how strongly a cell is shaded, 0 to 1."""
    last: int = NO_POLICY
    """The cell of the last stone, -1 unknown."""
    path: Sequence[int] = ()
    """Cells of a chain that connects."""
    labels: Mapping[int, str] = field(default_factory=dict)
    """A few letters in a cell."""
    tones: NDArray[np.int64] | None = None
    """(C,): whose colour the shade of a cell has, 0 BLUE, 1 RED; None: the colour of neither."""
    title: str = "a Hex board"


def diagram_of(positions: Positions, row: int, *, last: int = NO_POLICY) -> Diagram:
    """One of some positions: its target move, visits or soft policy, or the chain that won a finished game."""
    stones = _stones(positions.take(slice(row, row + 1)).planes()[0])
    policy = positions.policy[row]
    player, side = int(positions.player[row]), positions.side
    soft = np.asarray(policy, dtype=np.float32) if positions.soft else None
    target = int(policy) if soft is None else int(soft.argmax()) if soft.any() else NO_POLICY
    return Diagram(
        side=side,
        stones=stones,
        player=player,
        target=target,
        heat=_heat(_visited(positions, row)) if VISITS in positions.optional else _heat(soft),
        last=last,
        path=connecting_path(stones, side) if target == NO_POLICY else (),
        title=caption_of(positions, row),
    )


def _heat(share: NDArray[Any] | None) -> NDArray[Any] | None:
    """Shares of cells as shades; None where there are not several of them."""
    return share / share.max() if share is not None and np.count_nonzero(share) > 1 else None


def _visited(positions: Positions, row: int) -> NDArray[Any]:
    """How often a search visited each cell: (C,)."""
    cells, counts = positions.optional[VISITS][row].astype(np.int64)
    return np.bincount(cells, weights=counts, minlength=positions.side**2)


def from_planes(board: NDArray[Any], policy: NDArray[Any]) -> Diagram:
    """A sample as a network sees it: board (3, S, S), policy (C,)."""
    stones, side = _stones(board[:2] > 0.5), board.shape[-1]
    player = int(board[2].flat[0] > 0.5)
    return Diagram(
        side=side,
        stones=stones,
        player=player,
        target=int(policy.argmax()) if policy.any() else NO_POLICY,
        heat=_heat(policy),
        title=f"{NAMES[player]} to move",
    )


def _stones(planes: NDArray[Any]) -> NDArray[np.int64]:
    blue, red = (plane.ravel().astype(bool) for plane in planes)
    return np.where(blue, BLUE, np.where(red, RED, -1))


def last_moves(positions: Positions) -> NDArray[np.int64]:
    """The cell of the last stone of each position, -1 where the position before it is not among them: (P,)."""
    moves = np.full(len(positions), NO_POLICY)
    order = np.lexsort((positions.ply, positions.game, positions.source))
    before, after = order[:-1], order[1:]
    follows = (positions.source[before] == positions.source[after]) & (positions.game[before] == positions.game[after])
    follows &= (positions.ply[after] == positions.ply[before] + 1) & (positions.game[after] >= 0)
    before, after = before[follows], after[follows]
    added = positions.stones[before] ^ positions.stones[after]
    one = np.bitwise_count(added).sum(axis=1) == 1
    bits = np.unpackbits(added[one], axis=1).argmax(axis=1)
    moves[after[one]] = bits % positions.side**2
    return moves


def connecting_path(stones: NDArray[np.int64], side: int) -> tuple[int, ...]:
    """A shortest chain of one player's stones from one of its edges to the other; empty where nobody connects."""
    return _path(stones, side, BLUE) or _path(stones, side, RED)


def _path(stones: NDArray[np.int64], side: int, player: int) -> tuple[int, ...]:
    line = [at if player == BLUE else at * side for at in range(side)]
    came_from = {cell: -1 for cell in line if stones[cell] == player}
    waiting = list(came_from)
    for cell in waiting:
        if (cell // side if player == BLUE else cell % side) == side - 1:
            return tuple(_back(came_from, cell))
        for near in _near(cell, side):
            if stones[near] == player and near not in came_from:
                came_from[near] = cell
                waiting.append(near)
    return ()


def _back(came_from: Mapping[int, int], cell: int) -> Iterator[int]:
    while cell >= 0:
        yield cell
        cell = came_from[cell]


def _near(cell: int, side: int) -> Iterator[int]:
    row, col = divmod(cell, side)
    for down, right in NEIGHBOURS:
        if 0 <= row + down < side and 0 <= col + right < side:
            yield (row + down) * side + col + right


# drawing ------------------------------------------------------------------------------------------------------------


def draw(diagram: Diagram, *, shared: bool = False) -> Element:
    """A diagram as a picture. ``shared``: the empty board is that of ``shared_board``, once on the same page."""
    side = diagram.side
    empty = element("use", href=f"#{_board_id(side)}") if shared else _empty(side)
    return picture(*size(side), [empty, *_marks(diagram)], title=diagram.title, class_="hex-board", font_family=FONT)


def size(side: int) -> tuple[float, float]:
    """Width and height of a diagram."""
    return (side - 1) * 1.5 * ACROSS + 2 * MARGIN + ACROSS / 2, (side - 1) * DOWN + 2 * MARGIN


def shared_board(side: int) -> Element:
    """What diagrams on a page share: their empty board, itself not seen."""
    return element("svg", element("defs", _named_board(side)), width=0, height=0, aria_hidden="true", class_="hex-defs")


def _named_board(side: int) -> Element:
    board = _empty(side)
    board.set("id", _board_id(side))
    return board


def sheet(diagrams: Sequence[tuple[Diagram, str]], *, side: int) -> Element:
    """Several diagrams of one side as one picture, each with a line of words below it."""
    width, height = size(side)
    height += 2 * RADIUS
    board = element("use", href=f"#{_board_id(side)}")
    parts = [element("defs", _named_board(side))]
    for place, (diagram, caption) in enumerate(diagrams):
        row, col = divmod(place, ACROSS_SHEET)
        words = label(width / 2, height - RADIUS, caption, class_="hex-caption", **{**_WORDS, "font_size": 11.0})
        at = f"translate({number(col * width)} {number(row * height)})"
        parts.append(element("g", board, *_marks(diagram), words, transform=at))
    across, down = min(max(len(diagrams), 1), ACROSS_SHEET), -(-len(diagrams) // ACROSS_SHEET)
    return picture(across * width, down * height, parts, title="Hex boards", class_="hex-sheet", font_family=FONT)


def sheet_of(positions: Positions, *, most: int = MOST_SHOWN) -> Element:
    """The first of some positions as one picture."""
    last = last_moves(positions)
    shown = range(min(len(positions), most))
    return sheet(
        [(diagram_of(positions, row, last=int(last[row])), caption_of(positions, row)) for row in shown],
        side=positions.side,
    )


def sheet_of_planes(boards: NDArray[Any], policies: NDArray[Any], values: NDArray[Any]) -> Element:
    """Samples as a network sees them as one picture: boards (P, 3, S, S), policies (P, C), values (P, 1)."""
    rows = zip(boards, policies, values, strict=True)
    diagrams = [(from_planes(board, policy), float(value[0])) for board, policy, value in rows]
    shown = [(each, f"{each.title} · {winner_of(value)}") for each, value in diagrams]
    return sheet(shown, side=boards.shape[-1])


def caption_of(positions: Positions, row: int) -> str:
    """Ply, who is to move and who won, in a few words."""
    return f"ply {positions.ply[row]} · {_turn(positions, row)} · {winner_of(float(positions.value[row]))}"


def winner_of(value: float) -> str:
    """Who won, or how often RED did where several games were merged."""
    return f"{NAMES[int(value)]} wins" if value in (0, 1) else f"RED wins {value:.0%}"


def _turn(positions: Positions, row: int) -> str:
    return f"{NAMES[int(positions.player[row])]} to move"


_WORDS: dict[str, object] = {"text_anchor": "middle", "fill": "#777", "font_size": 9.0}


def _board_id(side: int) -> str:
    return f"hex-board-{side}"


def place_of(cell: int, side: int) -> tuple[float, float]:
    """The middle of a cell, in pixels from the upper left corner of a diagram."""
    row, col = divmod(cell, side)
    return _place(row, col)


def _place(row: float, col: float) -> tuple[float, float]:
    return MARGIN + ACROSS / 4 + (col + row / 2) * ACROSS, MARGIN + row * DOWN


def _corner(row: float, col: float, number: int) -> tuple[float, float]:
    """A corner of a hexagon: 0 at the top, then clockwise."""
    x, y = _place(row, col)
    angle = math.pi / 3 * number - math.pi / 2
    return x + RADIUS * math.cos(angle), y + RADIUS * math.sin(angle)


def _hexagon(cell: int, side: int) -> str:
    row, col = divmod(cell, side)
    return "M" + " ".join(points([_corner(row, col, corner)]) for corner in range(6)) + "Z"


def _empty(side: int) -> Element:
    return element("g", *_edges(side), _cells(side), *_coordinates(side))


def _cells(side: int) -> Element:
    return element(
        "path",
        d=_grid(side),
        class_="hex-cells",
        fill="#f4f0e6",
        stroke="#b5ad9c",
        stroke_width=0.8,
    )


@cache
def _grid(side: int) -> str:
    return "".join(_hexagon(cell, side) for cell in range(side * side))


def _edges(side: int) -> Iterator[Element]:
    """The players' edges, which meet in the middle of the sides of the two sharp corners."""
    end = side - 1
    top = [_corner(0, col, corner) for col in range(side) for corner in (5, 0)]
    right = [_corner(row, end, corner) for row in range(side) for corner in (1, 2)]
    bottom = [_corner(end, col, corner) for col in reversed(range(side)) for corner in (2, 3)]
    left = [_corner(row, 0, corner) for row in reversed(range(side)) for corner in (4, 5)]
    upper, lower = _middle(top[-1], right[0]), _middle(bottom[-1], left[0])
    for player, line in (
        (BLUE, [*top, upper]),
        (RED, [upper, *right]),
        (BLUE, [*bottom, lower]),
        (RED, [lower, *left]),
    ):
        yield element(
            "polyline",
            points=points(line),
            class_=f"hex-edge-{NAMES[player].lower()}",
            fill="none",
            stroke=COLOURS[player],
            stroke_width=5.5,
            stroke_linejoin="round",
        )


def _middle(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2


def _coordinates(side: int) -> Iterator[Element]:
    style: dict[str, object] = {"class_": "hex-coordinate", **_WORDS}
    for at in range(side):
        x, y = _place(-1.1, at)
        yield label(x + 1, y + 4, chr(ord("a") + at), **style)
        x, y = _place(at, -1.15)
        yield label(x - 1, y + 3.2, at + 1, **style)


def _marks(diagram: Diagram) -> Iterator[Element]:
    yield from _shades(diagram)
    for cell in np.flatnonzero(diagram.stones >= 0).tolist():
        yield _stone(cell, diagram.side, int(diagram.stones[cell]))
    if len(diagram.path):
        line = points(place_of(cell, diagram.side) for cell in diagram.path)
        yield element(
            "polyline",
            points=line,
            class_="hex-path",
            fill="none",
            stroke="#fff",
            stroke_width=2.0,
            stroke_linecap="round",
            stroke_linejoin="round",
        )
    if diagram.last >= 0:
        x, y = place_of(diagram.last, diagram.side)
        yield element("circle", cx=x, cy=y, r=2.4, class_="hex-last", fill="#fff")
    if diagram.target >= 0:
        yield from _target(diagram)
    for cell, said in diagram.labels.items():
        x, y = place_of(cell, diagram.side)
        yield label(x, y + 2.7, said, class_="hex-label", text_anchor="middle", fill="#222", font_size=7.6)


def _stone(cell: int, side: int, player: int) -> Element:
    x, y = place_of(cell, side)
    return element("circle", cx=x, cy=y, r=0.7 * RADIUS, class_=f"hex-{NAMES[player].lower()}", fill=COLOURS[player])


def _target(diagram: Diagram) -> Iterator[Element]:
    x, y = place_of(diagram.target, diagram.side)
    colour, kind = COLOURS[diagram.player], f"hex-target-{NAMES[diagram.player].lower()}"
    yield element("circle", cx=x, cy=y, r=0.58 * RADIUS, class_=kind, fill="none", stroke=colour, stroke_width=2.2)


def _shades(diagram: Diagram) -> Iterator[Element]:
    if diagram.heat is None:
        return
    for cell in np.flatnonzero(diagram.heat > FAINTEST).tolist():
        tone = -1 if diagram.tones is None else int(diagram.tones[cell])
        yield element(
            "path",
            d=_hexagon(cell, diagram.side),
            class_="hex-heat" if tone < 0 else f"hex-{NAMES[tone].lower()}",
            fill="#d69e2e" if tone < 0 else COLOURS[tone],
            fill_opacity=float(diagram.heat[cell]) * 0.9,
        )
