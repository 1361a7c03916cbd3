"""Memory is written again only when nothing refers to it any more: a batch never changes in the hands that hold it."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray


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


def _references(arrays: list[NDArray[np.float32]], number: int) -> int:
    return sys.getrefcount(arrays[number])


_UNUSED = _references([np.empty(0, dtype=np.float32)], 0)
