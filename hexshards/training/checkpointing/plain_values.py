"""Plain values: what a checkpoint or a record may hold, so that it can be read back anywhere and runs nothing.

Numbers, text, None, and lists and dicts of them; a trainer's state also tensors, and NumPy arrays, which come back as
such. What means one of these (a NumPy number, a tensor of one, a path, a time) becomes it; anything else is refused by
its place and kind before a byte is written.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

KeyPath = tuple[str | int, ...]
"""Keys and places from the top of a value down to a part of it."""

MAX_DEPTH = 100
"""Levels of lists and dicts within each other: a value that holds itself has no end."""


class NotPlain(TypeError):
    """A value that a checkpoint or a record cannot hold."""


def plain_record(value: Any, *, what: str) -> Any:
    """A value as JSON knows it: numbers, text, None, lists and dicts by text.

    Tensors and arrays become numbers, or lists of them. Raises NotPlain, which names ``what`` and the place in it.
    """
    return _Plain(what, keep_arrays=False).of(value, ())


def plain_names(value: Any, *, what: str) -> dict[str, Any]:
    """Names with their values, as ``plain_record`` makes them. Raises NotPlain also where there are no names."""
    if not isinstance(value, Mapping):
        raise NotPlain(f"{what} is {_kind(value)}. Give a dict of names with numbers or text instead")
    return dict(plain_record(value, what=what))


def plain_state(value: Any, *, what: str) -> tuple[Any, list[list[str | int]]]:
    """A trainer's state as ``torch.load(weights_only=True)`` reads it back, and the paths of its NumPy arrays.

    Tensors stay as they are, arrays become tensors of the same bytes. Raises NotPlain, which names ``what`` and the
    place in it.
    """
    plain = _Plain(what, keep_arrays=True)
    return plain.of(value, ()), [list(path) for path in plain.arrays]


def with_arrays(state: Any, paths: Sequence[Sequence[str | int]]) -> Any:
    """A state in which the tensors at these paths are NumPy arrays again. LookupError, TypeError: it has no such."""
    for path in paths:
        state = _array_at(state, tuple(path))
    return state


def _array_at(part: Any, path: KeyPath) -> Any:
    if not path:
        return part.numpy()
    key, *rest = path
    changed = _array_at(part[key], tuple(rest))
    if isinstance(part, tuple):
        return tuple(changed if place == key else each for place, each in enumerate(part))
    part[key] = changed
    return part


@dataclass(slots=True)
class _Plain:
    what: str
    keep_arrays: bool
    arrays: list[KeyPath] = field(default_factory=list)

    def of(self, value: Any, path: KeyPath) -> Any:
        if len(path) > MAX_DEPTH:
            raise self._refused("lists or dicts within each other without end", path)
        match value:
            case None | bool() | int() | float() | str() | np.generic():
                return self._leaf(value, path)
            case Enum():
                return self.of(value.value, path)
            case Tensor() | np.ndarray():
                return self._array(value, path)
            case Mapping():
                return self._mapping(value, path)
            case list() | tuple() | Set():
                parts = [self.of(part, (*path, place)) for place, part in enumerate(_in_order(value))]
                return tuple(parts) if self.keep_arrays and isinstance(value, tuple) else parts
        return self._other(value, path)

    def _leaf(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        # subclasses, such as NumPy's float64, become what they are made of
        for kind in (bool, int, float, str):
            if isinstance(value, kind):
                return kind(value) if kind is not str else str.__str__(value)
        if value is None:
            return None
        return self._other(value, path)

    def _array(self, value: Any, path: KeyPath) -> Any:
        if not self.keep_arrays:
            data = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
            return self.of(data.item() if data.size == 1 else data.tolist(), path)
        if isinstance(value, Tensor):
            return value
        if isinstance(value, np.ma.MaskedArray):
            raise self._refused("a masked array", path)
        try:
            # torch knows this machine's order of bytes alone, and shares no memory that may not be written
            tensor = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
        except TypeError:
            raise self._refused(f"a NumPy array of {value.dtype}", path) from None
        self.arrays.append(path)
        return tensor

    def _mapping(self, value: Mapping[Any, Any], path: KeyPath) -> dict[Any, Any]:
        plain = OrderedDict() if self.keep_arrays and isinstance(value, OrderedDict) else {}
        for key, part in value.items():
            name = self._leaf(key, (*path, _printed(key))) if self.keep_arrays else str(self._leaf(key, path))
            plain[name] = self.of(part, (*path, name))
        return plain

    def _other(self, value: Any, path: KeyPath) -> Any:
        match value:
            case PurePath():
                return str(value)
            case date():  # datetime is one
                return value.isoformat()
            case timedelta():
                return value.total_seconds()
            case bytes() | torch.device() | torch.dtype() if self.keep_arrays:
                return value
            case torch.device() | torch.dtype():
                return str(value)
        raise self._refused(_kind(value), path)

    def _refused(self, value: str, path: KeyPath) -> NotPlain:
        place = ".".join(map(str, path)) or "its top"
        takes = "numbers, text, None, lists and dicts" + (", tensors and NumPy arrays" if self.keep_arrays else "")
        return NotPlain(f"{self.what} holds {value} at {place}, which could not be read back. Give {takes} instead")


def _kind(value: object) -> str:
    return f"an object of {type(value).__module__}.{type(value).__qualname__}"


def _printed(key: object) -> str:
    """Text of a key that may be none, for an error."""
    return key if isinstance(key, str) else f"{key!r:.40}"


def _in_order(value: list[Any] | tuple[Any, ...] | Set[Any]) -> Iterator[Any]:
    # a set has no order of its own, and a state should be the same each time
    return iter(sorted(value, key=repr) if isinstance(value, Set) else value)
