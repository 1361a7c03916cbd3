"""A run's checkpoint of a small network, made without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.options import StepSpec
from hexshards.training.steps.model import TwoHeadedResNet
from hexshards.training.steps.trainer import Trainer

SIDE = 5


def state_of(network: torch.nn.Module, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts of a checkpoint after a mini-epoch, and a trainer's."""
    at = {"epoch": 2, "mini_epoch": 3, "samples_seen": 640}
    counts = dict.fromkeys(("epoch_batches", "epoch_samples", "mini_batches", "mini_samples"), 1)
    losses = {"loss": 0.5, "policy_loss": 2.0, "value_loss": 0.25}
    parts = {
        "dataset": "abc",
        "options": {"optimizer": "adamw", "side": SIDE, **options},
        "counters": {**at, **counts, "finished": True},
        "standing": {"best": 0.4, "checkpoint": checkpoint_file.file_name(1, 1), "waited": 1, "used_s": 3.0},
        "loader_state": {},
        "random_state": {"ranks": [checkpoint_file.random_state()]},
        "metrics": {**at, "checkpoint": checkpoint_file.file_name(2, 3), "train": losses, "val": losses},
    }
    return parts, Trainer(network, StepSpec(ema=0.5)).state_dict()


def saved(path: Path, network: torch.nn.Module | None = None, **options: Any) -> torch.nn.Module:
    """A network, and a run's checkpoint of it."""
    torch.manual_seed(3)
    network = network or TwoHeadedResNet(channels=4, blocks=2)
    parts, trained = state_of(network, **options)
    checkpoint_file.write(path, parts, trainer_state=trained)
    return network.eval()


def boards(count: int = 6, *, side: int = SIDE) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    taken = torch.randint(0, 3, (count, side, side), generator=draw)
    to_move = torch.arange(count)[:, None, None].expand_as(taken) % 2 == 1
    return torch.stack([taken == 1, taken == 2, to_move], dim=1).float()
