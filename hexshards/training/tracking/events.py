"""Events of a run: what its hooks are told, records of mini-epochs, progress, notices, and how it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hexshards.errors import escaped
from hexshards.training.checkpointing.checkpoints import Checkpoints, RunState
from hexshards.training.distributed import ProcessGroup
from hexshards.training.growing_data import Growth
from hexshards.training.mini_epochs import Cursor
from hexshards.training.stop import Stop
from hexshards.training.stream import BatchStream
from hexshards.training.tracking.hooks import (
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
    Validating,
    Waiting,
)
from hexshards.training.tracking.records import MiniEpochReport, Outcome, TrainingProgress
from hexshards.training.tracking.stopwatch import Stopwatch
from hexshards.training.train_bucket import Level
from hexshards.units import counted

log = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 0.1
"""Progressed and Validating come no more often, first and last batches excepted."""


class Events:
    """The hooks of a run, and what they are told."""

    def __init__(self, run: Run, hooks: Sequence[Hook], *, watch: Stopwatch, process_group: ProcessGroup) -> None:
        self._run, self._hooks = run, Listeners(hooks)
        self._watch, self._process_group = watch, process_group
        self.begin()

    def begin(self) -> None:
        """Nothing has been told yet."""
        self._finished, self._notices = 0, list[str]()

    def started(self, state: RunState, stop: Stop, checkpoints: Checkpoints, stream: BatchStream) -> None:
        """The run stands where its checkpoint left it."""
        over = stop.over(state.cursor, state.standing, state.record)
        history = self._process_group.same(checkpoints.folder.log.records() if checkpoints.writes else None)
        self._hooks.tell(
            RunStarted(
                run=self._run,
                resumed_from=checkpoints.resumed_from,
                samples_seen=state.cursor.samples_seen,
                totals=stream.plan.totals(stream.loader, Cursor()),
                left=stream.plan.totals(stream.loader, state.cursor),
                history=history,
                over=over,
            )
        )
        if self._run.val_loader is None:
            self.notice("there is no validation split: training without validation until started again with one")
        if over is None and stream.ends_on_earlier_data:
            drawn = counted(stream.loader.samples, "sample")
            at = f"epoch {state.cursor.epoch} goes on with the {drawn} that it began with"
            self.notice(f"{at}; what the dataset is now is taken up after it")

    def notice(self, text: str) -> None:
        """Something unusual."""
        log.warning(escaped(text))
        self._notices.append(text)
        self._hooks.tell(Noticed(run=self._run, text=text))

    def grown(self, growth: Growth) -> None:
        """The dataset is not that of the epoch before: files were added, or shards merged."""
        self.notice(str(growth))

    def waiting(self, level: Level) -> None:
        """The next mini-epoch waits for positions to be added."""
        self._hooks.tell(Waiting(run=self._run, level=level))

    def begun(self, state: RunState, *, batches: int) -> None:
        """The trainer is about to be given a mini-epoch's batches."""
        self._hooks.tell(MiniEpochBegun(run=self._run, batches=batches, **_at(state)))

    def progress(self, stream: BatchStream, best: float | None, train: Callable[[], Mapping[str, Any]]) -> None:
        """Batches were trained; told now and then."""
        if not self._hooks.listening or not (self._watch.due(PROGRESS_INTERVAL_S) or stream.mini_epoch_over):
            return
        cursor, plan, loader = stream.cursor, stream.plan, stream.loader
        progress = TrainingProgress(
            epoch=cursor.epoch,
            epochs=plan.limits.epochs,
            epoch_done=cursor.epoch_samples,
            epoch_samples=loader.samples,
            mini_epoch=cursor.mini_epoch,
            mini_epoch_done=cursor.mini_samples,
            mini_epoch_samples=plan.mini_epoch_of(cursor, loader),
            samples_seen=cursor.samples_seen,
            total_samples=cursor.samples_seen + plan.samples_left(cursor, loader),
            samples_per_s=self._watch.samples_per_s(cursor.samples_seen),
            waiting=self._watch.waiting(),
            best=best,
            train=train(),
        )
        self._hooks.tell(Progressed(run=self._run, progress=progress))

    def trained(self, state: RunState) -> dict[str, Any]:
        """A mini-epoch's last batch was trained; what hooks add to its record."""
        return self._hooks.tell(MiniEpochTrained(run=self._run, train=state.train or {}, **_at(state)))

    def validating(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches of a validation; told now and then how many are done."""
        count = _length(self._run.val_loader)
        self._validating(0, count)
        for done, batch in enumerate(batches, start=1):
            yield batch
            if done == count or self._watch.due(PROGRESS_INTERVAL_S):
                self._validating(done, count)

    def _validating(self, done: int, count: int | None) -> None:
        if self._hooks.listening:
            self._hooks.tell(Validating(run=self._run, batches_done=done, batches=count))

    def validated(self, state: RunState, val: Mapping[str, Any]) -> dict[str, Any]:
        """The weights that are about to be saved were validated; what hooks add to the record."""
        return self._hooks.tell(Validated(run=self._run, train=state.train or {}, val=val, **_at(state)))

    def saved(self, path: Path, record: Mapping[str, Any]) -> None:
        """A checkpoint was written; no record where the mini-epoch is not whole."""
        self._finished += bool(record)
        self._hooks.tell(Saved(run=self._run, checkpoint=path, record=record))

    def ended(self, state: RunState, stop: Stop, checkpoints: Checkpoints) -> Outcome:
        """The run is over, saved and logged."""
        best = checkpoints.folder.best
        outcome = Outcome(
            interrupted=stop.signalled and not stop.all_trained(state.cursor),
            stopped=stop.reason,
            epochs=state.cursor.epoch - 1,
            mini_epochs=self._finished,
            samples_seen=state.cursor.samples_seen,
            resumed_from=checkpoints.resumed_from,
            checkpoint=checkpoints.newest,
            best=best if best.exists() else None,
            metrics=state.record,
            notices=tuple(self._notices),
        )
        self._hooks.tell(RunEnded(run=self._run, outcome=outcome))
        return outcome


def record_of(
    state: RunState, val: Mapping[str, Any], added: Mapping[str, Any], *, checkpoint: Path, speed: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of a mini-epoch: a line of metrics.jsonl, ``metrics`` in the checkpoint."""
    train = dict(state.train or {})
    at: dict[str, Any] = {**_at(state)}
    report = MiniEpochReport(
        **at,
        learning_rate=train.pop("learning_rate", None),
        train=train,
        val=val,
        checkpoint=checkpoint,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        **speed,
    )
    return report.record(added)


def _length(loader: object) -> int | None:
    with suppress(TypeError, NotImplementedError):  # it does not know
        return len(loader)  # type: ignore[arg-type]
    return None


def _at(state: RunState) -> dict[str, int]:
    cursor = state.cursor
    return {"epoch": cursor.epoch, "mini_epoch": cursor.mini_epoch, "samples_seen": cursor.samples_seen}
