"""Pickle frames (protocol 4) left out: a pickle without them means the same, and no example in it is cut in two.

Picklers of protocol 4 and up put a FRAME opcode, with the number of bytes until the next one, between any two opcodes,
every 64 kB. Here they are taken out, by that number alone. Who reads the pickle must find that each of the places lies
between two opcodes; else it was no frame, and the pickle is to be read as it was.
"""

from __future__ import annotations

import mmap
import pickle
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple, Self

HEAD_BYTES = 9
"""Of a frame: its opcode, and how many bytes it holds."""

_PROTO_BYTES = 2
_FLOOR, _BYTES_PER_FRAME = 16, 4096
"""Frames taken out: floor + bytes / 4096. Only the last one of a file, and what lies beside long text, is short."""


class Cut(NamedTuple):
    """Where a frame began, counted without frames, and its opcode; that is empty where nobody asks for it."""

    place: int
    head: bytes


class Frames:
    """The frames of a pickle that comes in pieces, left out of it."""

    def __init__(self) -> None:
        self.size = 0
        """Of what was handed on."""
        self.cuts: list[Cut] = []
        self._left: float = _PROTO_BYTES  # bytes until the next frame
        self._rest = b""  # too few to be looked at

    def without(self, piece: bytes) -> Iterator[memoryview]:
        """The bytes of a piece that are of no frame's head."""
        view, self._rest = memoryview(self._rest + piece), b""
        while len(view) > self._left:
            yield self._counted(view[: int(self._left)])
            view, self._left = view[int(self._left) :], 0
            if len(view) < HEAD_BYTES:
                break
            if view[0] != pickle.FRAME[0] or len(self.cuts) > _FLOOR + self.size // _BYTES_PER_FRAME:
                self._left = float("inf")
                break
            self.cuts.append(Cut(self.size, bytes(view[:HEAD_BYTES])))
            self._left, view = int.from_bytes(view[1:HEAD_BYTES], "little"), view[HEAD_BYTES:]
        if self._left:
            self._left -= len(view)
            yield self._counted(view)
        else:
            self._rest = bytes(view)

    @property
    def left(self) -> int | None:
        """Bytes until the next frame; None where none is expected, or its head has begun to come."""
        return None if self._rest or self._left == float("inf") else int(self._left)

    def passed(self, size: int, *, left: int, cuts: Iterable[int]) -> None:
        """Take it that so many bytes were handed on by another, who left out frames at some places of these."""
        self.cuts += [Cut(self.size + cut, b"") for cut in cuts]
        self.size, self._left = self.size + size, left

    def rest(self) -> memoryview:
        """What is left when all pieces came."""
        return self._counted(memoryview(self._rest))

    @property
    def sound(self) -> bool:
        """Whether the last frame, too, held what it claimed."""
        return self._left <= 0 or self._left == float("inf")

    def _counted(self, view: memoryview) -> memoryview:
        self.size += len(view)
        return view


class Unframed:
    """A pickle without its frames, as ``data[:size]``; behind that is a zero, which is no opcode.

    Leave it as a context when nothing looks into it any more: the next pickle is then put into the same memory.
    """

    def __init__(self, pieces: Iterable[bytes], *, expected_bytes: int) -> None:
        """Join the pieces of a pickle, which is best not larger than expected."""
        self.data, self.size = _memory(expected_bytes), 0
        frames = Frames()
        for piece in pieces:
            for view in frames.without(piece):
                self._put(view)
        self._put(frames.rest())
        if len(self.data) != self.size + 1:
            self.data = _resized(self.data, self.size, used=self.size)
        self.data[self.size] = 0
        self.cuts, self.sound = frames.cuts, frames.sound

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        _kept[:] = [self.data]
        del self.data

    def whole(self) -> bytes:
        """The pickle with its frames."""
        parts, at = list[bytes](), 0
        for place, head in self.cuts:
            parts += [self.data[at:place], head]
            at = place
        return b"".join([*parts, self.data[at : self.size]])

    def _put(self, view: memoryview) -> None:
        end = self.size + len(view)
        if end > len(self.data):
            self.data = _resized(self.data, 2 * end, used=self.size)
        self.data[self.size : end] = view
        self.size = end


_kept = list[mmap.mmap]()
"""At most one memory, of a pickle that was left: filling it again takes a twentieth of the time that new pages take."""


def let_go() -> None:
    """Give the memory that is kept for the next pickle back to the system."""
    _kept.clear()


def _memory(size: int) -> mmap.mmap:
    """Memory that nobody else uses, for so many bytes and one more."""
    with suppress(IndexError):
        return _resized(_kept.pop(), size, used=0)
    return _fresh(size)


def _resized(memory: mmap.mmap, size: int, *, used: int) -> mmap.mmap:
    """The memory, or another one that begins with the same bytes, for so many bytes and one more."""
    # BufferError: somebody still looks into it. The others: this system can't
    with suppress(BufferError, SystemError, OSError, ValueError):
        memory.resize(size + 1)
        return memory
    other = _fresh(size)
    other[:used] = memory[:used]
    return other


def _fresh(size: int) -> mmap.mmap:
    """Zeros, in huge pages where there are some: filling them takes a fifth of the time that it takes in small ones."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return mmap.mmap(-1, size + 1)
    memory = mmap.mmap(-1, size + 1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
