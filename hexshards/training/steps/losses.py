"""Losses and metrics: what a batch says of a network, row by row, and the sums over many batches.

B batch, C cells (side * side). A batch is (board (B, 3, S, S), policy (B, C), value (B, 1)), all float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from hexshards.training.distributed import ProcessGroup

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


class BatchSums(NamedTuple):
    """Sums over the rows of a batch, each a tensor of one number."""

    samples: Tensor
    policy_samples: Tensor
    """Rows with a policy target."""
    policy_loss: Tensor
    value_loss: Tensor

    def over(self, team: ProcessGroup) -> BatchSums:
        """The sums over all processes of a team."""
        return BatchSums(*team.add(torch.stack(self)))


class Hits(NamedTuple):
    """How often validation was right in a batch, each a tensor of one number."""

    policy_top1: Tensor
    policy_top5: Tensor
    value_accuracy: Tensor


def total(parts: Sequence[BatchSums]) -> BatchSums:
    """The sums of a batch that went through the network in parts."""
    return BatchSums(*torch.stack([torch.stack(part) for part in parts]).sum(dim=0))


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

    def sums(self) -> BatchSums:
        """What these rows add to the running sums, in the dtype of ``wide``; no gradient."""
        counted = BatchSums(torch.ones_like(self.value_B), self.has_policy_B, self.policy_B, self.value_B)
        return BatchSums(*(part.detach().to(wide(self.value_B.device)).sum() for part in counted))


def losses(policy_logits_BC: Tensor, value_logit_B1: Tensor, batch: Samples) -> Losses:
    """Cross-entropy with the policy target, soft or one-hot, and with who won.

    An all-zero policy row means "no target": its policy loss is 0 and passes no gradient.
    """
    has_policy_B = (batch.policy > 0).any(dim=1)
    policy_B = functional.cross_entropy(policy_logits_BC, batch.policy, reduction="none")
    value_B1 = functional.binary_cross_entropy_with_logits(value_logit_B1, batch.value, reduction="none")
    return Losses(policy_B * has_policy_B, value_B1.squeeze(1), has_policy_B)


class Sums:
    """Running sums by name, kept on the device so that a batch costs no synchronisation."""

    NAMES = ("batches", *BatchSums._fields, *Hits._fields)

    def __init__(self, device: torch.device, values: Mapping[str, float] | None = None) -> None:
        given = values or {}
        if unknown := sorted(given.keys() - set(self.NAMES)):
            raise ValueError(f"unknown running sums: {', '.join(unknown)}")
        # a sum that the state's writer did not know begins at nothing
        self._total = torch.tensor([given.get(name, 0.0) for name in self.NAMES], dtype=wide(device), device=device)

    def add_batch(self, sums: BatchSums) -> None:
        """Add one batch."""
        self._total[0] += 1
        self._add(sums)

    def add_hits(self, logits_BC: Tensor, value_B1: Tensor, batch: Samples) -> None:
        """Add how often the best moves hit the target's largest, and the winner was right."""
        target_B1 = batch.policy.argmax(dim=1, keepdim=True)
        has_policy_B1 = (batch.policy > 0).any(dim=1, keepdim=True)
        hits_BT = (logits_BC.topk(TOP, dim=1).indices == target_B1) & has_policy_B1
        right_B1 = (value_B1 > 0) == (batch.value > 0.5)
        counted = Hits(hits_BT[:, 0], hits_BT, right_B1)
        self._add(Hits(*(part.to(self._total.dtype).sum() for part in counted)))

    def _add(self, sums: BatchSums | Hits) -> None:
        first = self.NAMES.index(sums._fields[0])
        self._total[first : first + len(sums)] += torch.stack(sums)

    def over(self, team: ProcessGroup) -> Sums:
        """The sums over all processes of a team."""
        return Sums(self._total.device, dict(zip(self.NAMES, team.add(self._total).tolist(), strict=True)))

    def losses(self, policy_weight: float, value_weight: float) -> dict[str, float]:
        """Counts, and means over the rows that count."""
        sums = self.by_name()
        # no row with a policy target: a loss of 0, as in a single batch
        policy = sums["policy_loss"] / max(sums["policy_samples"], 1.0)
        value = sums["value_loss"] / max(sums["samples"], 1.0)
        total = policy_weight * policy + value_weight * value
        counts: dict[str, float] = {name: int(sums[name]) for name in ("batches", "samples", "policy_samples")}
        return counts | {"loss": total, "policy_loss": policy, "value_loss": value}

    def accuracies(self) -> dict[str, float]:
        """Shares of the rows that count; NaN over none."""
        sums = self.by_name()
        rows = {"policy_top1": "policy_samples", "policy_top5": "policy_samples", "value_accuracy": "samples"}
        return {name: sums[name] / sums[of] if sums[of] else math.nan for name, of in rows.items()}

    def by_name(self) -> dict[str, float]:
        """The sums, by their names."""
        return dict(zip(self.NAMES, map(float, self._total.tolist()), strict=True))


def wide(device: torch.device) -> torch.dtype:
    """The dtype of sums over many rows: Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
