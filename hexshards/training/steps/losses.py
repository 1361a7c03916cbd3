"""Losses and metrics: what a batch says of a network, row by row, and the sums over many batches.

B batch, C cells (side * side). A batch is (board (B, 3, S, S), policy (B, C), value (B, 1)), all float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from hexshards.errors import escaped
from hexshards.training.distributed import ProcessGroup
from hexshards.training.steps.heads import ALL_ROWS, ROW_WEIGHTS, WEIGHTED, Head, Target, columns_of
from hexshards.units import counted


class Samples(Protocol):
    """Batch protocol: what a trainer needs of one."""

    @property
    def board(self) -> Tensor: ...  # noqa: D102

    @property
    def policy(self) -> Tensor: ...  # noqa: D102

    @property
    def value(self) -> Tensor: ...  # noqa: D102


BatchSums = dict[str, Tensor]
"""Sums over the rows of a batch by name, each a tensor of one number."""


def answers_by_head(heads: Sequence[Head], answer: Any) -> dict[str, Tensor]:
    """What a network answers, by the names of heads: a dict, or a tuple in their order. Raises ValueError."""
    names = [head.name for head in heads]
    if not isinstance(answer, Mapping):
        answer = dict(zip(names, answer, strict=True)) if len(answer) == len(names) else {}
    if not answer.keys() >= set(names):
        raise ValueError(
            f"the model must answer a tuple of {', '.join(map(escaped, names))}, or a dict with these names"
        )
    return {name: answer[name].float() for name in names}


class RowLosses(NamedTuple):
    """A head's loss of each row, 0 where there is no target."""

    loss_B: Tensor
    known_B: Tensor | None
    """Rows with a target; None: all."""
    weight_B: Tensor | None
    """How much each row counts, 0 where there is no target; None: all rows that have one alike."""

    @classmethod
    def of(cls, head: Head, answer: Tensor, target: Target) -> RowLosses:
        """A head's losses. A row without a target passes no gradient."""
        loss_B = head.loss(answer, target.wanted)
        return cls(
            loss_B if target.known_B is None else loss_B * target.known_B, target.known_B, counted_weights(target)
        )

    def minimized(self) -> Tensor:
        """The sum that training minimizes: rows count by their weights."""
        return (self.loss_B if self.weight_B is None else self.loss_B * self.weight_B).sum()

    def mean(self) -> Tensor:
        """Over the rows that have a target; exactly 0, with a zero gradient, where none has."""
        if self.known_B is None:
            return self.loss_B.mean()
        return self.loss_B.sum() / self.known_B.sum().clamp(min=1)


def counted_weights(target: Target) -> Tensor | None:
    """How much each row of a target counts; nothing where it has none."""
    weight_B, known_B = target.weight_B, target.known_B
    return weight_B if weight_B is None or known_B is None else weight_B * known_B


def losses(heads: Sequence[Head], answers: Mapping[str, Tensor], targets: Mapping[str, Target]) -> dict[str, RowLosses]:
    """The losses of each head, by its name."""
    return {head.name: RowLosses.of(head, answers[head.name], targets[head.name]) for head in heads}


def targets_of(heads: Sequence[Head], batch: Samples) -> dict[str, Target]:
    """What a batch says of each head, by its name."""
    return {head.name: head.target_of(batch) for head in heads}


def sound_columns(batch: Samples) -> Mapping[str, Tensor]:
    """The columns that come with a batch. Raises ValueError for weights that can be none.

    What is on a device already came from hexshards' loader, which checked it; to look at it there would wait for it.
    """
    columns, rows = columns_of(batch), len(batch.value)
    for name, column in columns.items():
        if len(column) != rows:
            raise ValueError(f"a batch of {counted(rows, 'row')} has a column {escaped(name)} of {len(column):,}")
        if (
            name in ROW_WEIGHTS
            and column.device.type == "cpu"
            and not bool((column >= 0).all() & column.isfinite().all())
        ):
            raise ValueError(f"a batch has {escaped(name)} below 0 or not finite")
    return columns


