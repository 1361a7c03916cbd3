"""Dry run: what a run will count, write and take is told from its own parts and a few seconds of them.

Of a run that goes on: what is left of it.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hexshards.loading.loader import Loader
from hexshards.options import as_recorded
from hexshards.storage.files import free_bytes
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.checkpointing.run_folder import RESUMES, RunFolder
from hexshards.training.diagnostics import Diagnosis, boards_of
from hexshards.training.distributed import ProcessGroup
from hexshards.training.early_stopping import Standing
from hexshards.training.growing_data import Few, GrowingDataset, few_games, has_grown
from hexshards.training.mini_epochs import Cursor, MiniEpochPlan
from hexshards.training.options import TrainSpec
from hexshards.training.run import early_stopping, parts_of
from hexshards.training.settings import RunSettings
from hexshards.training.steps.trainer import Trainer
from hexshards.training.stop import Stop
from hexshards.training.tracking.stopwatch import Stopwatch
from hexshards.training.train_bucket import Bucket, Level
from hexshards.units import counted, duration_s

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
    budget: str
    """What the train bucket lets the run take before it waits, in words; empty where there is none."""
    samples: int
    """Still to be trained; these and the counts that follow are those of a whole run where none goes on."""
    steps: int
    mini_epochs: int
    val_samples: int
    validations: int
    few_games: Few | None
    """Games that are validated on, where these are few."""
    resumed_from: Path | None
    """The checkpoint that the run goes on from."""
    samples_seen: int
    """By then."""
    over: str | None
    """Why nothing is left to train, where the run has ended."""
    parameters: int
    checkpoint_bytes: int
    checkpoints: int
    """Those kept at the end; ``best.pt`` is another name of one, and may be one more."""
    present: int
    """Those that are there."""
    free_bytes: int
    samples_per_s: float
    """Not a number where nothing is left to train."""
    val_samples_per_s: float
    """Not a number without validation either."""
    diagnosis_s: float
    """What the diagnosis after a validation takes; 0 without one."""

    @property
    def disk_bytes(self) -> int:
        """What the checkpoints take that are to come, with the best one and one that is being written."""
        return (max(0, self.checkpoints - self.present) + 2) * self.checkpoint_bytes

    @property
    def fits(self) -> bool:
        """Whether the disk has room for them."""
        return bool(self.over) or self.disk_bytes <= self.free_bytes

    @property
    def left(self) -> float:
        """The share of the run's samples that is still to be trained, 0 to 1."""
        return self.samples / max(1, self.samples_seen + self.samples)

    @property
    def seconds(self) -> float:
        """Training, validating and diagnosing what is left."""
        validating_s = self.val_samples / self.val_samples_per_s + self.diagnosis_s if self.validations else 0.0
        return self.samples / self.samples_per_s + self.validations * validating_s


def rehearse(spec: TrainSpec) -> Rehearsal:
    """Dry run: open everything a run needs, measure a few seconds of it, and write nothing."""
    trainer, train_loader, val_loader, how = parts_of(spec)
    stands = _standing(how.settled(spec), train_loader)
    totals = _plan(spec).totals(train_loader, stands.at)
    speed = val_speed = math.nan
    diagnosis_s = 0.0
    if not stands.over:
        speed = _speed(trainer.train_on_batches, train_loader, MEASURED_S)
        if val_loader:
            val_speed = _speed(trainer.validate, val_loader, MEASURED_S / 3)
            diagnosis_s = _diagnosis_s(trainer, val_loader, spec.diagnose, per_s=val_speed)
    return Rehearsal(
        computes=str(how),
        positions=train_loader.positions,
        epoch_samples=train_loader.samples,
        chosen=tuple(train_loader.describe()),
        budget=_budget(how.settled(spec), train_loader, stands),
        samples=totals.samples,
        steps=totals.steps,
        mini_epochs=totals.mini_epochs,
        val_samples=val_loader.samples if val_loader else 0,
        validations=totals.validations if val_loader else 0,
        few_games=few_games(train_loader, val_loader),
        resumed_from=stands.checkpoint,
        samples_seen=stands.at.samples_seen,
        over=stands.over,
        parameters=sum(weight.numel() for weight in trainer.model.parameters()),
        checkpoint_bytes=_state_bytes(trainer),  # an optimizer has no state before its first step
        checkpoints=_kept(spec, _plan(spec).totals(train_loader, Cursor()).mini_epochs),
        present=stands.present,
        free_bytes=free_bytes(spec.absolute(spec.run)),
        samples_per_s=speed,
        val_samples_per_s=val_speed,
        diagnosis_s=diagnosis_s,
    )


