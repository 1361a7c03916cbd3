"""Reusable buffers: memory is written again only when nothing refers to it, so a batch never changes in use."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from multiprocessing.heap import Arena
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.errors import DataError
from hexshards.units import show_bytes

ALIGNED = 64
"""Columns begin at multiples of so many bytes of a slot: enough for numbers of any kind."""

SHARED_MEMORY = Path("/dev/shm")
"""A filesystem in memory. Containers have little of it (Docker: 64 MB), and all their processes share it."""

ZEROS = bytes(1 << 20)

SPARED_BYTES = 1 << 20
"""What is left of shared memory for others: locks and queues between processes lie there too."""

TURN_S = 5.0
"""How long one waits to reserve: reserving takes milliseconds."""


class Buffers:
    """Buffer pool: arrays of float32, lent out again once nothing refers to them.

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
    """Slots of memory for the rows of windows, at most ``rows`` each, which worker processes fill if ``shared``.

    A slot that was lent is away until its rows have landed; from then on it is in use as long as this process has any
    view of them. What is shared has no name that a killed process could leave behind, and is in a file where /dev/shm
    has no room. Raises DataError where files have none either.
    """

    def __init__(
        self, columns: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], rows: int, *, count: int, shared: bool
    ) -> None:
        self.columns = columns
        self.starts, size = dict[str, int](), 0
        for name, (dtype, shape) in columns.items():
            self.starts[name] = size
            size += -(-rows * dtype.itemsize * prod(shape) // ALIGNED) * ALIGNED
        self._shared = [shared_memory(size) for _ in range(count)] if shared else []
        self._memory = [np.frombuffer(each.buffer, np.uint8) for each in self._shared] or [
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
        columns = {}
        for name, (dtype, shape) in self.columns.items():
            start, count = self.starts[name], rows * prod(shape)
            memory = self._memory[number][start : start + count * dtype.itemsize]
            columns[name] = memory.view(dtype).reshape(rows, *shape)
        return columns

    def landed(self, number: int, rows: int) -> dict[str, NDArray[Any]]:
        """The columns of a slot that has come back."""
        columns = self.views(number, rows)
        self._away.remove(number)
        return columns

    def __getstate__(self) -> dict[str, Any]:
        # to a process that is not forked: arrays would be copied
        return {**self.__dict__, "_memory": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _memory=[np.frombuffer(each.buffer, np.uint8) for each in state["_shared"]])


def shared_memory(size: int) -> Arena:
    """Shared memory of so many bytes, reserved: what is promised and not there ends its writer by SIGBUS.

    Raises DataError where neither shared memory nor the folder of temporary files has room.
    """
    if os.name != "posix":
        return Arena(size)
    for folder, spared in ((SHARED_MEMORY, SPARED_BYTES), (Path(tempfile.gettempdir()), 0)):
        try:
            handle = _reserved(folder, size, spared)
        except OSError:  # no room, or no such folder
            continue
        arena = Arena(size, handle)
        weakref.finalize(arena, os.close, handle)
        return arena
    raise DataError(
        f"no room for {show_bytes(size)} that worker processes write to",
        where=f"{SHARED_MEMORY} and {tempfile.gettempdir()}",
        fix="Give them more (docker run --shm-size), set TMPDIR to a folder with room, or take fewer workers",
    )


def _reserved(folder: Path, size: int, spared: int) -> int:
    """Reserve disk space: an open file without a name, all of it there. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix="hexshards-", dir=folder)
    try:
        os.unlink(name)
        with _in_turn(folder):
            # in turn, and not taken to be given back: others make their semaphores in what is spared
            _check_room(handle, size + spared)
            _reserve(handle, size)
            _check_room(handle, spared)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _check_room(handle: int, size: int) -> None:
    left = os.fstatvfs(handle)
    if left.f_bavail * left.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """Lock a folder: one process at a time. Raises OSError where the turn does not come, for anybody can hold it."""
    import fcntl

    turn, end = os.open(folder, os.O_RDONLY), time.monotonic() + TURN_S
    try:
        while True:
            try:
                fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.005)
        yield
    finally:
        os.close(turn)


def _reserve(handle: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
        return
    with open(handle, "wb", closefd=False) as file:  # macOS
        for start in range(0, size, len(ZEROS)):
            file.write(ZEROS[: size - start])


def _references(arrays: list[NDArray[Any]], number: int) -> int:
    return sys.getrefcount(arrays[number])


_UNUSED = _references([np.empty(0, dtype=np.float32)], 0)
