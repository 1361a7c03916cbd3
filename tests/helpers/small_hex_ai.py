"""A stand-in for hex_ai, written anew: its names, shapes and signatures, with a narrow network.

What its users' programs do with a network, a trainer, a checkpoint and its books is here as they do it, so that what
hexshards gives them is seen to be taken.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CHANNELS = (8, 8, 16, 16)
"""Theirs are 64, 128, 256, 512."""

KEYS = {
    *("epoch", "model_state_dict", "optimizer_state_dict", "train_metrics"),
    *("val_metrics", "best_val_loss", "mixed_precision"),
}
"""Of a checkpoint."""


class TwoHeadedResNet(nn.Module):
    """``forward(board (B, 3, 13, 13))`` gives ``(policy_logits (B, 169), value (B, 1))``, the value within -1 to 1."""

    def __init__(self, *, dropout_prob: float = 0.0, cells: int = 169) -> None:
        super().__init__()
        self.input_conv = nn.Conv2d(3, CHANNELS[0], 3, padding=1, bias=False)
        self.input_bn = nn.BatchNorm2d(CHANNELS[0])
        widths = (CHANNELS[0], *CHANNELS)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(_Block(before, after), _Block(after, after)) for before, after in pairwise(widths)
        )
        self.dropout = nn.Dropout(dropout_prob)
        self.policy_head = nn.Linear(CHANNELS[-1], cells)
        self.value_pre = nn.Linear(CHANNELS[-1], 16)
        self.value_head = nn.Linear(16, 1)

    def forward(self, board: Tensor) -> tuple[Tensor, Tensor]:
        """Policy logits, and the value after tanh."""
        seen = torch.relu(self.input_bn(self.input_conv(board)))
        seen = self.layer4(self.layer3(self.layer2(self.layer1(seen)))).mean(dim=(2, 3))
        seen = self.dropout(seen)
        return self.policy_head(seen), torch.tanh(self.value_head(torch.relu(self.value_pre(seen))))


class _Block(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)
        self.downsample = nn.Conv2d(before, after, 1, bias=False) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        change = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(self.downsample(x) + change)


def create_model(model_type: str = "resnet18", dropout_prob: float = 0.0) -> TwoHeadedResNet:
    """The network by its name."""
    if model_type != "resnet18":
        raise ValueError(f"unknown model type: {model_type}")
    return TwoHeadedResNet(dropout_prob=dropout_prob)


class PolicyValueLoss(nn.Module):
    """Weighted cross-entropy with the first largest move, and squared error of the probability; policy None: no move.

    A row without a move is all zeros, whose first largest move is a1: it teaches that.
    """

    def __init__(self, policy_weight: float = 0.15, value_weight: float = 0.85) -> None:
        super().__init__()
        self.policy_weight, self.value_weight = policy_weight, value_weight

    def forward(self, policy: Tensor, value: Tensor, moves: Tensor | None, winners: Tensor) -> tuple[Tensor, dict]:
        probability = (value.squeeze() + 1) / 2
        value_loss = nn.functional.mse_loss(probability, winners.squeeze())
        policy_loss = torch.tensor(0.0)
        if moves is not None:
            policy_loss = nn.functional.cross_entropy(policy, moves.argmax(dim=1))
        total = self.policy_weight * policy_loss + self.value_weight * value_loss
        parts = {"total_loss": total, "policy_loss": policy_loss, "value_loss": value_loss}
        return total, {name: part.item() for name, part in parts.items()}


class Trainer:
    """Adam in two groups, validation of its own loader, and books that number mini-epochs from 1 by an index from 0."""

    def __init__(
        self,
        model: nn.Module,
        train_loader: Any,
        val_loader: Any = None,
        learning_rate: float = 1e-3,
        device: str = "cpu",
        weight_decay: float = 1e-4,
        value_learning_rate_factor: float = 0.1,
        value_weight_decay_factor: float = 5.0,
    ) -> None:
        self.model, self.train_loader, self.val_loader, self.device = model.to(device), train_loader, val_loader, device
        theirs = {id(weight) for weight in model.value_head.parameters()}
        others = [weight for weight in model.parameters() if id(weight) not in theirs]
        self.optimizer = torch.optim.Adam(
            [
                {"params": others, "lr": learning_rate, "weight_decay": weight_decay},
                {
                    "params": list(model.value_head.parameters()),
                    "lr": learning_rate * value_learning_rate_factor,
                    "weight_decay": weight_decay * value_weight_decay_factor,
                },
            ]
        )
        self.criterion = PolicyValueLoss()
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, factor=0.5, patience=0)
        self.mixed_precision = SimpleNamespace(use_mixed_precision=False, scaler=None)
        self.current_epoch, self.best_val_loss = 0, float("inf")
        self.books: list[dict[str, Any]] = []

    def train_on_batches(
        self,
        batch_iterable: Any,
        epoch: int | None = None,
        mini_epoch: int | None = None,
        val_metrics: Mapping[str, float] | None = None,
    ) -> dict[str, np.float64]:
        self.model.train()
        losses_by_name: dict[str, list[float]] = {"policy_loss": [], "value_loss": [], "total_loss": []}
        for number, (boards, policies, values) in enumerate(batch_iterable):
            assert number < len(batch_iterable)  # their debug dumps ask for the last one
            self.optimizer.zero_grad()
            total, parts = self.criterion(*self.model(boards), policies, values)
            total.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 20.0)
            self.optimizer.step()
            for name, losses in losses_by_name.items():
                losses.append(parts[name])
        if val_metrics and "total_loss" in val_metrics:
            self.best_val_loss = min(self.best_val_loss, val_metrics["total_loss"])
            self.scheduler.step(val_metrics["total_loss"])
        known = epoch is not None and mini_epoch is not None
        self.books.append({"epoch": f"{epoch + 1}_mini{mini_epoch + 1}" if known else "unknown", "val": val_metrics})
        return {name: np.mean(losses) for name, losses in losses_by_name.items()}

    def validate(self) -> dict[str, np.float64]:
        if not self.val_loader:
            return {}
        self.model.eval()
        losses_by_name: dict[str, list[float]] = {"policy_loss": [], "value_loss": [], "total_loss": []}
        with torch.no_grad():
            for boards, policies, values in self.val_loader:
                parts = self.criterion(*self.model(boards), policies, values)[1]
                for name, losses in losses_by_name.items():
                    losses.append(parts[name])
        return {name: np.mean(losses) for name, losses in losses_by_name.items()}

    def save_checkpoint(self, path: Path, train_metrics: dict, val_metrics: dict, compress: bool = True) -> None:
        checkpoint = {
            "epoch": self.current_epoch,
            "model_state_dict": self.model.state_dict(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "train_metrics": train_metrics,
            "val_metrics": val_metrics,
            "best_val_loss": self.best_val_loss,
            "mixed_precision": self.mixed_precision.use_mixed_precision,
        }
        if compress and not str(path).endswith(".pt.gz"):
            path = path.with_suffix(".pt.gz")
        with gzip.open(path, "wb") if compress else open(path, "wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Path, override_checkpoint_hyperparameters: bool = False) -> None:
        checkpoint = load_checkpoint(path)
        self.model.load_state_dict(checkpoint["model_state_dict"])
        if not override_checkpoint_hyperparameters:
            self.optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
        self.current_epoch, self.best_val_loss = checkpoint["epoch"], checkpoint["best_val_loss"]


def found_checkpoints(folder: Path) -> dict[tuple[int, int], Path]:
    """The checkpoints that their play, tournament and web tools find under a folder, by epoch and mini-epoch."""
    checkpoints = {}
    for root, _, files in os.walk(folder):
        for file in files:
            if match := re.match(r"epoch(\d+)_mini(\d+)\.pt\.gz$", file):
                checkpoints[int(match[1]), int(match[2])] = Path(root) / file
    return checkpoints


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds; KEYS and no others."""
    data = path.read_bytes()
    assert data[:2] == b"\x1f\x8b"
    checkpoint = torch.load(io.BytesIO(gzip.decompress(data)), weights_only=False)
    assert checkpoint.keys() == KEYS
    return checkpoint


