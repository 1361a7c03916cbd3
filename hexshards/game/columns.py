"""Column registry (schema): what a position may say of itself, each column declared once and walked by all others.

A block stores the columns in the order in which they stand here. Required columns are in every dataset, optional ones
where its index lists them; whoever asks a dataset for one that it lacks gets ``unknown``.
Legend of shapes: P positions, S side, C = S * S cells, W = ceil(2 * C / 8) bytes of packed stones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hexshards.errors import escaped
from hexshards.game.board import MAX_SIDE

Array = NDArray[Any]
Fields = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]

NO_POLICY = -1
"""Policy index of a position without a policy target: a final position."""

UNKNOWN = -1
"""``game``, ``plies`` or ``tier`` of a position whose file does not say."""

SUM_TOLERANCE = 1e-3
"""How far the sum of a policy may be from 1."""

Size = int | Literal["cells", "stone bytes"]
Symmetry = Literal["unchanged", "cells move", "visited cells move", "colours swap", "cells move, colours swap"]
"""What becomes of it when a board is shown in another symmetry: nothing; it is a cell, or has an entry a cell, and goes
where the cells go; so do the cells of visits, and their counts stay below them; it is seen from BLUE, and becomes
1 - value where colours swap; or both, packed stones alone."""

Merge = Literal["must agree", "first", "mean", "sum"]
"""What becomes of it where equal positions are merged: what they do not agree on is unknown; that of the first file and
line; mean or sum of those that say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Column declaration: one field of many positions."""

    name: str
    dtype: np.dtype[Any]
    size: tuple[Size, ...] = ()
    """Shape per position."""
    unknown: int | float | None = None
    """What a position holds that does not say; None: NaN in a column of fractions, and nothing in a required one."""
    symmetry: Symmetry = "unchanged"
    merge: Merge = "first"
    filterable: bool = False
    """Whether ``--where`` takes a range of it."""
    low: float | None = None
    high: float | None = None
    """The lowest and the highest number that it may hold, besides NaN where that is what is unknown; None: any."""
    doc: str = field(default="", compare=False)
    """In words, which may change: a column of an older index is the same one."""

    def shape(self, side: int) -> tuple[int, ...]:
        """Shape per position on boards of a side."""
        known = {"cells": side * side, "stone bytes": stone_bytes(side)}
        return tuple(known[each] if isinstance(each, str) else each for each in self.size)

    @property
    def optional(self) -> bool:
        """Whether a dataset may lack it."""
        return self.name.startswith("x_") or self in OPTIONAL

    @property
    def may_be_nan(self) -> bool:
        """Whether NaN says that it is unknown."""
        return self.unknown is None and self.dtype.kind == "f" and self.optional

    @property
    def bounds(self) -> str:
        """What a number is that it may not hold, in words."""
        if self.low is not None and self.high in (None, _LARGEST):
            return f"below {self.low:g} or not finite"
        return f"outside {self.low:g} to {self.high:g}" if self.low is not None and self.high is not None else "wrong"

    def within(self, column: Array) -> NDArray[np.bool_]:
        """Which numbers the column may hold."""
        fits = np.ones(column.shape, dtype=bool)
        if self.low is not None:
            fits &= column >= self.low
        if self.high is not None:
            fits &= column <= self.high
        return fits | np.isnan(column) if self.may_be_nan else fits

    def unknowns(self, rows: int, *, side: int) -> Array:
        """The column of so many positions that do not say."""
        return np.full((rows, *self.shape(side)), math.nan if self.unknown is None else self.unknown, self.dtype)


def stone_bytes(side: int) -> int:
    """W: bytes of one position's packed stones."""
    return (2 * side * side + 7) // 8


def _column(name: str, dtype: str, doc: str, **kinds: Any) -> Column:
    return Column(name=name, dtype=np.dtype(dtype), doc=doc, **kinds)


_LARGEST = float(np.finfo(np.float32).max)

