"""File locks: one leaves with the process that holds it, however that ends, so none is ever stale."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from hexshards.errors import escaped

OPEN_FILES_CAN_GO = os.name == "posix"
"""Whether a file that is open can be removed and renamed; Windows refuses both."""


def _lock(handle: int) -> None:
    """Lock an open file for this process alone, until it is closed. Raises OSError when another holds it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(path: Path, *, taken: str, passing: bool = False) -> Iterator[None]:
    """Hold the file ``path`` alone. Raises FileExistsError, saying ``taken``, when another process holds it.

    passing: the file is removed in the end, on Windows once it is closed.
    """
    with _held(path, taken=taken):
        try:
            yield
        finally:
            if passing and OPEN_FILES_CAN_GO:
                path.unlink(missing_ok=True)
    if passing and not OPEN_FILES_CAN_GO:
        with suppress(OSError):  # the next one holds it
            path.unlink()


@contextmanager
def _held(path: Path, *, taken: str) -> Iterator[None]:
    with _opened(path, taken=taken) as file:
        try:
            _lock(file.fileno())
        except OSError:
            raise FileExistsError(escaped(taken)) from None
        # the one that held it may have ended, and removed it, between our opening and our locking
        if not _is_at(path, file.fileno()):
            raise FileExistsError(escaped(taken))
        yield


def _opened(path: Path, *, taken: str) -> BinaryIO:
    """A file to lock, whose bytes stay: one that came with the folder may be a link to another file, or a pipe."""
    if path.is_symlink():
        raise _no_file(path)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK | getattr(os, "O_NONBLOCK", 0), 0o666)
    except FileNotFoundError:  # the one that held it has ended, and removed its folder
        raise FileExistsError(escaped(taken)) from None
    file = os.fdopen(handle, "r+b", buffering=0)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise _no_file(path)
    return file


_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has none


def _no_file(path: Path) -> FileExistsError:
    return FileExistsError(f"{escaped(path)} is a link or a pipe, where a file to lock is needed. Remove it")


def _is_at(path: Path, handle: int) -> bool:
    """Whether an open file is the one that is there under its name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
