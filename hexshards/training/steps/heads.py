"""Heads: outputs of the network, each declared here, and only here, with its target, its loss and its metrics.

Trainer, validation, diagnostics, records, plots and terminal walk the heads. A head ``h`` has the numbers ``h_loss``
and those of its metrics in every record.

B batch, C cells (side * side). Torch waits until a loss is computed: a plot of a run needs names alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from hexshards.training.options import HIGHER_IS_BETTER, STEP, StepSpec, ValueLoss, ValueOutput

if TYPE_CHECKING:
    from torch import Tensor

TOP = 5
"""Validation counts how often the target move is among so many best ones."""

LAST = 1 - 2**-24
"""The float32 before 1. A bounded value is taken for no surer than that, where its cross-entropy is still finite: 17.3.
A row that is wrong and yet at the bound passes no gradient, as what bounds it passes none there."""

ALL_ROWS = "samples"
"""The count of rows of a head that has a target in each."""


class Target(NamedTuple):
    """Target (label) of a head: what its output is compared with."""

    wanted: Tensor
    """A row for each sample; one without a target holds any finite numbers."""
    known_B: Tensor | None = None
    """Rows that have a target; None: all."""

    def split(self, cuts: Sequence[int]) -> list[Target]:
        """The target of each run of rows between cuts."""
        unknown = [None] * (len(cuts) + 1)
        known = unknown if self.known_B is None else self.known_B.tensor_split(cuts)
        return [Target(*parts) for parts in zip(self.wanted.tensor_split(cuts), known, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number of each row that validation averages, over the rows that have a target."""

    name: str
    """In records. Its end says whether higher is better: see HIGHER_IS_BETTER."""
    title: str
    """Of its curve."""
    short: str
    """In a line of the terminal."""
    unit: str = "share of positions"

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is better, and it is a share of positions, 0 to 1."""
        return self.name.endswith(HIGHER_IS_BETTER)

    def shown(self, value: float) -> str:
        """A value for a person."""
        return f"{value:.1%}" if self.higher_is_better else f"{value:.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Head: one output of the network."""

    name: str
    title: str
    unit: str
    """Of its loss, as a plot says it."""
    width: Callable[[int], int]
    """Numbers that it answers for a board of a side: its answers are (B, width)."""
    target: Callable[[Any], Target]
    """What a batch says of it."""
    loss: Callable[[Tensor, Tensor], Tensor]
    """Of each row (B,), from answers and what was wanted."""
    metrics: tuple[Metric, ...]
    """The first stands in tables by ply too."""
    measured: Callable[[Tensor, Tensor], Sequence[Tensor]]
    """Each metric of each row (B,), from answers and what was wanted."""
    weight: float
    """Of its mean loss in the sum that training minimizes."""
    counted: str
    """Name of the count of rows that have a target."""
    red: Callable[[Tensor], Tensor] | None = None
    """The probability (B,) that RED wins, from answers of a head that says one."""

    @property
    def loss_name(self) -> str:
        """In records."""
        return f"{self.name}_loss"


def _policy_target(batch: Any) -> Target:
    """An all-zero row means "no target"."""
    return Target(batch.policy, (batch.policy > 0).any(dim=1))


def _cross_entropy(logits_BC: Tensor, policy_BC: Tensor) -> Tensor:
    from torch.nn import functional

    return functional.cross_entropy(logits_BC, policy_BC, reduction="none")


def _best_moves(logits_BC: Tensor, policy_BC: Tensor) -> Sequence[Tensor]:
    """Whether the target's largest entry is the best move, of equals the first, and among the best."""
    wanted_B1 = policy_BC.argmax(dim=1, keepdim=True)
    first_B = (logits_BC.argmax(dim=1, keepdim=True) == wanted_B1).squeeze(1)
    # of equals, topk takes any
    return first_B, first_B | (logits_BC.topk(TOP, dim=1).indices == wanted_B1).any(dim=1)


def _value_target(batch: Any) -> Target:
    return Target(batch.value)


