"""A trainer turns batches into better weights, and knows nothing of epochs, mini-epochs or files.

B batch, C cells (side * side). A batch is (board (B, 3, S, S), policy (B, C), value (B, 1)), all float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from hexshards.specs import TRAIN

TOP = 5
"""Validation counts how often the target move is among so many best ones."""


class Samples(Protocol):
    """What a trainer needs of a batch."""

    @property
    def board(self) -> Tensor: ...  # noqa: D102

    @property
    def policy(self) -> Tensor: ...  # noqa: D102

    @property
    def value(self) -> Tensor: ...  # noqa: D102


class Losses(NamedTuple):
    """Both losses of each row, and which rows have a policy target."""

    policy_B: Tensor
    value_B: Tensor
    has_policy_B: Tensor

    def policy(self) -> Tensor:
        """Mean over the rows that have a target; exactly 0, with a zero gradient, where none has."""
        return self.policy_B.sum() / self.has_policy_B.sum().clamp(min=1)

    def value(self) -> Tensor:
        """Mean over all rows."""
        return self.value_B.mean()


def losses(policy_logits_BC: Tensor, value_logit_B1: Tensor, batch: Samples) -> Losses:
    """Cross-entropy with the policy target, soft or one-hot, and with who won.

    An all-zero policy row means "no target": its policy loss is 0 and passes no gradient.
    """
    has_policy_B = (batch.policy > 0).any(dim=1)
    policy_B = functional.cross_entropy(policy_logits_BC, batch.policy, reduction="none")
    value_B1 = functional.binary_cross_entropy_with_logits(value_logit_B1, batch.value, reduction="none")
    return Losses(policy_B * has_policy_B, value_B1.squeeze(1), has_policy_B)


class WarmUp:
    """The learning rate rises linearly over the first ``warmup_samples`` samples, then stays.

    It depends on the samples seen and on nothing else, so the batch size may vary.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, learning_rate: float, warmup_samples: int) -> None:
        self.optimizer, self.learning_rate, self.warmup_samples = optimizer, learning_rate, warmup_samples
        self.samples = 0

    def advance(self, samples: int) -> None:
        """Set the rate of the step that brings the samples seen to ``self.samples + samples``."""
        self.samples += samples
        share = min(1.0, self.samples / self.warmup_samples) if self.warmup_samples else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * share

    def state_dict(self) -> dict[str, int]:
        """Samples seen."""
        return {"samples": self.samples}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a state."""
        self.samples = state["samples"]


class Trainer:
    """AdamW on the weighted sum of both losses.

    A state taken between two batches of ``train_on_batches`` holds the sums of that call so far: a trainer
    that loads it continues them in its next call, whose metrics are then those of the whole, bit for bit.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        learning_rate: float = TRAIN.learning_rate,
        weight_decay: float = TRAIN.weight_decay,
        warmup_samples: int = TRAIN.warmup_samples,
        policy_weight: float = TRAIN.policy_weight,
        value_weight: float = TRAIN.value_weight,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.policy_weight, self.value_weight = policy_weight, value_weight
        self.optimizer = torch.optim.AdamW(_parameter_groups(model, weight_decay), lr=learning_rate)
        self.scheduler = WarmUp(self.optimizer, learning_rate=learning_rate, warmup_samples=warmup_samples)
        self._sums = _Sums(self.device)

    def train_on_batches(self, batches: Iterable[Samples]) -> dict[str, float]:
        """One step per batch, each finished before the next batch is asked for; means over all their samples.

        Metrics: samples, policy_samples (rows with a policy target), batches, loss, policy_loss, value_loss,
        learning_rate (of the last step).
        """
        self.model.train()
        for batch in batches:
            self._step(batch)
        metrics = self.running_metrics()
        self._sums = _Sums(self.device)
        return metrics | {"learning_rate": float(self.optimizer.param_groups[0]["lr"])}

    def running_metrics(self) -> dict[str, float]:
        """Metrics of ``train_on_batches`` so far, while it is at work."""
        return self._sums.losses(self.policy_weight, self.value_weight)

    @torch.no_grad()
    def validate(self, loader: Iterable[Samples]) -> dict[str, float]:
        """Losses and accuracies over all samples, whatever the batches they come in; no weight changes.

        Metrics: those of ``train_on_batches`` less the rate, and policy_top1, policy_top5 (over the rows
        with a policy target; the target move is its row's largest), value_accuracy. An accuracy over
        nothing is NaN.
        """
        was_training = self.model.training
        self.model.eval()
        sums = _Sums(self.device)
        try:
            for batch in loader:
                moved = self._moved(batch)
                logits_BC, value_B1 = self.model(moved.board)
                sums.add(losses(logits_BC, value_B1, moved))
                sums.add_hits(logits_BC, value_B1, moved)
        finally:
            self.model.train(was_training)
        return sums.losses(self.policy_weight, self.value_weight) | sums.accuracies()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, but for torch's random state."""
        return {
            "model_state_dict": self.model.state_dict(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scheduler_state_dict": self.scheduler.state_dict(),
            "running_sums": self._sums.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, as if never stopped."""
        self.model.load_state_dict(state["model_state_dict"])
        self.optimizer.load_state_dict(state["optimizer_state_dict"])
        self.scheduler.load_state_dict(state["scheduler_state_dict"])
        self._sums = _Sums(self.device, state["running_sums"])

    def _step(self, batch: Samples) -> None:
        moved = self._moved(batch)
        logits_BC, value_B1 = self.model(moved.board)
        found = losses(logits_BC, value_B1, moved)
        loss = self.policy_weight * found.policy() + self.value_weight * found.value()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.scheduler.advance(len(moved.value))
        self.optimizer.step()
        self._sums.add(found)

    def _moved(self, batch: Samples) -> _Moved:
        return _Moved(*(part.to(self.device) for part in (batch.board, batch.policy, batch.value)))


class _Moved(NamedTuple):
    board: Tensor
    policy: Tensor
    value: Tensor


class _Sums:
    """Running sums, kept on the device so that a batch costs no synchronisation."""

    NAMES = (
        "batches",
        "samples",
        "policy_samples",
        "policy_loss",
        "value_loss",
        "policy_top1",
        "policy_top5",
        "value_accuracy",
    )

    def __init__(self, device: torch.device, values: Iterable[float] = (0.0,) * len(NAMES)) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        self._total = torch.tensor(list(values), dtype=dtype, device=device)
        if len(self._total) != len(self.NAMES):
            raise ValueError(f"expected {len(self.NAMES)} running sums, got {len(self._total)}")

    @torch.no_grad()
    def add(self, found: Losses) -> None:
        rows = torch.ones_like(found.value_B)
        counted = (rows[:1], rows, found.has_policy_B, found.policy_B, found.value_B)
        self._total[:5] += torch.stack([part.to(self._total.dtype).sum() for part in counted])

    def add_hits(self, logits_BC: Tensor, value_B1: Tensor, batch: Samples) -> None:
        target_B1 = batch.policy.argmax(dim=1, keepdim=True)
        has_policy_B1 = (batch.policy > 0).any(dim=1, keepdim=True)
        hits_BT = (logits_BC.topk(TOP, dim=1).indices == target_B1) & has_policy_B1
        right_B1 = (value_B1 > 0) == (batch.value > 0.5)
        counted = (hits_BT[:, 0], hits_BT, right_B1)
        self._total[5:] += torch.stack([part.to(self._total.dtype).sum() for part in counted])

    def losses(self, policy_weight: float, value_weight: float) -> dict[str, float]:
        sums = dict(zip(self.NAMES, self.tolist(), strict=True))
        # no row with a policy target: a loss of 0, as in a single batch
        policy = sums["policy_loss"] / max(sums["policy_samples"], 1.0)
        value = sums["value_loss"] / max(sums["samples"], 1.0)
        total = policy_weight * policy + value_weight * value
        counts: dict[str, float] = {name: int(sums[name]) for name in self.NAMES[:3]}
        return counts | {"loss": total, "policy_loss": policy, "value_loss": value}

    def accuracies(self) -> dict[str, float]:
        sums = dict(zip(self.NAMES, self.tolist(), strict=True))
        return {
            name: sums[name] / sums[rows] if sums[rows] else math.nan
            for name, rows in zip(self.NAMES[5:], ("policy_samples", "policy_samples", "samples"), strict=True)
        }

    def tolist(self) -> list[float]:
        return [float(value) for value in self._total.tolist()]


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and norms, which have one dimension, do not."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
