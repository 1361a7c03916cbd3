"""Leave frames out of a piece of a pickle in compiled code: 256 kB take 10 us, where they are frames as picklers write.

Whatever else comes is left to hexshards.conversion.pickles.frames, byte by byte from where it comes.
"""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from hexshards.conversion.pickles.frames import HEAD_BYTES
from hexshards.game.packing_compiled import unaligned_word

USUAL_BYTES = 32 << 10
"""A frame of fewer is left alone: picklers close one when it has 64 kB."""

_FRAME, _BYTE = pickle.FRAME[0], 0xFF
_NUMBERS = types.Array(types.int64, 1, "C")


@intrinsic  # type: ignore[untyped-decorator]
def _copy(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy bytes from one address to another."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, source = (builder.inttoptr(address, ir.IntType(8).as_pointer()) for address in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@njit(
    types.UniTuple(types.int64, 4)(types.int64, types.int64, types.int64, types.int64, _NUMBERS),
    nogil=True,
    cache=True,
)
def _copy_frames(source, size, target, left, cuts):  # type: ignore[no-untyped-def]
    """Bytes read and written, those until the next frame, and how many frames were left out."""
    read = written = count = 0
    while size - read >= left + HEAD_BYTES and count < len(cuts):
        head = source + read + left
        if np.int64(unaligned_word(head) & np.uint64(_BYTE)) != _FRAME:
            break
        length = unaligned_word(head + 1)
        if length < np.uint64(USUAL_BYTES) or length > np.uint64(1 << 40):
            break
        _copy(target + written, source + read, left)
        written += left
        cuts[count] = written
        count += 1
        read += left + HEAD_BYTES
        left = np.int64(length)
    rest = left if left < size - read else size - read
    _copy(target + written, source + read, rest)
    return read + rest, written + rest, left - rest, count


class Copied(NamedTuple):
    """What became of a piece: bytes read and written, those until the next frame, and where frames were."""

    read: int
    written: int
    left: int
    cuts: list[int]


class FrameCopier:
    """Copies pieces of a pickle without their frames."""

    def __init__(self, target: NDArray[np.uint8]) -> None:
        self._target, self._address = target, target.ctypes.data
        self._cuts = np.empty(len(target) // USUAL_BYTES + 2, dtype=np.int64)

    def copy(self, piece: bytes, at: int, left: int) -> Copied:
        """Copy a piece to a place, up to the first thing that is not a frame as picklers write it.

        left: bytes until the next frame.
        """
        if len(piece) > len(self._target) - at:
            raise IndexError("a piece is larger than the room for it")
        source = np.frombuffer(piece, dtype=np.uint8).ctypes.data
        read, written, left, count = _copy_frames(source, len(piece), self._address + at, left, self._cuts)
        return Copied(read, written, left, self._cuts[:count].tolist())
