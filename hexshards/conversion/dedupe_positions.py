"""Deduplicate positions: equal ones become one, with the mean of values and policies, and how many they were.

Legend of shapes: P rows, G groups of equal rows, E policy entries (a single move is one entry), C cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.game.columns import ORIGIN
from hexshards.game.positions import Positions, no_positions
from hexshards.game.symmetry import stone_words
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
    group_E: NDArray[np.int64]
    cell_E: NDArray[np.int64]
    weight_E: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.keys_G)

    def positions(self, rows: slice) -> Positions:
        """Some of the groups as positions; policies are distributions, all zero where none of a group had one."""
        first, last = np.searchsorted(self.group_E, [rows.start, rows.stop])
        policy = np.zeros((len(self.keys_G[rows]), self.side**2))
        policy[self.group_E[first:last] - rows.start, self.cell_E[first:last]] = self.weight_E[first:last]
        policy /= np.maximum(self.policies_G[rows], 1)[:, None]
        return Positions(
            side=self.side,
            policy=policy.astype(np.float16),
            value=(self.value_G[rows] / self.count_G[rows]).astype(np.float32),
            count=self.count_G[rows].astype(np.uint32),
            **{name: column[rows] for name, column in self.columns.items()},
        )


def merged(parts: Iterable[tuple[Positions, Words]], *, side: int, held: int) -> Merged:
    """All rows of the parts, merged; about ``held`` rows, or as many as there are groups, are held besides them."""
    equal = _none(side)
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


def _none(side: int) -> Merged:
    return _single(no_positions(side), np.zeros(0, dtype=np.uint64))


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
        group_E=rows,
        cell_E=cells,
        weight_E=weights,
    )


def _joined(parts: list[Merged]) -> Merged:
    """The groups of all parts, equal ones made one. What comes out does not depend on the order of the parts."""
    keys = np.concatenate([part.keys_G for part in parts])
    fields = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    value = np.concatenate([part.value_G for part in parts])
    words = [*stone_words(fields["stones"]).T, fields["player"]]
    # the last key of a lexsort counts most; equal keys of unequal stones, which hardly occur, stay apart
    rows = np.lexsort([value, *(fields[name] for name in reversed(ORIGIN)), *words[::-1], keys])
    new = np.zeros(len(rows), dtype=bool)
    new[:1] = True
    for column in (keys, *words):
        new[1:] |= column[rows[1:]] != column[rows[:-1]]
    first = np.flatnonzero(new)
    group = np.empty(len(rows), dtype=np.int64)
    group[rows] = np.cumsum(new) - 1
    entries = _entries(parts, group)
    return Merged(
        side=parts[0].side,
        keys_G=keys[rows[first]],
        columns={name: column[rows[first]] for name, column in fields.items()},
        count_G=_sums(np.concatenate([part.count_G for part in parts])[rows], first),
        value_G=_sums(value[rows], first),
        policies_G=_sums(np.concatenate([part.policies_G for part in parts])[rows], first),
        group_E=entries[0],
        cell_E=entries[1],
        weight_E=entries[2],
    )


def _entries(
    parts: list[Merged], group: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Policy entries with their new groups, those of one group and cell added up, sorted by both."""
    cells = parts[0].side ** 2
    starts = np.cumsum([0, *map(len, parts)])
    rows = np.concatenate([part.group_E + start for part, start in zip(parts, starts[:-1], strict=True)])
    place = group[rows] * cells + np.concatenate([part.cell_E for part in parts])
    weight = np.concatenate([part.weight_E for part in parts])
    order = np.lexsort([weight, place])
    place = place[order]
    first = np.flatnonzero(np.diff(place, prepend=-1))
    return place[first] // cells, place[first] % cells, _sums(weight[order], first)


def _sums(values: NDArray[Any], first: NDArray[np.int64]) -> NDArray[Any]:
    return np.add.reduceat(values, first) if len(first) else values[:0]
