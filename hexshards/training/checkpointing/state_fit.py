"""A trainer's state is compared with one made fresh before it is loaded: names, shapes, dtypes and kinds of numbers.

PyTorch loads an optimizer's state of another network without a word, and fails in the middle of the first step, or not
at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hexshards.errors import escaped

MOMENTS = {
    torch.optim.Adam: frozenset({"step", "exp_avg", "exp_avg_sq"}),
    torch.optim.AdamW: frozenset({"step", "exp_avg", "exp_avg_sq"}),
    torch.optim.SGD: frozenset({"momentum_buffer"}),
}
"""What an optimizer keeps for each weight."""


RATES = frozenset({"lr", "betas", "eps", "weight_decay", "momentum", "dampening", "initial_lr"})
BOUNDS, MOST = {"betas": 1 - 1e-9, "momentum": 1.0, "dampening": 1.0}, 1e6
"""Numbers of a group that a step is taken with, and what they are at most; none is negative."""


def check_like(given: object, fresh: object, name: str) -> None:
    """Raise ValueError, naming the part, unless a state is of the same make as a fresh one."""
    match fresh:
        case Tensor():
            _check(isinstance(given, Tensor), name, "is no tensor")
            assert isinstance(given, Tensor)
            _check(given.shape == fresh.shape, name, f"has shape {tuple(given.shape)}, not {tuple(fresh.shape)}")
            _check(given.dtype == fresh.dtype, name, f"is of {given.dtype}, not {fresh.dtype}")
        case Mapping():
            _check(isinstance(given, Mapping), name, "is no dict")
            assert isinstance(given, Mapping)
            _check_names(given.keys(), fresh.keys(), name)
            for key, part in fresh.items():
                check_like(given[key], part, f"{name}.{key}")
        case bool() | str() | None:
            pass  # what it is for, no number depends on
        case int() | float():
            number = isinstance(given, (int, float)) and not isinstance(given, bool)
            _check(number and math.isfinite(given), name, "is no finite number")  # type: ignore[arg-type]
        case list() | tuple():
            _check(isinstance(given, (list, tuple)) and len(given) == len(fresh), name, "is no list of the same length")
            assert isinstance(given, (list, tuple))
            for place, (one, other) in enumerate(zip(given, fresh, strict=True)):
                check_like(one, other, f"{name}.{place}")


def check_optimizer(given: object, optimizer: torch.optim.Optimizer, name: str) -> None:
    """Raise ValueError unless a state_dict is of an optimizer of this kind over weights of these shapes."""
    fresh = optimizer.state_dict()
    _check(isinstance(given, Mapping) and {"state", "param_groups"} <= given.keys(), name, "is no optimizer's state")
    assert isinstance(given, Mapping)
    groups, parts = given["param_groups"], given["state"]
    _check(isinstance(groups, Sequence) and len(groups) == len(fresh["param_groups"]), name, "has other groups")
    for place, (group, wanted) in enumerate(zip(groups, fresh["param_groups"], strict=True)):
        at = f"{name}.param_groups.{place}"
        _check(isinstance(group, Mapping) and group.get("params") == wanted["params"], at, "is of other weights")
        # a later release of PyTorch may keep more of a group
        known = {key: value for key, value in wanted.items() if key in group}
        check_like({key: group[key] for key in known}, known, at)
        for key in RATES & known.keys():
            rates = group[key] if isinstance(group[key], (list, tuple)) else [group[key]]
            _check(all(0 <= rate <= BOUNDS.get(key, MOST) for rate in rates), f"{at}.{key}", f"is {group[key]}")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    _check(isinstance(parts, Mapping), f"{name}.state", "is no dict")
    for number, part in parts.items():
        at = f"{name}.state.{number}"
        _check(type(number) is int and 0 <= number < len(weights), at, "is of no weight")
        _check_moments(part, weights[number], MOMENTS[type(optimizer)], at)


def _check_moments(part: object, weight: Tensor, names: frozenset[str], at: str) -> None:
    _check(isinstance(part, Mapping) and part.keys() == names, at, f"does not hold {', '.join(sorted(names))}")
    assert isinstance(part, Mapping)
    for key, value in part.items():
        if value is None and key == "momentum_buffer":  # before the first step
            continue
        _check(isinstance(value, Tensor) and value.is_floating_point(), f"{at}.{key}", "is no tensor of floats")
        wanted = () if key == "step" else tuple(weight.shape)
        _check(tuple(value.shape) == wanted, f"{at}.{key}", f"has shape {tuple(value.shape)}, not {wanted}")


def _check_names(given: Any, fresh: Any, name: str) -> None:
    lacking, unknown = sorted(map(str, fresh - given)), sorted(map(str, given - fresh))
    says = [f"lacks {', '.join(lacking[:3])}"] if lacking else []
    says += [f"has unknown {', '.join(unknown[:3])}"] if unknown else []
    _check(not says, name, " and ".join(says))


def _check(holds: bool, name: str, problem: str) -> None:
    if not holds:
        raise ValueError(f"{escaped(name)} {escaped(problem)}")


def with_own_flags(given: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state with this one's switches: how it computes is for who trains now to say."""
    groups = zip(given["param_groups"], optimizer.state_dict()["param_groups"], strict=True)
    own = [
        {**group, **{key: part for key, part in mine.items() if part is None or isinstance(part, bool)}}
        for group, mine in groups
    ]
    return {**given, "param_groups": own}