STONES = _column(
    "stones",
    "u1",
    "bit plane*C + cell, most significant bit first, BLUE plane then RED",
    size=("stone bytes",),
    symmetry="cells move, colours swap",
    merge="must agree",
)
MOVE = _column(
    "policy",
    "<i2",
    "the cell of the target move, -1 for none",
    symmetry="cells move",
    merge="mean",
    low=NO_POLICY,
    unknown=NO_POLICY,
)
SOFT = _column(
    "policy",
    "<f2",
    "soft targets, all zero for none",
    size=("cells",),
    symmetry="cells move",
    merge="mean",
    low=0,
    high=1 + 2 * SUM_TOLERANCE,  # a policy's sum is allowed to be off, and float16 rounds it once more
    unknown=0,
)
SCALARS = (
    _column("player", "u1", "0 BLUE to move, 1 RED", symmetry="colours swap", merge="must agree", low=0, high=1),
    _column("value", "<f4", "0.0 BLUE wins, 1.0 RED wins", symmetry="colours swap", merge="mean", low=0, high=1),
    _column("source", "<u4", "the file the game came from, by its number in the index", low=0),
    _column("game", "<i4", "the line of the game in that file, -1 unknown", unknown=UNKNOWN, low=UNKNOWN),
    _column("ply", "<i2", "stones on the board", filterable=True, low=0),
    _column("plies", "<i2", "stones at the end of the game, -1 unknown", filterable=True, unknown=UNKNOWN, low=UNKNOWN),
    _column("tier", "i1", "hex_ai's value_sample_tier, -1 unknown", filterable=True, unknown=UNKNOWN, low=UNKNOWN),
)
COUNT = _column("count", "<u4", "how many equal positions this one stands for", merge="sum", unknown=1, low=1)
"""Only where equal positions were merged."""

SEARCH_VALUE = _column(
    "search_value",
    "<f4",
    "what a search said: 0.0 BLUE wins, 1.0 RED wins, NaN unknown",
    symmetry="colours swap",
    merge="mean",
    filterable=True,
    low=0,
    high=1,
)

GENERATION = _column(
    "generation", "<i4", "which network played, -1 unknown", unknown=UNKNOWN, filterable=True, low=UNKNOWN
)

MAX_VISITED = 32
"""Most moves of a position that have visit counts."""

VISITS = _column(
    "visits",
    "<u2",
    "up to 32 moves that a search visited, most visited first: cells, then how often each was; 0 behind them",
    size=(2, MAX_VISITED),
    symmetry="visited cells move",
    merge="sum",
    unknown=0,
    low=0,
    high=(1 << 16) - 1,
)
"""See hexshards.game.visits."""

OPTIONAL = (
    _column(
        "weight",
        "<f4",
        "how much the position counts in every loss",
        unknown=1,
        merge="mean",
        filterable=True,
        low=0,
        high=_LARGEST,
    ),
    _column(
        "policy_weight",
        "<f4",
        "how much it counts in the policy's loss, times its weight",
        unknown=1,
        merge="mean",
        filterable=True,
        low=0,
        high=_LARGEST,
    ),
    SEARCH_VALUE,
    GENERATION,
    VISITS,
)
"""Columns that a dataset may have besides; a third party's, whose names begin with ``x_``, are declared by its
converter."""

THIRD_PARTY = re.compile(r"x_[a-z0-9_]{1,40}")
"""Names of columns that a third party's converter brings."""

MAX_ROW_BYTES = 1024
"""Most that one third party's column may take of a position."""

FILTERABLE = tuple(column.name for column in (*SCALARS, *OPTIONAL) if column.filterable)

ORIGIN = tuple(column.name for column in SCALARS if column.merge == "first")
"""Columns that say where a position came from, the first of them counting most."""


@lru_cache(maxsize=256)
def declared(*, soft: bool, counted: bool = False) -> tuple[Column, ...]:
    """The required columns of a dataset, in the order in which a block stores them."""
    return (STONES, SOFT if soft else MOVE, *SCALARS, *((COUNT,) if counted else ()))


def fields_of(columns: Sequence[Column], side: int) -> Fields:
    """Name, dtype and shape per position of some columns."""
    return {column.name: (column.dtype, column.shape(side)) for column in columns}


def columns(side: int, *, soft: bool, counted: bool = False) -> Fields:
    """Name, dtype and shape per position of every required column, in the order in which a block stores them."""
    return fields_of(declared(soft=soft, counted=counted), side)


DERIVED = {"plies_left": ("plies", "ply")}
"""Columns that are reckoned from others when they are read."""

# optional columns ---------------------------------------------------------------------------------------------------


