"""Copies: how often a board is there, counted by pairs of equal boards, which a sample tells of the whole.

Two positions drawn at random are equal with the same chance in a sample and in all of it. With that chance p, a
position of N has (N - 1) p equal ones on average, so 1 + (N - 1) p is how often it is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexshards.reports.sample import Sample
from hexshards.rng import Words


@dataclass(frozen=True, kw_only=True, eq=False)
class Shared:
    """Positions of val that train shows too, in any symmetry."""

    rows: NDArray[np.int64]
    """In the sample of val."""
    twins: NDArray[np.int64]
    """For each of them, one of its rows in the sample of train."""
    late: int
    """Positions of val's sample with as many stones as the board has rows, or more."""
    late_shared: int
    late_copies: float
    """How often such a position is in the whole of train, on average: an estimate."""
    read: int
    """Positions of train that were compared."""
    exact: bool
    """Whether these are all of train, and val was read whole."""

    @property
    def late_share(self) -> float:
        """Share of val's late positions that train shows: counted, or of a part that was read estimated from above."""
        counted = self.late_shared / max(self.late, 1)
        return counted if self.exact else max(counted, min(1.0, self.late_copies))


def copies(keys: Words, total: int) -> float:
    """How often one of ``total`` things is there on average, from words of a sample of them; NaN of fewer than 2."""
    if len(keys) < 2:
        return float("nan")
    counts = np.unique(keys, return_counts=True)[1].astype(np.float64)
    pairs, all_pairs = float((counts * (counts - 1)).sum()), len(keys) * (len(keys) - 1.0)
    return 1 + max(total - 1, 0) * pairs / all_pairs


def copies_by_ply(sample: Sample) -> NDArray[np.float64]:
    """How often a position is in its split, by the stones on the board: (C + 1,), NaN where too few were read."""
    ply, keys = sample.positions.ply, sample.keys
    order = np.argsort(ply, kind="stable")
    ends = np.searchsorted(ply[order], np.arange(len(sample.total_by_ply) + 1))
    return np.array(
        [
            copies(keys[order[ends[at] : ends[at + 1]]], int(total))
            for at, total in enumerate(sample.total_by_ply.tolist())
        ]
    )


def copies_of_games(sample: Sample) -> float:
    """How often a game is there on average, by the boards on which games ended; NaN where there are none."""
    positions = sample.positions
    final = positions.ply == positions.plies
    total = round(float(final.sum()) * sample.total / max(len(positions), 1))
    return copies(sample.keys[final], total)


def shared(train: Sample, val: Sample) -> Shared:
    """Compare what was read of both splits."""
    order = np.argsort(train.keys, kind="stable")
    known = train.keys[order]
    first, end = (np.searchsorted(known, val.keys, side=side) for side in ("left", "right"))
    rows = np.flatnonzero(end > first)
    late = val.positions.ply >= val.index.side
    in_sample = float((end - first)[late].sum()) / max(int(late.sum()), 1)
    return Shared(
        rows=rows,
        twins=order[first[rows]],
        late=int(late.sum()),
        late_shared=int(late[rows].sum()),
        late_copies=in_sample * train.total / len(train.positions),
        read=len(train.positions),
        exact=train.whole and val.whole,
    )
