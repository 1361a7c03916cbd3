"""Piecewise schedules: a number is a pure function of the samples seen, given at points and between them by a kind.

``linear 0:0.1 500k:0.4``: 0.1 at the first sample, 0.4 from half a million on, and a line between them. Before the
first point it is that of the first, after the last that of the last.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, get_args

from hexshards.errors import escaped, printable
from hexshards.units import parse_count

Kind = Literal["constant", "linear", "step", "cosine"]
"""The number between two points: that of the first; on a line; that of the first; on half a cosine."""

MAX_POINTS, MAX_SAMPLES = 64, 10**15

EXAMPLE = "linear 0:0.1 500k:0.4"

_NUMBER = r"[0-9]{1,6}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}"


@dataclass(frozen=True, slots=True)
class Piecewise:
    """A number over the samples seen."""

    kind: Kind
    points: tuple[tuple[int, float], ...]
    """Samples and the number there, in their order; one at least."""

    def __str__(self) -> str:
        return " ".join([self.kind, *(f"{samples}:{_plain(value)}" for samples, value in self.points)])

    def at(self, samples: int) -> float:
        """The number once so many samples were seen."""
        before, after = self.points[0], self.points[-1]
        if samples <= before[0]:
            return before[1]
        if samples >= after[0]:
            return after[1]
        before, after = next(pair for pair in pairwise(self.points) if pair[0][0] <= samples < pair[1][0])
        done = (samples - before[0]) / (after[0] - before[0])
        if self.kind == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return before[1] if self.kind == "step" else before[1] + (after[1] - before[1]) * done

    @property
    def last(self) -> float:
        """The number at the end."""
        return self.points[-1][1]

    @property
    def most(self) -> float:
        """The largest number that it ever is."""
        return max(value for _, value in self.points)

    @property
    def least(self) -> float:
        """The smallest number that it ever is."""
        return min(value for _, value in self.points)


def fixed(value: float) -> Piecewise:
    """The same number at all times."""
    return Piecewise("constant", ((0, value),))


def _plain(value: float) -> str:
    """A number as it is read, without an exponent."""
    return f"{value:.9f}".rstrip("0").rstrip(".")


@lru_cache(maxsize=256)
def parsed(text: str, *, name: str) -> Piecewise:
    """The schedule that a text such as ``linear 0:0.1 500k:0.4`` describes. Raises ValueError, naming the option."""
    kind, *rest = text.split() or [""]
    try:
        points = tuple(_point(each) for each in rest)
    except ValueError:
        points = ()
    rises = all(low < high for (low, _), (high, _) in pairwise(points))
    fits = 1 <= len(points) <= (1 if kind == "constant" else MAX_POINTS)
    if kind not in get_args(Kind) or not rises or not fits:
        kinds = ", ".join(get_args(Kind))
        raise ValueError(
            f"{escaped(name)}: {printable(text)!r} is no schedule: write one of {escaped(kinds)}, then "
            f"samples:number at rising samples, "
            f"such as {EXAMPLE}"
        )
    return Piecewise(kind, points)  # type: ignore[arg-type]  # it is one of them


def _point(text: str) -> tuple[int, float]:
    samples, _, number = text.partition(":")
    if not re.fullmatch(_NUMBER, number):
        raise ValueError(escaped(text))
    count = parse_count(samples)
    if not 0 <= count <= MAX_SAMPLES:
        raise ValueError(escaped(text))
    return count, float(number)


def named(text: str, *, name: str) -> Mapping[str, Piecewise]:
    """Schedules by their names, out of ``policy=linear 0:0.1 500k:0.4, value=constant 0:1``. Raises ValueError."""
    schedules: dict[str, Piecewise] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, schedule = (each.strip() for each in part.rpartition("="))
        if not key or key in schedules:
            twice = " a second time" if key in schedules else ""
            raise ValueError(
                f"{escaped(name)}: {printable(part)!r} is no name and schedule{twice}: write it like A={EXAMPLE}"
            )
        schedules[key] = parsed(schedule, name=name)
    return schedules