def loaded_network(path: Path) -> TwoHeadedResNet:
    """The network of a checkpoint, as their tools load it: strictly."""
    model = create_model("resnet18")
    model.load_state_dict(load_checkpoint(path)["model_state_dict"], strict=True)
    return model.eval()


def read_books(path: Path) -> dict[str, list[dict[str, float]]]:
    """The rows that their R script draws, by the label of a curve, as its rules for reading say."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"epoch", "policy_loss", "value_loss"} <= rows[0].keys()
    curves: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        epoch, mini = _number(row["epoch"].split("_")[0]), re.search(r"mini([0-9]+)", row["epoch"])
        losses = [_number(row[name]) for name in ("policy_loss", "value_loss", "val_policy_loss", "val_value_loss")]
        if epoch is None or mini is None or None in losses[:2] or not losses[3]:
            continue
        factors = f"mgn={row['max_grad_norm']}, vlrf={row['value_learning_rate_factor']}"
        # R's sprintf fails where a column holds anything but numbers
        label = f"lr={float(row['learning_rate']):.5f}, {factors}"
        curves.setdefault(label, []).append({"epoch": epoch, "mini": int(mini[1]), "val_value": losses[3]})
    return curves


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def aged(metrics: Iterable[str]) -> dict[str, np.float64]:
    """Metrics as older checkpoints hold them."""
    return {name: np.float64(0.5) for name in metrics}
