"""Columns that were asked for beside a batch: they travel as bytes of packed rows and are shown in the row's symmetry.

Who asks for none carries none: rows have no bytes for them, and nothing of them is read.
Legend of shapes: B rows, C cells (side * side), E bytes of a row's extra columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hexshards.dataset.blocks import Columns
from hexshards.dataset.filters import Filter
from hexshards.errors import escaped, printable
from hexshards.game.columns import DERIVED, OPTIONAL, Column, in_order
from hexshards.loading.expansion.expand import Batch, BatchWithColumns, PackedWithColumns, Rows, cells_on

_THERE = ("stones", "player", "policy", "value")
_TYPES = {"u1": torch.uint8, "i1": torch.int8, "i2": torch.int16, "i4": torch.int32, "i8": torch.int64}
_TYPES |= {"f2": torch.float16, "f4": torch.float32, "u4": torch.int32, "u2": torch.int16}


@dataclass(frozen=True)
class ExtraColumns:
    """Which columns come with each batch, of boards of one side."""

    columns: tuple[Column, ...]
    side: int

    @cached_property
    def record(self) -> np.dtype[Any]:
        """All of them of one row."""
        return np.dtype([(each.name, each.dtype, each.shape(self.side)) for each in self.columns])

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the columns that are read for them."""
        return tuple(dict.fromkeys(name for each in self.columns for name in DERIVED.get(each.name, (each.name,))))

    def packed(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Columns as records, a row each: (B,)."""
        rows = np.empty(len(columns[self.reads[0]]), dtype=self.record)
        for each in self.columns:
            rows[each.name] = _plies_left(columns) if each.name == "plies_left" else columns[each.name]
        return rows

    def shown(self, rows: PackedWithColumns) -> dict[str, torch.Tensor]:
        """The columns of rows by their names, on the device where the rows are, each row in its symmetry."""
        bytes_BE = _tensor(as_bytes(rows.columns))
        symmetry = _tensor(rows.symmetry).long()
        turned, start = {}, 0
        for each in self.columns:
            shape = each.shape(self.side)
            end = start + each.dtype.itemsize * prod(shape)
            # a copy: a row's bytes need not begin where its numbers could
            numbers = bytes_BE[:, start:end].clone(memory_format=torch.contiguous_format)
            column = numbers.view(_TYPES[each.dtype.str[1:]]).reshape(len(bytes_BE), *shape)
            turned[each.name] = self._turned(_unsigned(column, each), each, symmetry)
            start = end
        return turned

    def _turned(self, column: torch.Tensor, kind: Column, symmetry: torch.Tensor) -> torch.Tensor:
        if kind.symmetry == "colours swap":
            swapped = (symmetry >= 2).reshape(-1, *(1,) * (column.ndim - 1))
            return torch.where(swapped, 1 - column, column)
        if kind.symmetry not in ("cells move", "visited cells move"):
            return column
        table = cells_on(column.device, self.side)[symmetry]
        if kind.symmetry == "visited cells move":
            cells, counts = column[:, 0].long(), column[:, 1]
            moved = table.gather(1, cells).to(column.dtype)
            return torch.stack([torch.where(counts > 0, moved, column[:, 0]), counts], dim=1)
        if column.ndim == 2:
            return column.gather(1, table)
        moved = table.gather(1, column.long().clamp(min=0)[:, None])[:, 0]
        return torch.where(column >= 0, moved.to(column.dtype), column)


def extra_columns(names: Iterable[str], optional: Iterable[Column], required: Iterable[Column], *, side: int) -> Any:
    """The columns of these names, or None for no name.

    ``optional`` and ``required``: those of the datasets. Raises ValueError for a name that none of them has.
    """
    names = tuple(dict.fromkeys(names))
    known = {each.name: each for each in (*OPTIONAL, *required, *in_order(optional), *DERIVED_COLUMNS)}
    can = [name for name in known if name not in _THERE]
    for name in names:
        if name in _THERE:
            raise ValueError(f"columns: {escaped(name)} is in every batch already. Leave it out")
        if name not in known:
            raise ValueError(f"columns: there is no {printable(name)}. There are {', '.join(map(escaped, can))}")
    return ExtraColumns(tuple(known[name] for name in names), side) if names else None


def with_columns(batch: Batch, rows: Rows, extra: ExtraColumns | None) -> Batch | BatchWithColumns:
    """A batch, with the columns of its rows where there are any."""
    if extra is None or not isinstance(rows, PackedWithColumns):
        return batch
    return BatchWithColumns(*batch, extra.shown(rows))


def as_bytes(column: Any) -> Any:
    """Records as bytes of rows, (B, E), which a tensor can hold; any other column as it is."""
    if isinstance(column, torch.Tensor) or column.dtype.names is None:
        return column
    return np.ascontiguousarray(column).view(np.uint8).reshape(len(column), column.dtype.itemsize)


def _tensor(column: Any) -> torch.Tensor:
    return column if isinstance(column, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(column))


def _unsigned(column: torch.Tensor, kind: Column) -> torch.Tensor:
    if kind.dtype.str == "<u2":
        return column.int() & 0xFFFF
    return column.long() & 0xFFFFFFFF if kind.dtype.str == "<u4" else column


def _plies_left(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int16]:
    return np.where(columns["plies"] < 0, -1, columns["plies"] - columns["ply"]).astype(np.int16)


DERIVED_COLUMNS = (
    Column(name="plies_left", dtype=np.dtype("<i2"), unknown=-1, doc="stones still to come, -1 unknown"),
)


_FACTOR = r"[0-9]{1,6}(\.[0-9]{1,6})?|\.[0-9]{1,6}"

# weights by rule ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WeightRule:
    """Positions that meet a condition count so many times as much."""

    where: Filter
    factor: float


def weight_rules(text: str) -> tuple[WeightRule, ...]:
    """The rules that ``conditions:factor`` between commas state, conditions being those of ``where``.

    Raises ValueError for other text.
    """
    rules, conditions = list[WeightRule](), list[str]()
    for part in filter(None, (part.strip() for part in text.split(","))):
        condition, colon, factor = part.rpartition(":")
        conditions.append(condition if colon else part)
        if colon:
            if not condition:
                raise ValueError(f"weights: {printable(part)!r} is no condition and factor, such as ply=60..:2")
            rules.append(WeightRule(_conditions(conditions), _factor(factor.strip(), part)))
            conditions.clear()
    if conditions:
        raise ValueError(f"weights: {printable(conditions[-1])!r} has no factor. Write it like ply=60..:2")
    return tuple(rules)


def _factor(text: str, part: str) -> float:
    if re.fullmatch(_FACTOR, text):
        return float(text)
    rule = "0 or more, and with 0 a position does not count" if text.startswith("-") else "a number such as 2 or 0.5"
    raise ValueError(f"weights: the factor of {printable(part)!r} must be {rule}; got {printable(text)}")


def _conditions(conditions: Sequence[str]) -> Filter:
    try:
        return Filter.parse(",".join(conditions))
    except ValueError as error:
        raise ValueError(escaped(str(error).replace("where: ", "weights: ", 1))) from None


def check_rules(rules: Sequence[WeightRule], known: Mapping[str, Column]) -> None:
    """Raise ValueError for a rule over a column that no dataset has, or that cannot be filtered by."""
    for name in (name for rule in rules for name in rule.where.columns):
        if name not in known or not (known[name].filterable or name == "source"):
            can = ", ".join(each.name for each in known.values() if each.filterable)
            raise ValueError(
                f"weights: no position can be told by {printable(name)}. There are {escaped(can)} and source"
            )


def weighted(columns: Columns, rules: Sequence[WeightRule], sources: Sequence[str]) -> NDArray[np.float32]:
    """The column ``weight`` times the factors of all rules that a position meets."""
    weight = columns["weight"].astype(np.float32)
    for rule in rules:
        weight[rule.where.keeps(columns, sources)] *= np.float32(rule.factor)
    return weight
