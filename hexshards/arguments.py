"""Argument checking: an argument is of the kind its annotation says, or is refused by its name at once.

What means the same becomes it: NumPy's numbers, and tensors and arrays of one, are plain numbers; a float without a
fraction, such as 1e3, is a whole number; text is a path. The fields of a spec are looked at by ``fit_fields``, the
arguments of a function by ``checked``; both read the annotations, so no rule is written twice.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, fields
from functools import cache, reduce, wraps
from operator import or_
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from hexshards.errors import printable, without_secrets

LocalPath = Annotated[str | Path, "on this machine"]
"""A path that no URL can stand for."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""Also one that went through a Path, and lost a slash; a drive has one letter."""

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
    Path: "a path",
    NoneType: "None",
    Callable: "a function",
}

P = ParamSpec("P")
R = TypeVar("R")


class Spec(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class _Misfit(ValueError):
    """A value is not of the kind that is wanted."""


def fit_fields(spec: Spec) -> None:
    """Make the fields of a spec what their annotations say. Raises ValueError. For ``__post_init__``."""
    kinds = hints_of(type(spec))
    for each in fields(spec):
        object.__setattr__(spec, each.name, fitted(getattr(spec, each.name), kinds[each.name], name=each.name))


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose arguments are made what their annotations say, or refused with ValueError, as it is called."""
    signature = inspect.signature(function)
    stars = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError:  # Python says it better
            return function(*args, **kwargs)
        kinds = hints_of(function)
        for name, value in given.arguments.items():
            if name in kinds and signature.parameters[name].kind not in stars:
                given.arguments[name] = fitted(value, kinds[name], name=name)
        return function(*given.args, **given.kwargs)

    return called


@cache
def hints_of(annotated: Any) -> dict[str, Any]:
    """The kinds of a class's fields or a function's arguments. To work them out takes half a millisecond."""
    return get_type_hints(annotated, include_extras=True)


def fitted(value: Any, kind: Any, *, name: str) -> Any:
    """A value as one of a kind. Raises ValueError, which says what was wanted of which name."""
    origin = get_origin(kind) or kind
    if kind is Any or isinstance(kind, TypeVar):
        return value
    if origin in (Union, UnionType):
        return _one_of(value, _members(kind), kind, name)
    if origin is Annotated:
        return fitted(_local(value, name), get_args(kind)[0], name=name)
    if origin is Literal:
        return _choice(value, get_args(kind), name)
    if origin is Mapping:
        return _mapping(value, kind, name)
    if origin is Sequence:
        return _sequence(value, kind, name)
    if origin in (int, float, bool, str):
        return _plain(value, origin, name)
    if origin is Path:
        return _path(_local(value, name), name)
    if getattr(origin, "_is_protocol", False) and origin is not Iterable:
        return _having(value, origin, name)
    if isinstance(value, origin):
        return value
    raise _misfit(name, kind, value)


def _misfit(name: str, kind: Any, value: Any) -> _Misfit:
    return _Misfit(f"{name} must be {_described(kind)}, got {_shown(value)}")


# one kind each ------------------------------------------------------------------------------------------------------


def _plain(value: Any, kind: type, name: str) -> Any:
    plain = value.item() if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)) else value
    if kind is int and isinstance(plain, float) and plain.is_integer():
        return int(plain)
    takes = (int, float) if kind is float else kind
    if isinstance(plain, takes) and isinstance(plain, bool) == (kind is bool) and plain == plain:
        return plain
    raise _misfit(name, kind, value)


def _path(value: Any, name: str) -> Path:
    if isinstance(value, (str, os.PathLike)) and isinstance(path := os.fspath(value), str):
        return value if isinstance(value, Path) else Path(path)
    raise _misfit(name, Path, value)


def _local(path: Any, name: str) -> Any:
    if isinstance(path, (str, Path)) and _URL.match(str(path)):
        shown = printable(without_secrets(str(path)), width=200)
        raise _Misfit(f"{name} must be a folder or a file on this machine, and {shown} is a URL")
    return path


def _choice(value: Any, choices: tuple[Any, ...], name: str) -> Any:
    for choice in choices:
        if isinstance(value, str) and choice == value:
            return choice
    raise _Misfit(f"{name} must be one of {choices}, got {_shown(value)}")


def _sequence(value: Any, kind: Any, name: str) -> Any:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise _misfit(name, kind, value)
    (part,) = get_args(kind) or (Any,)
    parts = (fitted(each, part, name=f"{name}[{place}]") for place, each in enumerate(value))
    return list(parts) if isinstance(value, list) else tuple(parts)


def _mapping(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        raise _misfit(name, kind, value)
    keys, values = get_args(kind) or (Any, Any)
    return {
        fitted(key, keys, name=f"a key of {name}"): fitted(each, values, name=f"{name}[{_shown(key)}]")
        for key, each in value.items()
    }


def _having(value: Any, kind: type, name: str) -> Any:
    """What has the methods of a protocol; a class has them too, but for no object."""
    parts = [part for each in kind.__mro__ if getattr(each, "_is_protocol", False) for part in vars(each)]
    wanted = [part for part in parts if not part.startswith("_") or part in ("__call__", "__len__", "__iter__")]
    missing = [part for part in sorted(wanted) if isinstance(value, type) or not hasattr(value, part)]
    if missing:
        made = f"the class {value.__name__} is none" if isinstance(value, type) else ""
        lacks = made or f"{type(value).__name__} has no {', '.join(missing)}"
        raise _Misfit(f"{name} must be {_described(kind)}, and {lacks}")
    return value


# one of several ------------------------------------------------------------------------------------------------------


def _one_of(value: Any, kinds: Sequence[Any], union: Any, name: str) -> Any:
    inner = None
    for kind in kinds:
        try:
            # where text is taken too, it may be a URL
            return _path(value, name) if kind is Path and str in kinds else fitted(value, kind, name=name)
        except _Misfit as error:
            # what is wrong within a list or a dict says more than that it is none of these
            inner = inner if str(error).startswith(f"{name} must be {_described(kind)}") else error
    raise inner or _misfit(name, union, value)


def _members(union: Any) -> list[Any]:
    """The kinds of a union, what takes text as it is before what makes a path of it."""
    return sorted(_with_one_mapping(get_args(union)), key=lambda each: (each is Path) - (each is str))


def _with_one_mapping(kinds: Sequence[Any]) -> list[Any]:
    """Kinds in which all mappings are one, so that the keys of a dict may be of different kinds."""
    mappings = [each for each in kinds if get_origin(each) is Mapping]
    if len(mappings) < 2:
        return list(kinds)
    keys, values = (reduce(or_, parts) for parts in zip(*map(get_args, mappings), strict=True))
    return [*(each for each in kinds if each not in mappings), Mapping[keys, values]]  # type: ignore[valid-type]


# words --------------------------------------------------------------------------------------------------------------


def _described(kind: Any) -> str:
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_described, _with_one_mapping(parts))))
    if origin is Annotated:
        return _described(parts[0])
    if origin is Literal:
        return f"one of {parts}"
    if origin is Sequence:
        return f"a list of {_described(parts[0])}"
    if origin is Mapping:
        return f"a dict ({_described(parts[0])}: {_described(parts[1])})"
    return _WORDS.get(origin) or _with_article(origin)


def _with_article(kind: type) -> str:
    home = "torch." if kind.__module__.split(".")[0] == "torch" else ""
    name = f"{'torch.nn.' if kind.__module__.startswith('torch.nn') else home}{kind.__name__}"
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"


def _shown(value: Any) -> str:
    if value is None or isinstance(value, (str, int, float, type)):
        return printable(without_secrets(repr(value)))
    return _with_article(type(value)) if not isinstance(value, Path) else printable(without_secrets(str(value)))
