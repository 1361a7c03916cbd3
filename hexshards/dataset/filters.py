"""Filter rows of a split; how many each block gives is known before the first is delivered.

A filter is counted once, when the loader is made: the columns it looks at are read from every block. From then on it
costs its share of each window that is read. Without a filter nothing but the index is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hexshards.dataset.blocks import Blocks, Columns
from hexshards.dataset.index import Index
from hexshards.errors import DataError, escaped, nearest, printable
from hexshards.game.columns import FILTERABLE, THIRD_PARTY
from hexshards.storage.files import Home
from hexshards.units import counted

_NUMBER = r"[0-9]{0,9}|[0-9]{1,9}\.[0-9]{1,6}"
_GRAMMAR = 'Write conditions like "ply=10..60, plies=30.., tier=1..2, source=games_0*|games_1*"'


@dataclass(frozen=True, slots=True)
class Filter:
    """Filter of positions: conditions on columns, all of which must be met. Who does not say meets none."""

    ranges: tuple[tuple[str, float, float | None], ...] = ()
    """Column, lowest and highest number; None: no highest."""
    files: tuple[str, ...] = ()
    """Names or globs of source files, one of which must match."""

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Parse ``column=value`` conditions between commas. Raises ValueError for other text."""
        conditions: dict[str, str] = {}
        for condition in filter(None, (part.strip() for part in text.split(","))):
            column, _, value = (part.strip() for part in condition.partition("="))
            known = column in (*FILTERABLE, "source") or THIRD_PARTY.fullmatch(column)
            if not known or not value or column in conditions:
                twice = " a second time" if column in conditions else ""
                hint = "" if known else nearest(column, (*FILTERABLE, "source"))
                raise ValueError(f"where: {printable(condition)!r} is no condition{twice}{hint or '.'} {_GRAMMAR}")
            conditions[column] = value
        files = conditions.pop("source", "")
        names = [*(name for name in FILTERABLE if name in conditions), *sorted(conditions.keys() - {*FILTERABLE})]
        ranges = tuple((name, *_range(name, conditions[name])) for name in names)
        return cls(ranges, tuple(sorted(filter(None, (name.strip() for name in files.split("|"))))))

    def __str__(self) -> str:
        parts = [f"{column}={low}..{'' if high is None else high}" for column, low, high in self.ranges]
        return ", ".join(parts + ([f"source={'|'.join(self.files)}"] if self.files else []))

    def __bool__(self) -> bool:
        return bool(self.ranges or self.files)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns it looks at."""
        return tuple(column for column, _, _ in self.ranges) + (("source",) if self.files else ())

    def keeps(self, columns: Columns, sources: Sequence[str]) -> NDArray[np.bool_]:
        """Which rows meet all conditions; ``sources`` are the names that the column ``source`` counts along."""
        met = np.ones(len(columns[self.columns[0]]), dtype=bool)
        for column, low, high in self.ranges:
            met &= columns[column] >= low
            if high is not None:
                met &= columns[column] <= high
        if self.files:
            named = np.array([*(_matches(name, self.files) for name in sources), False])
            met &= named[np.minimum(columns["source"], len(sources))]
        return met


class Selection:
    """The rows of a split that a filter keeps and, of these, an even share of at most ``limit`` positions.

    Every shard gives its share, rounded; conversion has shuffled what is in it, so its first rows are as good as any,
    and few blocks are read in vain. Raises ValueError where nothing is left.
    """

    def __init__(self, home: Home, index: Index, split: str, *, where: Filter, limit: int | None = None) -> None:
        self.home, self.index, self.where = home, index, where
        self.blocks = Blocks(home, index, split)
        kinds = index.layout.kinds
        if beyond := [name for name in where.columns if name not in kinds]:
            has = [each.name for each in kinds.values() if each.filterable]
            hint = nearest(beyond[0], has) or f". It can be filtered by {', '.join(map(escaped, has))} and source"
            raise ValueError(f"{escaped(home)}: where: there is no column {escaped(beyond[0])}{hint}")
        if beyond := [name for name, _, _ in where.ranges if not kinds[name].filterable]:
            raise ValueError(
                f"{escaped(home)}: where: the converter of {escaped(beyond[0])} does not declare it filterable"
            )
        kept = self._counted() if where else self.blocks.rows
        self.kept = int(kept.sum())
        self.block_rows = _even(kept, self.blocks.first, limit) if limit is not None else kept
        if not self.positions:
            matching = f" that meets {str(where)!r}" if where else ""
            raise ValueError(
                f"{escaped(home)}: split {escaped(split)} has no position{matching}. "
                "`hexshards info` shows what is there"
            )

    @property
    def total(self) -> int:
        """Positions in the split."""
        return int(self.blocks.rows.sum())

    @property
    def positions(self) -> int:
        """Positions that are used."""
        return int(self.block_rows.sum())

    def read(self, blocks: NDArray[np.int64], names: Sequence[str]) -> list[Columns | DataError]:
        """Columns of the rows that are used of some blocks, and ``place``, a number of its own for each position."""
        needed = tuple({*names, *self.where.columns})
        numbered = zip(blocks.tolist(), self.blocks.read(blocks, needed), strict=True)
        return [
            columns if isinstance(columns, DataError) else self._used(number, columns, names)
            for number, columns in numbered
        ]

    def places(self, block: int) -> NDArray[np.int64]:
        """A number for each position of a block, used or not, that is its own in the whole split."""
        first = block * self.index.layout.block_positions
        return np.arange(first, first + int(self.blocks.rows[block]))

    def __str__(self) -> str:
        meets, used = "meets" if self.kept == 1 else "meet", "is" if self.positions == 1 else "are"
        total, kept = counted(self.total, "position"), counted(self.kept, "position")
        parts = [f"{self.kept:,} of {total} {meets} {str(self.where)!r}"] if self.where else []
        if self.positions < self.kept:
            parts.append(f"{self.positions:,} of {kept} {used} used, evenly over the shards")
        return "; ".join(parts)

    def _used(self, block: int, columns: Columns, names: Sequence[str]) -> Columns:
        count = int(self.block_rows[block])
        rows: slice | NDArray[np.int64] = slice(count)
        if self.where:
            rows = np.flatnonzero(self.where.keeps(columns, self.index.sources))[:count]
        return {**{name: columns[name][rows] for name in names}, "place": self.places(block)[rows]}

    def _counted(self) -> NDArray[np.int64]:
        """Rows that the filter keeps of each block. Raises DataError for a damaged one, whatever is to be skipped.

        What was left of a damaged block could change when it is repaired, and with it the order that states are of.
        """
        sources = self.index.sources
        if self.where.files and not any(_matches(name, self.where.files) for name in sources):
            names = ", ".join(printable(name) for name in sources[:3]) + (", ..." if len(sources) > 3 else "")
            raise ValueError(
                f"{escaped(self.home)}: no source file matches {'|'.join(self.where.files)!r} (it has {names})"
            )
        counts = []
        for first, end in pairwise(self.blocks.first.tolist()):
            for columns in self.blocks.read(np.arange(first, end), self.where.columns):
                if isinstance(columns, DataError):
                    raise columns
                counts.append(np.count_nonzero(self.where.keeps(columns, sources)))
        return np.array(counts, dtype=np.int64)


def _even(rows: NDArray[np.int64], first_block: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Rows of each block, so that the shards give ``limit`` in all, in proportion, from their first blocks on."""
    before = np.concatenate([[0], np.cumsum(rows)])  # rows before each block
    ends = before[first_block]  # rows before each shard
    shares = np.diff(ends * min(limit, int(ends[-1])) // max(int(ends[-1]), 1))
    homes = np.repeat(np.arange(len(shares)), np.diff(first_block))
    left = shares[homes] - (before[:-1] - ends[homes])
    given: NDArray[np.int64] = np.clip(left, 0, rows)
    return given


def _range(column: str, text: str) -> tuple[float, float | None]:
    low, dots, high = (part.strip() for part in text.partition(".."))
    numbers = (low or "0", high if dots else low)
    if not (low or high) or not all(re.fullmatch(_NUMBER, number) for number in numbers):
        raise ValueError(f"where: {printable(text)!r} is no range of {escaped(column)}. {_GRAMMAR}")
    first, last = _number(numbers[0]), _number(numbers[1]) if numbers[1] else None
    if last is not None and last < first:
        raise ValueError(f"where: {escaped(column)}={printable(text)} holds no number. {_GRAMMAR}")
    return first, last


def _number(text: str) -> float:
    return float(text) if "." in text else int(text)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
