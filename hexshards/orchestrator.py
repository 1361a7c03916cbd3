"""A run is epochs cut into mini-epochs: train, validate those very weights, save them, log; stop or go on.

Where a run stands is in its newest checkpoint, so a run that was stopped at any moment, in any way, and
started again ends with the weights, bit for bit, of one that never stopped. The orchestrator counts,
streams and saves; it touches no tensor, and drives anything with the four methods of Trainable. One
process.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from hexshards import checkpoint
from hexshards.errors import DataError, printable
from hexshards.hooks import (
    Event,
    Hook,
    MiniEpochTrained,
    Noticed,
    Progressed,
    Run,
    RunEnded,
    RunStarted,
    Saved,
    Validated,
)
from hexshards.interrupts import StopSignals
from hexshards.reports import MiniEpochReport, Outcome, Progress
from hexshards.runfolder import RunFolder
from hexshards.specs import TRAIN
from hexshards.trainable import Rows, Trainable, TrainLoader

log = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 0.1
"""Progressed comes no more often, the end of a mini-epoch excepted."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a run stands: the epoch and mini-epoch at work, counted from 1, and how much of them is done."""

    epoch: int = 1
    mini_epoch: int = 1
    epoch_batches: int = 0
    mini_batches: int = 0
    mini_samples: int = 0
    samples_seen: int = 0

    def after_batch(self, samples: int) -> Cursor:
        """One batch further."""
        return replace(
            self,
            epoch_batches=self.epoch_batches + 1,
            mini_batches=self.mini_batches + 1,
            mini_samples=self.mini_samples + samples,
            samples_seen=self.samples_seen + samples,
        )

    def after_mini_epoch(self, *, epoch_over: bool) -> Cursor:
        """At the start of the next mini-epoch."""
        if epoch_over:
            return Cursor(epoch=self.epoch + 1, samples_seen=self.samples_seen)
        return replace(self, mini_epoch=self.mini_epoch + 1, mini_batches=0, mini_samples=0)


