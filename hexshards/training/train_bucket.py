"""Train bucket: at most so many samples for each position; a mini-epoch that would exceed it waits for more positions.

KataGo's ``-max-train-bucket-per-new-data`` (its SelfplayTraining.md, python/train.py), as arithmetic: with P positions
chosen for the run's first epoch, and N added to the training split since the run began, no mini-epoch begins that could
end with more than ``per_position * (P + N)`` samples. It is a gate and nothing else: which samples come, and in what
order, is the same for a run that waited and for one that did not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from hexshards.errors import escaped
from hexshards.training.distributed import ProcessGroup
from hexshards.training.growing_data import GrowingData
from hexshards.training.protocols import CountsPositions, TrainLoader
from hexshards.units import counted

log = logging.getLogger(__name__)

LOOKS_S, HEARS_S = 3.0, 0.25
"""While it waits, a run looks at the dataset so often, and whether it is to end."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a train bucket counts from; a checkpoint keeps it."""

    samples: int
    """That the run had taken: 0, unless the limit was first given to a run that had begun."""
    chosen: int
    """Positions that the epoch of that moment drew from."""
    split: int
    """Positions that the training split had."""


@dataclass(frozen=True, slots=True)
class Level:
    """How full a train bucket is where a mini-epoch is to begin."""

    taken: int
    """Samples that were taken."""
    next: int
    """Samples that the mini-epoch may take."""
    positions: int
    """Positions for which they may be taken."""
    per_position: float

    @property
    def most(self) -> int:
        """Samples that may be taken for these positions."""
        return int(self._each * self.positions)

    @property
    def lacking(self) -> int:
        """Positions that must be added before the mini-epoch may begin; 0 where it may."""
        return max(0, -int(-(self.taken + self.next) // self._each) - self.positions)

    @property
    def _each(self) -> Fraction:
        return Fraction(str(self.per_position))  # as it was written: of floats 0.1 times 10 may be more than 1

    def __str__(self) -> str:
        """For a person, where positions are lacking."""
        taken = f"{counted(self.taken, 'sample')} of {counted(self.positions, 'position')} are taken"
        more = f"{self.lacking:,} more {'position lets' if self.lacking == 1 else 'positions let'}"
        return f"waits: {taken}; {more} the next mini-epoch begin"


class TrainBucket:
    """The train bucket of a run; without ``per_position`` it is never full, and keeps nothing.

    on_wait is told the level where waiting begins, and each time that the dataset is looked at.
    """

    def __init__(
        self,
        per_position: float | None,
        *,
        growing_data: GrowingData | None,
        process_group: ProcessGroup,
        on_wait: Callable[[Level], None] = lambda level: None,
    ) -> None:
        if per_position is not None and growing_data is None:
            raise ValueError("samples_per_position waits for a dataset to grow, which a mix does not: leave out one")
        if per_position is not None and not per_position > 0:
            raise ValueError(f"samples_per_position must be more than 0, got {per_position}")
        self.per_position, self.counts_from = per_position, None
        self._data, self._process_group, self._on_wait = growing_data, process_group, on_wait

    counts_from: Bucket | None
    """None before the first mini-epoch."""

    def admits(self, loader: TrainLoader, taken: int, next: int, leave: Callable[[], bool]) -> bool | None:
        """Whether a mini-epoch may begin at once. False: once it has waited for that; None: it is to be left.

        ``leave`` is asked again and again while it waits. Ranks agree.
        """
        level = self._level(loader, taken, next)
        if level is None or not level.lacking:
            return True
        log.info(escaped(str(level)))
        while level and level.lacking:
            self._on_wait(level)
            if self._leaves(leave):
                return None
            level = self._level(loader, taken, next)
        return False

    def _leaves(self, leave: Callable[[], bool]) -> bool:
        """Whether it is to be left before the next look."""
        for _ in range(round(LOOKS_S / HEARS_S)):
            if leave():
                return True
            time.sleep(HEARS_S)
        return False

    def _level(self, loader: TrainLoader, taken: int, next: int) -> Level | None:
        if self.per_position is None or self._data is None:
            return None
        known = loader.index.fingerprint
        if self.counts_from is None:
            chosen = loader.positions if isinstance(loader, CountsPositions) else loader.samples
            self.counts_from = Bucket(taken, chosen, self._data.positions(known))
        begun = self.counts_from
        # rank 0 looks, so that all see the same
        now = self._data.positions(known, now=True) if self._process_group.rank == 0 else None
        added = self._process_group.same(now) - begun.split
        return Level(taken - begun.samples, next, begun.chosen + added, self.per_position)
