"""A system that is timed runs in a process of its own, from one measurement to the next, and ends with the block."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from harness.environments import Unavailable
from harness.processes import family, proportional_bytes

BENCHMARKS = Path(__file__).parents[1]
"""Where a trial finds the harness and the systems."""
ANSWER_S, LOOK_S, END_S = 180.0, 0.02, 15.0
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS", "POLARS_MAX_THREADS"), "1"
)
"""Threads within one operation, alike for all; threads that a system starts to load with are its own affair."""


def surroundings(home: Path) -> dict[str, str]:
    """The environment of a system's process; what libraries keep for themselves goes into a folder of ours."""
    kept = {
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(home / "numba")),
    }
    return {**os.environ, **ONE_THREAD, **kept, "PYTHONPATH": str(BENCHMARKS)}


class Timing(NamedTuple):
    """One measurement."""

    samples_per_s: float
    first_s: float
    """From ``iter`` to the first batch."""


def ask_once(python: Path, *arguments: object, log: Path) -> dict[str, Any]:
    """Let a process do one thing and take its answer. Raises Unavailable."""
    with _process(python, *arguments, log=log) as process:
        return _answer(process, log, limit_s=10 * ANSWER_S)


class Served:
    """A system that waits to be timed."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    def time(self, *, batch: int, seconds: float) -> Timing:
        """Measure once. Raises Unavailable."""
        self._begin(batch, seconds)
        answer = _answer(self.process, self.log, limit_s=ANSWER_S)
        return Timing(answer["samples"] / answer["seconds"], answer["first_s"])

    def peak_bytes(self, *, batch: int, seconds: float) -> int:
        """Memory of the process and all it starts, at its peak while it is measured. Raises Unavailable."""
        self._begin(batch, seconds)
        assert self.process.stdout is not None
        peak, limit = 0, time.monotonic() + ANSWER_S
        while not select.select([self.process.stdout], [], [], LOOK_S)[0] and time.monotonic() < limit:
            peak = max(peak, sum(map(proportional_bytes, family(self.process.pid))))
        _answer(self.process, self.log, limit_s=0)
        return peak

    def _begin(self, batch: int, seconds: float) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # its log is told of when no answer comes
            self.process.stdin.write(f"{batch} {seconds}\n".encode())
            self.process.stdin.flush()


@contextmanager
def served(python: Path, system: str, folder: Path, *, workers: int, log: Path) -> Iterator[Served]:
    """A system that is ready to be timed, and ends with the block."""
    with _process(python, "serve", system, folder, workers, log=log) as process:
        yield Served(process, log)


@contextmanager
def _process(python: Path, *arguments: object, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(python), "-P", "-W", "ignore", "-m", "harness.trial", *map(str, arguments)]
    with (
        log.open("wb") as err,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            env=surroundings(log.parent),
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()  # what it began it ends itself, if it can: some leave shared memory behind otherwise
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _answer(process: subprocess.Popen[bytes], log: Path, *, limit_s: float) -> dict[str, Any]:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], limit_s)[0]:
        raise Unavailable(f"gave no answer in {limit_s:.0f} s")
    line = process.stdout.readline()
    if not line:
        said = log.read_text(errors="replace").strip().splitlines()
        raise Unavailable(f"ended: {said[-1].strip() if said else 'without a word'}")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise Unavailable(answer["error"])
    return answer
