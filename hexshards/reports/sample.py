"""A sample of a split: whole blocks drawn by a seed. Conversion shuffled all positions, so any blocks are a fair share.

What is said of a sample is said of the whole by arithmetic that does not depend on how large the sample is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hexshards.dataset.blocks import Blocks
from hexshards.dataset.codec import encode
from hexshards.dataset.index import Index
from hexshards.dataset.leakage import board_keys
from hexshards.errors import DataError
from hexshards.game.positions import Positions, concat
from hexshards.game.symmetry import upright
from hexshards.reports.options import ReportSpec
from hexshards.rng import MOST, REPORTS, Words, permutation
from hexshards.storage.files import Home

_TOGETHER = 16
"""Blocks read at a time."""

_KEYED = 1 << 14
"""Positions whose boards are compared at a time."""

_ENCODED = 4
"""Blocks whose columns are compressed once more to learn their sizes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Positions of some blocks of a split, all columns."""

    split: str
    positions: Positions
    total: int
    """Positions of the whole split."""
    total_by_ply: NDArray[np.int64]
    column_bytes: dict[str, float]
    """Bytes that a position takes of each column, as it is compressed."""
    index: Index

    @property
    def whole(self) -> bool:
        """Whether nothing of the split is missing."""
        return len(self.positions) == self.total

    @cached_property
    def keys(self) -> Words:
        """A word for each position, equal for equal boards in any symmetry."""
        # turned boards of all at once would be as large as the sample, soft policies and all
        parts = (self.positions.take(slice(at, at + _KEYED)) for at in range(0, len(self.positions), _KEYED))
        return np.concatenate([board_keys(part, self.index) for part in parts])

    @cached_property
    def upright(self) -> Positions:
        """The positions with the colours of a game that BLUE began."""
        return upright(self.positions) if self.index.baked else self.positions

    @cached_property
    def games(self) -> NDArray[np.int64]:
        """Rows of positions, one of each game that is named: (G,)."""
        known = np.flatnonzero(self.positions.game >= 0)
        names = self.positions.source[known].astype(np.int64) << 32 | self.positions.game[known]
        return known[np.unique(names, return_index=True)[1]]

    def drawn(self, count: int, seed: int, step: int) -> NDArray[np.int64]:
        """Some rows, at random and in their order."""
        rows = permutation(min(len(self.positions), MOST), seed, REPORTS, step)[:count]
        return np.sort(rows)


def read_sample(
    home: Home, index: Index, split: str, spec: ReportSpec, *, progress: Callable[[int], None] = lambda done: None
) -> Sample:
    """Blocks of a split, until they hold as many positions as the spec says. Raises DataError for a damaged one."""
    blocks, names = Blocks(home, index, split), tuple(index.layout.columns())
    chosen, parts, done = np.sort(blocks.drawn(spec.sample, spec.seed, REPORTS)), list[Positions](), 0
    for first in range(0, len(chosen), _TOGETHER):
        for columns in blocks.read(chosen[first : first + _TOGETHER], names):
            if isinstance(columns, DataError):
                raise columns
            parts.append(Positions.of(index.side, columns, index.layout.optional))
            done += len(parts[-1])
        progress(done)
    return Sample(
        split=split,
        positions=concat(parts),
        total=index.splits[split].positions,
        total_by_ply=np.array(index.splits[split].plies),
        column_bytes=_column_bytes(parts[:_ENCODED], index),
        index=index,
    )


def _column_bytes(parts: list[Positions], index: Index) -> dict[str, float]:
    sizes = dict.fromkeys(index.layout.columns(), 0)
    for part in parts:
        for name, column in part.columns().items():
            sizes[name] += len(encode(column, codec=index.layout.codec))
    rows = sum(map(len, parts))
    return {name: size / rows for name, size in sizes.items()}
