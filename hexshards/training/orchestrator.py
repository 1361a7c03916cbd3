"""Training loop in mini-epochs: an epoch is a pass over the data, a mini-epoch a number of samples.

Train, validate those very weights, save them, tell; stop or go on. Where a run stands is in its newest checkpoint, so
a run that was stopped at any moment, in any way, and started again ends with the weights, bit for bit, of one that
never stopped. The orchestrator touches no tensor, and drives anything with the four methods of Trainable. Of ranks
that train together each runs one, all stop at the same batch, and rank 0 alone writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import Any

from hexshards.arguments import LocalPath, checked
from hexshards.errors import DataError, NonFiniteLoss
from hexshards.training.checkpointing.checkpoint_file import random_state_kept
from hexshards.training.checkpointing.checkpoints import Checkpoints, RunState
from hexshards.training.checkpointing.plain_values import plain_names
from hexshards.training.nonfinite import nonfinite_loss
from hexshards.training.options import TRAIN
from hexshards.training.protocols import HearsEvents, ShowsLosses, Trainable, TrainLoader
from hexshards.training.settings import RunSettings
from hexshards.training.stop import Stop
from hexshards.training.stream import BatchStream
from hexshards.training.tracking.events import Events, record_of
from hexshards.training.tracking.hooks import Hook, Run
from hexshards.training.tracking.records import Outcome
from hexshards.training.tracking.stopwatch import Stopwatch

DEFAULT = RunSettings()


class MiniEpochOrchestrator:
    """Training loop: drives a trainer through ``num_epochs`` passes over a loader in mini-epochs, resuming by itself.

    A mini-epoch ends with the first batch that reaches ``mini_epoch_samples`` samples, of all ranks, or with the epoch.
    val_loader None: no validation. run: the folder of ``checkpoints/``, ``best.pt`` and ``metrics.jsonl``. hooks: see
    hexshards.training.tracking.hooks. settings: all that most leave as it is.
    """

    @checked
    def __init__(
        self,
        trainer: Trainable,
        train_loader: TrainLoader,
        val_loader: Iterable[Any] | None,
        *,
        run: LocalPath,
        mini_epoch_samples: int | None = None,
        num_epochs: int = TRAIN.epochs,
        hooks: Sequence[Hook] = (),
        settings: RunSettings = DEFAULT,
    ) -> None:
        by_batches, process_group = settings.mini_epoch_batches, settings.process_group
        if mini_epoch_samples is None and by_batches is None:
            mini_epoch_samples = TRAIN.mini_epoch_samples
        plan = settings.plan(mini_epoch_samples, epochs=num_epochs)
        sizes = {"mini_epoch_samples": mini_epoch_samples, "mini_epoch_batches": by_batches}
        options = plain_names(settings.options, what="options") | sizes
        self.trainer, self.val_loader, self.settings, self.watch = trainer, val_loader, settings, Stopwatch()
        shared: dict[str, Any] = {"watch": self.watch, "process_group": process_group}
        self.stop = Stop(plan, settings.early, more_to_come=lambda: self.stream.more_to_come(), **shared)
        resume: dict[str, Any] = {"resume": settings.resume, "reader": settings.reader}
        self.checkpoints = Checkpoints(run, settings.retention, options=options, **resume, **shared)
        seen = Run(
            folder=self.checkpoints.folder.path,
            trainer=trainer,
            train_loader=train_loader,
            val_loader=val_loader,
            options=options,
            stop=self.stop.because,
            rank=process_group.rank,
            computes=settings.computes,
        )
        own = [trainer.on_event] if isinstance(trainer, HearsEvents) else []
        self.events = Events(seen, [*own, *hooks], **shared)
        shared |= {"growing_data": settings.growing_data, "grow": settings.grow, "on_growth": self.events.grown}
        shared |= {"samples_per_position": settings.samples_per_position, "on_wait": self.events.waiting}
        self.stream = BatchStream(train_loader, plan, **shared)

    def run(self) -> Outcome:
        """Train to the end, or to the first SIGINT, SIGTERM or SIGHUP, which finishes the batch and saves the state.

        A second signal acts as if there were no orchestrator; SIGUSR1 saves at the next batch and goes on. Signals
        are heard in the main thread alone. Raises FileExistsError when another process uses the folder; DataError
        when the newest good checkpoint is of another dataset or was made with other options, or when a training
        loss is not finite, whose batch is then in the folder.
        """
        self.watch.restart()
        self.stop.begin()
        self.events.begin()
        with self.checkpoints.locked(), self.stop.signals:
            state = self.checkpoints.restore(self.trainer, self.stream, notice=self.events.notice)
            self.events.started(state, self.stop, self.checkpoints, self.stream)
            try:
                while not self.stop.due(state.cursor, state.standing, state.record):
                    state = self.mini_epoch(state)
            except NonFiniteLoss as error:
                raise self._with_its_batch(error) from error
            self.stream.close()
            if self.settings.early.restore_best and state.standing.checkpoint and not self.stop.signalled:
                self.checkpoints.restore_best(self.trainer)
            return self.events.ended(state, self.stop, self.checkpoints)

    def mini_epoch(self, state: RunState) -> RunState:
        """Train, validate, save, tell; where a signal came first, the state that was saved for it."""
        self.watch.begin_lap(state.cursor.samples_seen)
        if state.train is None:
            state = self.train(state)
        if state.train is None:
            return state
        seen = state.cursor.samples_seen
        measured = self.watch.measured(seen)  # not where only the validation was left to do
        speed = {
            "samples_per_s": self.watch.samples_per_s(seen) if measured else None,
            "waiting": self.watch.waiting() if measured else None,
            "skipped": self.stream.skipped(),
            "dataset": self.stream.loader.index.fingerprint,
        }
        with self.watch.closing():
            added = self.events.trained(state)
            val = self.validate(state)
            if val is None:
                self.save(state, finished=False)
                return state
            added |= self.events.validated(state, val) if val else {}
            path, seconds = self.checkpoints.path_of(state.cursor), self.watch.used_s()
            record = record_of(state, val, added, checkpoint=path, speed={**speed, "seconds": seconds})
            standing = state.standing.after(record, self.settings.early, before=state.record)
            self.save(replace(state, record=record, standing=standing, train=None), finished=True)
        after = self.stream.plan.after_mini_epoch(state.cursor, self.stream.loader)
        self.stream.cursor = after
        return RunState(cursor=after, standing=standing, record=record)

    def train(self, state: RunState) -> RunState:
        """The rest of the mini-epoch's batches; their metrics, unless a signal or the clock came first."""
        save = partial(self.save, state, finished=False)
        begun = self.stream.begin_mini_epoch(partial(self.stop.leave_waiting, save))
        state = replace(state, cursor=self.stream.cursor)
        if not begun:
            return state
        running = self.trainer.running_metrics if isinstance(self.trainer, ShowsLosses) else dict[str, Any]
        done = partial(self.events.progress, self.stream, state.standing.best, running)
        batches = self.stream.batches(partial(self.stop.leave, save), done)
        self.events.begun(state, batches=self.stream.plan.batches_left(state.cursor, self.stream.loader))
        metrics = self.trainer.train_on_batches(batches)
        cursor = self.stream.cursor
        if self.stop.time_up:
            self.stream.end_epoch()
        elif not self.stream.mini_epoch_over:
            if not self.stop.signalled:
                raise RuntimeError("train_on_batches returned before its batches were used up")
            return replace(state, cursor=cursor)
        if not cursor.mini_batches:  # there was no time for one
            return state
        return replace(state, cursor=cursor, train=self._finite(self._plain("train_on_batches", metrics)))

    def validate(self, state: RunState) -> dict[str, Any] | None:
        """Metrics of the weights as they are, none where it is not their turn; None when a signal came first."""
        due = self.stop.time_up or self.stream.plan.validates(state.cursor, self.stream.loader)
        if self.val_loader is None or not due:
            return {}
        if self.stop.heard():
            return None
        # the weights must not depend on whether, or how often, one validates
        with random_state_kept():
            batches = takewhile(lambda _: not self.stop.signals.asked, self.val_loader)
            val = self._plain("validate", self.trainer.validate(self.events.validating(batches)))
        return None if self.stop.heard() else val

    def save(self, state: RunState, *, finished: bool) -> None:
        """Write a checkpoint and tell of it; of a mini-epoch that is not whole, with the cursor as it stands."""
        state = state if finished else replace(state, cursor=self.stream.cursor)
        path = self.checkpoints.save(state, self.trainer, self.stream, finished=finished)
        if finished:
            self.checkpoints.retain(state)
        self.events.saved(path, state.record if finished else {})

    def _plain(self, method: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
        return plain_names(metrics, what=f"what {type(self.trainer).__name__}.{method}() returned")

    def _finite(self, train: dict[str, Any]) -> dict[str, Any]:
        # a trainer that does not look itself
        loss = train.get("loss")
        if isinstance(loss, float) and not math.isfinite(loss):
            raise NonFiniteLoss(loss, batches_ago=None)
        return train

    def _with_its_batch(self, error: NonFiniteLoss) -> DataError:
        """Write out the batch whose loss is not finite; the checkpoint before it is the newest."""
        batch = None if error.batches_ago is None else self.stream.recent(error.batches_ago)
        return nonfinite_loss(error, batch, self.stream.cursor, self.checkpoints.folder, self.settings.process_group)
