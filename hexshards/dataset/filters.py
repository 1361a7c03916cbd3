"""Filter rows of a split; how many each block gives is known before the first is delivered.

A filter is counted once, when the loader is made: the columns it looks at are read from every block. From then on it
costs its share of each window that is read. Without a filter nothing but the index is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from hexshards.dataset.blocks import Blocks, Columns, Map
from hexshards.dataset.index import Index
from hexshards.dataset.shard_range import shards_in
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
        return cls(ranges, _names(files))

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
    """The rows of some shards of a split that filters keep and, of these, an even share of at most ``limit`` positions.

    Every shard gives its share, rounded; conversion has shuffled what is in it, so its first rows are as good as any,
    and few blocks are read in vain. ``sources`` is a filter beside ``where``; ``shards`` is as shards_in takes it.
    Raises ValueError where nothing is left.
    """

    def __init__(
        self,
        home: Home,
        index: Index,
        split: str,
        *,
        where: Filter,
        limit: int | None = None,
        sources: str = "",
        shards: str = "",
    ) -> None:
        self.home, self.index, self.where = home, index, where
        self.blocks = Blocks(home, index, split)
        self.sources = Filter(files=_names(sources))
        self.shards, self._named_shards = shards_in(shards, len(self.blocks.shards)), bool(shards.strip())
        self.filters = tuple(each for each in (where, self.sources) if each)
        self._check(self.filters)
        kept = self._counted()
        self.kept = int(kept.sum())
        if not self.kept:
            meets = f" that meets {self._said()}" if self.filters else ""
            raise ValueError(
                f"{escaped(home)}: split {escaped(split)} has no position{escaped(meets)}. "
                "`hexshards info` shows what is there"
            )
        self.block_rows = _even(kept, self.blocks.first, limit) if limit is not None else kept

    @property
    def total(self) -> int:
        """Positions in the split."""
        return int(self.blocks.rows.sum())

    @property
    def positions(self) -> int:
        """Positions that are used."""
        return int(self.block_rows.sum())

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that say which rows are used."""
        return tuple(dict.fromkeys(name for each in self.filters for name in each.columns))

    def rows_in(self, epoch: int) -> NDArray[np.int64]:
        """Rows that each block gives in an epoch; those of this one are the same in all."""
        return self.block_rows

    def read(
        self, blocks: NDArray[np.int64], names: Sequence[str], *, epoch: int = 0, mapped: Map = map
    ) -> list[Columns | DataError]:
        """Columns of the rows that an epoch uses of some blocks, and ``place``, a number of each position's own.

        Blocks are decoded as ``mapped`` does it.
        """
        needed = tuple({*names, *self.columns})
        numbered = zip(blocks.tolist(), self.blocks.read(blocks, needed, mapped=mapped), strict=True)
        return [
            columns if isinstance(columns, DataError) else self._used(number, columns, names, epoch)
            for number, columns in numbered
        ]

    def places(self, block: int) -> NDArray[np.int64]:
        """A number for each position of a block, used or not, that is its own in the whole split."""
        first = block * self.index.layout.block_positions
        return np.arange(first, first + int(self.blocks.rows[block]))

    def __str__(self) -> str:
        parts = self._filtered()
        if self.positions < self.kept:
            parts.append(self._used_of(self.kept))
        return "; ".join(parts)

    def _filtered(self) -> list[str]:
        """Describe in words what shards and filters leave."""
        parts, of = [], counted(self.total, "position")
        shards = self.blocks.shards
        # said of all of them too: of one shard, any share from 0% on is the whole
        if self._named_shards:
            names = " to ".join(dict.fromkeys(shards[self.shards[place]].name for place in (0, -1)))
            held = sum(shards[shard].positions for shard in self.shards.tolist())
            are = "is" if held == 1 else "are"
            parts.append(f"{held:,} of {of} {are} in {len(self.shards):,} of {counted(len(shards), 'shard')}, {names}")
            of = counted(held, "position")
        if self.filters:
            parts.append(f"{self.kept:,} of {of} {'meets' if self.kept == 1 else 'meet'} {self._said()}")
        return parts

    def _used_of(self, count: int) -> str:
        are = "is" if self.positions == 1 else "are"
        return f"{self.positions:,} of {counted(count, 'position')} {are} used, evenly over the shards"

    @property
    def chosen(self) -> bool:
        """Whether shards or filters choose anything."""
        return bool(self.filters) or len(self.shards) < len(self.blocks.shards)

    def _said(self) -> str:
        return " and ".join(repr(str(each)) for each in self.filters)

    def _check(self, filters: Sequence[Filter]) -> None:
        """Raise ValueError where a filter names what is not there."""
        kinds, names = self.index.layout.kinds, self.index.sources
        asked = [name for each in filters for name, _, _ in each.ranges]
        if beyond := [name for name in asked if name not in kinds]:
            has = [each.name for each in kinds.values() if each.filterable]
            hint = nearest(beyond[0], has) or f". It can be filtered by {', '.join(map(escaped, has))} and source"
            raise ValueError(f"{escaped(self.home)}: where: there is no column {escaped(beyond[0])}{hint}")
        if beyond := [name for name in asked if not kinds[name].filterable]:
            raise ValueError(
                f"{escaped(self.home)}: where: the converter of {escaped(beyond[0])} does not declare it filterable"
            )
        for each in filters:
            if each.files and not any(_matches(name, each.files) for name in names):
                there = ", ".join(printable(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
                hint = nearest(re.sub(r"[*?\[\]]", "", each.files[0]), names) if len(each.files) == 1 else ""
                raise ValueError(
                    f"{escaped(self.home)}: no source file matches {'|'.join(each.files)!r} "
                    f"(it has {there}){escaped(hint)}"
                )

    def _used(self, block: int, columns: Columns, names: Sequence[str], epoch: int) -> Columns:
        rows = self._rows(block, columns, epoch)
        return {**{name: columns[name][rows] for name in names}, "place": self.places(block)[rows]}

    def _rows(self, block: int, columns: Columns, epoch: int) -> slice | NDArray[np.int64]:
        """Select the rows of a block that an epoch uses."""
        count = int(self.block_rows[block])
        return self._meeting(columns)[:count] if self.filters else slice(count)

    def _meeting(self, columns: Columns) -> NDArray[np.int64]:
        """Select the rows that meet the filters, of which there is one at least."""
        return np.flatnonzero(np.logical_and.reduce([each.keeps(columns, self.index.sources) for each in self.filters]))

    def _counted(self) -> NDArray[np.int64]:
        """Rows of each block that are in the shards and meet the filters.

        Raises DataError for a damaged one, whatever is to be skipped: what was left of a damaged block could change
        when it is repaired, and with it the order that states are of.
        """
        counts = np.zeros(len(self.blocks), dtype=np.int64)
        for shard in self.shards.tolist():
            members = np.arange(self.blocks.first[shard], self.blocks.first[shard + 1])
            counts[members] = self.blocks.rows[members]
            for block, columns in self._columns_of(members, self.columns) if self.filters else ():
                counts[block] = len(self._meeting(columns))
        return counts

    def _columns_of(self, blocks: NDArray[np.int64], names: Sequence[str]) -> Iterator[tuple[int, Columns]]:
        """Columns of whole blocks, to choose rows by. Raises DataError for a damaged one."""
        for block, columns in zip(blocks.tolist(), self.blocks.read(blocks, names), strict=True):
            if isinstance(columns, DataError):
                raise columns
            yield block, columns


def even_shares(rows: NDArray[np.int64], first_block: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Rows of each shard, ``limit`` in all where there are so many, in proportion to those that its blocks have."""
    ends = np.concatenate([[0], np.cumsum(rows)])[first_block]  # rows before each shard
    shares: NDArray[np.int64] = np.diff(ends * min(limit, int(ends[-1])) // max(int(ends[-1]), 1))
    return shares


def _even(rows: NDArray[np.int64], first_block: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Limit the rows of each block: the shards give ``limit`` in all, in proportion, from their first blocks on."""
    before = np.concatenate([[0], np.cumsum(rows)])  # rows before each block
    shares = even_shares(rows, first_block, limit)
    homes = np.repeat(np.arange(len(shares)), np.diff(first_block))
    left = shares[homes] - (before[:-1] - before[first_block][homes])
    given: NDArray[np.int64] = np.clip(left, 0, rows)
    return given


def _names(text: str) -> tuple[str, ...]:
    """Parse names or globs between strokes; sorted."""
    return tuple(sorted(filter(None, (name.strip() for name in text.split("|")))))


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
