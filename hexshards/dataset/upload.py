"""Upload a dataset file by file, its index last: until that is there, nobody finds a dataset.

It is written into a folder of this machine first. What had arrived when a publication was cut off is not sent again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from hexshards.dataset.index import NAME, Index, read_index
from hexshards.errors import DataError, without_secrets
from hexshards.storage.cache import default_folder
from hexshards.storage.options import REMOTE, RemoteSpec
from hexshards.storage.remote import Patience, checked_url, filesystem, home_of, is_url, shown
from hexshards.units import counted

NOTE = "publishing.json"
"""File beside an unfinished dataset at a URL that says which it will be."""

WRITABLE = ("s3", "s3a", "gs", "gcs", "hf")


def written_in(out: str | Path) -> Path:
    """The folder that a dataset is written into: ``out`` itself, or for a URL one in this user's cache folder.

    Raises ValueError for a URL that can't be written to.
    """
    if not is_url(out):
        return Path(out).absolute()
    url = checked_url(str(out))
    if url.partition(":")[0] not in WRITABLE:
        raise ValueError(f"{shown(url)}: datasets are published to {', '.join(WRITABLE)} URLs")
    return default_folder() / "outgoing" / hashlib.sha256(without_secrets(url).encode()).hexdigest()[:16]


def published(url: str) -> Index | None:
    """The dataset that is there already. Raises DataError where it can't be told."""
    try:
        return read_index(url)
    except FileNotFoundError:
        return None


def upload(folder: Path, url: str, *, tell: Callable[[int, int], None], spec: RemoteSpec = REMOTE) -> None:
    """Bring the dataset in a folder to a URL, and remove the folder; ``tell`` is told files done and files in all.

    Raises FileExistsError where another dataset is, DataError when a file does not arrive.
    """
    index, there = read_index(folder), published(url)
    if there and there.fingerprint != index.fingerprint:
        raise FileExistsError(f"{shown(url)} holds another dataset. Choose another --out")
    target = _Target(checked_url(url), spec)
    if not there:
        target.receive(folder, index, tell)
    target.finish()
    shutil.rmtree(folder)


class _Target:
    """A folder at a URL that files are sent to."""

    def __init__(self, url: str, spec: RemoteSpec) -> None:
        self.url, self.spec = url, spec
        self.system, self.path = filesystem(url)

    def receive(self, folder: Path, index: Index, tell: Callable[[int, int], None]) -> None:
        """Every file that is not there yet, and the index."""
        files = sorted(path.name for path in folder.iterdir() if path.suffix in (".tar", ".jsonl"))
        known = self._noted() == index.fingerprint
        self._note(folder, index)
        for done, name in enumerate(files, start=1):
            if not known or self._size(name) != (folder / name).stat().st_size:
                self._send(folder / name)
            tell(done, len(files))
        self._send(folder / NAME)

    def finish(self) -> None:
        """Remove the note."""
        with suppress(FileNotFoundError):
            self._try(NOTE, self.system.rm_file, f"{self.path}/{NOTE}")

    def _noted(self) -> str:
        """Fingerprint of the dataset whose publication was cut off here."""
        try:
            return str(json.loads(home_of(self.url, spec=self.spec).read(NOTE))["fingerprint"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return ""

    def _note(self, folder: Path, index: Index) -> None:
        note = folder / NOTE
        note.write_text(json.dumps({"fingerprint": index.fingerprint}))
        self._send(note)

    def _send(self, path: Path) -> None:
        """Send a file, and see that it is there."""
        size = path.stat().st_size
        # what a person's line is slow at must not look like a stall
        limit = {"timeout": self.spec.stall_s * (1 + size / self.spec.chunk_bytes)} if self.system.async_impl else {}
        self._try(path.name, self.system.put_file, str(path), f"{self.path}/{path.name}", **limit)
        if (stored := self._size(path.name)) != size:
            fix = "Give the same command again"
            raise DataError(
                f"{counted(size, 'byte', verb='was/were')} sent, {stored} are there",
                where=self._where(path.name),
                fix=fix,
            )

    def _size(self, name: str) -> int | None:
        """Size of a file as it is there now, None where there is none."""
        self.system.invalidate_cache()
        try:
            return int(self._try(name, self.system.info, f"{self.path}/{name}")["size"])
        except FileNotFoundError:
            return None

    def _try(self, name: str, task: Callable[..., Any], *arguments: str, **limit: float) -> Any:
        spec = self.spec
        patience = Patience(
            self._where(name), give_up_s=spec.give_up_s, first_wait_s=spec.first_wait_s, doing="be written"
        )
        return patience.attempt(partial(task, *arguments, **limit))

    def _where(self, name: str) -> str:
        return f"{shown(self.url)}/{name}"
