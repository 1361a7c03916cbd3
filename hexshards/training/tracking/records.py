"""Records of a run: its progress, the metrics of each mini-epoch, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hexshards.errors import escaped
from hexshards.training.steps.heads import WEIGHTED, recorded
from hexshards.units import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgress:
    """How far a run is, for a progress bar. Samples of all ranks."""

    epoch: int
    epochs: int
    """Epochs that the run will have."""
    epoch_done: int
    """Samples of this epoch trained on."""
    epoch_samples: int
    mini_epoch: int
    mini_epoch_done: int
    """Samples of this mini-epoch trained on."""
    mini_epoch_samples: int
    """Samples that this mini-epoch will have; with batches that do not divide it, up to a batch more."""
    samples_seen: int
    total_samples: int
    """Samples that the run will have, as far as epochs and samples limit it."""
    samples_per_s: float
    waiting: float
    """Share of this mini-epoch's time that was spent waiting for data, 0 to 1."""
    best: float | None
    """The best mini-epoch's metric so far."""
    train: Mapping[str, Any]
    """Training metrics of this mini-epoch so far; empty when the trainer does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a run counts to its last sample: from its first, over all its starts, or from where it stands."""

    epochs: int
    samples: int
    steps: int
    mini_epochs: int
    validations: int
    """Where there is something to validate on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniEpochReport:
    """Metrics of a mini-epoch: of training, over all of it, and of validation, of the weights that are saved."""

    epoch: int
    mini_epoch: int
    samples_seen: int
    train: Mapping[str, Any]
    val: Mapping[str, Any]
    """Empty without validation."""
    samples_per_s: float | None
    """Training alone, since the mini-epoch's start or the restart within it; None where nothing was left to train."""
    waiting: float | None
    """Share of that time in which the next batch was waited for, 0 to 1."""
    skipped: Mapping[str, int] | None
    """Damaged blocks passed over meanwhile, and positions lost with them; None where the loader does not count."""
    learning_rate: float | None
    dataset: str
    """Fingerprint of the dataset that its last batch came from; a run's folder keeps the index of each that grew."""
    checkpoint: Path
    seconds: float
    """The run's time so far, over all its starts, before this checkpoint is written."""
    time: str
    """When it ended, ISO 8601, UTC."""

    def record(self, added: Mapping[str, Any]) -> dict[str, Any]:
        """The report as plain values, with what hooks add: a line of metrics.jsonl, ``metrics`` in the checkpoint."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        own = {"train": dict(self.train), "val": dict(self.val), "checkpoint": self.checkpoint.name}
        return joined(plain | own, added)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of a run: how it ended."""

    interrupted: bool
    """A signal ended it; the state is saved and the run goes on when started again."""
    stopped: str | None
    """Why it ended before its last epoch did: early stopping, a limit, or what a hook said."""
    epochs: int
    """Epochs done since the run first began; those that growth of the dataset cut short are some of them."""
    mini_epochs: int
    """Mini-epochs finished by this call."""
    samples_seen: int
    """Samples trained on since the run first began."""
    resumed_from: Path | None
    checkpoint: Path | None
    """The newest checkpoint."""
    best: Path | None
    """The best one."""
    metrics: Mapping[str, Any]
    """The record of the last finished mini-epoch; empty before the first."""
    notices: tuple[str, ...]
    """What was unusual, such as a damaged checkpoint that was skipped."""

    def summary(self) -> str:
        """A few lines for a person."""
        files = [f"checkpoint {escaped(self.checkpoint)}", *([f"best {escaped(self.best)}"] if self.best else [])]
        losses = [f"{name} {told}" for name, told in self._losses()]
        return "\n".join([self._headline(), *losses, *files])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from hexshards.drawing.tables import facts, summary

        files = [(name, str(path)) for name, path in (("checkpoint", self.checkpoint), ("best", self.best)) if path]
        notes = [("note", notice) for notice in self.notices]
        return summary(self._headline(), facts([*self._losses(), *files, *notes]))

    def _headline(self) -> str:
        done = f"{counted(self.samples_seen, 'sample')}, {counted(self.epochs, 'epoch')} done"
        if self.interrupted:
            return f"interrupted after {done}; start it again to go on"
        if self.stopped:
            return f"ended after {done}: {self.stopped}"
        if not self.mini_epochs:
            return f"nothing left to train: {done}"
        return f"trained {counted(self.mini_epochs, 'mini-epoch')}: {done}"

    def _losses(self) -> list[tuple[str, str]]:
        """Their name, which says of when they are where that is not the end, and the losses."""
        at = self.metrics.get("samples_seen", self.samples_seen)
        name = "losses" if at == self.samples_seen else f"losses at sample {at:,}"
        parts = {part: self.metrics.get(part, {}) for part in ("train", "val")}
        shown = [
            f"{part} {m['loss']:.4f} ({', '.join(f'{head.name} {m[head.loss_name]:.4f}' for head in recorded(m))})"
            + (f", weighted {m[WEIGHTED]:.4f}" if WEIGHTED in m else "")
            for part, m in parts.items()
            if "loss" in m and any(recorded(m))
        ]
        return [(name, " · ".join(shown))] if shown else []


def joined(record: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """A record with what hooks add to it, under names of their own, else ValueError."""
    if taken := sorted(record.keys() & added.keys()):
        raise ValueError(f"a hook adds names that the record has already: {', '.join(map(escaped, taken))}")
    return {**record, **added}


def entry(record: Mapping[str, Any], path: str) -> Any:
    """What stands at a dotted path of names, such as ``val.policy_loss``; None where nothing does."""
    value: Any = record
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
