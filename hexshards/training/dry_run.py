"""Dry run: what a run will count, write and take is told from its own parts and a few seconds of them."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from hexshards.loading.loader import Loader
from hexshards.storage.files import free_bytes
from hexshards.training.early_stopping import Limits
from hexshards.training.mini_epochs import MiniEpochPlan
from hexshards.training.options import TrainSpec
from hexshards.training.run import parts_of
from hexshards.training.steps.trainer import Trainer

MEASURED_S = 3.0
"""How long training is measured; validation a third of it."""

FIRST_BATCHES = 3
"""Not measured: they are slower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Dry run of a training: what it would count, write and take."""

    computes: str
    """How it would compute and why."""
    positions: int
    epoch_samples: int
    """With ``augment="all"`` four times the positions."""
    chosen: tuple[str, ...]
    """Which positions these are, where not all of the split are used, in words."""
    samples: int
    """Of the whole run."""
    steps: int
    mini_epochs: int
    val_samples: int
    validations: int
    parameters: int
    checkpoint_bytes: int
    checkpoints: int
    """Those kept at the end; ``best.pt`` is another name of one, and may be one more."""
    free_bytes: int
    samples_per_s: float
    val_samples_per_s: float
    """Not a number without validation."""

    @property
    def disk_bytes(self) -> int:
        """What the checkpoints take, with the best one and one that is being written."""
        return (self.checkpoints + 2) * self.checkpoint_bytes

    @property
    def fits(self) -> bool:
        """Whether the disk has room for them."""
        return self.disk_bytes <= self.free_bytes

    @property
    def seconds(self) -> float:
        """Training and validating."""
        validating_s = self.validations * self.val_samples / self.val_samples_per_s if self.validations else 0.0
        return self.samples / self.samples_per_s + validating_s


def rehearse(spec: TrainSpec) -> Rehearsal:
    """Dry run: open everything a run needs, measure a few seconds of it, and write nothing."""
    trainer, train_loader, val_loader, how = parts_of(spec)
    totals = _plan(spec).totals(train_loader)
    speed = _speed(trainer.train_on_batches, train_loader, MEASURED_S)
    return Rehearsal(
        computes=str(how),
        positions=train_loader.positions,
        epoch_samples=train_loader.samples,
        chosen=tuple(train_loader.describe()),
        samples=totals.samples,
        steps=totals.steps,
        mini_epochs=totals.mini_epochs,
        val_samples=val_loader.samples if val_loader else 0,
        validations=totals.validations if val_loader else 0,
        parameters=sum(weight.numel() for weight in trainer.model.parameters()),
        checkpoint_bytes=_state_bytes(trainer),  # an optimizer has no state before its first step
        checkpoints=_kept(spec, totals.mini_epochs),
        free_bytes=free_bytes(spec.absolute(spec.run)),
        samples_per_s=speed,
        val_samples_per_s=_speed(trainer.validate, val_loader, MEASURED_S / 3) if val_loader else float("nan"),
    )


def _plan(spec: TrainSpec) -> MiniEpochPlan:
    return MiniEpochPlan(
        limits=Limits(epochs=spec.epochs, samples=spec.max_samples, time_s=None),
        mini_epoch_samples=None if spec.mini_epoch_batches else spec.mini_epoch_samples,
        mini_epoch_batches=spec.mini_epoch_batches,
        cross_epochs=spec.cross_epochs,
        val_every=spec.val_every,
    )


def _kept(spec: TrainSpec, minis: int) -> int:
    if spec.keep_last is None or minis <= spec.keep_last:
        return minis
    return spec.keep_last + ((minis - spec.keep_last) // spec.keep_every if spec.keep_every else 0)


def _state_bytes(trainer: Trainer) -> int:
    buffer = io.BytesIO()
    torch.save(trainer.state_dict(), buffer)
    return len(buffer.getvalue())


def _speed(work: Callable[[Iterable[Any]], object], loader: Loader, seconds: float) -> float:
    """Samples a second, of all ranks, over some seconds or the whole split."""
    seen, start_s = 0, time.monotonic()

    def timed() -> Iterator[Any]:
        nonlocal seen, start_s
        for number, batch in enumerate(loader):
            if number == FIRST_BATCHES:
                seen, start_s = 0, time.monotonic()
            yield batch
            seen += len(batch.value) * loader.world_size
            if number > FIRST_BATCHES and time.monotonic() - start_s > seconds:
                return

    work(timed())
    return seen / (time.monotonic() - start_s)
