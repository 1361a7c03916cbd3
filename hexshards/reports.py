"""What a run tells: its progress, what each mini-epoch brought, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is, for a progress bar. Samples of all ranks."""

    epoch: int
    mini_epoch: int
    mini_epoch_done: int
    """Samples of this mini-epoch trained on."""
    mini_epoch_samples: int
    """Samples that this mini-epoch will have; with batches that do not divide it, up to a batch more."""
    samples_seen: int
    total_samples: int
    """Samples of all epochs."""
    samples_per_s: float
    train: Mapping[str, Any]
    """Training metrics of this mini-epoch so far; empty when the trainer does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniEpochReport:
    """What one mini-epoch brought: the training metrics over it, and how the saved weights validate."""

    epoch: int
    mini_epoch: int
    samples_seen: int
    train: Mapping[str, Any]
    val: Mapping[str, Any]
    """Empty without validation."""
    samples_per_s: float
    """Training alone, since the mini-epoch's start or the restart within it."""
    learning_rate: float | None
    checkpoint: Path
    time: str
    """When it ended, ISO 8601, UTC."""

    def record(self) -> dict[str, Any]:
        """The report as plain values: a line of metrics.jsonl, and ``metrics`` in the checkpoint."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return plain | {"train": dict(self.train), "val": dict(self.val), "checkpoint": self.checkpoint.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    interrupted: bool
    """A signal ended it; the state is saved and the run goes on when started again."""
    stopped: str | None
    """Why a hook ended it; the run goes on when started again."""
    epochs: int
    """Whole epochs done since the run first began."""
    mini_epochs: int
    """Mini-epochs finished by this call."""
    samples_seen: int
    """Samples trained on since the run first began."""
    resumed_from: Path | None
    checkpoint: Path | None
    """The newest checkpoint."""
    metrics: Mapping[str, Any]
    """The record of the last finished mini-epoch; empty before the first."""
    notices: tuple[str, ...]
    """What was unusual, such as a damaged checkpoint that was skipped."""

    def summary(self) -> str:
        """Two to four lines for a person."""
        return "\n".join([self._headline(), *self._origin(), *self._losses(), f"checkpoint {self.checkpoint}"])

    def _headline(self) -> str:
        done = f"{self.samples_seen:,} samples, {self.epochs} whole epoch{'s' * (self.epochs != 1)}"
        if self.interrupted:
            return f"interrupted after {done}; start it again to go on"
        if self.stopped:
            return f"stopped after {done}: {self.stopped}"
        if not self.mini_epochs:
            return f"nothing left to train: {done}"
        return f"trained {self.mini_epochs} mini-epoch{'s' * (self.mini_epochs != 1)}: {done}"

    def _origin(self) -> list[str]:
        return [f"resumed from {self.resumed_from}"] if self.resumed_from else []

    def _losses(self) -> list[str]:
        parts = {part: self.metrics.get(part, {}) for part in ("train", "val")}
        shown = [
            f"{part} {m['loss']:.4f} (policy {m['policy_loss']:.4f}, value {m['value_loss']:.4f})"
            for part, m in parts.items()
            if {"loss", "policy_loss", "value_loss"} <= m.keys()
        ]
        return ["losses " + " · ".join(shown)] if shown else []
