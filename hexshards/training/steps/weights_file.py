"""Weights file: what ``torch.save`` wrote, gzipped or not, read as data; nothing that it names is called.

A checkpoint of this or another program, or a bare ``state_dict``. Metrics in older ones are NumPy scalars, which
``torch.load(weights_only=True)`` refuses: they are read by stand-ins for the three names of NumPy that such a scalar is
written with, which make a number of at most eight bytes of it and call nothing of NumPy.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from hexshards.errors import DataError, printable
from hexshards.storage.files import gunzip, inflating, open_regular

GZIP, ZIP = b"\x1f\x8b", b"PK"

WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before the names of weights."""

UNDER = ("model_state_dict", "state_dict")
"""Where a checkpoint has its weights."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state_dict in a file, or under one of UNDER in it, by the network's own names. Raises DataError."""
    return weights_of(read_saved(path), path)


def weights_of(saved: object, path: Path) -> dict[str, Tensor]:
    """The state_dict that a file holds. Raises DataError where it holds none."""
    for name in UNDER:
        saved = saved.get(name, saved) if isinstance(saved, Mapping) else saved
    if not isinstance(saved, Mapping) or not all(isinstance(part, Tensor) for part in saved.values()):
        raise DataError("holds no state_dict", where=str(path), fix="Name a checkpoint or a file with a state_dict")
    for name, part in saved.items():
        if part.layout != torch.strided or part.numel() * part.element_size() > part.untyped_storage().nbytes():
            refusal = f"claims more numbers for {printable(name)} than it holds"
            raise DataError(refusal, where=str(path), fix="Name a file that torch.save wrote of a network")
    return {str(name): part for name, part in saved.items()}


def read_saved(path: Path) -> object:
    """What ``torch.save`` put into a file, tensors on the CPU. Raises DataError.

    A gzipped one may grow no more than ``storage.files.gunzipped`` lets it, and no record in it may be compressed.
    """
    try:
        with open_regular(path) as file:
            if file.peek(2)[:2] != GZIP:
                return _loaded(file, path)
            return _loaded(io.BytesIO(gunzip(file.read(), where=str(path))), path)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path), fix="Name a checkpoint") from None


def _loaded(file: BinaryIO, path: Path) -> object:
    begins = file.read(len(ZIP))
    file.seek(0)
    if begins == ZIP and (problem := inflating(file)):
        raise DataError(problem, where=str(path), fix="Name a checkpoint, or a file that torch.save wrote")
    try:
        with torch.serialization.safe_globals(_NUMPY_NAMES):
            saved: object = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a dozen kinds for what it does not take
        # torch's own sentence on such files is advice to let them run
        told = f" ({printable(error)})" if str(error) and not str(error).startswith("Weights only load failed") else ""
        refusal = f"is no checkpoint and no file of weights: torch.load takes it for none{told}"
        fix = "Name a checkpoint, or save the network's state_dict() alone, and name that"
        raise DataError(refusal, where=str(path), fix=fix) from error
    return saved


def bare(name: str) -> str:
    """The name of a weight without what wraps a network."""
    while wrapper := next((each for each in WRAPPERS if name.startswith(each)), ""):
        name = name.removeprefix(wrapper)
    return name


class _Dtype:
    """Stands in for numpy.dtype: ``f8``, and then its order of bytes."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in _STRUCT:
            raise ValueError(f"a NumPy scalar of {code!r}")
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


_STRUCT = {
    **{"f2": "e", "f4": "f", "f8": "d", "b1": "?"},
    **{"i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"},
}
"""How Python's struct calls NumPy's kinds of numbers."""


def _scalar(dtype: object, data: object = None) -> float:
    """Stands in for numpy's ``scalar``: a plain number of its bytes."""
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise ValueError("a NumPy scalar that is none")
    (number,) = struct.unpack(dtype.order + _STRUCT[dtype.code], data)
    return number  # type: ignore[no-any-return]


def _named(stand_in: Any, module: str, name: str) -> Any:
    """A stand-in by the name that a pickle knows."""
    stand_in.__module__, stand_in.__name__ = module, name
    stand_in.__qualname__ = name
    return stand_in


def _scalar_of(module: str) -> Any:
    return _named(lambda dtype, data=None: _scalar(dtype, data), module, "scalar")


_NUMPY_NAMES = [
    _named(_Dtype, "numpy", "dtype"),
    _scalar_of("numpy.core.multiarray"),
    _scalar_of("numpy._core.multiarray"),
]
"""A NumPy scalar is written as ``scalar(dtype("f8"), bytes)``; NumPy 2 calls its module otherwise."""
