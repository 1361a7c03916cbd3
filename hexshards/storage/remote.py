"""Remote datasets: one at a URL comes down shard by shard, whole; nothing is read that has not its checksum.

fsspec speaks the protocols. What fails is tried again with growing waits until its time is up; then the error names
the URL, the attempts and the cause. A download that was cut off goes on where it ended.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from hexshards.errors import DataError, escaped, printable, without_secrets
from hexshards.storage.cache import Cache, Part, default_folder
from hexshards.storage.files import INDEX_BYTES, Folder, Home, too_large
from hexshards.storage.options import REMOTE, RemoteSpec
from hexshards.units import counted

log = logging.getLogger(__name__)

T = TypeVar("T")

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf", "http": "http", "https": "http"}
"""Protocols, and the extra of this package that brings what each needs."""

LONGEST_WAIT_S = 30
OPENING_S = 30
"""A person waits for the index, so that is given up earlier."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SQUEEZED = re.compile(rf"({'|'.join(EXTRAS)}):/[^/]")
_CHECK = "Check the URL, the network and your rights there; what was transferred is kept for the next try"


class Unreachable(DataError):
    """A file cannot be had: no damage, so never skipped."""


def is_url(text: object) -> bool:
    """Whether something names a place that is not on this machine's disks."""
    if _SQUEEZED.match(str(text)):
        lost = without_secrets(printable(text, width=400))
        raise ValueError(f"{escaped(lost)} is a URL that went through a Path and lost a slash. Give URLs as text")
    return isinstance(text, str) and _URL.match(text) is not None


def home_of(dataset: str | Path | Home, *, spec: RemoteSpec = REMOTE) -> Home:
    """The home that a folder or a URL names, wherever this process goes later.

    Raises ValueError for a URL that can't be one of a dataset.
    """
    if not isinstance(dataset, (str, Path)):
        return dataset
    if is_url(dataset) and isinstance(dataset, str):
        return Remote(checked_url(dataset), spec)
    return Folder(Path(dataset).absolute())


def checked_url(url: str) -> str:
    """The URL of a folder, without a slash at its end. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in EXTRAS:
        raise ValueError(f"{shown(url)}: datasets are read from folders and {', '.join(EXTRAS)} URLs")
    if parts.query or parts.fragment:
        raise ValueError(f"{shown(url)}?...: give the URL of the dataset's folder, without ? or #")
    if "@" in parts.netloc and EXTRAS[parts.scheme] != "http":  # libraries take it for a part of the bucket's name
        raise ValueError(
            f"{shown(url)}: {parts.scheme} URLs have no user and password. Give them as that provider's tools take "
            "them, in the environment or a file of theirs, and leave them out of the URL"
        )
    return url.rstrip("/")


def shown(url: str) -> str:
    """A URL as it may stand in a message or a log: without user, password and query."""
    return printable(without_secrets(url).partition("?")[0], width=400)


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL and the URL's path in it, one for each process.

    Raises ValueError where the package that speaks the protocol is not installed.
    """
    return _filesystem(url, os.getpid())


@lru_cache(maxsize=8)
def _filesystem(url: str, _process: int) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        # connections and event loops do not outlive a fork, and fsspec's own cache is one for each thread
        opened: tuple[Any, str] = url_to_fs(url, skip_instance_cache=True, **_speaking(urlsplit(url).scheme))
        return opened
    except ImportError as error:
        extra = EXTRAS[urlsplit(url).scheme]
        raise ValueError(f"{shown(url)}: {escaped(error)}. `pip install 'hexshards[{extra}]'`") from None


def _speaking(scheme: str) -> dict[str, Any]:
    """What a protocol's filesystem is made with."""
    if scheme in ("http", "https"):
        # HTTP_PROXY, HTTPS_PROXY, NO_PROXY and .netrc are heeded as everywhere; nothing grows on its way
        return {"client_kwargs": {"trust_env": True, "auto_decompress": False}}
    return {}


