"""Learning rate schedules: a function of the samples all ranks have seen, and of nothing else, so batches may vary."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import torch

from hexshards.errors import escaped
from hexshards.training.options import StepSpec

log = logging.getLogger(__name__)

ONE_CYCLE_RISE = 0.3
"""Share of the samples over which a single cycle rises."""

ONE_CYCLE_START = 1 / 25
"""Share of the learning rate at which it begins."""


def share(samples: int, spec: StepSpec, *, length: int) -> float:
    """Share of the learning rate for the step that brings the samples seen to ``samples``.

    length: what ``schedule_samples`` means, in samples.
    """
    if spec.schedule == "one-cycle":
        top = ONE_CYCLE_RISE * length
        if samples < top:
            return _fall(1.0, ONE_CYCLE_START, 1.0 - samples / top)
        return _fall(1.0, spec.schedule_factor, _done(samples, start=top, end=length))
    warm = min(1.0, samples / spec.warmup_samples) if spec.warmup_samples else 1.0
    if spec.schedule == "cosine":
        return warm * _fall(1.0, spec.schedule_factor, _done(samples, start=spec.warmup_samples, end=length))
    if spec.schedule == "step":
        # the first ``length`` samples are at the full rate, the last of them included
        return float(warm * spec.schedule_factor ** ((samples - 1) // length))
    return warm


class Schedule:
    """Learning rate scheduler: sets an optimiser's rate before each step, by the samples seen.

    Raises ValueError for a schedule that needs ``schedule_samples`` and has none.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, spec: StepSpec) -> None:
        if spec.schedule != "constant" and not spec.schedule_samples:
            raise ValueError(f"schedule {escaped(spec.schedule)} needs schedule_samples")
        self.optimizer, self.spec = optimizer, spec
        self.samples, self.length = 0, spec.schedule_samples
        # exactly 1 where a group has the rate itself
        self._factors = [group["lr"] / spec.learning_rate for group in optimizer.param_groups]

    def advance(self, samples: int) -> None:
        """Set the rate of the step that brings the samples seen to ``self.samples + samples``."""
        self.samples += samples
        rate = self.spec.learning_rate * share(self.samples, self.spec, length=self.length)
        for group, factor in zip(self.optimizer.param_groups, self._factors, strict=True):
            group["lr"] = factor * rate

    def state_dict(self) -> dict[str, int]:
        """Samples seen, and over how many the schedule was laid out when the run began."""
        return {"samples": self.samples, "schedule_samples": self.length}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a state, with the shape it began with."""
        self.samples, length = state["samples"], state["schedule_samples"]
        if self.spec.schedule != "constant" and length != self.length:
            log.warning(
                "the learning rate's schedule stays at the %s samples this run was first planned for, not %s; "
                "to choose another, begin a run with --schedule-samples",
                f"{length:,}",
                f"{self.length:,}",
            )
        self.length = length


def _done(samples: float, *, start: float, end: float) -> float:
    """Progress from start to end, 0 to 1; a way of no length is done."""
    return min(1.0, max(0.0, (samples - start) / (end - start))) if end > start else float(samples > start)


def _fall(high: float, low: float, done: float) -> float:
    """Cosine decay: half a cosine from high to low."""
    return low + (high - low) * (1.0 + math.cos(math.pi * done)) / 2.0
