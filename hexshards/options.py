"""Options classes: how a field is declared, bounded, shown as an option of a command, and recorded.

Each package has its own in its ``options.py``: frozen dataclasses, checked when they are made, each default
written once.
"""

from __future__ import annotations

import math
from dataclasses import asdict, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hexshards.errors import without_secrets

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def option(
    default: Any,
    says: str,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    panel: str | None = None,
) -> Any:
    """A field that is an option of the command line as well: its help, its bounds, and the panel of ``--help``."""
    bounds = {"least": least, "above": above, "below": below}
    return field(default=default, metadata={"says": says, "panel": panel, **bounds})


def as_recorded(spec: DataclassInstance) -> dict[str, int | float | str | bool]:
    """A spec as a dict that JSON and ``torch.load(weights_only=True)`` take.

    Paths are text, as they were given, and URLs are without secrets.
    """
    named = {name: value for name, value in asdict(spec).items() if name != "relative_to"}
    texts = {name: str(value) for name, value in named.items() if isinstance(value, (str, Path))}
    return {**named, **{name: without_secrets(text) for name, text in texts.items()}}


def check_options(spec: DataclassInstance) -> None:
    """Raise ValueError where a field made by ``option`` is beyond its bounds."""
    for each in fields(spec):
        if each.metadata:
            check_option(type(spec), each.name, getattr(spec, each.name))


def check_option(spec: type[DataclassInstance], name: str, value: Any) -> None:
    """Raise ValueError where a value is beyond the bounds of an option. None is not looked at."""
    if value is None:
        return
    bounds = next(each.metadata for each in fields(spec) if each.name == name)
    least, above, below = bounds["least"], bounds["above"], bounds["below"]
    require(not isinstance(value, float) or math.isfinite(value), f"{name} must be finite", value)
    require(least is None or value >= least, f"{name} must be at least {least}", value)
    require(above is None or value > above, f"{name} must be more than {above}", value)
    require(below is None or value < below, f"{name} must be less than {below}", value)


def require(holds: bool, rule: str, value: object) -> None:
    """Raise ValueError, with the value, where a rule does not hold."""
    if not holds:
        raise ValueError(f"{rule}, got {value}")
