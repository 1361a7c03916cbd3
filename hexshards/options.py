"""Options classes: a field says once what it is, and commands, keyword arguments, sweeps, records and docs walk it.

Each package has its own in its ``options.py``: frozen dataclasses, checked when they are made, each default written
once, by ``option``.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from hexshards.errors import escaped, nearest, without_secrets

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

P = ParamSpec("P")
R = TypeVar("R")

Offered = Literal["command", "python", "spec"]
"""Who is offered an option: commands and Python; keyword arguments of Python alone; whoever makes the spec itself."""

Shapes = Literal["bytes", "order", "weights", "records", "rounding", "end", "nothing"]
"""What another value changes: the bytes of a dataset; which samples come when; weights; what a mini-epoch is, and what
it is compared by; weights in their last bits, for sums are added up otherwise; when a run ends and what is kept of it;
or nothing of these."""

MAY_CHANGE = ("rounding", "end", "nothing")
"""What a run that goes on may do otherwise than it began."""

Searched = Literal["yes", "fixed", "no"]
"""Whether a sweep tries values of an option; takes one for all trials; or decides by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a field that was made by ``option`` says of itself."""

    says: str
    """Its help."""
    shapes: Shapes
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    finite: bool = True
    """Whether infinity is none of its values."""
    panel: str | None = None
    """The group of ``--help`` and of the docs."""
    unset: str | None = None
    """What is taken where it is None."""
    offered: Offered = "command"
    searched: Searched = "yes"
    recorded: bool = True
    """Whether it is kept with what was made by it."""
    later: bool = False
    """Whether it came after the first release: kept only where it is not the default, so that what is made without it
    stays the same to the byte."""

    @property
    def may_change(self) -> bool:
        """Whether a run that goes on may have another value."""
        return self.shapes in MAY_CHANGE

    def broken_by(self, number: float) -> str:
        """The rule that a number breaks, in words; empty where it is within the bounds."""
        if self.least is not None and self.most is not None:
            return "" if self.least <= number <= self.most else f"{self.least:,} to {self.most:,}"
        rules = (
            ("at least", self.least, operator.ge),
            ("at most", self.most, operator.le),
            ("more than", self.above, operator.gt),
            ("less than", self.below, operator.lt),
        )
        broken = (
            f"{words} {bound:,}" for words, bound, holds in rules if bound is not None and not holds(number, bound)
        )
        return next(broken, "")


def option(default: Any, says: str, *, shapes: Shapes, repr: bool = True, **about: Any) -> Any:
    """A field of an options class with its help; ``about`` are fields of About. MISSING: it must be given."""
    return field(default=default, repr=repr, metadata={"about": About(says=says, shapes=shapes, **about)})


def options_in(spec: type[DataclassInstance] | DataclassInstance) -> dict[str, Field[Any]]:
    """The fields of a spec that were made by ``option``, by name, in order."""
    return dict(_options_of(spec if isinstance(spec, type) else type(spec)))


@cache
def _options_of(spec: type[DataclassInstance]) -> dict[str, Field[Any]]:
    """Looked up once: a command asks for each of its options."""
    return {each.name: each for each in fields(spec) if "about" in each.metadata}


def about(spec: type[DataclassInstance] | DataclassInstance) -> dict[str, About]:
    """What the options of a spec say of themselves, by name, in order."""
    return {name: each.metadata["about"] for name, each in options_in(spec).items()}


def offered_in(spec: type[DataclassInstance] | DataclassInstance, *to: Offered) -> list[str]:
    """The names of the options of a spec that are offered so."""
    return [name for name, each in about(spec).items() if each.offered in to]


def may_change(spec: type[DataclassInstance]) -> frozenset[str]:
    """The options that a run which goes on may have otherwise than it began."""
    return frozenset(name for name, each in about(spec).items() if each.may_change and each.recorded)


def changed(spec: DataclassInstance, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some options that are not as a spec has them."""
    return {name: value for name, value in options.items() if value != getattr(spec, name)}


def takes(spec: type[DataclassInstance]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function whose ``**options`` are those that a spec offers: its signature shows each with its default.

    One that is not offered is refused with TypeError. For type checkers ``**options`` is ``Unpack`` of a TypedDict,
    which a test compares with the spec.
    """
    offered = {name: each for name, each in options_in(spec).items() if name in offered_in(spec, "command", "python")}
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=each.type,
        )
        for name, each in offered.items()
    ]

    def change(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        known = {each.name for each in own + added}

        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            if unknown := [name for name in kwargs if name not in known]:
                named = f"{function.__name__}() got an unexpected keyword argument {unknown[0]!r}"
                raise TypeError(named + nearest(unknown[0], known))
            return function(*args, **kwargs)

        called.__signature__ = signature.replace(parameters=own + added)  # type: ignore[attr-defined]
        return called

    return change


def as_recorded(spec: DataclassInstance) -> dict[str, int | float | str | bool]:
    """A spec as a dict that JSON and ``torch.load(weights_only=True)`` take.

    Paths are text, as they were given, and URLs are without secrets.
    """
    defaults = {each.name: each.default for each in fields(spec)}
    left_out = {
        name
        for name, each in about(spec).items()
        if not each.recorded or (each.later and getattr(spec, name) == defaults[name])
    }
    named = {name: value for name, value in asdict(spec).items() if name not in left_out}
    texts = {name: str(value) for name, value in named.items() if isinstance(value, (str, Path))}
    return {**named, **{name: without_secrets(text) for name, text in texts.items()}}


def unrecorded_defaults(spec: type[DataclassInstance]) -> dict[str, Any]:
    """The defaults of the options that ``as_recorded`` leaves out where they have them."""
    return {name: options_in(spec)[name].default for name, each in about(spec).items() if each.recorded and each.later}


def check_options(spec: DataclassInstance) -> None:
    """Raise ValueError where a field made by ``option`` is beyond its bounds."""
    for name in about(spec):
        check_option(type(spec), name, getattr(spec, name))


def check_option(spec: type[DataclassInstance], name: str, value: Any) -> None:
    """Raise ValueError where a value is beyond the bounds of an option. None is not looked at."""
    if value is None:
        return
    bounds = about(spec)[name]
    infinite = bounds.finite and isinstance(value, float) and not math.isfinite(value)
    require(not infinite, f"{name} must be finite", value)
    rule = bounds.broken_by(value)
    require(not rule, f"{name} must be {rule}", value)


def require(holds: bool, rule: str, *got: object) -> None:
    """Raise ValueError, with what was given, where a rule does not hold."""
    if not holds:
        raise ValueError(escaped(", got ".join([rule, *map(str, got)])))
