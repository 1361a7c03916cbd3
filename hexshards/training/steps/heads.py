"""Heads: outputs of the network, each declared here, and only here, with its target, its loss and its metrics.

Trainer, validation, diagnostics, records, plots and terminal walk the heads. A head ``h`` has the numbers ``h_loss``
and those of its metrics in every record.

B batch, C cells (side * side). Torch waits until a loss is computed: a plot of a run needs names alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import mul
from typing import TYPE_CHECKING, Any, NamedTuple

from hexshards.errors import escaped
from hexshards.piecewise import Piecewise, named, parsed
from hexshards.training.options import (
    HIGHER_IS_BETTER,
    STEP,
    StepSpec,
    ValueLoss,
    ValueOutput,
    head_names,
    search_share,
)

if TYPE_CHECKING:
    from torch import Tensor

TOP = 5
"""Validation counts how often the target move is among so many best ones."""

LAST = 1 - 2**-24
"""The float32 before 1. A bounded value is taken for no surer than that, where its cross-entropy is still finite: 17.3.
A row that is wrong and yet at the bound passes no gradient, as what bounds it passes none there."""

PLIES = 20
"""Plies that are one unit of the loss of moves_left, so that it is about as large as the others'."""

HUBER_PLIES = 10
"""The loss of moves_left is quadratic for an error of fewer plies, and linear beyond: games end by surprise."""

ALL_ROWS = "samples"
"""The count of rows of a head that has a target in each."""


class Target(NamedTuple):
    """Target (label) of a head: what its output is compared with."""

    wanted: Tensor
    """A row for each sample; one without a target holds any finite numbers."""
    known_B: Tensor | None = None
    """Rows that have a target; None: all."""
    weight_B: Tensor | None = None
    """How much each row counts; None: all alike."""

    def split(self, cuts: Sequence[int]) -> list[Target]:
        """The target of each run of rows between cuts."""
        none = [None] * (len(cuts) + 1)
        parts = (none if part is None else part.tensor_split(cuts) for part in self)
        return [Target(*each) for each in zip(*parts, strict=True)]


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
    form: str = "{:.1%}"
    """How a person is told a value."""

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is better, and it is a share of positions, 0 to 1."""
        return self.name.endswith(HIGHER_IS_BETTER)

    def shown(self, value: float) -> str:
        """A value for a person."""
        return self.form.format(value)


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
    columns: tuple[str, ...] = ()
    """Columns of a batch that its target is made of, beside board, policy and value."""
    row_weights: tuple[str, ...] = ("weight",)
    """Columns whose product is how much a row counts, as far as a batch has them."""
    red: Callable[[Tensor], Tensor] | None = None
    """The probability (B,) that RED wins, from answers of a head that says one."""

    @property
    def loss_name(self) -> str:
        """In records."""
        return f"{self.name}_loss"

    @property
    def weighted_name(self) -> str:
        """Of the mean of its loss in which rows count by their weights."""
        return f"weighted_{self.loss_name}"

    def target_of(self, batch: Any) -> Target:
        """What a batch says of it, and how much each row counts."""
        columns = columns_of(batch)
        weights = [columns[name] for name in self.row_weights if name in columns]
        target = self.target(batch)
        return target._replace(weight_B=reduce(mul, weights)) if weights else target


WEIGHTED = "weighted_loss"
"""In records, where rows have weights: what training minimizes."""

ROW_WEIGHTS = ("weight", "policy_weight")
"""Columns that say how much a row counts."""


def columns_of(batch: Any) -> Mapping[str, Tensor]:
    """The columns that come with a batch, by name."""
    return getattr(batch, "columns", None) or {}


def _column(batch: Any, name: str) -> Tensor:
    columns = columns_of(batch)
    if name not in columns:
        raise ValueError(
            f"a head learns the column {escaped(name)}, and the batch has none: open the loader with columns=[{name!r}]"
        )
    column: Tensor = columns[name]
    return column[:, None].float()


def _policy_target(batch: Any) -> Target:
    """Policy target: an all-zero row means "no target"."""
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


def _blended(search_share: float) -> Callable[[Any], Target]:
    """Blend who won with what a search said, where it said something, by the share of the latter."""

    def target(batch: Any) -> Target:
        search_B1 = _column(batch, "search_value")
        blend_B1 = (1 - search_share) * batch.value + search_share * search_B1
        return Target(blend_B1.where(search_B1.isfinite(), batch.value))

    return target


def _search_target(batch: Any) -> Target:
    search_B1 = _column(batch, "search_value")
    return Target(search_B1.nan_to_num(0.5), search_B1.isfinite().squeeze(1))


def _plies_target(batch: Any) -> Target:
    plies_B1 = _column(batch, "plies_left")
    return Target(plies_B1.clamp(min=0), (plies_B1 >= 0).squeeze(1))


def _huber(plies_B1: Tensor, wanted_B1: Tensor) -> Tensor:
    from torch.nn import functional

    apart = plies_B1 / PLIES, wanted_B1 / PLIES
    return functional.huber_loss(*apart, reduction="none", delta=HUBER_PLIES / PLIES).squeeze(1)


def _apart(plies_B1: Tensor, wanted_B1: Tensor) -> Sequence[Tensor]:
    return ((plies_B1 - wanted_B1).abs().squeeze(1),)


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
    row_weights=ROW_WEIGHTS,
)


def _value(output: ValueOutput, loss: ValueLoss, search_share: float | None = None) -> Head:
    """The value's head; ``search_share`` None: it learns who won."""
    return Head(
        name="value",
        title="Value",
        unit="nats" if loss == "bce" else "squared error",
        width=lambda side: 1,
        target=_value_target if search_share is None else _blended(search_share),
        columns=() if search_share is None else ("search_value",),
        loss=_winner_entropy(output) if loss == "bce" else _squared_error(output),
        metrics=(Metric(name="value_accuracy", title="Value: the winner is the likelier one", short="value"),),
        measured=_likelier_winner(output),
        weight=STEP.value_weight,
        counted=ALL_ROWS,
        red=lambda answer_B1: RED[output](answer_B1).squeeze(1),
    )


