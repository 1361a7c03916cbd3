"""Search space of a sweep: its file says what is searched and fixed; names and bounds are those of train options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from hexshards.arguments import fitted, hints_of
from hexshards.config_files import known, read_toml
from hexshards.errors import escaped
from hexshards.options import check_option, require
from hexshards.sweeps.options import TRAIN_OPTIONS, Range, SweepSpec
from hexshards.training.options import TrainSpec
from hexshards.units import parse_count


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
    given = read_toml(config, hint=". docs/sweep.md shows one")
    try:
        return _parsed(given)
    except ValueError as error:
        raise ValueError(f"{escaped(config)}: {escaped(error)}") from None


def _parsed(config: Mapping[str, Any]) -> SweepSpec:
    for name in config:
        known(name, [each.name for each in fields(SweepSpec)])
    tables = {name: config.get(name, {}) for name in ("search", "fixed")}
    for name, table in tables.items():
        require(isinstance(table, Mapping), f"{name} must be a table, [{name}]")
    search = {name: _part(name, part) for name, part in tables["search"].items()}
    fixed = {name: _value(name, value) for name, value in tables["fixed"].items()}
    return SweepSpec(**{**config, "search": search, "fixed": fixed})


def _part(name: str, part: Any) -> Range | tuple[Any, ...]:
    if isinstance(part, list):
        require(bool(part), f"{name}: the list is empty")
        return tuple(_value(name, value) for value in part)
    if isinstance(part, Mapping):
        return _range(name, part)
    raise ValueError(
        f"{escaped(name)}: give a list, or a range like {{low = 1, high = 8}}; what is fixed belongs into [fixed]"
    )


def _range(name: str, part: Mapping[str, Any]) -> Range:
    for word in part:
        known(word, ["low", "high", "log", "step"], of=f"{name}: a range has low, high, log and step, not ")
    require({"low", "high"} <= part.keys(), f"{name}: a range needs low and high")
    low, high = (_value(name, part[word]) for word in ("low", "high"))
    numbers = all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in (low, high))
    require(numbers, f"{name} is no number: give a list of choices")
    log, step = part.get("log", False), part.get("step")
    require(isinstance(log, bool), f"{name}: log must be true or false")
    require(low < high, f"{name}: low must be less than high, got {low} and {high}")
    require(not log or low > 0, f"{name}: a range with log must begin above 0")
    require(step is None or not log, f"{name}: give log or step, not both")
    whole = isinstance(low, int)
    fits = step is None or (isinstance(step, (int, float)) and step > 0 and (isinstance(step, int) or not whole))
    require(fits, f"{name}: step must be a number above 0, and whole where the option is")
    return Range(low=low, high=high, log=log, step=step, whole=whole)


def _value(name: str, value: Any) -> Any:
    """A value as the option has it. Raises ValueError where its kind or bounds forbid it."""
    options = [name for name, each in TRAIN_OPTIONS.items() if each.searched != "no"]
    known(name, options, of="no option of `hexshards train` that can be searched: ")
    kind = hints_of(TrainSpec)[name]
    if isinstance(value, str) and int in (kind, *get_args(kind)) and str not in get_args(kind):
        value = parse_count(value, name=name)
    value = fitted(value, kind, name=name)
    if float in (kind, *get_args(kind)) and type(value) is int:
        value = float(value)
    check_option(TrainSpec, name, value)
    return value