def _budget(spec: TrainSpec, train_loader: Loader, stands: _Standing) -> str:
    if spec.samples_per_position is None:
        return ""
    split = train_loader.index.splits["train"].positions
    begun = stands.bucket or Bucket(stands.at.samples_seen, train_loader.positions, split)
    positions = begun.chosen + split - begun.split
    level = Level(stands.at.samples_seen - begun.samples, 0, positions, spec.samples_per_position)
    taken = f", {level.taken:,} of which are taken" if level.taken else ""
    most = f"{counted(level.most, 'sample')} of {counted(level.positions, 'position')}"
    return f"at most {most}{taken}; then it waits until positions are added"


class _Standing(NamedTuple):
    checkpoint: Path | None
    present: int
    at: Cursor
    over: str | None
    bucket: Bucket | None = None
    """What the train bucket of the run counts from."""


def _standing(spec: TrainSpec, train_loader: Loader) -> _Standing:
    """Where the run stands that is in the folder, if one is. Raises Misused where it had other options."""
    folder, reader = RunFolder(spec.absolute(spec.run)), checkpoint_file.Reader()
    resume = spec.resume if spec.resume in RESUMES else spec.absolute(spec.resume)
    newest = folder.find(resume, reader, on_damage=lambda problem: None)
    if newest is None:
        return _Standing(None, 0, Cursor(), None)
    path, saved = newest
    if not spec.mix and saved["dataset"] != train_loader.index.fingerprint:
        _data(spec, train_loader).known(saved["dataset"], where=path)
    dataset = train_loader.index.fingerprint if spec.mix else saved["dataset"]
    checkpoint_file.check_fits(saved, dataset=dataset, options=_asked(spec, saved["options"]), where=path)
    plan, watch, finished = _plan(spec), Stopwatch(), saved["counters"]["finished"]
    watch.restart(before_s=saved["standing"]["used_s"])
    cursor = Cursor(**{name: saved["counters"][name] for name in Cursor.__slots__})
    standing = Standing(**{name: saved["standing"][name] for name in Standing.__slots__})
    stop = Stop(
        plan,
        early_stopping(spec),
        watch=watch,
        process_group=ProcessGroup(),
        more_to_come=lambda: not spec.mix and has_grown(_data(spec, train_loader), saved["dataset"]),
    )
    at = plan.after_mini_epoch(cursor, train_loader) if finished else cursor
    over = stop.over(at, standing, saved["metrics"] if finished else {})
    present, saved_bucket = len(checkpoint_file.newest_first(folder.checkpoints)), saved["counters"].get("bucket")
    return _Standing(path, present, at, over, Bucket(**saved_bucket) if saved_bucket else None)


def _asked(spec: TrainSpec, begun: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a run would go on with, of one that began with those."""
    sizes = (None, spec.mini_epoch_batches) if spec.mini_epoch_batches else (spec.mini_epoch_samples, None)
    asked = {**as_recorded(spec), **dict(zip(("mini_epoch_samples", "mini_epoch_batches"), sizes, strict=True))}
    del asked["batch_size"]
    # the batch is of processes that this one does not see
    return asked | {"global_batch_size": begun.get("global_batch_size")}


def _data(spec: TrainSpec, train_loader: Loader) -> GrowingDataset:
    """What the run's folder knows of its dataset."""
    return GrowingDataset(train_loader.home, spec.absolute(spec.run), lambda _: train_loader)


def _plan(spec: TrainSpec) -> MiniEpochPlan:
    settings = RunSettings(
        mini_epoch_batches=spec.mini_epoch_batches,
        cross_epochs=spec.cross_epochs,
        max_samples=spec.max_samples,
        max_time_s=duration_s(spec.max_time) if spec.max_time else None,
        val_every=spec.val_every,
    )
    return settings.plan(None if spec.mini_epoch_batches else spec.mini_epoch_samples, epochs=spec.epochs)


def _kept(spec: TrainSpec, minis: int) -> int:
    if spec.keep_last is None or minis <= spec.keep_last:
        return minis
    return spec.keep_last + ((minis - spec.keep_last) // spec.keep_every if spec.keep_every else 0)


def _state_bytes(trainer: Trainer) -> int:
    buffer = io.BytesIO()
    torch.save(trainer.state_dict(), buffer)
    return len(buffer.getvalue())


def _diagnosis_s(trainer: Trainer, val_loader: Loader, positions: int, *, per_s: float) -> float:
    """One diagnosis takes as much longer than one of fewer positions as the network has more boards to answer."""
    positions = min(positions, val_loader.samples)
    if not positions:
        return 0.0
    few = max(1, min(positions, int(per_s * MEASURED_S / 3 / boards_of(1))))
    diagnosis = Diagnosis(trainer, val_loader, positions=few)
    diagnosis.look()  # reads its positions, once in a run
    start_s = time.monotonic()
    diagnosis.look()
    return (time.monotonic() - start_s) * boards_of(positions) / boards_of(few)


def _speed(work: Callable[[Iterable[Any]], object], loader: Loader, seconds: float) -> float:
    """Throughput: samples a second, of all ranks, over some seconds or the whole split."""
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
