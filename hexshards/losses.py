"""What a batch says of a network: the losses and hits of each row, and their sums over many batches.

B batch, C cells (side * side). A batch is (board (B, 3, S, S), policy (B, C), value (B, 1)), all float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from hexshards.team import Team

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

    def sums(self) -> Tensor:
        """Rows, rows with a policy target, and the sums of both losses, in the dtype of ``wide``; no gradient."""
        rows_B = torch.ones_like(self.value_B)
        counted = (rows_B, self.has_policy_B, self.policy_B, self.value_B)
        return torch.stack([part.detach().to(wide(self.value_B.device)).sum() for part in counted])


def losses(policy_logits_BC: Tensor, value_logit_B1: Tensor, batch: Samples) -> Losses:
    """Cross-entropy with the policy target, soft or one-hot, and with who won.

    An all-zero policy row means "no target": its policy loss is 0 and passes no gradient.
    """
    has_policy_B = (batch.policy > 0).any(dim=1)
    policy_B = functional.cross_entropy(policy_logits_BC, batch.policy, reduction="none")
    value_B1 = functional.binary_cross_entropy_with_logits(value_logit_B1, batch.value, reduction="none")
    return Losses(policy_B * has_policy_B, value_B1.squeeze(1), has_policy_B)


class Sums:
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
        self._total = torch.tensor(list(values), dtype=wide(device), device=device)
        if len(self._total) != len(self.NAMES):
            raise ValueError(f"expected {len(self.NAMES)} running sums, got {len(self._total)}")

    def add_batch(self, sums_4: Tensor) -> None:
        """Add one batch: what ``Losses.sums`` gives."""
        self._total[0] += 1
        self._total[1:5] += sums_4

    def add_hits(self, logits_BC: Tensor, value_B1: Tensor, batch: Samples) -> None:
        """Add how often the best moves hit the target's largest, and the winner was right."""
        target_B1 = batch.policy.argmax(dim=1, keepdim=True)
        has_policy_B1 = (batch.policy > 0).any(dim=1, keepdim=True)
        hits_BT = (logits_BC.topk(TOP, dim=1).indices == target_B1) & has_policy_B1
        right_B1 = (value_B1 > 0) == (batch.value > 0.5)
        counted = (hits_BT[:, 0], hits_BT, right_B1)
        self._total[5:] += torch.stack([part.to(self._total.dtype).sum() for part in counted])

    def over(self, team: Team) -> Sums:
        """The sums over all processes of a team."""
        return Sums(self._total.device, team.add(self._total).tolist())

    def losses(self, policy_weight: float, value_weight: float) -> dict[str, float]:
        """Counts, and means over the rows that count."""
        sums = dict(zip(self.NAMES, self.tolist(), strict=True))
        # no row with a policy target: a loss of 0, as in a single batch
        policy = sums["policy_loss"] / max(sums["policy_samples"], 1.0)
        value = sums["value_loss"] / max(sums["samples"], 1.0)
        total = policy_weight * policy + value_weight * value
        counts: dict[str, float] = {name: int(sums[name]) for name in self.NAMES[:3]}
        return counts | {"loss": total, "policy_loss": policy, "value_loss": value}

    def accuracies(self) -> dict[str, float]:
        """Shares of the rows that count; NaN over none."""
        sums = dict(zip(self.NAMES, self.tolist(), strict=True))
        return {
            name: sums[name] / sums[rows] if sums[rows] else math.nan
            for name, rows in zip(self.NAMES[5:], ("policy_samples", "policy_samples", "samples"), strict=True)
        }

    def tolist(self) -> list[float]:
        """The sums, in the order of NAMES."""
        return [float(value) for value in self._total.tolist()]


def wide(device: torch.device) -> torch.dtype:
    """The dtype of sums over many rows: Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