class MiniEpochOrchestrator:
    """Drive a trainer through ``num_epochs`` passes over a loader, resuming by itself.

    A mini-epoch ends with the first batch that reaches ``mini_epoch_samples`` samples, or with the epoch;
    or it counts ``mini_epoch_batches`` batches instead. run: the folder of ``checkpoints/`` and
    ``metrics.jsonl``. options: plain values that a checkpoint records; they must be the same when a run
    goes on, those in checkpoint.FREE_OPTIONS excepted. resume: ``auto``, ``never``, or the path of a
    checkpoint. val_loader None: no validation.
    """

    _stop: StopSignals
    _clock: _Clock
    _cursor: Cursor
    _stream: Iterator[Rows] | None
    _trained: dict[str, Any] | None
    """Training metrics of a mini-epoch that only lacks its validation."""
    _metrics: dict[str, Any]
    _newest: Path | None
    _resumed_from: Path | None
    _finished: int
    _notices: list[str]
    _reason: str | None
    """Why a hook ended the run."""

    def __init__(
        self,
        trainer: Trainable,
        train_loader: TrainLoader,
        val_loader: Iterable[Any] | None,
        *,
        run: Path,
        mini_epoch_samples: int | None = None,
        mini_epoch_batches: int | None = None,
        num_epochs: int = TRAIN.epochs,
        options: Mapping[str, Any] | None = None,
        resume: str | Path = TRAIN.resume,
        hooks: Sequence[Hook] = (),
    ) -> None:
        if mini_epoch_samples is None and mini_epoch_batches is None:
            mini_epoch_samples = TRAIN.mini_epoch_samples
        _check_counts(mini_epoch_samples, mini_epoch_batches, num_epochs)
        self.trainer, self.train_loader, self.val_loader = trainer, train_loader, val_loader
        self.mini_epoch_samples, self.mini_epoch_batches = mini_epoch_samples, mini_epoch_batches
        self.num_epochs, self.resume = num_epochs, resume
        self._folder = RunFolder(Path(run))
        sizes = {"mini_epoch_samples": mini_epoch_samples, "mini_epoch_batches": mini_epoch_batches}
        self.options = dict(options or {}) | sizes
        self._hooks = hooks
        self._seen = Run(
            folder=Path(run),
            trainer=trainer,
            train_loader=train_loader,
            val_loader=val_loader,
            options=self.options,
            stop=self._end,
        )
        self._begin_anew()

    def run(self) -> Outcome:
        """Train to the end, or to the first SIGINT or SIGTERM, which finishes the batch and saves the state.

        A second signal acts as if there were no orchestrator. Signals are heard in the main thread alone.
        Raises DataError when the newest good checkpoint is of another dataset or was made with other options.
        """
        self._begin_anew()
        with self._stop:
            self._go_on_from_checkpoint()
            self._tell(
                RunStarted(
                    run=self._seen,
                    resumed_from=self._resumed_from,
                    samples_seen=self._cursor.samples_seen,
                    history=self._folder.log.records(),
                )
            )
            if self.val_loader is None:
                self._notice("there is no validation split: training without validation")
            while not (self._over() or self._stop.asked or self._reason):
                self._mini_epoch()
            self._stream = None
            outcome = self._outcome()
            self._tell(RunEnded(run=self._seen, outcome=outcome))
        return outcome

    def _over(self) -> bool:
        return self._cursor.epoch > self.num_epochs

    def _end(self, reason: str) -> None:
        self._reason = self._reason or reason

    def _outcome(self) -> Outcome:
        return Outcome(
            interrupted=self._stop.asked and not self._over(),
            stopped=self._reason,
            epochs=self._cursor.epoch - 1,
            mini_epochs=self._finished,
            samples_seen=self._cursor.samples_seen,
            resumed_from=self._resumed_from,
            checkpoint=self._newest,
            metrics=self._metrics,
            notices=tuple(self._notices),
        )

    # --- a mini-epoch ---

    def _mini_epoch(self) -> None:
        self._clock = _Clock(self._cursor.samples_seen)
        train = self._trained
        if train is None:
            train = dict(self.trainer.train_on_batches(self._batches()))
            if not self._mini_epoch_over():
                return self._check_interrupted()
        samples_per_s = self._clock.samples_per_s(self._cursor.samples_seen)
        place = self._cursor
        at = {"epoch": place.epoch, "mini_epoch": place.mini_epoch, "samples_seen": place.samples_seen}
        added = self._tell(MiniEpochTrained(run=self._seen, train=train, **at))
        val = self._validate()
        if val is None:
            return self._save_partial({"train": train})
        added |= self._tell(Validated(run=self._seen, train=train, val=val, **at))
        self._finish(train, val, samples_per_s, added)
        self._trained = None

    def _batches(self) -> Iterator[Rows]:
        """The rest of the mini-epoch, one batch at a time."""
        while not self._mini_epoch_over():
            if self._stop.asked:
                return self._save_partial({})
            batch = self._next_batch()
            if batch is None:
                done, of = self._cursor.epoch_batches, len(self.train_loader)
                raise RuntimeError(f"the loader ended after {done} of {of} batches")
            yield batch
            self._cursor = self._cursor.after_batch(self._global_rows(batch))
            self._show_progress()
        if self._epoch_over():
            self._next_batch()  # there is none, and the loader moves on to its next epoch
            self._stream = None

    def _next_batch(self) -> Rows | None:
        if self._stream is not None:
            return next(self._stream, None)
        # a restarted run opens its loader once more often
        with checkpoint.random_state_kept():
            self._stream = iter(self.train_loader)
            return next(self._stream, None)

    def _global_rows(self, batch: Rows) -> int:
        loader = self.train_loader
        if loader.world_size == 1:
            return len(batch.value)
        # the ranks' shares of an epoch's last batch may differ by a row
        left = self._cursor.epoch * loader.samples - self._cursor.samples_seen
        return min(loader.batch_size * loader.world_size, left)

    def _mini_epoch_over(self) -> bool:
        if self.mini_epoch_batches is not None:
            full = self._cursor.mini_batches >= self.mini_epoch_batches
        else:
            full = self._cursor.mini_samples >= (self.mini_epoch_samples or 0)
        return full or self._epoch_over()

    def _epoch_over(self) -> bool:
        return self._cursor.epoch_batches >= len(self.train_loader)

    def _check_interrupted(self) -> None:
        if not self._stop.asked:
            raise RuntimeError("train_on_batches returned before its batches were used up")

    def _validate(self) -> dict[str, Any] | None:
        """Metrics of the weights as they are; None when a signal came first."""
        if self.val_loader is None:
            return {}
        if self._stop.asked:
            return None
        # the weights must not depend on whether, or how often, one validates
        with checkpoint.random_state_kept():
            val = dict(self.trainer.validate(takewhile(lambda _: not self._stop.asked, self.val_loader)))
        return None if self._stop.asked else val

    def _finish(self, train: dict[str, Any], val: dict[str, Any], samples_per_s: float, added: dict[str, Any]) -> None:
        cursor = self._cursor
        report = MiniEpochReport(
            epoch=cursor.epoch,
            mini_epoch=cursor.mini_epoch,
            samples_seen=cursor.samples_seen,
            train={name: value for name, value in train.items() if name != "learning_rate"},
            val=val,
            samples_per_s=samples_per_s,
            learning_rate=train.get("learning_rate"),
            checkpoint=self._folder.checkpoints / checkpoint.file_name(cursor.epoch, cursor.mini_epoch),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._metrics = _joined(report.record(), added)
        self._save(report.checkpoint, finished=True, metrics=self._metrics)
        self._folder.log.append(self._metrics)
        self._folder.remove_partials(before=(cursor.epoch, cursor.mini_epoch, True))
        self._cursor = cursor.after_mini_epoch(epoch_over=self._epoch_over())
        self._finished += 1
        self._tell(Saved(run=self._seen, checkpoint=report.checkpoint, record=self._metrics))

    # --- saving and going on ---

    def _save_partial(self, metrics: dict[str, Any]) -> None:
        name = checkpoint.file_name(self._cursor.epoch, self._cursor.mini_epoch, partial=True)
        path = self._folder.checkpoints / name
        self._save(path, finished=False, metrics=metrics)
        self._tell(Saved(run=self._seen, checkpoint=path, record={}))

    def _save(self, path: Path, *, finished: bool, metrics: dict[str, Any]) -> None:
        state = {
            "dataset": self.train_loader.index.fingerprint,
            "options": self.options,
            "counters": asdict(self._cursor) | {"finished": finished},
            "loader_state": self.train_loader.state_dict(),
            "random_state": checkpoint.random_state(),
            "metrics": metrics,
        }
        checkpoint.write(path, state, trainer_state=self.trainer.state_dict())
        self._newest = path

    def _begin_anew(self) -> None:
        self._stop, self._clock, self._cursor = StopSignals(), _Clock(0), Cursor()
        self._stream = self._trained = self._newest = self._resumed_from = None
        self._metrics, self._finished, self._notices, self._reason = {}, 0, [], None

    def _go_on_from_checkpoint(self) -> None:
        self._folder.remove_leftovers()
        if found := self._folder.find(self.resume, on_damage=self._notice):
            path, state = found
            fingerprint = self.train_loader.index.fingerprint
            checkpoint.check_fits(state, dataset=fingerprint, options=self.options, where=path)
            if self.resume != "auto":
                self._folder.check_newest(path, state["counters"])
            self._restore(path, state)
        self._folder.log.cut(until=(self._cursor.epoch, self._cursor.mini_epoch), last=self._metrics)
        if self._metrics:  # the mini-epoch is whole
            self._cursor = self._cursor.after_mini_epoch(epoch_over=self._epoch_over())

    def _restore(self, path: Path, state: dict[str, Any]) -> None:
        counters, metrics = state["counters"], state["metrics"]
        try:
            self.trainer.load_state_dict(checkpoint.trainer_state(state))
            self.train_loader.load_state_dict(state["loader_state"])
            self._cursor = Cursor(**{name: counters[name] for name in Cursor.__slots__})
            checkpoint.set_random_state(state["random_state"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            found = f"does not fit this run ({printable(error)})"
            fix = "Use the model and trainer that wrote it, or another run folder"
            raise DataError(found, where=str(path), fix=fix) from error
        self._resumed_from = self._newest = path
        if counters["finished"]:
            self._metrics = metrics
        else:
            self._trained = metrics.get("train")

    # --- telling ---

    def _notice(self, text: str) -> None:
        log.warning(text)
        self._notices.append(text)
        self._tell(Noticed(run=self._seen, text=text))

    def _tell(self, event: Event) -> dict[str, Any]:
        """What the hooks have to add to the record."""
        added: dict[str, Any] = {}
        # the weights must not depend on what is measured
        with checkpoint.random_state_kept():
            for hook in self._hooks:
                added = _joined(added, hook(event) or {})
        return added

    def _show_progress(self) -> None:
        if self._hooks and (self._clock.due() or self._mini_epoch_over()):
            self._tell(Progressed(run=self._seen, progress=self._progress()))

    def _progress(self) -> Progress:
        return Progress(
            epoch=self._cursor.epoch,
            mini_epoch=self._cursor.mini_epoch,
            mini_epoch_done=self._cursor.mini_samples,
            mini_epoch_samples=self._planned_samples(),
            samples_seen=self._cursor.samples_seen,
            total_samples=self.num_epochs * self.train_loader.samples,
            samples_per_s=self._clock.samples_per_s(self._cursor.samples_seen),
            train=self._running_metrics(),
        )

    def _running_metrics(self) -> Mapping[str, Any]:
        tell: Callable[[], Mapping[str, Any]] | None = getattr(self.trainer, "running_metrics", None)
        return tell() if tell else {}

    def _planned_samples(self) -> int:
        cursor, loader = self._cursor, self.train_loader
        batches_samples = (self.mini_epoch_batches or 0) * loader.batch_size * loader.world_size
        full = self.mini_epoch_samples or batches_samples
        before = cursor.samples_seen - cursor.mini_samples - (cursor.epoch - 1) * loader.samples
        return min(full, loader.samples - before)


class _Clock:
    """Speed since its making, and whether a progress report is due."""

    def __init__(self, samples_seen: int) -> None:
        self._samples, self._start_s, self._shown_s = samples_seen, time.monotonic(), -math.inf

    def samples_per_s(self, samples_seen: int) -> float:
        return (samples_seen - self._samples) / max(time.monotonic() - self._start_s, 1e-9)

    def due(self) -> bool:
        now_s = time.monotonic()
        if now_s - self._shown_s < PROGRESS_INTERVAL_S:
            return False
        self._shown_s = now_s
        return True


def _joined(record: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    if taken := sorted(record.keys() & added.keys()):
        raise ValueError(f"a hook adds names that the record has already: {', '.join(taken)}")
    return {**record, **added}


def _check_counts(samples: int | None, batches: int | None, epochs: int) -> None:
    if samples is not None and batches is not None:
        raise ValueError("give mini_epoch_samples or mini_epoch_batches, not both")
    counts = {"mini_epoch_samples": samples, "mini_epoch_batches": batches, "num_epochs": epochs}
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