VALUE = _value(STEP.value_output, STEP.value_loss)

MOVES_LEFT = Head(
    name="moves_left",
    title="Moves left",
    unit="Huber, of 20 plies",
    width=lambda side: 1,
    target=_plies_target,
    loss=_huber,
    metrics=(
        Metric(
            name="moves_left_error",
            title="Moves left: error",
            short="moves left",
            unit="plies",
            form="{:.1f} plies off",
        ),
    ),
    measured=_apart,
    weight=STEP.moves_left_weight,
    counted="moves_left_samples",
    columns=("plies_left",),
)


def _search_value(output: ValueOutput, loss: ValueLoss) -> Head:
    return Head(
        name="search_value",
        title="Search value",
        unit="nats" if loss == "bce" else "squared error",
        width=lambda side: 1,
        target=_search_target,
        loss=_winner_entropy(output) if loss == "bce" else _squared_error(output),
        metrics=(
            Metric(
                name="search_value_error",
                title="Search value: error",
                short="search value",
                unit="probability",
                form="{:.3f} off",
            ),
        ),
        measured=lambda answer_B1, search_B1: _apart(RED[output](answer_B1), search_B1),
        weight=STEP.search_value_weight,
        counted="search_value_samples",
        columns=("search_value",),
    )


SEARCH_VALUE = _search_value(STEP.value_output, STEP.value_loss)

HEADS = (POLICY, VALUE, MOVES_LEFT, SEARCH_VALUE)
"""Every head there is."""

USUAL = (POLICY, VALUE)
"""Those of every network, first in the order of its answers."""


def heads_of(spec: StepSpec, *, samples: int | None = None) -> tuple[Head, ...]:
    """The heads that a spec trains, weighted as it says, in the order of a network's answers.

    Where that follows a schedule: as once so many samples were seen, or, with None, as at its end.
    """
    meant = {
        "policy": POLICY,
        "value": _value(spec.value_output, spec.value_loss, _search_share(spec, samples)),
        "moves_left": MOVES_LEFT,
        "search_value": _search_value(spec.value_output, spec.value_loss),
    }
    weights = {name: getattr(spec, f"{name}_weight") for name in head_names(spec.heads)}
    weights |= {name: _at(each, samples) for name, each in named(spec.loss_schedule, name="loss_schedule").items()}
    return tuple(replace(meant[name], weight=weight) for name, weight in weights.items())


def judges_of(spec: StepSpec) -> tuple[Head, ...]:
    """The heads as they are measured, by weights that stay the same, and values by who won.

    So that mini-epochs, and runs that learn from other targets, can be compared.
    """
    return heads_of(replace(spec, value_target=STEP.value_target, value_target_schedule=STEP.value_target_schedule))


def scheduled(spec: StepSpec) -> bool:
    """Whether heads follow the samples seen."""
    return bool(spec.loss_schedule or spec.value_target_schedule)


def _search_share(spec: StepSpec, samples: int | None) -> float | None:
    """The search's share of what the value learns; None where it never has one."""
    if spec.value_target_schedule:
        return _at(parsed(spec.value_target_schedule, name="value_target_schedule"), samples)
    return search_share(spec.value_target) or None


def _at(schedule: Piecewise, samples: int | None) -> float:
    return schedule.last if samples is None else schedule.at(samples)


def red_probability(heads: Sequence[Head], answers: Mapping[str, Tensor]) -> Tensor:
    """The probability (B,) that RED wins, as the value among a network's answers says it."""
    value = next(head for head in heads if head.name == VALUE.name)
    assert value.red is not None
    return value.red(answers[VALUE.name])


def recorded(metrics: Mapping[str, Any]) -> Iterator[Head]:
    """The heads whose losses are among some metrics."""
    return (head for head in HEADS if head.loss_name in metrics)
