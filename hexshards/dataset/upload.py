"""Upload a dataset file by file, its index last: until that is there, nobody finds a dataset.

What had arrived when it was cut off is not sent again: a note beside the files says which dataset they are of.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hexshards.dataset.index import NAME, Index, read_index
from hexshards.errors import without_secrets
from hexshards.storage.cache import default_folder
from hexshards.storage.options import REMOTE, RemoteSpec
from hexshards.storage.remote import is_url, shown
from hexshards.storage.target import RemoteTarget, Target, writable_url

NOTE = "publishing.json"
"""File beside an unfinished dataset that says which it will be."""


def written_in(out: str | Path) -> Path:
    """The folder that a dataset is written into: ``out`` itself, or for a URL one in this user's cache folder.

    Raises ValueError for a URL that can't be written to.
    """
    if not is_url(out):
        return Path(out).absolute()
    url = writable_url(str(out))
    return default_folder() / "outgoing" / hashlib.sha256(without_secrets(url).encode()).hexdigest()[:16]


def published(place: str | Path) -> Index | None:
    """The dataset that a folder or a URL holds already. Raises DataError where it can't be told."""
    try:
        return read_index(place)
    except FileNotFoundError:
        return None


def upload(folder: Path, url: str, *, tell: Callable[[int, int], None], spec: RemoteSpec = REMOTE) -> None:
    """Bring the dataset in a folder to a URL, and remove the folder; ``tell`` is told files done and files in all.

    Raises FileExistsError where another dataset is, DataError when a file does not arrive.
    """
    index, there = read_index(folder), published(url)
    if there and there.fingerprint != index.fingerprint:
        raise FileExistsError(f"{shown(url)} holds another dataset. Choose another --out")
    target = RemoteTarget(writable_url(url), spec)
    if not there:
        known = noted(target) == index.fingerprint
        files = {path.name: path for path in sorted(folder.iterdir()) if path.suffix in (".tar", ".jsonl")}
        waiting = {name for name, path in files.items() if not known or target.size(name) != path.stat().st_size}
        done = len(files) - len(waiting)
        deliver(
            {name: path for name, path in files.items() if name in waiting},
            target,
            index=folder,
            tell=lambda sent, _: tell(done + sent, len(files)),
        )
    target.remove(NOTE)
    shutil.rmtree(folder)


def deliver(
    files: Mapping[str, Path],
    target: Target,
    *,
    index: Path,
    sha256: Mapping[str, str] | None = None,
    tell: Callable[[int, int], None],
) -> None:
    """Send files and, after all others, the index that lies in a folder; a note tells until then what they are of.

    ``sha256``: checksums of some of the files, by name. ``tell`` is told files done and files in all.
    """
    _note(target, read_index(index))
    for done, (name, path) in enumerate(files.items(), start=1):
        target.send(path, name, sha256=(sha256 or {}).get(name, ""))
        tell(done, len(files))
    target.send(index / NAME, NAME)
    target.remove(NOTE)


def noted(target: Target) -> str:
    """Fingerprint of the dataset whose publication was cut off here, nothing where none was."""
    return str(_read_note(target).get("fingerprint", ""))


def noted_shards(target: Target) -> dict[str, str]:
    """Checksums of the shards of the dataset whose publication was cut off here, by name; some may not be there."""
    shards = _read_note(target).get("shards")
    return {name: str(sha256) for name, sha256 in shards.items()} if isinstance(shards, dict) else {}


def _read_note(target: Target) -> dict[str, Any]:
    try:
        note = json.loads(target.read(NOTE) or b"")
    except (ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _note(target: Target, index: Index) -> None:
    shards = {shard.name: shard.sha256 for split in index.splits.values() for shard in split.shards}
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / NOTE
        note.write_text(json.dumps({"fingerprint": index.fingerprint, "shards": shards}))
        target.send(note, NOTE)
