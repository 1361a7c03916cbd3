"""Diagrams: what stands on a board and what is marked on it, as Hex players draw positions; ``diagram_svg`` draws them.

Legend of shapes: C = side * side cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hexshards.game.board import BLUE, NEIGHBOURS, RED
from hexshards.game.columns import NO_POLICY, VISITS

if TYPE_CHECKING:
    from hexshards.game.positions import Positions

NAMES = ("BLUE", "RED")


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
    return np.bincount(cells, weights=counts, minlength=positions.side**2)[: positions.side**2]


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


def caption_of(positions: Positions, row: int) -> str:
    """Ply, who is to move and who won, in a few words."""
    return f"ply {positions.ply[row]} · {_turn(positions, row)} · {winner_of(float(positions.value[row]))}"


def winner_of(value: float) -> str:
    """Who won, or how often RED did where several games were merged."""
    return f"{NAMES[int(value)]} wins" if value in (0, 1) else f"RED wins {value:.0%}"


def _turn(positions: Positions, row: int) -> str:
    return f"{NAMES[int(positions.player[row])]} to move"