RED: Mapping[ValueOutput, Callable[[Tensor], Tensor]] = {
    "logit": lambda answer: answer.sigmoid(),
    "tanh": lambda answer: (answer + 1) / 2,
    "probability": lambda answer: answer,
}
"""The probability that RED wins, from what a network answers."""

EVEN: Mapping[ValueOutput, float] = {"logit": 0.0, "tanh": 0.0, "probability": 0.5}
"""The answer that means one half."""


def _squared_error(output: ValueOutput) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda answer_B1, value_B1: ((RED[output](answer_B1) - value_B1) ** 2).squeeze(1)


def _winner_entropy(output: ValueOutput) -> Callable[[Tensor, Tensor], Tensor]:
    """Binary cross-entropy with who won, from what the network answers as it is: no digit is lost on the way."""

    def of_logit(logit_B1: Tensor, value_B1: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.binary_cross_entropy_with_logits(logit_B1, value_B1, reduction="none").squeeze(1)

    def of_tanh(answer_B1: Tensor, value_B1: Tensor) -> Tensor:
        kept_B1 = answer_B1.clamp(-LAST, LAST)
        red_B1, blue_B1 = kept_B1.log1p() - math.log(2), (-kept_B1).log1p() - math.log(2)
        return -(value_B1 * red_B1 + (1 - value_B1) * blue_B1).squeeze(1)

    def of_probability(answer_B1: Tensor, value_B1: Tensor) -> Tensor:
        kept_B1 = answer_B1.clamp(1 - LAST, LAST)
        return -(value_B1 * kept_B1.log() + (1 - value_B1) * (-kept_B1).log1p()).squeeze(1)

    return {"logit": of_logit, "tanh": of_tanh, "probability": of_probability}[output]


def _likelier_winner(output: ValueOutput) -> Callable[[Tensor, Tensor], Sequence[Tensor]]:
    return lambda answer_B1, value_B1: (((answer_B1 > EVEN[output]) == (value_B1 > 0.5)).squeeze(1),)


POLICY = Head(
    name="policy",
    title="Policy",
    unit="nats",
    width=lambda side: side * side,
    target=_policy_target,
    loss=_cross_entropy,
    metrics=(
        Metric(name="policy_top1", title="Policy: the target move comes first", short="top-1"),
        Metric(name="policy_top5", title="Policy: the target move is among five", short="top-5"),
    ),
    measured=_best_moves,
    weight=STEP.policy_weight,
    counted="policy_samples",
)


def _value(output: ValueOutput, loss: ValueLoss) -> Head:
    return Head(
        name="value",
        title="Value",
        unit="nats" if loss == "bce" else "squared error",
        width=lambda side: 1,
        target=_value_target,
        loss=_winner_entropy(output) if loss == "bce" else _squared_error(output),
        metrics=(Metric(name="value_accuracy", title="Value: the winner is the likelier one", short="value"),),
        measured=_likelier_winner(output),
        weight=STEP.value_weight,
        counted=ALL_ROWS,
        red=lambda answer_B1: RED[output](answer_B1).squeeze(1),
    )


VALUE = _value(STEP.value_output, STEP.value_loss)

HEADS = (POLICY, VALUE)
"""Every head there is, in the order of a network's answers."""


def heads_of(spec: StepSpec) -> tuple[Head, ...]:
    """The heads that a spec trains, weighted as it says."""
    value = _value(spec.value_output, spec.value_loss)
    return replace(POLICY, weight=spec.policy_weight), replace(value, weight=spec.value_weight)


def red_probability(heads: Sequence[Head], answers: Mapping[str, Tensor]) -> Tensor:
    """The probability (B,) that RED wins, as the value among a network's answers says it."""
    value = next(head for head in heads if head.name == VALUE.name)
    assert value.red is not None
    return value.red(answers[VALUE.name])


def recorded(metrics: Mapping[str, Any]) -> Iterator[Head]:
    """The heads whose losses are among some metrics."""
    return (head for head in HEADS if head.loss_name in metrics)
