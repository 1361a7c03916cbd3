"""Deduplicate positions: equal ones become one, with the mean of values and policies, and how many they were.

Legend of shapes: P rows, G groups of equal rows, E policy entries (a single move is one entry), C cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.game.columns import ORIGIN, VISITS, Column
from hexshards.game.positions import Positions, no_positions
from hexshards.game.symmetry import stone_words
from hexshards.game.visits import Entries, visit_entries, visits_of
from hexshards.rng import Words


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Merged:
    """Groups of equal positions in the order of their keys; what they sum to so far, sparse where policies are."""

    side: int
    keys_G: Words
    columns: dict[str, NDArray[Any]]
    """stones and player of each group, and the origin that comes first: the smallest file, then line."""
    count_G: NDArray[np.int64]
    value_G: NDArray[np.float64]
    """Sum of the values."""
    policies_G: NDArray[np.int64]
    """How many had a policy."""
    policy: Entries
    """Sums of the policies, ``row_E`` ascending."""
    visits: Entries
    """Sums of the visits; none where the column is not there."""
    optional: dict[Column, dict[str, NDArray[Any]]]
    """What optional columns come to so far, by their rules; visits to nothing here."""

    def __len__(self) -> int:
        return len(self.keys_G)

    def positions(self, rows: slice) -> Positions:
        """Some of the groups as positions; policies are distributions, all zero where none of a group had one."""
        row_E, cell_E, weight_E = _within(self.policy, rows)
        policy = np.zeros((len(self.keys_G[rows]), self.side**2))
        policy[row_E, cell_E] = weight_E
        policy /= np.maximum(self.policies_G[rows], 1)[:, None]
        return Positions(
            side=self.side,
            policy=policy.astype(np.float16),
            value=(self.value_G[rows] / self.count_G[rows]).astype(np.float32),
            count=self.count_G[rows].astype(np.uint32),
            **{name: column[rows] for name, column in self.columns.items()},
            optional={
                kind: visits_of(_within(self.visits, rows), rows=len(self.keys_G[rows]))
                if kind == VISITS
                else _result(kind, {name: part[rows] for name, part in parts.items()}).astype(kind.dtype)
                for kind, parts in self.optional.items()
            },
        )


def merged(
    parts: Iterable[tuple[Positions, Words]], *, side: int, held: int, optional: Sequence[Column] = ()
) -> Merged:
    """All rows of the parts, merged; about ``held`` rows, or as many as there are groups, are held besides them."""
    equal = _single(no_positions(side).having(optional), np.zeros(0, dtype=np.uint64))
    for batch in _batches(parts, held):
        equal = _joined([equal, *batch])
    return equal


def _batches(parts: Iterable[tuple[Positions, Words]], held: int) -> Iterator[list[Merged]]:
    batch: list[Merged] = []
    for positions, keys in parts:
        batch.append(_single(positions, keys))
        if sum(map(len, batch)) >= held:
            yield batch
            batch = []
    yield batch


def _single(positions: Positions, keys: Words) -> Merged:
    """Every row as a group of its own."""
    policy = positions.policy
    if positions.soft:
        rows, cells = np.nonzero(policy)
        weights = policy[rows, cells].astype(np.float64)
    else:
        rows = np.flatnonzero(policy >= 0)
        cells, weights = policy[rows].astype(np.int64), np.ones(len(rows))
    return Merged(
        side=positions.side,
        keys_G=keys,
        columns={name: getattr(positions, name) for name in ("stones", "player", *ORIGIN)},
        count_G=np.ones(len(keys), dtype=np.int64),
        value_G=positions.value.astype(np.float64),
        policies_G=np.bincount(np.unique(rows), minlength=len(keys)),
        policy=Entries(rows, cells, weights),
        visits=visit_entries(positions.optional[VISITS]) if VISITS in positions.optional else _NO_ENTRIES,
        optional={kind: {} if kind == VISITS else _state(kind, column) for kind, column in positions.optional.items()},
    )


_NO_ENTRIES = Entries(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))


def _within(entries: Entries, rows: slice) -> Entries:
    """The entries of some rows, counted from the first of them."""
    first, last = np.searchsorted(entries.row_E, [rows.start, rows.stop])
    return Entries(entries.row_E[first:last] - rows.start, entries.cell_E[first:last], entries.weight_E[first:last])


def _joined(parts: list[Merged]) -> Merged:
    """The groups of all parts, equal ones made one. What comes out does not depend on the order of the parts."""
    keys = np.concatenate([part.keys_G for part in parts])
    fields = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    value = np.concatenate([part.value_G for part in parts])
    states = {
        kind: {name: np.concatenate([part.optional[kind][name] for part in parts]) for name in state}
        for kind, state in parts[0].optional.items()
    }
    # rows that differ in nothing else are put in order by these, so that sums are of one order
    besides = [words for state in states.values() for part in state.values() for words in _row_words(part)]
    words = [*stone_words(fields["stones"]).T, fields["player"]]
    # the last key of a lexsort counts most; equal keys of unequal stones, which hardly occur, stay apart
    rows = np.lexsort([*besides, value, *(fields[name] for name in reversed(ORIGIN)), *words[::-1], keys])
    new = np.zeros(len(rows), dtype=bool)
    new[:1] = True
    for column in (keys, *words):
        new[1:] |= column[rows[1:]] != column[rows[:-1]]
    first = np.flatnonzero(new)
    group = np.empty(len(rows), dtype=np.int64)
    group[rows] = np.cumsum(new) - 1
    starts = np.cumsum([0, *map(len, parts)])[:-1]
    places = [group[start : start + len(part)] for part, start in zip(parts, starts.tolist(), strict=True)]
    return Merged(
        side=parts[0].side,
        keys_G=keys[rows[first]],
        columns={name: column[rows[first]] for name, column in fields.items()},
        count_G=_sums(np.concatenate([part.count_G for part in parts])[rows], first),
        value_G=_sums(value[rows], first),
        policies_G=_sums(np.concatenate([part.policies_G for part in parts])[rows], first),
        policy=_summed([part.policy for part in parts], places, parts[0].side),
        visits=_summed([part.visits for part in parts], places, parts[0].side),
        optional={
            kind: {name: _REDUCED[name](part[rows], first) for name, part in state.items()}
            for kind, state in states.items()
        },
    )


def _summed(parts: list[Entries], groups: list[NDArray[np.int64]], side: int) -> Entries:
    """Entries with the new groups of their rows, those of one group and cell added up, sorted by both."""
    cells = side**2
    place = np.concatenate([group[part.row_E] * cells + part.cell_E for part, group in zip(parts, groups, strict=True)])
    weight = np.concatenate([part.weight_E for part in parts])
    order = np.lexsort([weight, place])
    place = place[order]
    first = np.flatnonzero(np.diff(place, prepend=-1))
    return Entries(place[first] // cells, place[first] % cells, _sums(weight[order], first))


def _state(kind: Column, column: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What single rows say, so that it can be reduced over any rows, and these once more."""
    if kind.merge == "first":
        return {"first": column}
    if kind.merge == "must agree":
        return {"low": column, "high": column}
    says = ~np.isnan(column) if kind.may_be_nan else np.ones(column.shape, dtype=bool)
    return {"sum": np.where(says, column, 0).astype(np.float64), "said": says.astype(np.int64)}


