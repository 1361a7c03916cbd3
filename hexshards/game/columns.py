"""The registry of columns: what a position may say of itself, each column declared once and walked by everyone else.

A block stores the columns in the order in which they stand here. Required columns are in every dataset, optional ones
where its index lists them; whoever asks a dataset for one that it lacks gets ``unknown``.
Legend of shapes: P positions, S side, C = S * S cells, W = ceil(2 * C / 8) bytes of packed stones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Fields = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]

NO_POLICY = -1
"""Policy index of a position without a policy target: a final position."""

UNKNOWN = -1
"""``game``, ``plies`` or ``tier`` of a position whose file does not say."""

SUM_TOLERANCE = 1e-3
"""How far the sum of a policy may be from 1."""

Size = int | Literal["cells", "stone bytes"]
Symmetry = Literal["unchanged", "cells move", "colours swap", "cells move, colours swap"]
"""What becomes of it when a board is shown in another symmetry: nothing; it is a cell, or has an entry a cell, and goes
where the cells go; it is seen from BLUE, and becomes 1 - value where colours swap; or both, packed stones alone."""

Merge = Literal["must agree", "first", "mean", "sum"]
"""What becomes of it where equal positions are merged: what they do not agree on is unknown; that of the first file and
line; mean or sum of those that say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One field of many positions."""

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
    low: float = -math.inf
    high: float = math.inf
    """The lowest and the highest number that it may hold, besides NaN where that is what is unknown."""
    doc: str = ""

    def shape(self, side: int) -> tuple[int, ...]:
        """Shape per position on boards of a side."""
        known = {"cells": side * side, "stone bytes": stone_bytes(side)}
        return tuple(known[each] if isinstance(each, str) else each for each in self.size)

    @property
    def may_be_nan(self) -> bool:
        """Whether NaN says that it is unknown."""
        return self.dtype.kind == "f" and self.unknown is None

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

OPTIONAL: tuple[Column, ...] = ()
"""Columns that a dataset may have besides; a third party's, whose names begin with ``x_``, are declared by its
converter."""

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
