"""A loader and a trainer of plain numbers, and the parts of a run around them: no model, no gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.checkpointing.checkpoints import Checkpoints
from hexshards.training.checkpointing.retention import Retention
from hexshards.training.distributed import ProcessGroup
from hexshards.training.early_stopping import Limits
from hexshards.training.mini_epochs import MiniEpochPlan
from hexshards.training.stream import BatchStream
from hexshards.training.tracking.stopwatch import Stopwatch

BATCH = 4


class Rows(NamedTuple):
    """A batch: its epoch and number, and a value for each of its rows."""

    name: tuple[int, int]
    value: list[int]


class PlainLoader:
    """Epochs of ``samples`` rows in batches of four; ``count`` is how many batches ``len`` claims."""

    def __init__(self, samples: int = 10, *, count: int | None = None, fingerprint: str = "abc") -> None:
        self.samples, self.batch_size, self.world_size = samples, BATCH, 1
        self.index = SimpleNamespace(fingerprint=fingerprint)
        self.count, self.epoch, self.done, self.opened = count, 0, 0, 0

    def __len__(self) -> int:
        return -(-self.samples // BATCH) if self.count is None else self.count

    def __iter__(self) -> Iterator[Rows]:
        self.opened += 1
        start, self.done = self.done, 0
        for number in range(start, -(-self.samples // BATCH)):
            self.done = number + 1
            yield Rows((self.epoch, number), [0] * min(BATCH, self.samples - number * BATCH))
        self.epoch, self.done = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.done = state["epoch"], state["done"]


class PlainTrainer:
    """Counts the batches that it has seen."""

    def __init__(self, seen: int = 0) -> None:
        self.seen = seen

    def train_on_batches(self, batches: Any) -> Mapping[str, Any]:
        self.seen += sum(1 for _ in batches)
        return {"loss": 1.0 / self.seen}

    def validate(self, loader: Any) -> Mapping[str, Any]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


def plan(
    *,
    samples: int | None = 8,
    epochs: int = 2,
    cross: bool = False,
    most_samples: int | None = None,
    time_s: float | None = None,
) -> MiniEpochPlan:
    return MiniEpochPlan(
        limits=Limits(epochs=epochs, samples=most_samples, time_s=time_s),
        mini_epoch_samples=samples,
        mini_epoch_batches=None,
        cross_epochs=cross,
        val_every=1,
    )


def stream_of(loader: Any, path: MiniEpochPlan | None = None, **more: Any) -> BatchStream:
    parts = {"watch": Stopwatch(), "process_group": ProcessGroup(), "on_growth": lambda growth: None, **more}
    return BatchStream(loader, path or plan(), **parts)


def checkpoints_of(run: Path, *, resume: str | Path = "auto", last: int | None = None, **options: Any) -> Checkpoints:
    return Checkpoints(
        run,
        Retention(last=last),
        options=options,
        resume=resume,
        reader=checkpoint_file.Reader(),
        watch=Stopwatch(),
        process_group=ProcessGroup(),
    )
