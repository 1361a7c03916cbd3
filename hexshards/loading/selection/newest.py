"""The newest rows: which of those that filters leave are in a window of so many, cut exactly in the oldest of them.

Additions only ever come behind, so the order of the shards is the order of time, and in a merged one that of its parts.
What one addition brought is shuffled over its shards: there a cut leaves some of its rows, as good as any. By
``generation`` a cut falls in the oldest generation instead, and of that the rows that came last are taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hexshards.dataset.blocks import Columns


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewestRows:
    """Which rows of each block are in the window, of those that filters leave."""

    rows: NDArray[np.int64]
    """How many each block has in it."""
    skip: NDArray[np.int64]
    """How many of each block are too old: its first ones, or its first ones of the oldest generation."""
    inside: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    """Of the blocks of a merged shard that the cut falls in: which of all their rows are not too old."""
    oldest: int | None = None
    """The oldest generation that is in it; None: time is the order of the shards."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that it looks at."""
        return () if self.oldest is None else ("generation",)

    def cut(self, block: int, columns: Columns, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those rows of a block that are in the window."""
        if block in self.inside:
            return rows[self.inside[block][rows]]
        skip = int(self.skip[block])
        if self.oldest is None:
            return rows[skip:]
        generation = columns["generation"][rows]
        inside = generation >= self.oldest
        inside[np.flatnonzero(generation == self.oldest)[:skip]] = False
        return rows[inside]


def newest_by_shard(kept: NDArray[np.int64], count: int) -> NewestRows:
    """The last ``count`` of the rows that the blocks keep."""
    skip = _first(kept, int(kept.sum()) - count)
    return NewestRows(rows=kept - skip, skip=skip)


def newest_by_age(newest: NewestRows, first: int, ages: Sequence[NDArray[np.int64]]) -> NewestRows:
    """As many rows of the shard that begins with block ``first``, the last ones by age instead of by place.

    ages: of each row of its blocks, -1 for those that filters leave out.
    """
    blocks = slice(first, first + len(ages))
    youngest = np.sort(np.concatenate(ages))[-int(newest.rows[blocks].sum())]
    inside = {first + number: each >= youngest for number, each in enumerate(ages)}
    rows, kept = newest.rows.copy(), newest.rows + newest.skip
    rows[blocks] = [np.count_nonzero(each) for each in inside.values()]
    return replace(newest, rows=rows, skip=kept - rows, inside=inside)


@dataclass(slots=True)
class Generations:
    """Counts of generations, block by block: 12 bytes for each generation of a block."""

    numbers: list[NDArray[np.int32]] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)

    def add(self, block: int, generation: NDArray[np.int32]) -> None:
        """Count the rows of a block, those that filters leave."""
        numbers, counts = np.unique(generation, return_counts=True)
        self.numbers.append(numbers)
        self.counts.append(counts)
        self.blocks.append(block)

    def newest(self, count: int, *, blocks: int) -> NewestRows:
        """The window of ``count`` rows, at most as many as there are, over so many blocks."""
        numbers, counts = np.concatenate(self.numbers), np.concatenate(self.counts)
        homes = np.repeat(self.blocks, [len(each) for each in self.numbers])
        each, places = np.unique(numbers, return_inverse=True)
        totals = np.bincount(places, weights=counts).astype(np.int64)
        newer = totals[::-1].cumsum()[::-1]  # rows of a generation and of those after it
        oldest = int(np.flatnonzero(newer >= count)[-1])
        inside, at_edge = places > oldest, places == oldest
        edge = np.bincount(homes[at_edge], weights=counts[at_edge], minlength=blocks).astype(np.int64)
        skip = _first(edge, int(newer[oldest]) - count)
        rows = np.bincount(homes[inside], weights=counts[inside], minlength=blocks).astype(np.int64)
        return NewestRows(rows=rows + edge - skip, skip=skip, oldest=int(each[oldest]))


def _first(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many of the first ``count`` rows of all blocks lie in each."""
    first: NDArray[np.int64] = np.clip(count - (np.cumsum(rows) - rows), 0, rows)
    return first
