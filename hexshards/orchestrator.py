"""A run is epochs cut into mini-epochs: train, validate those very weights, save them, log; stop or go on.

Where a run stands is in its newest checkpoint, so a run that was stopped at any moment, in any way, and
started again ends with the weights, bit for bit, of one that never stopped. The orchestrator counts,
streams and saves; it touches no tensor, and drives anything with the four methods of Trainable. In a team
every process runs one, all stop at the same batch, and rank 0 alone writes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from hexshards import checkpoint
from hexshards.arguments import LocalPath, checked
from hexshards.course import Course
from hexshards.cursor import Cursor
from hexshards.errors import DataError, NonFiniteLoss, printable
from hexshards.growth import Supply
from hexshards.hooks import (
    Hook,
    Listeners,
    MiniEpochBegun,
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
from hexshards.plain import plain_names
from hexshards.reports import MiniEpochReport, Outcome, Progress
from hexshards.retention import Retention
from hexshards.runfolder import RESUMES, RunFolder
from hexshards.specs import TRAIN
from hexshards.stopping import EarlyStopping, Limits, Standing
from hexshards.stopwatch import Stopwatch
from hexshards.suspects import write_suspect
from hexshards.team import Team
from hexshards.trail import Trail
from hexshards.trainable import Rows, Trainable, TrainLoader

log = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 0.1
"""Progressed comes no more often, a mini-epoch's first and last batch excepted."""

ALONE, NEVER, ALL = Team(), EarlyStopping(), Retention()


