"""A run so small that it can be stopped in each of its batches, and the proof that two runs are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.options import StepSpec, TrainSpec
from hexshards.training.orchestrator import MiniEpochOrchestrator
from hexshards.training.settings import RunSettings
from hexshards.training.steps.trainer import Trainer
from hexshards.training.tracking.records import Outcome

SAMPLES, BATCH, EPOCHS = 26, 4, 2
"""Seven batches an epoch, the last of two samples."""
MINI = 9
"""Mini-epochs of 12, 12 and 2 samples."""
WHOLE = [f"checkpoint_epoch{e:04d}_mini{m:04d}.pt" for e in (1, 2) for m in (1, 2, 3)]
VOLATILE = {"time", "seconds", "used_s", "samples_per_s", "waiting"}
"""What a clock puts into checkpoints and records."""


class Batch(NamedTuple):
    board: Tensor
    policy: Tensor
    value: Tensor


class SmallLoader:
    """The contract of hexshards.loader, over a few boards; opening it draws a seed, as DataLoader does."""

    def __init__(self, *, samples: int = SAMPLES, fingerprint: str = "abc", world_size: int = 1) -> None:
        self.index = SimpleNamespace(fingerprint=fingerprint)
        self.samples, self.batch_size, self.world_size = samples, BATCH, world_size
        self.epoch = self.done = 0
        self.on_batch: Callable[[int], None] = lambda number: None

    def __len__(self) -> int:
        return -(-self.samples // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[Batch]:
        torch.empty((), dtype=torch.int64).random_()
        start, self.done = self.done, 0
        for number in range(start, len(self)):
            self.done = number + 1
            yield self._batch(number)
            self.on_batch(self.epoch * len(self) + number + 1)
        self.epoch, self.done = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.done = state["epoch"], state["done"]

    def _batch(self, number: int) -> Batch:
        draw = torch.Generator().manual_seed(1000 * self.epoch + number)
        rows = min(self.batch_size, self.samples - number * self.batch_size * self.world_size)
        board = torch.randint(0, 2, (rows, 3, 5, 5), generator=draw).float()
        policy = torch.eye(25)[torch.randint(0, 25, (rows,), generator=draw)]
        return Batch(board, policy, torch.randint(0, 2, (rows, 1), generator=draw).float())


class Validation:
    """The same batches each time; opening it draws a seed."""

    def __init__(self) -> None:
        self.batches = [SmallLoader(samples=10)._batch(number) for number in range(3)]
        self.on_batch: Callable[[], None] = lambda: None

    def __iter__(self) -> Iterator[Batch]:
        torch.empty((), dtype=torch.int64).random_()
        for batch in self.batches:
            self.on_batch()
            yield batch


class Drawing(nn.Module):
    """A model with all that a checkpoint must keep: weights, buffers that training moves, random draws."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(75, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.policy, self.value = nn.Linear(8, 25), nn.Linear(8, 1)

    def forward(self, board: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.body(board)
        return self.policy(seen), self.value(seen)


def seeded(kind: type[Trainer]) -> Trainer:
    torch.manual_seed(0)
    return kind(Drawing(), StepSpec(warmup_samples=20))


def orchestrator(run: Path, **changes: Any) -> MiniEpochOrchestrator:
    parts = {
        "trainer": seeded(Trainer),
        "train_loader": SmallLoader(),
        "val_loader": Validation(),
        "mini_epoch_samples": None if "mini_epoch_batches" in changes else MINI,
        "num_epochs": EPOCHS,
        **changes,
    }
    rest = {field.name: parts.pop(field.name) for field in fields(RunSettings) if field.name in parts}
    return MiniEpochOrchestrator(
        parts.pop("trainer"),
        parts.pop("train_loader"),
        parts.pop("val_loader"),
        run=run,
        settings=RunSettings(**rest),
        **parts,
    )


def train(run: Path, **changes: Any) -> Outcome:
    return orchestrator(run, **changes).run()


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def log_lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, less what a clock put there."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in VOLATILE} for line in lines]


def plain(value: Any) -> Any:
    """A checkpoint as values that compare bit for bit."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in VOLATILE}
    return [plain(part) for part in value] if isinstance(value, list) else value


def assert_same_run(run: Path, whole: Path) -> None:
    assert names(run) == names(whole)
    for name in names(whole):
        ours, theirs = (plain(checkpoint_file.read(folder / "checkpoints" / name)) for folder in (run, whole))
        assert ours == theirs, f"{name} differs"
    assert log_lines(run) == log_lines(whole)


def small_spec(data: Path, run: Path, **options: Any) -> TrainSpec:
    """A training of two mini-epochs of 64 samples."""
    small = {"channels": 2, "blocks": 1, "batch_size": 32, "mini_epoch_samples": 64, "warmup_samples": 0, "threads": 1}
    return TrainSpec(data=data, run=run, device="cpu", **{**small, "max_samples": 128, **options})
