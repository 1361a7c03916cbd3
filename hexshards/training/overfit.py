"""Overfit one batch: a network that can't learn it by heart will not learn a dataset; for before the first long run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hexshards.training.options import TrainSpec
from hexshards.training.run import parts_of
from hexshards.training.steps.heads import recorded

STEPS, TOLD_STEPS = 600, 50
"""Steps on the batch at most, and between two looks at it."""

LEARNED = 0.9
"""Share of the moves and of the winners that must be right. Some can't be: equal positions with different moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overfit:
    """How well one batch was learned."""

    steps: int
    val: dict[str, Any]
    """Metrics of the batch, as validation has them."""

    @property
    def learned(self) -> bool:
        """Whether moves and winners are known by heart; a batch without a move to learn has winners alone."""
        learned = [(head.counted, head.metrics[0]) for head in recorded(self.val)]
        return all(
            self.val[metric.name] >= LEARNED or not self.val[counted]
            for counted, metric in learned
            if metric.higher_is_better
        )


def overfit(spec: TrainSpec, *, tell: Callable[[Overfit], None] = lambda reached: None) -> Overfit:
    """Overfit one batch: take steps on the run's first until it is learned; write nothing.

    The learning rate is constant and the positions are shown as they are; all else is as ``spec`` says.
    """
    trainer, loader, *_ = parts_of(replace(spec, schedule="constant", warmup_samples=0, augment="none"))
    batch = next(iter(loader))
    reached = Overfit(steps=0, val=dict(trainer.validate([batch])))
    tell(reached)
    while not reached.learned and reached.steps < STEPS:
        trainer.train_on_batches([batch] * TOLD_STEPS)
        reached = Overfit(steps=reached.steps + TOLD_STEPS, val=dict(trainer.validate([batch])))
        tell(reached)
    return reached