def known_optional(name: str) -> Column | None:
    """The optional column of a name that every release knows."""
    return next((column for column in OPTIONAL if column.name == name), None)


def in_order(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Optional columns, each once, in the order in which a block stores them. Raises ValueError for two of one name."""
    by_name: dict[str, Column] = {}
    for column in columns:
        other = by_name.setdefault(column.name, column)
        if other != column:
            raise ValueError(escaped(f"column {column.name} is declared twice: {_told(other)}, and {_told(column)}"))
    names = [column.name for column in OPTIONAL]
    return tuple(
        sorted(by_name.values(), key=lambda each: (names.index(each.name) if each.name in names else 99, each.name))
    )


def _told(column: Column) -> str:
    return ", ".join(f"{name} {value}" for name, value in entry_of(column).items() if name not in ("name", "doc"))


def entry_of(column: Column) -> dict[str, Any]:
    """An optional column as JSON says it."""
    kept = {name: getattr(column, name) for name in ("name", "symmetry", "merge", "filterable", "doc")}
    bounds = {name: None if (bound := getattr(column, name)) is None else float(bound) for name in ("low", "high")}
    fraction = column.dtype.kind == "f" and column.unknown is not None
    unknown = float(column.unknown or 0) if fraction else column.unknown
    return {**kept, **bounds, "dtype": column.dtype.str, "size": list(column.size), "unknown": unknown}


def column_of(entry: Mapping[str, Any]) -> Column:
    """The optional column that an entry describes. Raises ValueError, in words, for what none can be."""
    try:
        dtype = np.dtype(str(entry["dtype"]))
    except TypeError:
        raise ValueError(f"column {escaped(entry['name'])} is of no dtype of NumPy") from None
    column = Column(**{**entry, "dtype": dtype, "size": tuple(entry["size"])})
    if fault := fault_of(column):
        raise ValueError(escaped(fault))
    return column


def fault_of(column: Column) -> str:
    """Why a dataset cannot have this optional column; nothing where it can."""
    name, known = column.name, known_optional(column.name)
    if known:
        return "" if column == known else f"column {name} is not as hexshards declares it ({_told(known)})"
    if not THIRD_PARTY.fullmatch(name):
        return f"column {name!r} is none of hexshards' own, and a third party's is named x_ and small letters"
    if column.dtype.str not in _DTYPES:
        return f"column {name} is of dtype {column.dtype}, and may be one of {', '.join(_DTYPES)}"
    if not all(each == "cells" or (isinstance(each, int) and 1 <= each <= MAX_ROW_BYTES) for each in column.size):
        return f"column {name} has the size {column.size}, and may have numbers of 1 to {MAX_ROW_BYTES:,} and 'cells'"
    # a shape is reckoned for the largest board
    if len(column.size) > 2 or column.dtype.itemsize * math.prod(column.shape(MAX_SIDE)) > 4 * MAX_ROW_BYTES:
        return f"column {name} takes more than {MAX_ROW_BYTES:,} numbers of a position, or has more than 2 axes"
    return _contradiction(column)


def _contradiction(column: Column) -> str:
    name, whole, per_cell = column.name, column.dtype.kind in "iu", column.size == ("cells",)
    if column.symmetry == "cells move" and not (per_cell or (whole and not column.size)):
        return f"column {name} moves with the cells, so it is one entry a cell, or the number of a cell"
    if column.symmetry in ("cells move, colours swap", "visited cells move"):
        return f"column {name} cannot be packed as stones or visits are"
    if column.symmetry == "cells move" and not column.size and (column.low != NO_POLICY or column.dtype.kind != "i"):
        return f"column {name} is the number of a cell, so its lowest is -1, for none"
    if whole and column.merge == "mean":
        return f"column {name} is of whole numbers, which have no mean: merge it as first, sum or must agree"
    if whole and not (isinstance(column.unknown, int) and _fits(column.unknown, column.dtype)):
        return f"column {name} is of whole numbers, so it needs one of them for unknown"
    if column.filterable and column.size:
        return f"column {name} has more than one number a position, so it cannot be filtered by"
    return ""


def _fits(number: int, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return limits.min <= number <= limits.max


_DTYPES = ("|u1", "|i1", "<i2", "<i4", "<i8", "<f2", "<f4")