def _result(kind: Column, state: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """What a column of merged rows holds."""
    if kind.merge == "first":
        return state["first"]
    unknown = math.nan if kind.unknown is None else kind.unknown
    if kind.merge == "must agree":
        return np.where(state["low"] == state["high"], state["low"], unknown)
    total = state["sum"] / np.maximum(state["said"], 1) if kind.merge == "mean" else state["sum"]
    return np.where(state["said"] > 0, total, unknown)


def _row_words(part: NDArray[Any]) -> Iterator[Words]:
    """Words by which equal rows are equal."""
    yield from stone_words(np.ascontiguousarray(part).reshape(len(part), -1).view(np.uint8)).T if len(part) else ()


def _first_rows(values: NDArray[Any], first: NDArray[np.int64]) -> NDArray[Any]:
    return values[first]


def _least(values: NDArray[Any], first: NDArray[np.int64]) -> NDArray[Any]:
    return np.minimum.reduceat(values, first) if len(first) else values[:0]


def _most(values: NDArray[Any], first: NDArray[np.int64]) -> NDArray[Any]:
    return np.maximum.reduceat(values, first) if len(first) else values[:0]


def _sums(values: NDArray[Any], first: NDArray[np.int64]) -> NDArray[Any]:
    return np.add.reduceat(values, first) if len(first) else values[:0]


_REDUCED = {"first": _first_rows, "low": _least, "high": _most, "sum": _sums, "said": _sums}
