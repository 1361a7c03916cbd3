"""The working directory of a conversion: all in it was made under the options noted there, one at a time.

It lies inside the dataset's folder until the dataset is whole.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

from hexshards.conversion.options import ConvertSpec
from hexshards.dataset.earlier import kept_shards, listed
from hexshards.dataset.index import NAME, Index, read_index
from hexshards.dataset.index_schema import SHARD_NAME
from hexshards.errors import escaped
from hexshards.options import as_recorded
from hexshards.storage import locks
from hexshards.storage.files import open_regular, remove_halves, write_whole
from hexshards.storage.locks import locked

SCRATCH = ".partial"
"""Folder inside an unfinished dataset that holds spills."""

REJECTS = "rejects.jsonl"
"""File beside the shards with a line for everything that was not kept; those of later additions are numbered."""

WATCHED = ".watch"
"""Lock of the process that adds files to a dataset as they come."""

_LOCK, _NOTE = "lock", "options.json"


@contextmanager
def held(out: Path, spec: ConvertSpec, *, base: Index | None, tidying: bool = False) -> Iterator[Path]:
    """The scratch folder of ``out``, held by this process and free of what other options or another dataset left.

    ``base`` is the dataset that files are added to; ``tidying`` takes a folder that holds a dataset. Raises
    FileExistsError where ``out`` holds something else, or another conversion into it is running.
    """
    if not tidying:
        check_folder(out, base)
    scratch = out / SCRATCH
    with suppress(FileExistsError):  # exist_ok looks once more, when another may have removed it
        scratch.mkdir(parents=True)
    if scratch.is_symlink():  # what it leads to would be cleared
        raise FileExistsError(f"{escaped(scratch)} is a link, where a conversion makes a folder of its own. Remove it")
    with locked(scratch / _LOCK, taken=f"{out}: another conversion into this folder is running. Wait for it to end"):
        _claim(scratch, spec, base)
        yield scratch
    if not locks.OPEN_FILES_CAN_GO and not (scratch / _NOTE).exists():
        with suppress(OSError):  # another conversion has begun there, and holds the lock
            shutil.rmtree(scratch)


def rejects_name(base: Index | None) -> str:
    """Name of the file of rejects of a conversion; one that adds to a dataset leaves the others alone."""
    return f"rejects-{len(base.inputs)}.jsonl" if base else REJECTS


def finished(out: Path, spec: ConvertSpec) -> Index | None:
    """The dataset at ``out`` when a conversion with these options made it but was cut off while it tidied up."""
    return read_index(out) if (out / NAME).exists() and _noted(out / SCRATCH) == _note(spec, None) else None


def clear(scratch: Path) -> None:
    """Remove the scratch folder, its lock last; on Windows that goes with its folder once it is closed."""
    for path in scratch.iterdir():
        if path.name not in (_LOCK, _NOTE):
            path.unlink()
    (scratch / _NOTE).unlink(missing_ok=True)
    if locks.OPEN_FILES_CAN_GO:
        (scratch / _LOCK).unlink()
        with suppress(OSError):  # another conversion has begun there, and made a lock of its own
            scratch.rmdir()


HALVES = rf"{SHARD_NAME}|{re.escape(NAME)}|rejects(?:-[0-9]+)?\.jsonl"
"""Names of files of which a killed conversion may leave a half."""


def remove_stale(out: Path, index: Index | None, *, written: Set[str] = frozenset()) -> None:
    """Remove shards that no state of the dataset lists and none has just ``written``, and what was half written."""
    kept = written | listed(index) | kept_shards(out)
    for stale in out.glob("*.tar"):
        if re.fullmatch(SHARD_NAME, stale.name) and stale.name not in kept:
            stale.unlink()
    remove_halves(out, HALVES)


def check_folder(out: Path, base: Index | None) -> None:
    """Raise FileExistsError where a folder holds something else than what is made, or added to, there."""
    if base is None and (out / NAME).exists():
        raise FileExistsError(
            f"{escaped(out)} holds a finished dataset. Add files to it with --append, or choose another --out"
        )
    if out.exists() and base is None and not (out / SCRATCH).exists():
        others = [path.name for path in out.iterdir() if path.name not in (REJECTS, WATCHED)]
        if others:
            raise FileExistsError(
                f"{escaped(out)} is not empty and holds no unfinished conversion. Choose another --out"
            )


def _claim(scratch: Path, spec: ConvertSpec, base: Index | None) -> None:
    mine = _note(spec, base)
    same = _noted(scratch) == mine
    for path in scratch.iterdir():
        # half-written files are nobody's: their writers are dead
        if path.name not in (_LOCK, _NOTE) and (not same or path.name.endswith(".partial")):
            path.unlink()
    if not same:
        write_whole(scratch / _NOTE, mine)


def _noted(scratch: Path) -> bytes | None:
    """What is noted of the options in a scratch folder; None where nothing is that can be read."""
    with suppress(OSError), open_regular(scratch / _NOTE) as file:
        return file.read()
    return None


def _note(spec: ConvertSpec, base: Index | None) -> bytes:
    return json.dumps({"options": as_recorded(spec), "base": base and base.fingerprint}, sort_keys=True).encode()
