"""Gather the rows of a window: a column lies in parts, a block each, and is delivered in another order.

NumPy lays the parts one after another and takes rows from there; where a row is wide, compiled code
(``rows_compiled``) takes them from where they lie, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Copy = Callable[[Sequence[Array], NDArray[np.int64], Array], None]
"""Copies rows of parts that are thought to lie one after another to an array of the same kind."""

WIDE = 16
"""Bytes of a row from which on it is copied by compiled code, where there is any."""

_compiled = list[Copy]()


def copy_by(copy: Copy) -> None:
    """From now on compiled code copies wide rows (hexshards.loading.gather.rows_compiled)."""
    _compiled[:] = [copy]


class Gather:
    """Gatherer of rows, which keeps the memory that it needs. One thread at a time may use it."""

    def __init__(self) -> None:
        self._joined = np.empty(0, np.uint8)

    def take(self, parts: Sequence[Array], rows: NDArray[np.int64], out: Array | None = None) -> Array:
        """These rows of a column whose parts lie one after another; in ``out`` where they fit it, else in fresh memory.

        All rows must be of the parts.
        """
        first, shape = parts[0], (len(rows), *parts[0].shape[1:])
        if out is None or out.dtype != first.dtype or out.shape != shape or not out.flags.c_contiguous:
            out = np.empty(shape, first.dtype)
        if _compiled and first.dtype.itemsize * prod(shape[1:]) >= WIDE:
            _compiled[0](parts, rows, out)
        else:
            # take copies whole rows: 4 ns each at side 13, where indexing takes 80. None is clipped, but to ask for an
            # error would make NumPy write elsewhere first
            np.take(self._whole(parts), rows, axis=0, out=out, mode="clip")
        return out

    def _whole(self, parts: Sequence[Array]) -> Array:
        if len(parts) == 1:
            return parts[0]
        # in memory that is kept: a page fault for every 4 KiB of a fresh window costs as much as the copy
        size = sum(part.nbytes for part in parts)
        if len(self._joined) < size:
            self._joined = np.empty(size, np.uint8)
        whole = self._joined[:size].view(parts[0].dtype).reshape(-1, *parts[0].shape[1:])
        return np.concatenate(parts, out=whole)
