"""Early stopping and limits: when a run has trained for long enough; what decides is in every checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hexshards.arguments import fit_fields
from hexshards.errors import escaped, nearest
from hexshards.training.options import HIGHER_IS_BETTER
from hexshards.training.tracking.records import entry
from hexshards.units import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a run, over all its starts; it ends with whichever comes first."""

    epochs: int
    samples: int | None = None
    time_s: float | None = None
    """Seconds at work. The last mini-epoch is cut short, so that its validation and checkpoint end in time too."""

    def __post_init__(self) -> None:
        fit_fields(self)
        for name, most in (("num_epochs", self.epochs), ("max_samples", self.samples), ("max_time_s", self.time_s)):
            if most is not None and not most > 0:
                raise ValueError(f"{escaped(name)} must be more than 0, got {most!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopping:
    """Early stopping: what makes a mini-epoch better than another; how long to wait for a better one (patience)."""

    metric: str = "val.loss"
    """A number of the mini-epoch's record, by its path: ``val.value_accuracy``, or a name that a hook adds."""
    patience: int | None = None
    """End the run after so many mini-epochs without a better one; None: never."""
    min_improvement: float = 0.0
    """What does not exceed the best by more is no better."""
    restore_best: bool = False
    """Give the trainer the best weights when the run ends."""

    def __post_init__(self) -> None:
        fit_fields(self)
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1, got {self.patience}")
        if not self.min_improvement >= 0:
            raise ValueError(f"min_improvement must not be negative, got {self.min_improvement}")

    def value(self, record: Mapping[str, Any]) -> float | None:
        """The metric in a record; None where it is not there, as in a mini-epoch without validation."""
        value = entry(record, self.metric)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    def better(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best; one that is not finite never is."""
        if not math.isfinite(value) or best is None:
            return math.isfinite(value)
        gain = value - best if self.metric.endswith(HIGHER_IS_BETTER) else best - value
        return gain > self.min_improvement


@dataclass(frozen=True, slots=True)
class Standing:
    """The best mini-epoch so far."""

    best: float | None = None
    """Its metric."""
    checkpoint: str | None = None
    """Name of its checkpoint."""
    waited: int = 0
    """Mini-epochs since, or since the dataset was another one."""

    def after(self, record: Mapping[str, Any], early: EarlyStopping, *, before: Mapping[str, Any]) -> Standing:
        """With one more mini-epoch, and the record before it. On a dataset that grew waiting begins anew."""
        value = early.value(record)
        if value is not None and early.better(value, self.best):
            return Standing(value, record["checkpoint"])
        same = before.get("dataset") in (None, record.get("dataset"))
        return Standing(self.best, self.checkpoint, (self.waited if same else 0) + 1)

    def exhausted(self, record: Mapping[str, Any], early: EarlyStopping) -> bool:
        """Whether patience ended with a mini-epoch. Raises ValueError where it lacks the metric but was validated."""
        if not record.get("val"):
            return False
        # a metric that somebody named is one to choose the best by, also where nothing waits for it
        if early.value(record) is None and (early.patience is not None or early.metric != EarlyStopping().metric):
            names = [f"val.{name}" for name in record["val"]]
            hint = nearest(early.metric, names) or f". It has {', '.join(map(escaped, names))}"
            raise ValueError(f"the metric {escaped(early.metric)} is not in a mini-epoch's record{hint}")
        return early.patience is not None and self.waited >= early.patience

    def why(self, early: EarlyStopping) -> str:
        """The reason of an early end, for a person."""
        best = f"{self.best:.4f} in {self.checkpoint}" if self.best is not None else "none was finite"
        return f"{early.metric} has not improved for {counted(self.waited, 'mini-epoch')}; the best: {best}"
