"""Copy wide rows from the parts in which they lie in one pass of compiled code, without Python's lock.

What takes long is to wait for memory, for a window is larger than the caches near a core: so a row is asked for some
rows before it is copied. At side 13 a row takes 13 ns where NumPy, which first lays the parts one after another, takes
22. It needs numba, which takes longer to load than it saves for few rows: who loads it anyway says so with
``rows.copy_by``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from hexshards.loading.gather.rows import WIDE

_WAITING = 64
"""Rows that are asked for and not yet copied, a power of two."""

_RUN_BITS = 6
"""The part that a row lies in is looked for from that of the first row of its run of 64 on."""

_LANE = ir.VectorType(ir.IntType(8), WIDE)

_PREFETCH = "llvm.prefetch.p0i8"


@intrinsic
def _move(typingctx: Any, to: Any, source: Any) -> Any:
    """Copy WIDE bytes from one address to another."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, source = (builder.inttoptr(address, _LANE.as_pointer()) for address in args)
        builder.store(builder.load(source, align=1), to, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def _ask_for(typingctx: Any, address: Any) -> Any:
    """Prefetch the line of memory that holds an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        flag, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        shape = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
        prefetch = builder.module.globals.get(_PREFETCH) or ir.Function(builder.module, shape, _PREFETCH)
        # to read, into all caches, data
        builder.call(prefetch, [builder.inttoptr(args[0], pointer), flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(types.int64), emit


def _part_of_runs(starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The part in which the first row of each run of rows lies."""
    firsts = np.arange((int(starts[-1]) >> _RUN_BITS) + 1) << _RUN_BITS
    parts = np.searchsorted(starts, firsts, side="right") - 1
    return np.minimum(parts, len(starts) - 2).astype(np.uint64)


_PLACES = types.Array(types.int64, 1, "C", readonly=True)
_PARTS = types.Array(types.uint64, 1, "C", readonly=True)
_SCRATCH = types.Array(types.int64, 1, "C")


@njit(types.int64(_PLACES, _PLACES, _PARTS, _PLACES, types.int64, types.int64, _SCRATCH), nogil=True, cache=True)
def _copy(addresses, starts, parts, rows, width, to, waiting):  # type: ignore[no-untyped-def]
    """Copy row by row. Returns the place of the first row that is none of the parts', or -1.

    ``waiting`` is scratch: memory of its own would take longer to compile than all that is done here.
    """
    count, one, last = len(rows), np.uint64(1), width - WIDE
    for asked in range(count + _WAITING):
        slot = np.uint64(asked) & np.uint64(_WAITING - 1)
        if asked >= _WAITING:
            source, place = waiting[slot], to + (asked - _WAITING) * width
            for byte in range(0, last, WIDE):
                _move(place + byte, source + byte)
            _move(place + last, source + last)
        if asked < count:
            row = rows[asked]
            if row < 0 or row >= starts[-1]:
                return asked
            part = parts[np.uint64(row) >> np.uint64(_RUN_BITS)]
            while row >= starts[part + one]:
                part += one
            source = addresses[part] + (row - starts[part]) * width
            waiting[slot] = source
            _ask_for(source)
            _ask_for(source + last + WIDE - 1)
    return -1


def copy(parts: Sequence[NDArray[Any]], rows: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Copy these rows of parts of one kind to an array of that kind, of WIDE bytes a row or more.

    Raises IndexError for a row that is in none of the parts.
    """
    parts = [np.ascontiguousarray(part) for part in parts]
    width = out.nbytes // max(len(out), 1)
    assert out.flags.c_contiguous and len(out) == len(rows) and (width >= WIDE or not len(out))
    assert all(part.dtype == out.dtype and part.shape[1:] == out.shape[1:] for part in parts)
    starts = np.cumsum([0, *map(len, parts)])
    addresses = np.array([part.ctypes.data for part in parts])
    scratch = np.empty(_WAITING, dtype=np.int64)
    rows = np.ascontiguousarray(rows)
    wrong = _copy(addresses, starts, _part_of_runs(starts), rows, width, out.ctypes.data, scratch)
    if wrong >= 0:
        raise IndexError(f"row {int(rows[wrong]):d} is none of {int(starts[-1]):d}")