def loss_sums(heads: Sequence[Head], row_losses: Mapping[str, RowLosses]) -> BatchSums:
    """What some rows add to the running sums, in the dtype of ``wide``; no gradient."""
    rows: dict[str, Tensor] = {ALL_ROWS: torch.ones_like(row_losses[heads[0].name].loss_B)}
    for head in heads:
        losses_B, known_B, weight_B = row_losses[head.name]
        rows |= {head.loss_name: losses_B} if known_B is None else {head.counted: known_B, head.loss_name: losses_B}
        if weight_B is not None:
            rows |= {head.weighted_name: losses_B * weight_B, _weights_name(head): weight_B}
    return {name: part.detach().to(wide(part.device)).sum() for name, part in rows.items()}


def metric_sums(heads: Sequence[Head], answers: Mapping[str, Tensor], targets: Mapping[str, Target]) -> BatchSums:
    """The sums of each metric over the rows that have its target."""
    sums: BatchSums = {}
    for head in heads:
        wanted, known_B, _ = targets[head.name]
        for metric, each_B in zip(head.metrics, head.measured(answers[head.name], wanted), strict=True):
            sums[metric.name] = (each_B if known_B is None else each_B * known_B).to(wide(each_B.device)).sum()
    return sums


def total(parts: Sequence[BatchSums], process_group: ProcessGroup) -> BatchSums:
    """The sums of a batch that went through the network in parts, in all processes of a group."""
    stacked = torch.stack([torch.stack([*part.values()]) for part in parts]).sum(dim=0)
    return dict(zip(parts[0], process_group.add(stacked).unbind(), strict=True))


def _weights_name(head: Head) -> str:
    return f"{head.name}_weights"


class Sums:
    """Running sums by name, kept on the device so that a batch costs no synchronisation."""

    def __init__(self, device: torch.device, heads: Sequence[Head], values: Mapping[str, float] | None = None) -> None:
        self._heads, given = heads, values or {}
        counts = dict.fromkeys(["batches", ALL_ROWS, *(head.counted for head in heads)])
        metrics = [metric.name for head in heads for metric in head.metrics]
        weighted = [name for head in heads for name in (head.weighted_name, _weights_name(head))]
        self.names = (*counts, *(head.loss_name for head in heads), *metrics, *weighted)
        self._counts = tuple(counts)
        if unknown := sorted(given.keys() - set(self.names)):
            raise ValueError(f"unknown running sums: {', '.join(map(escaped, unknown))}")
        # a sum that the state's writer did not know begins at nothing
        self._total = torch.tensor([given.get(name, 0.0) for name in self.names], dtype=wide(device), device=device)

    def add_batch(self, sums: BatchSums) -> None:
        """Add one batch."""
        zero = torch.zeros_like(self._total[0])
        self._total += torch.stack([zero + 1, *(sums.get(name, zero) for name in self.names[1:])])

    def over(self, process_group: ProcessGroup) -> Sums:
        """The sums over all processes of a group."""
        added = dict(zip(self.names, process_group.add(self._total).tolist(), strict=True))
        return Sums(self._total.device, self._heads, added)

    def losses(self) -> dict[str, float]:
        """Counts, and means over the rows that count; where rows have weights, means by these as well."""
        sums = self.by_name()
        # no row with a target: a loss of 0, as in a single batch
        means = {head.loss_name: sums[head.loss_name] / max(sums[head.counted], 1.0) for head in self._heads}
        loss = sum(head.weight * means[head.loss_name] for head in self._heads)
        plain = {name: int(sums[name]) for name in self._counts} | {"loss": loss} | means
        return plain | self._weighted(sums, means)

    def _weighted(self, sums: Mapping[str, float], means: Mapping[str, float]) -> dict[str, float]:
        weighted = {
            head.weighted_name: sums[head.weighted_name] / sums[_weights_name(head)]
            for head in self._heads
            if sums[_weights_name(head)]
        }
        if not weighted:
            return {}
        each = [head.weight * weighted.get(head.weighted_name, means[head.loss_name]) for head in self._heads]
        return {WEIGHTED: sum(each), **weighted}

    def metrics(self) -> dict[str, float]:
        """Means over the rows that count; NaN over none."""
        sums, means = self.by_name(), dict[str, float]()
        for head in self._heads:
            rows = sums[head.counted]
            means |= {each.name: sums[each.name] / rows if rows else math.nan for each in head.metrics}
        return means

    def by_name(self) -> dict[str, float]:
        """The sums, by their names."""
        return dict(zip(self.names, map(float, self._total.tolist()), strict=True))


def wide(device: torch.device) -> torch.dtype:
    """The dtype of sums over many rows: Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
