"""Memory is written again only when nothing refers to it any more: a batch never changes in the hands that hold it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from math import prod
from multiprocessing import RawArray
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNED = 64
"""Columns begin at multiples of so many bytes of a slot: enough for numbers of any kind."""


class Buffers:
    """Arrays of float32, lent out again once they have come back.

    Every array and every tensor that is made from a loan, and every view of those, keeps a reference to it; so a loan
    has come back when the list here holds the only one. Fresh memory costs a page fault for every 4 KiB.
    """

    def __init__(self, *, keep: int) -> None:
        self.keep = keep
        """Arrays that are remembered. One more that is lent out is its holder's alone."""
        self._known: list[NDArray[np.float32]] = []

    def lend(self, count: int) -> NDArray[np.float32]:
        """``count`` numbers of any value, which nobody else sees."""
        for number in range(len(self._known)):
            if len(self._known[number]) >= count and _references(self._known, number) == _UNUSED:
                return self._known[number][:count]
        fresh = np.empty(count, dtype=np.float32)
        self._known = [*self._known[1 - self.keep :], fresh]
        return fresh[:]


class Slots:
    """Places for the rows of windows, columns of ``rows`` rows at most, which worker processes fill if ``shared``.

    A slot that was lent is away until its rows have landed; from then on it is in use as long as this process has any
    view of them. What is shared has no name that a killed process could leave behind, and is in a file where /dev/shm
    has no room.
    """

    def __init__(
        self, columns: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], rows: int, *, count: int, shared: bool
    ) -> None:
        self.columns = columns
        self.starts, size = dict[str, int](), 0
        for name, (dtype, shape) in columns.items():
            self.starts[name] = size
            size += -(-rows * dtype.itemsize * prod(shape) // ALIGNED) * ALIGNED
        self._shared = [RawArray("B", size) for _ in range(count)] if shared else []
        self._memory = [np.frombuffer(each, np.uint8) for each in self._shared] or [
            np.empty(size, np.uint8) for _ in range(count)
        ]
        self._away = set[int]()

    def lend(self) -> int | None:
        """The number of a slot that nobody sees; None where all are in use."""
        for number in range(len(self._memory)):
            if number not in self._away and _references(self._memory, number) == _UNUSED:
                self._away.add(number)
                return number
        return None

    def views(self, number: int, rows: int) -> dict[str, NDArray[Any]]:
        """The columns of a slot for so many rows."""
        found = {}
        for name, (dtype, shape) in self.columns.items():
            start, count = self.starts[name], rows * prod(shape)
            memory = self._memory[number][start : start + count * dtype.itemsize]
            found[name] = memory.view(dtype).reshape(rows, *shape)
        return found

    def landed(self, number: int, rows: int) -> dict[str, NDArray[Any]]:
        """The columns of a slot that has come back."""
        found = self.views(number, rows)
        self._away.remove(number)
        return found

    def __getstate__(self) -> dict[str, Any]:
        # to a process that is not forked: arrays would be copied
        return {**self.__dict__, "_memory": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _memory=[np.frombuffer(each, np.uint8) for each in state["_shared"]])


def _references(arrays: list[NDArray[Any]], number: int) -> int:
    return sys.getrefcount(arrays[number])


_UNUSED = _references([np.empty(0, dtype=np.float32)], 0)
