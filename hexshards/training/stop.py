"""Stop conditions of a run: limits of samples and time, early stopping, a hook, a signal. All ranks agree.

A signal leaves in the middle of a mini-epoch; time that is up ends the mini-epoch early; all else waits for its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hexshards.signals import StopSignals
from hexshards.training.distributed import ProcessGroup
from hexshards.training.early_stopping import EarlyStopping, Standing
from hexshards.training.mini_epochs import Cursor, MiniEpochPlan
from hexshards.training.tracking.stopwatch import Stopwatch
from hexshards.units import counted


class Stop:
    """Stop conditions: what ends a run, and why."""

    def __init__(
        self,
        plan: MiniEpochPlan,
        early: EarlyStopping,
        *,
        watch: Stopwatch,
        process_group: ProcessGroup,
        more_to_come: Callable[[], bool] = lambda: False,
    ) -> None:
        """more_to_come: whether the dataset has grown by positions that are not trained on yet; ranks agree."""
        self.plan, self.early, self._more_to_come = plan, early, more_to_come
        self._watch, self._process_group = watch, process_group
        self.begin()

    def begin(self) -> None:
        """Nothing has been asked for yet."""
        self.signals = StopSignals()
        self.reason: str | None = None
        """Why the run ends before its last epoch does."""
        self.signalled = False
        """A signal asked one of the ranks to stop."""
        self.time_up = False

    def because(self, reason: str) -> None:
        """End the run once the mini-epoch at work is saved; the first reason counts."""
        self.reason = self.reason or reason

    def due(self, cursor: Cursor, standing: Standing, record: Mapping[str, Any]) -> bool:
        """Whether there is no more to train, or a signal came; the same in all processes."""
        exhausted = standing.exhausted(record, self.early)
        # a metric may be each rank's own: all look where one would stop, and none waits for the others
        if self._process_group.any(exhausted) and not self._more_to_come() and exhausted:
            self.because(standing.why(self.early))
        limits = self.plan.limits
        if limits.samples and self.plan.samples_over(cursor):
            self.because(f"{counted(limits.samples, 'sample', verb='was/were')} the limit")
        if self.time_up or (limits.time_s is not None and self._watch.used_s() >= limits.time_s):
            self.because("the time is used up")
        if self._process_group.any(self.reason is not None):
            self.reason = self._process_group.same(self.reason) or "another process asked for it"
        return self.reason is not None or self.all_trained(cursor) or self.signalled

    def over(self, cursor: Cursor, standing: Standing, record: Mapping[str, Any]) -> str | None:
        """Why there is no more to train, of a run that begins or goes on; None where there is. Ranks agree."""
        if not self.due(cursor, standing, record) or self.signalled:
            return None
        return self.reason or f"{counted(self.plan.limits.epochs, 'epoch', verb='was/were')} the limit"

    def all_trained(self, cursor: Cursor) -> bool:
        """Whether the last epoch is over."""
        return cursor.epoch > self.plan.limits.epochs

    def leave(self, save: Callable[[], None]) -> bool:
        """Between two batches: save where that is asked for; whether to leave the mini-epoch here."""
        signals, most = self.signals, self.plan.limits.time_s
        late = most is not None and self._watch.used_s() + self._watch.closing_s >= most
        if not self._process_group.any(signals.asked or signals.save_asked or late):
            return False
        if self._process_group.any(signals.save_asked):
            signals.save_asked = False
            save()
        if self.heard():
            save()
        self.time_up = not self.signalled and self._process_group.any(late)
        return self.signalled or self.time_up

    def leave_waiting(self, save: Callable[[], None]) -> bool:
        """Before a mini-epoch that waits: as between two batches; also where a hook asked for the end."""
        return self.leave(save) or self._process_group.any(self.reason is not None)

    def heard(self) -> bool:
        """Whether a signal asked one of the ranks to stop."""
        self.signalled = self._process_group.any(self.signals.asked)
        return self.signalled
