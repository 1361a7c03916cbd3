"""Hooks (callbacks): each is called with every event of a run, in order; it shows, logs, measures, or asks for the end.

RunStarted, then for each mini-epoch Waiting, where it must, MiniEpochBegun, Progressed now and then, MiniEpochTrained,
Validating now and then, Validated and Saved, at last RunEnded; Noticed at any time. What a hook returns for
MiniEpochTrained or Validated joins the mini-epoch's record, the line of ``metrics.jsonl``, under its own names. Both
come before the checkpoint is written: what a hook changes in the trainer then is saved with it. What it draws from
torch's random generators is not missed in training. Every rank calls its hooks; the record is that of rank 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hexshards.training.checkpointing.checkpoint_file import random_state_kept
from hexshards.training.checkpointing.plain_values import plain_names
from hexshards.training.protocols import Trainable, TrainLoader
from hexshards.training.tracking.records import Outcome, Totals, TrainingProgress, joined
from hexshards.training.train_bucket import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run, as its hooks see it."""

    folder: Path
    trainer: Trainable
    train_loader: TrainLoader
    val_loader: Iterable[Any] | None
    options: Mapping[str, Any]
    stop: Callable[[str], None]
    """End the run, giving a reason, once the mini-epoch at work is saved; between mini-epochs at once."""
    rank: int = 0
    computes: str = ""
    """How it computes and why, for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Event of a run, which its hooks are called with."""

    run: Run = field(repr=False)

    def stop(self, reason: str) -> None:
        """End the run once the mini-epoch at work is saved; started again, it goes on."""
        self.run.stop(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """The run stands where its checkpoint left it, and is about to train, unless it is over."""

    resumed_from: Path | None
    samples_seen: int
    totals: Totals
    """Of the whole run, as if all of its epochs were of the dataset as it is."""
    left: Totals
    """Of what is still to come."""
    history: Sequence[Mapping[str, Any]]
    """The records of the mini-epochs before: a hook that counts begins from them, not from nothing."""
    over: str | None = None
    """Why nothing is left to train, where the run had ended and is given again as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Event):
    """A mini-epoch waits for positions to be added (RunSettings.samples_per_position); comes again at each look."""

    level: Level


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniEpochBegun(Event):
    """The trainer is about to be given a mini-epoch's batches. Comes again for what is left of one that was stopped."""

    epoch: int
    mini_epoch: int
    samples_seen: int
    batches: int
    """As many as are planned; the end of an epoch within it, or data that grows, may change that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed(Event):
    """Batches were trained: at most ten times a second, and at a mini-epoch's first and last."""

    progress: TrainingProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniEpochTrained(Event):
    """A mini-epoch's last batch was trained. Comes again when a run was stopped before the checkpoint was written."""

    epoch: int
    mini_epoch: int
    samples_seen: int
    train: Mapping[str, Any]
    """Training metrics over the mini-epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validating(Event):
    """Validation goes on: at its start, at most ten times a second, and at its last batch."""

    batches_done: int
    batches: int | None
    """All of them, where the loader knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated(Event):
    """The weights that are about to be saved were validated."""

    epoch: int
    mini_epoch: int
    samples_seen: int
    train: Mapping[str, Any]
    val: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved(Event):
    """A checkpoint was written."""

    checkpoint: Path
    record: Mapping[str, Any]
    """The line of ``metrics.jsonl``, as written; empty where the mini-epoch is not whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed(Event):
    """Something unusual, such as a damaged checkpoint that was skipped."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """The run is over, saved and logged. Does not come after an error."""

    outcome: Outcome


class Hook(Protocol):
    """Callback of a run: anything that can be called with an event."""

    def __call__(self, event: Event, /) -> Mapping[str, Any] | None:
        """React to an event, or pass it over: others will be added. Plain numbers and words to record, or None."""


class Listeners:
    """The hooks of a run."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = tuple(hooks)

    @property
    def listening(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._hooks)

    def tell(self, event: Event) -> dict[str, Any]:
        """Call all hooks, and collect what they add to the record, made plain.

        Raises ValueError where two add the same, NotPlain for what a record cannot hold.
        """
        added: dict[str, Any] = {}
        # the weights must not depend on what is measured
        with random_state_kept():
            for hook in self._hooks:
                says = hook(event)
                if says is not None:
                    added = joined(added, plain_names(says, what=f"what the hook {_name(hook)} returned"))
        return added


def _name(hook: Hook) -> str:
    return getattr(hook, "__qualname__", type(hook).__qualname__)
