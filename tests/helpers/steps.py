"""Small networks and batches, and what is compared of a trainer."""

from __future__ import annotations

import os
import signal
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SIDE = 5


class Batch(NamedTuple):
    board: Tensor
    policy: Tensor
    value: Tensor


class Drawing(nn.Module):
    """A network with all that there is to keep: weights, buffers that training moves, random draws."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2))
        self.policy, self.value = nn.Conv2d(4, 1, 1), nn.Linear(4, 1)

    def forward(self, board: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.see(board)
        return self.policy(seen).flatten(1), self.value(seen.mean(dim=(2, 3)))


class Bare(nn.Module):
    """A network without batch norm: the rows of a batch do not see each other."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.policy, self.value = nn.Conv2d(4, 1, 1), nn.Linear(4, 1)

    def forward(self, board: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.see(board)
        return self.policy(seen).flatten(1), self.value(seen.mean(dim=(2, 3)))


def batch(seed: int, *, rows: int = 6, without_policy: int = 2, side: int = SIDE) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    board = torch.randint(0, 2, (rows, 3, side, side), generator=draw).float()
    policy = torch.eye(side * side)[torch.randint(0, side * side, (rows,), generator=draw)]
    policy[:without_policy] = 0.0
    return Batch(board, policy, torch.randint(0, 2, (rows, 1), generator=draw).float())


BATCHES_OF_13 = [batch(seed, side=13) for seed in range(3)]


def weights(model: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def assert_equal(ours: Any, theirs: Any, where: str = "state") -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for name in theirs:
            assert_equal(ours[name], theirs[name], f"{where}.{name}")
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), where
        for number, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(our, their, f"{where}[{number}]")
    else:
        assert torch.equal(ours, theirs) if isinstance(theirs, Tensor) else ours == theirs, where


class Spoiled(Bare):
    """Answers what the board's first cell says."""

    def forward(self, board: Tensor) -> tuple[Tensor, Tensor]:
        policy, value = super().forward(board)
        return policy, value * board[:, 0, 0, 0].reshape(-1, 1)


class Interrupted(Bare):
    """A network that sends its process a Ctrl-C in its step number INTERRUPTED_AT, where that is set."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.last = 0, int(os.environ.get("INTERRUPTED_AT", "0"))

    def forward(self, board: Tensor) -> tuple[Tensor, Tensor]:
        self.steps += self.training
        if self.training and self.steps == self.last:
            os.kill(os.getpid(), signal.SIGINT)
        return super().forward(board)


class Dying(Bare):
    """A network that kills process 1 at its first start, and asks process 0 to stop after that."""

    def __init__(self) -> None:
        super().__init__()
        place = os.environ.get("RANK"), os.environ.get("TORCHELASTIC_RESTART_COUNT")
        self.signals = {("1", "0"): signal.SIGKILL, ("0", "1"): signal.SIGTERM} if "DYING" in os.environ else {}
        self.signal, self.steps = self.signals.get(place), 0

    def forward(self, board: Tensor) -> tuple[Tensor, Tensor]:
        self.steps += self.training
        if self.steps == 8 and self.signal:
            os.kill(os.getpid(), self.signal)
            self.signal = None
        return super().forward(board)
