"""One rank of a system that is stopped and goes on; or a system whose data has a flipped bit. In a process of its own.

    python -m harness.stops walk  SYSTEM FOLDER ROWS JSON
    python -m harness.stops flips SYSTEM FOLDER ROWS FIRST COUNT

A system's ``resumable`` opens one epoch and yields packed rows as they were stored, batch by batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from harness.processes import processor_s
from harness.rows import Code, Resumable

FLIP_BATCH = 256


def walk(system: str, folder: str, rows: str, asked: str) -> None:
    """Walk an epoch, or the rest of it, as one rank; write down what came, and the state after batch ``stop``."""
    given, module, code = json.loads(asked), import_module(f"systems.{system}"), Code(np.load(rows))
    told: dict[str, Any] = {"batches": [], "state": None, "error": None}
    # what other processes of this benchmark wrote
    kept = pickle.loads(Path(given["states"]).read_bytes())  # noqa: TID251
    states = kept and [pickle.loads(each) for each in kept]  # noqa: TID251
    try:
        stream = _opened(module, folder, given, states)
        for number, batch in enumerate(stream.batches, start=1):
            if number == 1:
                # from the start of the process: what a library imports when it is first used is part of it
                told |= {"first_s": time.time() - given["begun"], "first_processor_s": processor_s(os.getpid())}
            told["batches"].append(code.of(np.asarray(batch)))
            if number == given["stop"]:
                state = stream.state()
                # whoever started this may not have what it is made of
                told["state"] = None if state is None else pickle.dumps(state)
    except Exception as error:
        told["error"] = _said(error)
    Path(given["out"]).write_bytes(pickle.dumps(told))


def _opened(module: Any, folder: str, given: dict[str, Any], states: Any) -> Resumable:
    names = ("batch", "workers", "rank", "world_size")
    stream: Resumable = module.resumable(Path(folder), **{name: given[name] for name in names}, states=states)
    return stream


def flips(system: str, folder: str, rows: str, first: str, count: str) -> None:
    """Walk an epoch; then, again and again, one of a copy of the data with a flipped bit. A line each time."""
    module, code = import_module(f"systems.{system}"), Code(np.load(rows))
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    sizes = np.array([path.stat().st_size for path in files])
    whole = Counter(np.concatenate(list(_epoch(module, Path(folder), code))).tolist())
    print(json.dumps({"samples": whole.total()}), file=_answers, flush=True)
    for number in range(int(first), int(first) + int(count)):
        # the same shares of all systems' bytes, whatever their sizes
        share, bit = _draw(number)
        at = int(share * sizes.sum())
        file = int(np.searchsorted(np.cumsum(sizes), at, side="right"))
        with tempfile.TemporaryDirectory() as work:
            copy = Path(work) / "data"
            shutil.copytree(folder, copy)
            _flip(copy / files[file].relative_to(folder), at - int(np.cumsum(sizes)[file] - sizes[file]), bit)
            outcome = _outcome(module, copy, code, whole)
        where = str(files[file].relative_to(folder))
        print(json.dumps({"flip": number, "file": where, **outcome}), file=_answers, flush=True)


def _draw(number: int) -> tuple[float, int]:
    digest = hashlib.sha256(f"flip {number}".encode()).digest()
    return int.from_bytes(digest[:6], "little") / 2**48, digest[6] % 8


def _flip(path: Path, at: int, bit: int) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def _epoch(module: Any, folder: Path, code: Code) -> Iterator[Any]:
    given = {"batch": FLIP_BATCH, "workers": 0, "rank": 0, "world_size": 1}
    for batch in _opened(module, str(folder), given, None).batches:
        yield code.of(np.asarray(batch))


def _outcome(module: Any, folder: Path, code: Code, whole: Counter[int]) -> dict[str, Any]:
    """What a walk through damaged data delivers."""
    came = Counter[int]()
    try:
        for batch in _epoch(module, folder, code):
            came.update(batch.tolist())
    except Exception as error:
        return {"error": _said(error), "wrong": came.pop(Code.UNKNOWN, 0)}
    wrong = came.pop(Code.UNKNOWN, 0)
    return {"error": None, "wrong": wrong, "lost": sum((whole - came).values()), "twice": sum((came - whole).values())}


def _said(error: Exception) -> str:
    # the last line of what a worker's error is told with is the error
    said = str(error).strip().splitlines()[-1:] or ["without a word"]
    return f"{type(error).__name__}: {' '.join(said[0].split())[:300]}"


if __name__ == "__main__":
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    command, *arguments = sys.argv[1:]
    {"walk": walk, "flips": flips}[command](*arguments)
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    os._exit(0)  # threads and processes that a library left behind are ended by whoever started this one
