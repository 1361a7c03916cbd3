"""Diagrams as SVG: a rhombus of hexagons with letters, numbers and the players' edges, and what is marked on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hexshards.drawing.svg import FONT, Element, element, label, number, picture, points
from hexshards.game.board import BLUE, RED
from hexshards.game.diagram import NAMES, Diagram, caption_of, diagram_of, from_planes, last_moves, winner_of

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

FAINTEST = 0.005
"""A share of a policy that is still shown."""

ACROSS_SHEET = 4
"""Diagrams in a row of a sheet."""

MOST_SHOWN = 8
"""Diagrams of a sheet, where more are there."""


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