class MiniEpochOrchestrator:
    """Drive a trainer through ``num_epochs`` passes over a loader, resuming by itself.

    A mini-epoch ends with the first batch that reaches ``mini_epoch_samples`` samples, of all ranks, or with
    the epoch, unless it may ``cross_epochs``; or it counts ``mini_epoch_batches`` batches instead. max_samples,
    max_time_s: see Limits; whichever comes first ends the run. val_loader None: no validation; ``val_every``:
    each so many-th mini-epoch of an epoch, and the last. run: the folder of ``checkpoints/``, ``best.pt`` and
    ``metrics.jsonl``. options: plain values that a checkpoint records; they must be the same when a run
    goes on, those in checkpoint.FREE_OPTIONS excepted. resume: ``auto``, ``never``, or the path of a
    checkpoint. hooks: see hexshards.hooks. supply: finds the dataset again when it has grown.
    """

    _stop: StopSignals
    _watch: Stopwatch
    _cursor: Cursor
    _standing: Standing
    _stream: Iterator[Rows] | None
    _trail: Trail
    _trained: dict[str, Any] | None
    """Training metrics of a mini-epoch that only lacks its validation."""
    _metrics: dict[str, Any]
    _newest: Path | None
    _resumed_from: Path | None
    _finished: int
    _notices: list[str]
    _reason: str | None
    """Why the run ends before its last epoch does."""
    _stopping: bool
    """A signal asked one of the team to stop."""
    _time_up: bool

    @checked
    def __init__(
        self,
        trainer: Trainable,
        train_loader: TrainLoader,
        val_loader: Iterable[Any] | None,
        *,
        run: LocalPath,
        mini_epoch_samples: int | None = None,
        mini_epoch_batches: int | None = None,
        cross_epochs: bool = False,
        num_epochs: int = TRAIN.epochs,
        max_samples: int | None = None,
        max_time_s: float | None = None,
        val_every: int = 1,
        early: EarlyStopping = NEVER,
        retention: Retention = ALL,
        options: Mapping[str, Any] | None = None,
        resume: str | Path = TRAIN.resume,
        hooks: Sequence[Hook] = (),
        team: Team = ALONE,
        supply: Supply | None = None,
    ) -> None:
        if mini_epoch_samples is None and mini_epoch_batches is None:
            mini_epoch_samples = TRAIN.mini_epoch_samples
        self.trainer, self.train_loader, self.val_loader = trainer, train_loader, val_loader
        self.limits = Limits(epochs=num_epochs, samples=max_samples, time_s=max_time_s)
        self.course = Course(
            limits=self.limits,
            mini_epoch_samples=mini_epoch_samples,
            mini_epoch_batches=mini_epoch_batches,
            cross_epochs=cross_epochs,
            val_every=val_every,
        )
        self.early, self.team, self._supply = early, team, supply
        self.resume = resume if resume in RESUMES else Path(resume).absolute()
        self._folder = RunFolder(run, retention)
        sizes = {"mini_epoch_samples": mini_epoch_samples, "mini_epoch_batches": mini_epoch_batches}
        self.options = plain_names(options or {}, what="options") | sizes
        self._run = Run(
            folder=self._folder.path,
            trainer=trainer,
            train_loader=train_loader,
            val_loader=val_loader,
            options=self.options,
            stop=self._end,
            rank=team.rank,
        )
        self._listeners = Listeners(hooks)
        self._begin_anew()

    def run(self) -> Outcome:
        """Train to the end, or to the first SIGINT, SIGTERM or SIGHUP, which finishes the batch and saves the state.

        A second signal acts as if there were no orchestrator; SIGUSR1 saves at the next batch and goes on. Signals
        are heard in the main thread alone. Raises FileExistsError when another process uses the folder; DataError
        when the newest good checkpoint is of another dataset or was made with other options, or when a training
        loss is not finite, whose batch is then in the folder.
        """
        self._begin_anew()
        with self._folder.held() if self._writes else nullcontext(), self._stop:
            self._go_on_from_checkpoint()
            self._tell_start()
            try:
                while not (self._ended() or self._stopping):
                    self._mini_epoch()
            except NonFiniteLoss as error:
                raise self._suspect(error) from error
            self._stream = None
            self._restore_best()
            outcome = self._outcome()
            self._listeners.tell(RunEnded(run=self._run, outcome=outcome))
        return outcome

    def _ended(self) -> bool:
        """Whether there is no more to train; the same in all processes."""
        if self._standing.exhausted(self._metrics, self.early):
            self._end(self._standing.why(self.early))
        if self.course.samples_over(self._cursor):
            self._end(f"{self.limits.samples:,} samples were the limit")
        if self._time_up or (self.limits.time_s is not None and self._watch.used_s() >= self.limits.time_s):
            self._end("the time is used up")
        if self.team.any(self._reason is not None):
            self._reason = self.team.same(self._reason) or "another process asked for it"
        return self._reason is not None or self._all_trained()

    def _all_trained(self) -> bool:
        return self._cursor.epoch > self.limits.epochs

    def _end(self, reason: str) -> None:
        self._reason = self._reason or reason

    # --- a mini-epoch ---

    def _mini_epoch(self) -> None:
        self._watch.begin_lap(self._cursor.samples_seen)
        skipped = _skipped(self.train_loader)
        train = self._trained
        if train is None:
            if self._cursor.epoch_batches == 0 < self._cursor.samples_seen:
                self._look_for_growth()
                skipped = _skipped(self.train_loader)
            self._listeners.tell(MiniEpochBegun(run=self._run, **self._at()))
            train = self._metrics_of("train_on_batches", self.trainer.train_on_batches(self._batches()))
            if not self._mini_epoch_over():
                return self._check_interrupted()
            if not self._cursor.mini_batches:  # there was no time for one
                return
            _check_finite(train)
        lost = {name: count - skipped[name] for name, count in _skipped(self.train_loader).items()}
        speed = {
            "samples_per_s": self._watch.samples_per_s(self._cursor.samples_seen),
            "waiting": self._watch.waiting(),
            "skipped": lost or None,
        }
        with self._watch.closing():
            self._close(train, speed)

    def _close(self, train: dict[str, Any], speed: dict[str, Any]) -> None:
        at: dict[str, Any] = {**self._at()}
        added = self._listeners.tell(MiniEpochTrained(run=self._run, train=train, **at))
        val = self._validate()
        if val is None:
            return self._save_partial({"train": train})
        if val:
            added |= self._listeners.tell(Validated(run=self._run, train=train, val=val, **at))
        report = MiniEpochReport(
            **at,
            train={name: value for name, value in train.items() if name != "learning_rate"},
            val=val,
            learning_rate=train.get("learning_rate"),
            checkpoint=self._folder.checkpoints / checkpoint.file_name(at["epoch"], at["mini_epoch"]),
            seconds=self._watch.used_s(),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            **speed,
        )
        self._finish(report.record(added), report.checkpoint)

    def _at(self) -> dict[str, int]:
        place = self._cursor
        return {"epoch": place.epoch, "mini_epoch": place.mini_epoch, "samples_seen": place.samples_seen}

    def _batches(self) -> Iterator[Rows]:
        """The rest of the mini-epoch, one batch at a time."""
        while not self._mini_epoch_over():
            if self._interrupted():
                return self._save_partial({})
            if self._mini_epoch_over():  # time is up
                break
            if self._epoch_over():
                self._close_epoch()
                self._cursor = self._cursor.after_epoch(crossing=True)
                self._look_for_growth()
            batch = self._next_batch()
            if batch is None:
                done, of = self._cursor.epoch_batches, len(self.train_loader)
                raise RuntimeError(f"the loader ended after {done} of {of} batches")
            yield batch
            self._cursor = self._cursor.after_batch(self._global_rows(batch))
            self._show_progress()
        if self._epoch_over():
            self._close_epoch()

    def _close_epoch(self) -> None:
        self._next_batch()  # there is none, and the loader moves on to its next epoch
        self._stream = None

    def _next_batch(self) -> Rows | None:
        loader = self.train_loader
        self._trail.before_batch(loader, anew=self._stream is None)
        with self._watch.waited():
            if self._stream is not None:
                batch = next(self._stream, None)
            else:
                # a restarted run opens its loader once more often
                with checkpoint.random_state_kept():
                    self._stream = iter(loader)
                    batch = next(self._stream, None)
        if batch is not None:
            self._trail.after_batch()
        return batch

    def _global_rows(self, batch: Rows) -> int:
        loader = self.train_loader
        if loader.world_size == 1:
            return len(batch.value)
        # the ranks' shares of an epoch's last batch may differ by a row
        return min(loader.batch_size * loader.world_size, loader.samples - self._cursor.epoch_samples)

    def _interrupted(self) -> bool:
        """Heed signals and the clock before a batch, together: whether to stop here."""
        watch, stop, most = self._watch, self._stop, self.limits.time_s
        late = most is not None and watch.used_s() + watch.closing_s >= most
        if not self.team.any(stop.asked or stop.save_asked or late):
            return False
        if self.team.any(stop.save_asked):
            stop.save_asked = False
            self._save_partial({})
        self._time_up = not self._signalled() and self.team.any(late)
        return self._stopping

    def _signalled(self) -> bool:
        self._stopping = self.team.any(self._stop.asked)
        return self._stopping

    def _mini_epoch_over(self) -> bool:
        return self._time_up or self.course.mini_epoch_over(self._cursor, self.train_loader)

    def _epoch_over(self) -> bool:
        return self.course.epoch_over(self._cursor, self.train_loader)

    def _check_interrupted(self) -> None:
        if not self._stopping:
            raise RuntimeError("train_on_batches returned before its batches were used up")

    def _validate(self) -> dict[str, Any] | None:
        """Metrics of the weights as they are; None when a signal came first."""
        due = self._time_up or self.course.validates(self._cursor, self.train_loader)
        if self.val_loader is None or not due:
            return {}
        if self._signalled():
            return None
        # the weights must not depend on whether, or how often, one validates
        with checkpoint.random_state_kept():
            batches = takewhile(lambda _: not self._stop.asked, self.val_loader)
            val = self._metrics_of("validate", self.trainer.validate(batches))
        return None if self._signalled() else val

    def _metrics_of(self, method: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
        return plain_names(metrics, what=f"what {type(self.trainer).__name__}.{method}() returned")

    def _finish(self, record: dict[str, Any], path: Path) -> None:
        self._metrics, self._trained = record, None
        self._standing = self._standing.after(record, self.early)
        self._save(path, finished=True, metrics=record)
        if self._writes:
            self._folder.tidy(record, best=self._standing.checkpoint)
        self._cursor = self.course.after_mini_epoch(self._cursor, self.train_loader)
        self._finished += 1
        self._listeners.tell(Saved(run=self._run, checkpoint=path, record=record))

    # --- saving and going on ---

    @property
    def _writes(self) -> bool:
        return self.team.rank == 0

    def _save_partial(self, metrics: dict[str, Any]) -> None:
        name = checkpoint.file_name(self._cursor.epoch, self._cursor.mini_epoch, partial=True)
        path = self._folder.checkpoints / name
        self._save(path, finished=False, metrics=metrics)
        self._listeners.tell(Saved(run=self._run, checkpoint=path, record={}))

    def _save(self, path: Path, *, finished: bool, metrics: dict[str, Any]) -> None:
        trainer_state = self.trainer.state_dict()  # in every process: it may have to ask the others
        state = {
            "dataset": self.train_loader.index.fingerprint,
            "options": self.options,
            "counters": asdict(self._cursor) | {"finished": finished},
            "standing": asdict(self._standing) | {"used_s": self._watch.used_s()},
            "loader_state": self.train_loader.state_dict(),
            "random_state": checkpoint.random_states(self.team),
            "metrics": metrics,
        }
        if self._writes:
            checkpoint.write(path, state, trainer_state=trainer_state)
            checkpoint.read(path)  # older ones are given up for it
        self.team.any(False)  # nobody leaves while rank 0 writes: torchrun would end it with them
        self._newest = path

    def _begin_anew(self) -> None:
        self._stop, self._watch, self._cursor, self._standing = StopSignals(), Stopwatch(), Cursor(), Standing()
        self._stream = self._trained = self._newest = self._resumed_from = self._reason = None
        self._trail = Trail()
        self._metrics, self._finished, self._notices = {}, 0, []
        self._stopping = self._time_up = False

    def _go_on_from_checkpoint(self) -> None:
        if self._writes:
            self._folder.remove_leftovers()
        found = self._folder.find(self.resume, on_damage=self._notice) if self._writes else None
        # all read the file that rank 0 found
        if path := self.team.same(str(found[0]) if found else None):
            state = found[1] if found else checkpoint.read(Path(path))
            self._check_fits(Path(path), state)
            self._restore(Path(path), state)
        if self._writes:
            until = (self._cursor.epoch, self._cursor.mini_epoch)
            self._folder.go_on(until=until, last=self._metrics, best=self._standing.checkpoint)
        if self._metrics:  # the mini-epoch is whole
            self._cursor = self.course.after_mini_epoch(self._cursor, self.train_loader)

    def _check_fits(self, path: Path, state: dict[str, Any]) -> None:
        # a dataset that grew is gone on with as it was, to the end of the epoch
        if self._supply is not None and state["dataset"] != self.train_loader.index.fingerprint:
            self.train_loader = self._supply.as_it_was(state["dataset"], where=path)
        checkpoint.check_fits(state, dataset=self.train_loader.index.fingerprint, options=self.options, where=path)
        if self.resume != "auto" and self._writes:
            self._folder.check_newest(path, state["counters"])

    def _restore(self, path: Path, state: dict[str, Any]) -> None:
        counters, metrics, standing = state["counters"], state["metrics"], state["standing"]
        try:
            self.trainer.load_state_dict(checkpoint.trainer_state(state))
            self.train_loader.load_state_dict(state["loader_state"])
            self._cursor = Cursor(**{name: counters[name] for name in Cursor.__slots__})
            self._standing = Standing(**{name: standing[name] for name in Standing.__slots__})
            self._watch = Stopwatch(before_s=standing["used_s"])
            checkpoint.set_random_states(state["random_state"], self.team)
        except Exception as error:  # a trainer of anybody's own may raise anything for a state that is not its own
            found = f"does not fit this run ({printable(error, width=300)})"
            fix = "Use the model and trainer that wrote it, or another run folder"
            raise DataError(found, where=str(path), fix=fix) from error
        self._resumed_from = self._newest = path
        if counters["finished"]:
            self._metrics = metrics
        else:
            self._trained = metrics.get("train")

    def _look_for_growth(self) -> None:
        """Go on with the dataset as it is now, where an epoch begins."""
        if self._supply is None:
            return
        before = self.train_loader
        # rank 0 looks, so that all see the same
        newest = self.team.same(self._supply.newest(before.index.fingerprint) if self._writes else None)
        if newest != before.index.fingerprint:
            self.train_loader = self._supply.grown(newest, before)
            more = self.train_loader.samples - before.samples
            self._notice(f"the dataset has grown: epoch {self._cursor.epoch} has {more:,} samples more")

    def _restore_best(self) -> None:
        if not (self.early.restore_best and self._standing.checkpoint) or self._stopping:
            return
        state = checkpoint.read(self._folder.best)
        self.trainer.load_state_dict(checkpoint.trainer_state(state))

    def _suspect(self, error: NonFiniteLoss) -> DataError:
        """The batch whose loss is not finite is written out; the checkpoint before it is the newest."""
        self._stream = None
        cursor, ago = self._cursor, error.batches_ago
        batch = None if ago is None else self._trail.batch(ago)
        found = f"{error} in epoch {cursor.epoch}, mini-epoch {cursor.mini_epoch}"
        seen = "its batch is not known"
        if batch is not None:
            seen = write_suspect(batch, self._folder.suspect(self.team.rank, self.team.size))
        fix = "Lower the learning rate, and start again to go on from the newest checkpoint"
        return DataError(f"{found}; {seen}", where=str(self._folder.path), fix=fix)

    # --- telling ---

    def _outcome(self) -> Outcome:
        return Outcome(
            interrupted=self._stopping and not self._all_trained(),
            stopped=self._reason,
            epochs=self._cursor.epoch - 1,
            mini_epochs=self._finished,
            samples_seen=self._cursor.samples_seen,
            resumed_from=self._resumed_from,
            checkpoint=self._newest,
            best=self._folder.best if self._folder.best.exists() else None,
            metrics=self._metrics,
            notices=tuple(self._notices),
        )

    def _tell_start(self) -> None:
        history = self.team.same(self._folder.log.records() if self._writes else None)
        seen = self._cursor.samples_seen
        event = RunStarted(run=self._run, resumed_from=self._resumed_from, samples_seen=seen, history=history)
        self._listeners.tell(event)
        if self.val_loader is None:
            self._notice("there is no validation split: training without validation")

    def _notice(self, text: str) -> None:
        log.warning(text)
        self._notices.append(text)
        self._listeners.tell(Noticed(run=self._run, text=text))

    def _show_progress(self) -> None:
        if self._listeners and (self._watch.due(PROGRESS_INTERVAL_S) or self._mini_epoch_over()):
            self._listeners.tell(Progressed(run=self._run, progress=self._progress()))

    def _progress(self) -> Progress:
        cursor, watch, loader = self._cursor, self._watch, self.train_loader
        return Progress(
            epoch=cursor.epoch,
            epochs=self.limits.epochs,
            epoch_done=cursor.epoch_samples,
            epoch_samples=loader.samples,
            mini_epoch=cursor.mini_epoch,
            mini_epoch_done=cursor.mini_samples,
            mini_epoch_samples=self.course.mini_epoch_of(cursor, loader),
            samples_seen=cursor.samples_seen,
            total_samples=cursor.samples_seen + self.course.samples_left(cursor, loader),
            samples_per_s=watch.samples_per_s(cursor.samples_seen),
            waiting=watch.waiting(),
            best=self._standing.best,
            train=self._running_metrics(),
        )

    def _running_metrics(self) -> Mapping[str, Any]:
        tell: Callable[[], Mapping[str, Any]] | None = getattr(self.trainer, "running_metrics", None)
        return tell() if tell else {}


def _check_finite(train: Mapping[str, Any]) -> None:
    # a trainer that does not look itself
    loss = train.get("loss")
    if isinstance(loss, float) and not math.isfinite(loss):
        raise NonFiniteLoss(loss, batches_ago=None)


def _skipped(loader: object) -> dict[str, int]:
    """Damaged blocks and the positions lost with them that a loader has met so far; empty where it does not count."""
    counts = getattr(loader, "skipped", None)
    return {"blocks": counts.blocks, "positions": counts.positions} if counts else {}
