"""Timing of a run: how long in all its starts, how fast a mini-epoch goes, how much of it waits for data."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs from its making, or from its last restart, on."""

    def __init__(self) -> None:
        self.restart()

    def restart(self, *, before_s: float = 0.0) -> None:
        """Run anew; ``before_s`` are the seconds that earlier starts of the run took."""
        self._begun_s = time.monotonic() - before_s
        self.closing_s = 0.0
        """What the last mini-epoch took to validate and save."""
        self.begin_lap(0)

    def used_s(self) -> float:
        """Seconds of this start and those before."""
        return time.monotonic() - self._begun_s

    def begin_lap(self, samples_seen: int) -> None:
        """A mini-epoch begins, or goes on."""
        self._lap_s, self._lap_samples, self._waited_s = time.monotonic(), samples_seen, 0.0
        self._shown_s = -math.inf

    def measured(self, samples_seen: int) -> bool:
        """Whether anything was trained since the lap began; where nothing was, there is no speed to tell."""
        return samples_seen > self._lap_samples

    def samples_per_s(self, samples_seen: int) -> float:
        """Speed since the lap began."""
        return (samples_seen - self._lap_samples) / self._since_lap_s()

    def waiting(self) -> float:
        """Share of the lap's time that was spent waiting for the next batch, 0 to 1."""
        return self._waited_s / self._since_lap_s()

    @contextmanager
    def waited(self) -> Iterator[None]:
        """Count what happens inside as waiting."""
        start_s = time.monotonic()
        try:
            yield
        finally:
            self._waited_s += time.monotonic() - start_s

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Count what happens inside as the end of a mini-epoch."""
        start_s = time.monotonic()
        yield
        self.closing_s = time.monotonic() - start_s

    def due(self, interval_s: float) -> bool:
        """Whether ``interval_s`` seconds have passed since it last was, or the lap has just begun."""
        now_s = time.monotonic()
        if now_s - self._shown_s < interval_s:
            return False
        self._shown_s = now_s
        return True

    def _since_lap_s(self) -> float:
        return max(time.monotonic() - self._lap_s, 1e-9)
