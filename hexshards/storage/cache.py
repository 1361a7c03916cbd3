"""Cache of downloads: a file takes its name, its SHA-256, only when it has that checksum, so all in it is whole.

A file that is on its way has another name and is locked by who writes it, so others wait for it instead of fetching it
too. The lock leaves with its holder, however that ends, and what was written stays: the next writer goes on from there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from hexshards.errors import printable
from hexshards.storage import locks

try:
    import fcntl
except ImportError:  # Windows has no flock: there every process fetches for itself, under a name of its own
    fcntl = None  # type: ignore[assignment]

WHOLE, PART = ".tar", ".part"


_CHOOSE = "Name a folder that can be written to with --cache, cache=, or XDG_CACHE_HOME"


def default_folder() -> Path:
    """The folder ``hexshards`` where this user's caches are: ``$XDG_CACHE_HOME``, else ``~/.cache``.

    Raises ValueError where neither is known.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "hexshards"
    except RuntimeError:  # neither HOME nor an entry of the user, as in a container under any number
        raise ValueError(f"this user has no home, so there is no folder for a cache. {_CHOOSE}") from None


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"{printable(folder, width=400)}: is not a folder. {_CHOOSE}") from None
    except OSError as error:
        raise OSError(
            error.errno, f"no folder for a cache can be made here. {_CHOOSE} ({error.strerror})", error.filename
        ) from None


class Cache:
    """A folder of files by checksum, of at most ``limit_bytes`` together; the least recently used leave first.

    Any number of processes may share it.
    """

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    def path(self, sha256: str) -> Path:
        """Where a whole file is, or would be."""
        return self.folder / f"{sha256}{WHOLE}"

    def open(self, sha256: str, *, size_bytes: int) -> BinaryIO | None:
        """A file that is there, marked as used now; None when it is not there. One of another size is removed."""
        path = self.path(sha256)
        with suppress(FileNotFoundError):  # another process may remove it at any moment: who has it open can read on
            if path.stat().st_size == size_bytes:
                os.utime(path)
                return open(path, "rb")
            self.remove(sha256)
        return None

    def damaged(self, sha256: str) -> bool:
        """Whether a file is there and no longer has its checksum."""
        try:
            with open(self.path(sha256), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() != sha256
        except FileNotFoundError:
            return False

    def remove(self, sha256: str) -> None:
        """Forget a file; those who have it open can still read it."""
        self.path(sha256).unlink(missing_ok=True)

    @contextmanager
    def writing(self, sha256: str) -> Iterator[Part | None]:
        """The file on its way to a name, once no other process writes it; None when one has just completed it."""
        name = sha256 if fcntl else f"{sha256}.{os.getpid()}"
        while True:
            with self._opened(f"{name}{PART}") as file:
                part = Part(file, Path(file.name), self.path(sha256))
                with part.locked():
                    done, mine = self.path(sha256).exists(), part.path_is_its()
                    if mine and done:  # it was completed between the look for it and this file's making
                        part.remove()
                    elif mine:
                        yield part
                        return
            if done:
                yield None
                return

    def _opened(self, name: str) -> BinaryIO:
        """A file of the folder, which somebody may remove at any moment: then it is made again."""
        while True:
            _made(self.folder)
            with suppress(FileNotFoundError):
                return open(self.folder / name, "a+b")

    def make_room(self, size_bytes: int) -> None:
        """Remove what was used longest ago, until a file of this size fits in."""
        entries = sorted(self._entries())
        excess = sum(size for _, size, _ in entries) + size_bytes - self.limit_bytes
        for _, size, path in entries:
            if excess <= 0:
                return
            excess -= size if _removed(path) else 0

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Last use, size and path of every file."""
        with suppress(FileNotFoundError):  # a folder that was removed holds nothing
            for entry in os.scandir(self.folder):
                with suppress(FileNotFoundError):  # another process removes files too
                    if entry.name.endswith((WHOLE, PART)):
                        about = entry.stat()
                        yield about.st_mtime, about.st_size, Path(entry.path)


class Part:
    """A file on its way, open for appending and held by this process alone."""

    def __init__(self, file: BinaryIO, path: Path, whole: Path) -> None:
        self.file, self.path, self.whole = file, path, whole

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Wait until no other process or thread writes the file, then be the one that does."""
        if not fcntl:
            yield
            return
        fcntl.flock(self.file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # closing is not enough: a worker that was forked meanwhile holds the same lock
            fcntl.flock(self.file, fcntl.LOCK_UN)

    def path_is_its(self) -> bool:
        """Whether the file still has its name; the one that held it may have completed or removed it."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self.file.fileno()), self.path.stat())
        return False

    @property
    def size_bytes(self) -> int:
        """How much of it is there."""
        return self.file.seek(0, os.SEEK_END)

    def append(self, data: bytes) -> None:
        """Add what comes next, at once, so that a kill loses no more than this."""
        try:
            self.file.write(data)
            self.file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def restart(self) -> None:
        """Drop what is there."""
        self.file.truncate(0)

    def sha256(self) -> str:
        """Checksum of what is there."""
        self.file.seek(0)
        return hashlib.file_digest(self.file, "sha256").hexdigest()  # type: ignore[arg-type]  # it asks for readinto

    def publish(self) -> bool:
        """Give the file its name: it is whole. Whether it was still there; its folder may have been removed."""
        with suppress(FileNotFoundError):
            if self.path_is_its():
                self._let_go()
                os.replace(self.path, self.whole)
                return True
        return False

    def remove(self) -> None:
        """Remove the file, which is this process's own."""
        self._let_go()
        self.path.unlink(missing_ok=True)

    def _let_go(self) -> None:
        if not locks.OPEN_FILES_CAN_GO:
            self.file.close()


def _removed(path: Path) -> bool:
    """Remove a file of the cache, but none that is being written."""
    if path.suffix == WHOLE or not fcntl:
        with suppress(*([] if locks.OPEN_FILES_CAN_GO else [PermissionError])):  # it is being read
            path.unlink(missing_ok=True)
            return True
        return False
    try:
        with open(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            return True
    except OSError:
        return False
