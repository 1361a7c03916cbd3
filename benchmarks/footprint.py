"""Memory of loading: what opening a dataset of 97 million positions takes, and whether five epochs stay flat.

    python benchmarks/footprint.py [--millions 3] [--write]

The large dataset is its index alone: nothing else is read to open one. Memory is that of a process and all that it
started, shared pages counted once, looked at every 20 ms; what the interpreter and its libraries take before is taken
off. The bound is the formula of docs/loading.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from harness.processes import family, proportional_bytes
from harness.recording import machine, write_results

import hexshards
from hexshards.conversion.options import CONVERT
from hexshards.conversion.random_files import write
from hexshards.dataset.index import Counts, Index, Split
from hexshards.dataset.layout import Layout, Shard
from hexshards.loading.options import LOADER
from hexshards.units import show_bytes

POSITIONS, EPOCHS, BATCH = 97_000_000, 5, 1024
POLL_S = 0.02
SIDE = 13
GAME_POSITIONS = 152.5

OPEN = """
import resource, sys, time
import hexshards.loading.loader, hexshards.loading.batching
hexshards.loading.batching.compiled()
hexshards.loading.batching.compile_reading()  # libraries are loaded once, whatever is opened
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
before, start = peak(), time.perf_counter()
loader = hexshards.loading.loader.loader(sys.argv[1], rank=0, world_size=1)
opened = time.perf_counter() - start
loader.epochs.plan(0)
print([opened, time.perf_counter() - start - opened, peak() - before])
"""

EPOCHS_OF = """
import sys, time
import hexshards.loading.loader
loader = hexshards.loading.loader.loader(sys.argv[1], batch_size=int(sys.argv[2]), num_workers=int(sys.argv[3]), rank=0,
                                  world_size=1)
print("begin", flush=True)
time.sleep(0.5)
for epoch in range(int(sys.argv[4])):
    start = time.perf_counter()
    batches = iter(loader)
    next(batches)
    first = time.perf_counter() - start
    for batch in batches:
        pass
    print(first, flush=True)
"""


class Epochs(NamedTuple):
    """Five epochs of a loader."""

    first_s: list[float]
    """Seconds until the first batch of each."""
    peak_bytes: list[int]
    """Of each, beyond what was held before the first."""


def index_of(positions: int, folder: Path) -> int:
    """Write the index of a dataset of that size and no shards; return the size of the file."""
    full, block = CONVERT.shard_positions, CONVERT.block_positions
    shards = []
    for number, first in enumerate(range(0, positions, full)):
        count = min(full, positions - first)
        blocks = -(-count // block)
        shards.append(
            Shard(
                name=f"train-{number:06d}.tar",
                positions=count,
                size_bytes=200_000 * blocks + 1024,
                sha256=f"{number:064x}",
                block_bytes=(200_000,) * blocks,
                block_crc32=tuple(range(2**31, 2**31 + blocks)),
            )
        )
    plies = (positions, *[0] * SIDE**2)  # as many as a board has cells, and the empty board
    counts = Counts(blue_wins=positions, red_wins=0, without_policy=0, plies=plies)
    split = Split(
        shards=tuple(shards),
        games=positions // 80,
        **{name: getattr(counts, name) for name in ("blue_wins", "red_wins", "without_policy", "plies")},
    )
    layout = Layout(side=SIDE, soft=False, codec="zstd", block_positions=block)
    sources = tuple(f"games_{number:04d}.trmph" for number in range(500))
    Index(layout=layout, splits={"train": split}, sources=sources, inputs=(), options={}).write(folder)
    return (folder / "index.json").stat().st_size


def opened(folder: Path) -> list[float]:
    """Seconds to open, seconds to plan an epoch, bytes of memory; the median of five by seconds to open."""
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", OPEN, folder], capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    return sorted(runs)[2]


def epochs_of(data: Path, *, workers: int) -> Epochs:
    """Five epochs in a process of their own, watched."""
    command = [sys.executable, "-c", EPOCHS_OF, data, str(BATCH), str(workers), str(EPOCHS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines: list[str] = []
    reader = Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    reader.start()
    before, peaks = 0, [0] * (EPOCHS + 1)
    while process.poll() is None:
        held = sum(map(proportional_bytes, family(process.pid)))
        # the loader is open once the first line is there, and a line follows each epoch
        if not any(peaks):
            before = held
        if lines:
            peaks[len(lines) - 1] = max(peaks[len(lines) - 1], held)
        time.sleep(POLL_S)
    reader.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    return Epochs([float(line) for line in lines[1:]], [peak - before for peak in peaks[:EPOCHS]])


def bound_bytes(workers: int) -> int:
    """The formula of docs/loading.md at side 13: windows, four batches, and what a worker has of its own."""
    window = LOADER.window_blocks * CONVERT.block_positions * 51
    return 2 * (2 * workers + 3) * window + 4 * BATCH * 4 * (4 * 169 + 1) + 35_000_000 * workers


def measure(millions: float, work: Path) -> str:
    """Both measurements as text."""
    (work / "large").mkdir()
    size = index_of(POSITIONS, work / "large")
    open_s, plan_s, held = opened(work / "large")
    files = write(work / "files", games=round(millions * 1e6 / GAME_POSITIONS), format="trmph", games_per_file=1_000)
    positions = hexshards.convert(files, out=work / "data", val_fraction=0.0).positions
    lines = [
        machine(),
        "",
        f"Opening {POSITIONS:,} positions (an index of {show_bytes(size)}): {open_s:.2f} s, {show_bytes(int(held))}; "
        f"then the plan of an epoch: {plan_s:.2f} s.",
        "",
        f"{EPOCHS} epochs of {positions:,} positions, batch {BATCH}; peak of each epoch beyond the open loader:",
        "",
        "| workers | " + " | ".join(f"epoch {number}" for number in range(EPOCHS)) + " | bound | first batch, s |",
        "|---:|" + "---:|" * (EPOCHS + 2),
    ]
    for workers in (0, 2):
        measured = epochs_of(work / "data", workers=workers)
        peaks = " | ".join(show_bytes(peak) for peak in measured.peak_bytes)
        first = max(measured.first_s)
        lines.append(f"| {workers} | {peaks} | {show_bytes(bound_bytes(workers))} | {first:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=3, help="positions of the five epochs, in millions")
    parser.add_argument("--write", action="store_true", help="write the results file too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = measure(given.millions, Path(folder))
    print(table)
    if given.write:
        write_results("Footprint", table)