async def _http_bytes(system: Any, url: str, span: tuple[int, int] | None, limit_bytes: int) -> bytes:
    """A file or a range of it. Of what a server sends no more is read than the range, or the limit where it has none.

    fsspec's own would read whatever comes, and decompress it.
    """
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={span[0]}-{span[1] - 1}"} if span else {})}
    session = await system.set_session()
    async with session.get(system.encode_url(url), headers=headers) as response:
        system._raise_not_found_for_status(response, url)
        if (packed := response.headers.get("Content-Encoding", "identity")) != "identity":
            raise ValueError(f"the server sent {packed!r}, and was asked for the file as it is")
        most = span[1] - span[0] if span and response.status == 206 else limit_bytes
        data = bytearray()
        async for piece in response.content.iter_any():
            data += piece
            if len(data) > most:
                raise _Longer(most)
    return bytes(data)


class _Longer(Exception):
    """A server sent more than was asked for."""

    def __init__(self, most: int) -> None:
        super().__init__(f"the server sent more than {counted(most, 'byte')}")


class Patience:
    """The attempts at one file that failed: each makes the next one wait longer, until the time is up."""

    def __init__(self, where: str, *, give_up_s: float, first_wait_s: float, doing: str = "be read") -> None:
        self.doing = doing
        self.where, self.give_up_s, self.wait_s = where, give_up_s, first_wait_s
        self.attempts, self.start_s = 0, time.monotonic()

    def attempt(self, task: Callable[[], T]) -> T:
        """The result of a task that may fail. Raises FileNotFoundError, or Unreachable when it is given up."""
        while True:
            try:
                return task()
            except FileNotFoundError:
                # the library's own holds the URL with its password
                raise FileNotFoundError(escaped(self.where)) from None
            except DataError:
                raise
            # what goes wrong between here and there is of a hundred types, one library's each
            except Exception as error:
                self.failed(_cause(error), lasting=_lasting(error))

    def failed(self, cause: str, *, lasting: bool = False) -> None:
        """Wait before another attempt; raise Unreachable if the failure lasts or would outlast the time."""
        self.attempts += 1
        elapsed_s = time.monotonic() - self.start_s
        if lasting or elapsed_s + self.wait_s > self.give_up_s:
            tried = f"{counted(self.attempts, 'attempt')} in {elapsed_s:.0f} s"
            # the failure itself may hold the URL with its password
            raise Unreachable(f"could not {self.doing}, {tried}: {cause}", where=self.where, fix=_CHECK) from None
        log.warning(
            "%s: attempt %d failed (%s); again in %.1f s",
            escaped(self.where),
            self.attempts,
            escaped(cause),
            self.wait_s,
        )
        time.sleep(self.wait_s)
        self.wait_s = min(2 * self.wait_s, LONGEST_WAIT_S)


def _cause(error: Exception) -> str:
    status = getattr(error, "status", None)
    text = f"HTTP {status} {getattr(error, 'message', '')}" if status else str(error)
    return printable(without_secrets(f"{type(error).__name__}: {text}".rstrip(": ")), width=300)


def _lasting(error: Exception) -> bool:
    """Whether trying again is of no use: the server understood and refused."""
    # aiohttp's have a status, the hub's a response with one
    status = getattr(error, "status", 0) or getattr(getattr(error, "response", None), "status_code", 0)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 416, 425, 429)
    # botocore's have no types that can be named without it
    without_rights = type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")
    return refused or without_rights or isinstance(error, (PermissionError, ValueError, NotImplementedError))


