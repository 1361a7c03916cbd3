"""Write targets: a folder here, or one at a URL, that takes files one by one, each compared once it is there.

In a folder a file appears whole or not at all. A URL's store is asked for the size of what arrived.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from hexshards.errors import DataError, escaped
from hexshards.storage.files import NotRegular, open_regular, publishing
from hexshards.storage.locks import locked
from hexshards.storage.options import REMOTE, RemoteSpec
from hexshards.storage.remote import Patience, checked_url, filesystem, home_of, is_url, shown
from hexshards.units import counted

WRITABLE = ("s3", "s3a", "gs", "gcs", "hf")
"""Protocols of URLs that files are sent to."""

AGAIN = "Give the same command again"

_LOCK = ".publishing.lock"

_PIECE_BYTES = 1 << 20


class Target(Protocol):
    """Where files are sent to, by names that may have a folder in them."""

    def __str__(self) -> str:
        """The target as a person names it, without secrets."""
        ...

    @property
    def home(self) -> str | Path:
        """The folder or the URL, for those that read what is there."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """Hold it, while entered, against others on this machine, and free it of what those left that were killed."""
        ...

    def size(self, name: str) -> int | None:
        """Size of a file as it is there now, None where there is none."""
        ...

    def read(self, name: str) -> bytes | None:
        """A small file that is there, None where there is none."""
        ...

    def send(self, path: Path, name: str, *, sha256: str = "") -> None:
        """Bring a file there. Raises DataError where it has another checksum, or did not arrive."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, where it is there."""
        ...


def target_of(place: str | Path) -> Target:
    """The target that a folder or a URL names. Raises ValueError for a URL that can't be written to."""
    return RemoteTarget(writable_url(str(place))) if is_url(place) else FolderTarget(Path(place).absolute())


def writable_url(url: str) -> str:
    """The URL of a folder that files are sent to. Raises ValueError."""
    url = checked_url(url)
    if url.partition(":")[0] not in WRITABLE:
        raise ValueError(f"{shown(url)}: datasets are published to {', '.join(WRITABLE)} URLs")
    return url


@dataclass(frozen=True, slots=True)
class FolderTarget:
    """A folder on this machine's disks, made when the first file comes."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def home(self) -> Path:
        """The folder."""
        return self.path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises FileExistsError where another process holds it."""
        lock = self.path / _LOCK
        taken = f"{escaped(self.path)}: something else is being published into this folder. Wait for it to end"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with locked(lock, taken=taken):
                for path in filter(_left, self.path.rglob("*.partial")):
                    # half-written files are nobody's: their writers are dead
                    path.unlink()
                try:
                    yield
                finally:
                    lock.unlink()
        except OSError as error:
            if isinstance(error, FileExistsError) or error.errno is None:
                raise
            raise _unwritten(error, self.path) from None

    def size(self, name: str) -> int | None:
        """Size of a file."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return (self.path / name).stat().st_size
        return None

    def read(self, name: str) -> bytes | None:
        """A file, whole."""
        try:
            with open_regular(self.path / name) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except NotRegular:
            fix = "Remove it, or choose another folder to publish to"
            raise DataError("is no regular file", where=str(self.path / name), fix=fix) from None

    def send(self, path: Path, name: str, *, sha256: str = "") -> None:
        """Copy a file, comparing its checksum on its way; one that differs does not appear."""
        out, digest = self.path / name, hashlib.sha256()
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "rb") as file, publishing(out) as copy:
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
                    copy.write(piece)
                _compare(path, digest.hexdigest(), sha256)
        except OSError as error:
            raise _unwritten(error, out) from None

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class RemoteTarget:
    """A folder at a URL."""

    url: str
    spec: RemoteSpec = REMOTE

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def home(self) -> str:
        """The URL."""
        return self.url

    @cached_property
    def _place(self) -> tuple[Any, str]:
        return filesystem(self.url)

    def held(self) -> AbstractContextManager[None]:
        """Stores have no locks: whoever sends the index last has the say."""
        return nullcontext()

    def size(self, name: str) -> int | None:
        """Size of a file, asked of the store."""
        system, path = self._place
        system.invalidate_cache()
        try:
            return int(self._try(name, system.info, f"{path}/{name}")["size"])
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes | None:
        """A file, fetched."""
        try:
            return home_of(self.url, spec=self.spec).read(name)
        except FileNotFoundError:
            return None

    def send(self, path: Path, name: str, *, sha256: str = "") -> None:
        """Send a file whose checksum is right, and see that as many bytes are there."""
        system, place = self._place
        if sha256:
            with open(path, "rb") as file:
                _compare(path, hashlib.file_digest(file, "sha256").hexdigest(), sha256)
        size = path.stat().st_size
        # what a person's line is slow at must not look like a stall
        limit = {"timeout": self.spec.stall_s * (1 + size / self.spec.chunk_bytes)} if system.async_impl else {}
        try:
            self._try(name, system.put_file, str(path), f"{place}/{name}", **limit)
        except FileNotFoundError:
            fix = f"Make the bucket or the repository first. {AGAIN} to go on"
            raise DataError("there is no place to write it", where=self._where(name), fix=fix) from None
        if (stored := self.size(name)) != size:
            raise DataError(
                f"{counted(size, 'byte', verb='was/were')} sent, {stored} are there",
                where=self._where(name),
                fix=AGAIN,
            )

    def remove(self, name: str) -> None:
        """Remove a file."""
        system, path = self._place
        with suppress(FileNotFoundError):
            self._try(name, system.rm_file, f"{path}/{name}")

    def _try(self, name: str, task: Callable[..., Any], *arguments: str, **limit: float) -> Any:
        spec = self.spec
        patience = Patience(
            self._where(name), give_up_s=spec.give_up_s, first_wait_s=spec.first_wait_s, doing="be written"
        )
        return patience.attempt(partial(task, *arguments, **limit))

    def _where(self, name: str) -> str:
        return f"{shown(self.url)}/{name}"


def _left(path: Path) -> bool:
    """Whether a file is half of one that is sent here, as ``publishing`` names it."""
    return path.is_file() and re.fullmatch(r".+[.](tar|parquet|json|md)[.].*[.]\d+[.]partial", path.name) is not None


def _unwritten(error: OSError, path: Path) -> DataError:
    fix = f"Look at the disk and at your rights there. {AGAIN} to go on"
    return DataError(f"could not be written ({error.strerror})", where=str(path), fix=fix)


def _compare(path: Path, digest: str, sha256: str) -> None:
    if sha256 and digest != sha256:
        raise DataError(
            f"its SHA-256 is {digest[:12]}..., the index says {sha256[:12]}...",
            where=escaped(path),
            fix="Run `hexshards verify` on the dataset, and fetch or convert again what is damaged",
        )
