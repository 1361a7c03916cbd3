"""A sweep's file says what is searched and what is fixed; every name, kind and bound is that of a train option."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from hexshards.arguments import fit_fields, fitted, hints_of
from hexshards.errors import printable
from hexshards.options import about, check_option, offered_in
from hexshards.training.early_stopping import HIGHER_IS_BETTER
from hexshards.training.options import TRAIN, TrainSpec

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
    """What a sweep tries."""

    search: Mapping[str, Range | tuple[Any, ...]]
    """Train options, and the numbers or the choices tried for each."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Train options that are the same in all trials; the others have their defaults."""
    trials: int = 20
    """Trials of all processes together. A grid has no more than its combinations."""
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    storage: str | None = field(default=None, repr=False)
    """A database by its SQLAlchemy URL, for several machines; else a file in the sweep's folder."""
    name: str | None = None
    """The name of the sweep in the database; else that of its folder."""

    def __post_init__(self) -> None:
        fit_fields(self)
        _require(bool(self.search), "the table [search] names no option")
        _require(self.trials >= 1, f"trials must be at least 1, got {self.trials}")
        for name in self.search:
            says = f"{name} says what is good: give it in [fixed]"
            _require(name not in TRAIN_OPTIONS or TRAIN_OPTIONS[name].searched != "fixed", says)
        both = sorted(self.search.keys() & self.fixed.keys())
        _require(not both, f"both in [search] and in [fixed]: {', '.join(both)}")
        ranges = [name for name, part in self.search.items() if isinstance(part, Range)]
        _require(self.sampler != "grid" or not ranges, f"a grid needs lists, not ranges: {', '.join(ranges)}")

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
        found = {}
        for name, values in reversed([*self.search.items()]):
            assert isinstance(values, tuple)
            number, place = divmod(number, len(values))
            found[name] = values[place]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial, as the database has it."""

    number: int
    """Also the name of its run's folder."""
    state: str
    """complete, pruned, failed, running or waiting."""
    value: float | None
    """The metric of its best mini-epoch; of a pruned one so far."""
    mini_epochs: int
    samples: int
    options: Mapping[str, Any]
    error: str | None


def read_sweep(config: str | Path | Mapping[str, Any]) -> SweepSpec:
    """A sweep from its TOML file, or from what such a file would hold.

    Raises ValueError for what makes no sense, naming close matches for a name that is not known.
    """
    if isinstance(config, Mapping):
        return _parsed(config)
    try:
        with open(config, "rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        raise ValueError(f"{config}: no such file. docs/sweep.md shows one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{config}: is not TOML ({printable(error)})") from None
    try:
        return _parsed(found)
    except ValueError as error:
        raise ValueError(f"{config}: {error}") from None


def _parsed(config: Mapping[str, Any]) -> SweepSpec:
    known = {each.name: each for each in fields(SweepSpec)}
    for name in config:
        _known(name, list(known))
    tables = {name: config.get(name, {}) for name in ("search", "fixed")}
    for name, table in tables.items():
        _require(isinstance(table, Mapping), f"{name} must be a table, [{name}]")
    search = {name: _part(name, part) for name, part in tables["search"].items()}
    fixed = {name: _value(name, value) for name, value in tables["fixed"].items()}
    return SweepSpec(**{**config, "search": search, "fixed": fixed})


def _part(name: str, part: Any) -> Range | tuple[Any, ...]:
    if isinstance(part, list):
        _require(bool(part), f"{name}: the list is empty")
        return tuple(_value(name, value) for value in part)
    if isinstance(part, Mapping):
        return _range(name, part)
    raise ValueError(f"{name}: give a list, or a range like {{low = 1, high = 8}}; what is fixed belongs into [fixed]")


def _range(name: str, part: Mapping[str, Any]) -> Range:
    for word in part:
        _known(word, ["low", "high", "log", "step"], of=f"{name}: a range has low, high, log and step, not ")
    _require({"low", "high"} <= part.keys(), f"{name}: a range needs low and high")
    low, high = (_value(name, part[word]) for word in ("low", "high"))
    numbers = all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in (low, high))
    _require(numbers, f"{name} is no number: give a list of choices")
    log, step = part.get("log", False), part.get("step")
    _require(isinstance(log, bool), f"{name}: log must be true or false")
    _require(low < high, f"{name}: low must be less than high, got {low} and {high}")
    _require(not log or low > 0, f"{name}: a range with log must begin above 0")
    _require(step is None or not log, f"{name}: give log or step, not both")
    whole = isinstance(low, int)
    fits = step is None or (isinstance(step, (int, float)) and step > 0 and (isinstance(step, int) or not whole))
    _require(fits, f"{name}: step must be a number above 0, and whole where the option is")
    return Range(low=low, high=high, log=log, step=step, whole=whole)


def _value(name: str, value: Any) -> Any:
    """A value as the option has it. Raises ValueError where its kind or bounds forbid it."""
    options = [name for name, each in TRAIN_OPTIONS.items() if each.searched != "no"]
    _known(name, options, of="no option of `hexshards train` that can be searched: ")
    kind = hints_of(TrainSpec)[name]
    value = fitted(value, kind, name=name)
    if float in (kind, *get_args(kind)) and type(value) is int:
        value = float(value)
    check_option(TrainSpec, name, value)
    return value


def _known(name: str, names: list[str], *, of: str = "not known: ") -> None:
    if name not in names:
        close = get_close_matches(name.replace("-", "_"), names)
        hint = f". Did you mean {' or '.join(close)}?" if close else f". There are {', '.join(names)}"
        raise ValueError(f"{of}{printable(name)}{hint}")


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)
