"""Ranks that walk an epoch, stop, and go on as others; and a system whose data has a flipped bit.

Each runs in a process of its own. All is kept in a cache folder until the system, what it stores, or the code that
measures changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.contestants import Contestant
from harness.environments import Unavailable
from harness.rows import Code
from harness.serving import surroundings

GLOBAL_BATCH, STOP = 64, 8
RANK_S, FLIP_S, END_S = 600.0, 180.0, 15.0


class Ranks(NamedTuple):
    """How many processes, and how many workers of each."""

    ranks: int
    workers: int


BEFORE = Ranks(2, 2)
WAYS = {"as before": BEFORE, "other workers": Ranks(2, 1), "other ranks": Ranks(4, 1)}
"""Who goes on. Four ranks of one worker are as many workers as two of two: some can only deal out those."""


class Walk(NamedTuple):
    """What ranks saw, each a list: their batches, states and what the first batch took the slowest of them."""

    batches: list[list[NDArray[np.int64]]]
    states: list[Any]
    first_s: float
    first_processor_s: float
    error: str | None


def walk(entrant: Contestant, rows: Path, size: Ranks, *, states: Sequence[Any] | None, stop: int | None) -> Walk:
    """Walk an epoch or the rest of it, a process a rank."""
    with tempfile.TemporaryDirectory() as work:
        outs = [Path(work) / f"{rank}" for rank in range(size.ranks)]
        given = Path(work) / "states"
        given.write_bytes(pickle.dumps(states))
        started, port = [], _free_port()
        for rank, out in enumerate(outs):
            asked = {"batch": GLOBAL_BATCH // size.ranks, "workers": size.workers, "rank": rank, "stop": stop}
            asked |= {"world_size": size.ranks, "states": str(given), "out": str(out), "begun": time.time()}
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size.ranks, "LOCAL_WORLD_SIZE": size.ranks}
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": 0, "GLOO_SOCKET_IFNAME": "lo"}
            started.append(_started(entrant, "walk", rows, json.dumps(asked), place=place, log=out.with_suffix(".log")))
        _wait_and_end(started, limit_s=RANK_S)
        told = [pickle.loads(out.read_bytes()) if out.exists() else {} for out in outs]  # noqa: TID251  # our own
    errors = [each.get("error") if each else f"no answer in {RANK_S:.0f} s, or a crash" for each in told]
    return Walk(
        [each.get("batches", []) for each in told],
        [each.get("state") for each in told],
        max(each.get("first_s", 0.0) for each in told),
        max(each.get("first_processor_s", 0.0) for each in told),
        next(filter(None, errors), None),
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _started(
    entrant: Contestant,
    command: str,
    *arguments: object,
    log: Path,
    place: dict[str, Any] | None = None,
    **streams: Any,
) -> subprocess.Popen[bytes]:
    words = [entrant.python, "-P", "-W", "ignore", "-m", "harness.stops", command, entrant.system.name, entrant.folder]
    environment = surroundings(entrant.folder.parents[2]) | {name: str(value) for name, value in (place or {}).items()}
    with log.open("wb") as err:
        return subprocess.Popen(
            [str(word) for word in (*words, *arguments)], env=environment, stderr=err, start_new_session=True, **streams
        )


def _wait_and_end(started: Sequence[subprocess.Popen[bytes]], *, limit_s: float) -> None:
    """Wait for processes, and end them and all that they started."""
    limit = time.monotonic() + limit_s
    try:
        for process in started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(limit - time.monotonic(), 0.1))
    finally:  # Ctrl-C does not reach them: each leads a session of its own
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def resumed(entrant: Contestant, rows: Path) -> dict[str, Any]:
    """Stop, and go on in each way."""
    before = walk(entrant, rows, BEFORE, states=None, stop=STOP)
    if before.error:
        return {"fails": before.error}
    stored = np.load(rows)
    has_state = any(state is not None for state in before.states)
    epoch = whole_epoch(before.batches, Counter(Code(stored).of(stored).tolist()))
    rest, ways = batches_of(before.batches)[STOP:], {}
    for title, others in WAYS.items():
        after = walk(entrant, rows, others, states=before.states if has_state else None, stop=None)
        ways[title] = {"fails": after.error} if after.error else _compared(rest, after)
    return {"state": has_state, "epoch": epoch, "ways": ways}


def _compared(rest: list[Counter[int]], after: Walk) -> dict[str, Any]:
    came = batches_of(after.batches)
    lost, twice = differences(sum(rest, Counter()), sum(came, Counter()))
    seconds = {"first_s": after.first_s, "first_processor_s": after.first_processor_s}
    return {"same": came == rest, "lost": lost, "twice": twice, **seconds}


def batches_of(by_rank: Sequence[Sequence[NDArray[np.int64]]]) -> list[Counter[int]]:
    """What is in each global batch."""
    return [
        Counter(np.concatenate([part for part in parts if part is not None]).tolist())
        for parts in zip_longest(*by_rank)
    ]


def differences(wanted: Counter[int], came: Counter[int]) -> tuple[int, int]:
    """How many samples did not come, and how many came too often."""
    return (wanted - came).total(), (came - wanted).total()


def whole_epoch(by_rank: Sequence[Sequence[NDArray[np.int64]]], stored: Counter[int]) -> dict[str, Any]:
    """What an epoch that nobody stopped has too few and too many, and how many batches each rank has."""
    left_out, repeated = differences(stored, sum(batches_of(by_rank), Counter()))
    return {"left_out": left_out, "repeated": repeated, "batches": [len(each) for each in by_rank]}


def flipped(entrant: Contestant, rows: Path, *, count: int) -> list[dict[str, Any]]:
    """What comes of each of so many flipped bits; who crashed is started again behind it. Raises Unavailable."""
    outcomes: list[dict[str, Any]] = []
    while len(outcomes) < count:
        outcomes += _until_a_crash(entrant, rows, first=len(outcomes), count=count - len(outcomes))
    return outcomes


def _until_a_crash(entrant: Contestant, rows: Path, *, first: int, count: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as work, _flipping(entrant, rows, first, count, Path(work) / "log") as process:
        told = list(_lines(process, count=1 + count))
        if not told:
            said = (Path(work) / "log").read_text(errors="replace").strip().splitlines()
            raise Unavailable(f"ended: {said[-1] if said else 'without a word'}")
        _, *outcomes = told  # the first only says that the data is read as it is
        if len(outcomes) < count:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            outcomes.append({"crash": "hang" if process.returncode is None else f"exit {process.returncode}"})
        return outcomes


@contextmanager
def _flipping(entrant: Contestant, rows: Path, first: int, count: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with _started(entrant, "flips", rows, first, count, log=log, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            yield process
        finally:
            _wait_and_end([process], limit_s=0)


def _lines(process: subprocess.Popen[bytes], *, count: int) -> Iterator[dict[str, Any]]:
    """So many lines of JSON, fewer when one takes too long or the process ends."""
    assert process.stdout is not None
    for _ in range(count):
        if not select.select([process.stdout], [], [], FLIP_S)[0] or not (line := process.stdout.readline()):
            return
        yield json.loads(line)


def kept(entrant: Contestant, rows: Path, *, flips: int, cache: Path) -> dict[str, Any]:
    """A system's results, measured once."""
    code = b"".join((Path(__file__).parent / name).read_bytes() for name in ("stops.py", "survivors.py"))
    name = f"{entrant.folder.parent.name}-{hashlib.sha256(code).hexdigest()[:12]}"
    return {
        "resumed": _once(cache / "survival" / f"{name}-resumed.json", lambda: resumed(entrant, rows)),
        "flipped": _once(
            cache / "survival" / f"{name}-flips-{flips}.json", lambda: flipped(entrant, rows, count=flips)
        ),
    }


def _once(path: Path, make: Callable[[], Any]) -> Any:
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        made = json.dumps(make())
        path.with_suffix(".partial").write_text(made)
        path.with_suffix(".partial").replace(path)
    return json.loads(path.read_text())
