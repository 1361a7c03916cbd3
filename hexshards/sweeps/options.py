"""Options of a hyperparameter sweep: what it tries, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hexshards.arguments import fit_fields
from hexshards.options import about, check_options, offered_in, option, require
from hexshards.training.options import HIGHER_IS_BETTER, TRAIN, TrainSpec

Sampler = Literal["tpe", "random", "grid"]
"""How the next trial is chosen: by what was good so far; at random; each combination of the lists in turn."""

Pruner = Literal["median", "none"]
"""median: a trial that is worse than half of the others were after as many mini-epochs ends there."""

TRAIN_OPTIONS = {name: about(TrainSpec)[name] for name in offered_in(TrainSpec, "command")}
"""What a trial may be given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; ``log``: as many below 10 as above in 1 to 100."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False
    """Whole numbers only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """Options of a sweep: its search space, sampler and pruner."""

    search: Mapping[str, Range | tuple[Any, ...]]
    """Train options, and the numbers or the choices tried for each."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Train options that are the same in all trials; the others have their defaults."""
    trials: int = option(
        20, "Trials of all processes together. A grid has no more than its combinations.", least=1, shapes="nothing"
    )
    sampler: Sampler = option(
        "tpe",
        "tpe learns from the trials so far, random does not, grid takes each combination of the lists once.",
        shapes="nothing",
    )
    pruner: Pruner = option(
        "median",
        "median: a trial that is worse than half of the others were after as many mini-epochs ends there, but for the "
        "first 5 trials and every trial's first mini-epoch; none: every trial runs to its end.",
        shapes="nothing",
    )
    storage: str | None = option(
        None,
        "Any database that Optuna takes, by its URL, such as postgresql://user@host/sweeps, for several machines.",
        unset="a file in --out",
        shapes="nothing",
        repr=False,
    )
    name: str | None = option(None, "The name of the sweep in the database.", unset="that of --out", shapes="nothing")

    def __post_init__(self) -> None:
        fit_fields(self)
        require(bool(self.search), "the table [search] names no option")
        check_options(self)
        for name in self.search:
            says = f"{name} says what is good: give it in [fixed]"
            require(name not in TRAIN_OPTIONS or TRAIN_OPTIONS[name].searched != "fixed", says)
        both = sorted(self.search.keys() & self.fixed.keys())
        require(not both, f"both in [search] and in [fixed]: {', '.join(both)}")
        ranges = [name for name, part in self.search.items() if isinstance(part, Range)]
        require(self.sampler != "grid" or not ranges, f"a grid needs lists, not ranges: {', '.join(ranges)}")

    @property
    def metric(self) -> str:
        """What is compared: the number of a mini-epoch's record that the train option ``best_by`` names."""
        return str(self.fixed.get("best_by", TRAIN.best_by))

    @property
    def maximize(self) -> bool:
        """Whether more of the metric is better."""
        return self.metric.endswith(HIGHER_IS_BETTER)

    @property
    def combinations(self) -> int | None:
        """How many there are; None where a range makes them uncountable."""
        lists = [part for part in self.search.values() if isinstance(part, tuple)]
        return math.prod(map(len, lists)) if len(lists) == len(self.search) else None

    def combination(self, number: int) -> dict[str, Any]:
        """A combination of a grid by its number; the last option changes fastest."""
        options = {}
        for name, values in reversed([*self.search.items()]):
            assert isinstance(values, tuple)
            number, place = divmod(number, len(values))
            options[name] = values[place]
        return options
