"""One system in a process of its own: it stores its positions, proves what it delivers, and is timed.

    python -m harness.trial prepare SYSTEM SOURCE FOLDER
    python -m harness.trial prove   SYSTEM SOURCE FOLDER WORKERS TIMES
    python -m harness.trial serve   SYSTEM FOLDER WORKERS

Answers are lines of JSON on standard output; what libraries print goes to standard error. ``serve`` opens and times a
stream of batches for every line ``BATCH SECONDS`` that it is told.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from harness import proof
from harness.rows import Source, row_side

ENDLESS = 1_000_000
WARM_S, LEAST_BATCHES = 0.3, 5
PROOF_BATCH = 256


def prepare(system: str, source: str, folder: str) -> dict[str, Any]:
    """Store the positions; say how many there are."""
    return {"positions": import_module(f"systems.{system}").prepare(Source(Path(source)), Path(folder))}


def prove(system: str, source: str, folder: str, workers: str, times: str) -> dict[str, Any]:
    """Go through an epoch of the source's positions, each of which is stored so many times."""
    module, rows = import_module(f"systems.{system}"), Source(Path(source)).rows
    stream = module.batches(Path(folder), batch=PROOF_BATCH, workers=int(workers), epochs=1)
    if hasattr(module, "dense"):
        stream = (module.dense(batch, side=row_side(rows)) for batch in stream)
    proof.prove(stream, rows, times=int(times))
    return {"proved": len(rows)}


def serve(system: str, folder: str, workers: str) -> None:
    """Time a stream for every line that comes."""
    module = import_module(f"systems.{system}")
    for line in sys.stdin:
        batch, seconds = line.split()
        stream = module.batches(Path(folder), batch=int(batch), workers=int(workers), epochs=ENDLESS)
        answer(timed(stream, seconds=float(seconds), workers=int(workers)))
        del stream
        gc.collect()


def timed(stream: Any, *, seconds: float, workers: int) -> dict[str, Any]:
    """Seconds to the first batch; then, once every worker is in its stride, samples in so many seconds or more."""
    opened = time.perf_counter()
    batches = iter(stream)
    next(batches)
    first_s = time.perf_counter() - opened
    for number, _ in enumerate(batches, start=1):
        if number >= workers and time.perf_counter() - opened - first_s >= min(WARM_S, seconds):
            break
    samples = count = 0
    started = time.perf_counter()
    for batch in batches:
        samples, count = samples + len(batch[0]), count + 1
        took_s = time.perf_counter() - started
        if took_s >= seconds and count >= LEAST_BATCHES:
            break
    close(batches)
    return {"samples": samples, "seconds": took_s, "first_s": first_s}


def close(batches: Any) -> None:
    """End what an iterator started, where it has a way to."""
    with contextlib.suppress(AttributeError):
        batches.close()


def answer(result: dict[str, Any]) -> None:
    """A line for the one who asked."""
    print(json.dumps(result), file=_answers, flush=True)


if __name__ == "__main__":
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    command, *arguments = sys.argv[1:]
    try:
        outcome = {"prepare": prepare, "prove": prove, "serve": serve}[command](*arguments)
    except proof.Unsound as error:
        outcome = {"error": str(error)}
    if outcome:
        answer(outcome)
