"""Visit counts of a search (MCTS), sparse: of up to MAX_VISITED moves the cells and how often each was visited.

The column ``visits`` is uint16 (P, 2, K): a row holds cells and, below them, their counts, the most visited move first;
behind the last move both are 0, and everywhere where a position was not searched. The counts are kept as they are; what
a policy learns are their shares, each count over the sum of its row.
Legend of shapes: P positions, K = MAX_VISITED, C cells, E moves that were visited, of all positions one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.game.columns import MAX_VISITED, VISITS

MAX_COUNT = int(VISITS.high or 0)
"""Most visits of one move that the column holds."""

Visits = NDArray[np.uint16]


class Entries(NamedTuple):
    """Something of single cells of single positions."""

    row_E: NDArray[np.int64]
    cell_E: NDArray[np.int64]
    weight_E: NDArray[np.float64]


def visits_of(entries: Entries, *, rows: int) -> Visits:
    """The column of whole counts above 0, in any order; of more than K moves of a row the most visited stay.

    Of moves that were visited as often as one another that of the smaller cell comes first. The counts of a row in
    which one is above MAX_COUNT are scaled down together, to 1 or more each.
    """
    row_E, cell_E, count_E = entries
    most = np.ones(rows)
    np.maximum.at(most, row_E, count_E)
    scale = np.minimum(1, MAX_COUNT / most)[row_E]
    count_E = np.maximum(1, np.rint(count_E * scale))
    order = np.lexsort([cell_E, -count_E, row_E])
    row_E, cell_E, count_E = row_E[order], cell_E[order], count_E[order]
    place_E = np.arange(len(row_E)) - np.searchsorted(row_E, row_E)
    kept = np.flatnonzero(place_E < MAX_VISITED)
    visits = np.zeros((rows, 2, MAX_VISITED), dtype=np.uint16)
    visits[row_E[kept], 0, place_E[kept]] = cell_E[kept]
    visits[row_E[kept], 1, place_E[kept]] = count_E[kept]
    return visits


def visit_entries(visits: Visits) -> Entries:
    """The moves that were visited, and how often."""
    row_E, place_E = np.nonzero(visits[:, 1])
    return Entries(row_E, visits[row_E, 0, place_E].astype(np.int64), visits[row_E, 1, place_E].astype(np.float64))


def moved_visits(visits: Visits, cells: NDArray[np.int64]) -> Visits:
    """Visits with their cells where a symmetry sends them, each at its place in the row."""
    moved = visits.copy()
    moved[:, 0] = np.where(visits[:, 1] > 0, cells.astype(np.uint16)[visits[:, 0]], 0)
    return moved


Rule = tuple[str, NDArray[np.bool_], Callable[[int], object]]
"""A fault's name, the rows that have it, and what to say was found in a row."""


def visit_rules(visits: Visits, taken_PC: NDArray[np.bool_]) -> list[Rule]:
    """Faults of visits on boards whose cells are ``taken`` or free."""
    cells_PK, counts_PK = visits[:, 0].astype(np.int64), visits[:, 1].astype(np.int64)
    there = counts_PK > 0
    beyond = there & (cells_PK >= taken_PC.shape[1])
    on_stone = there & np.take_along_axis(taken_PC, np.where(beyond, 0, cells_PK), axis=1) & ~beyond
    # what is behind the last move gets a number of its own, so that only moves can be equal
    ordered = np.sort(np.where(there, cells_PK, -1 - np.arange(MAX_VISITED)), axis=1)
    twice = ordered[:, 1:] == ordered[:, :-1]
    rising = (np.diff(counts_PK, axis=1) > 0).any(axis=1) | (~there & (cells_PK > 0)).any(axis=1)

    def first(bad: NDArray[np.bool_], cells: NDArray[np.int64]) -> Callable[[int], object]:
        return lambda row: f"cell {cells[row][bad[row]][0]}"

    return [
        ("visits of a cell beyond the board", beyond.any(axis=1), first(beyond, cells_PK)),
        ("visits on an occupied cell", on_stone.any(axis=1), first(on_stone, cells_PK)),
        ("visits of a move twice", twice.any(axis=1), first(twice, ordered[:, 1:])),
        ("visits not from the most to the least", rising, lambda row: f"counts {counts_PK[row].tolist()}"),
    ]
