"""Optional keys of an example become optional columns: weight, policy_weight, search_value, and the counts of a search.

``visits`` is an array of a whole number for each cell, how often a search visited the move; at most 32 of them are not
0. What is not there, or None, is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.pickles.machine import Array
from hexshards.conversion.pickles.scanner import DictsOfKind
from hexshards.conversion.pickles.templates import Template
from hexshards.game.columns import MAX_VISITED, OPTIONAL, VISITS, Column
from hexshards.game.visits import MAX_COUNT, Entries, Visits, visits_of

NUMBERS = tuple(column for column in OPTIONAL if column.name in ("weight", "policy_weight", "search_value"))
"""Columns that an example may have a number for, under their names."""

KEYS = tuple(column.name for column in (*NUMBERS, VISITS))

Columns = dict[Column, NDArray[Any]]


def columns_of(stated: Sequence[Mapping[str, Any]]) -> Columns:
    """The columns of what examples state, a dict of numbers and counts each; none of what nobody states."""
    unknown = {kind: math.nan if kind.unknown is None else float(kind.unknown) for kind in NUMBERS}
    columns: Columns = {
        kind: np.array([each.get(kind.name, unknown[kind]) for each in stated])
        for kind in NUMBERS
        if any(kind.name in each for each in stated)
    }
    counted = [row for row, each in enumerate(stated) if VISITS.name in each]
    if counted:
        counts = np.stack([stated[row][VISITS.name] for row in counted])
        columns[VISITS] = visits_of_counts(counts, np.array(counted), rows=len(stated))
    return columns


def visits_of_counts(counts_PC: NDArray[Any], row_P: NDArray[np.int64], *, rows: int) -> Visits:
    """Visits of the rows that have counts, a number for each cell; of the other rows none."""
    place, cell = np.nonzero(counts_PC)
    return visits_of(Entries(row_P[place], cell, counts_PC[place, cell].astype(np.float64)), rows=rows)


def count_faults(counts_PC: NDArray[Any]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Why counts are none, and of which rows."""
    with np.errstate(invalid="ignore"):
        whole = (counts_PC >= 0) & (counts_PC <= MAX_COUNT) & (counts_PC == np.floor(counts_PC))
    many = np.count_nonzero(counts_PC, axis=1) > MAX_VISITED
    return [
        (f"visits are not whole numbers from 0 to {MAX_COUNT}", np.asarray(~whole.all(axis=1))),
        (f"visits of more than {MAX_VISITED} moves: keep the most visited", many),
    ]


class OptionalReaders:
    """Where the optional keys of a kind of example lie, for many examples at once."""

    def __init__(self, template: Template, cells: int) -> None:
        self.template, self.cells = template, cells
        self.present = [key for key in KEYS if template.example.get(key) is not None]

    @property
    def plain(self) -> bool:
        """Whether all are numbers and arrays that can be read by their bytes."""
        return all(self._plain(key) for key in self.present)

    def _plain(self, key: str) -> bool:
        value, leaves = self.template.example[key], self.template.leaves
        if key != VISITS.name:
            return type(value) is float and (key,) in leaves
        array = isinstance(value, Array) and value.numeric and not value.fortran and list(value.shape) == [self.cells]
        return array and value.dtype[1:] != "b1" and (key, "data") in leaves

    def read(self, dicts: DictsOfKind, rows: slice) -> tuple[Columns, NDArray[np.bool_]]:
        """The columns of some of the examples, and which of these must be looked at one at a time."""
        count = len(dicts.starts[rows])
        columns, odd = Columns(), np.zeros(count, dtype=bool)
        for kind in NUMBERS:
            if kind.name in self.present:
                columns[kind] = dicts.floats(self.template.leaves[kind.name,])[rows]
                odd |= ~np.isfinite(columns[kind])
        if VISITS.name in self.present:
            dtype = self.template.example[VISITS.name].dtype
            counts = dicts.blobs(self.template.leaves[VISITS.name, "data"], rows).view(dtype)
            for _, bad in count_faults(counts):
                odd |= bad
            sound = np.flatnonzero(~odd)
            columns[VISITS] = visits_of_counts(counts[sound], sound, rows=count)
        return columns, odd


def taken(columns: Columns, rows: NDArray[Any] | slice) -> Columns:
    """Some rows of the columns."""
    return {kind: column[rows] for kind, column in columns.items()}