@dataclass(frozen=True, slots=True)
class Remote:
    """A home at a URL; its shards are read from the cache, and come down when they are not there."""

    url: str = field(repr=False)
    spec: RemoteSpec

    def __str__(self) -> str:
        return shown(self.url)

    def where(self, file: str) -> str:
        """The file's URL."""
        return f"{self}/{file}"

    @property
    def cache(self) -> Cache:
        """Where shards come down to."""
        return Cache(self.spec.cache or default_folder(), limit_bytes=self.spec.cache_bytes)

    def read(self, file: str) -> bytes:
        """A small file, as it is there now. Raises FileNotFoundError, or Unreachable."""
        patience = self._patience(file, give_up_s=min(OPENING_S, self.spec.give_up_s))
        data = patience.attempt(partial(self._get, file, limit_bytes=INDEX_BYTES))
        if len(data) > INDEX_BYTES:
            raise too_large(self.where(file))
        return data

    def _get(self, file: str, span: tuple[int, int] | None = None, *, limit_bytes: int) -> bytes:
        """A file or a range of it; a byte more than the limit, or an error, where it is longer."""
        system, path = filesystem(self.url)
        if urlsplit(self.url).scheme in ("http", "https"):
            from fsspec.asyn import sync

            url = f"{path}/{file}"
            try:
                fetched: bytes = sync(
                    system.loop, _http_bytes, system, url, span, limit_bytes, timeout=self.spec.stall_s
                )
            except _Longer:
                if span:
                    raise
                raise too_large(self.where(file)) from None
            return fetched
        start, end = span or (0, limit_bytes + 1)
        data: bytes = system.cat_file(f"{path}/{file}", start=start, end=end, **self._limited(system))
        return data

    def open(self, file: str, *, size_bytes: int, sha256: str) -> BinaryIO:
        """The copy in the cache, fetched if it is not there. Raises FileNotFoundError, or Unreachable."""
        while True:
            if cached := self.cache.open(sha256, size_bytes=size_bytes):
                return cached
            # it may leave the cache again before it is opened, where many processes share a small one
            self._fetch(file, size_bytes, sha256, give_up_s=self.spec.give_up_s)

    def renewed(self, file: str, *, sha256: str) -> bool:
        """Whether the copy in the cache was not what had come down; then it is forgotten."""
        if not self.cache.damaged(sha256):
            return False
        log.warning("%s: its copy in the cache was damaged; it is fetched again", escaped(self.where(file)))
        self.cache.remove(sha256)
        return True

    def bring(self, file: str, *, size_bytes: int, sha256: str) -> None:
        """Have a file in the cache, its checksum compared; what fails is not tried again but left to who needs it."""
        if self.cache.path(sha256).exists() and not self.renewed(file, sha256=sha256):
            return
        self._fetch(file, size_bytes, sha256, give_up_s=0)

    def _fetch(self, file: str, size_bytes: int, sha256: str, *, give_up_s: float) -> None:
        patience = self._patience(file, give_up_s=give_up_s)
        while True:
            with self.cache.writing(sha256) as part:
                if part is None:
                    return
                self._fill(part, file, size_bytes, sha256, patience)
                if part.publish():
                    return
            patience.failed("it was removed from the cache while it came down")

    def _fill(self, part: Part, file: str, size_bytes: int, sha256: str, patience: Patience) -> None:
        """Download until the checksum is right."""
        while True:
            self._download(part, file, size_bytes, patience)
            if (received := part.sha256()) == sha256:
                return
            part.restart()
            patience.failed(f"its SHA-256 is {received[:12]}..., the index says {sha256[:12]}...")

    def _download(self, part: Part, file: str, size_bytes: int, patience: Patience) -> None:
        """Append what is still missing, a request at a time."""
        most = min(size_bytes, INDEX_BYTES)
        if part.size_bytes > size_bytes:
            part.restart()
        while (have := part.size_bytes) < size_bytes:
            end = min(have + self.spec.chunk_bytes, size_bytes)
            data = patience.attempt(partial(self._get, file, (have, end), limit_bytes=most))
            if len(data) == size_bytes:  # a server that knows no ranges sends the whole
                part.restart()
            elif len(data) != end - have:
                patience.failed(
                    f"got {counted(len(data), 'byte')} instead of {end - have:,}; it should hold {size_bytes:,}"
                )
                continue
            self.cache.make_room(len(data))
            part.append(data)

    def _patience(self, file: str, *, give_up_s: float) -> Patience:
        return Patience(self.where(file), give_up_s=give_up_s, first_wait_s=self.spec.first_wait_s)

    def _limited(self, system: Any) -> dict[str, float]:
        # fsspec's asynchronous filesystems take a time limit; the other one, of hf, has its own
        return {"timeout": self.spec.stall_s} if system.async_impl else {}
