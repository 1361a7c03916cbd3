"""Positions per second: unpickling source files unchecked, reading them checked, and converting them whole.

    python benchmarks/convert.py [FOLDER_OF_PROCESSED_FILES] [--write]

``gzip + pickle`` is what a user's own script begins with: no checks, one process. ``convert`` also validates, packs,
splits, shuffles, compresses and checksums. Systems take turns; the table shows medians of wall time. ``--write`` also
puts it into benchmarks/results/convert.md.
"""

from __future__ import annotations

import gzip
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from recording import Trusting, machine, record

import hexshards
from hexshards.converters.processed import ProcessedFiles

REPEATS = 5


def unpickled(files: list[Path]) -> None:
    """Plain gzip.open and pickle."""
    for file in files:
        with gzip.open(file) as opened:
            Trusting(opened).load()


def read(files: list[Path]) -> None:
    """The converter alone: decompress, check, pack."""
    for file in files:
        for _ in ProcessedFiles().read(file.read_bytes(), name=file.name, where=file.name):
            pass


def converted(files: list[Path], out: Path, workers: int) -> None:
    """All of it, into a fresh folder."""
    shutil.rmtree(out, ignore_errors=True)
    hexshards.convert(files, out=out, workers=workers)


def measure(files: list[Path], work: Path) -> str:
    """Run all systems in turn and lay out the medians."""
    systems: dict[str, Callable[[], None]] = {
        "gzip + pickle, unchecked, 1 process": lambda: unpickled(files),
        "our reader, checked, 1 process": lambda: read(files),
        "whole convert, 1 worker": lambda: converted(files, work / "one", 1),
        "whole convert, 2 workers": lambda: converted(files, work / "two", 2),
    }
    found: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(REPEATS):
        for name, system in systems.items():
            start = time.perf_counter()
            system()
            found[name].append(time.perf_counter() - start)
    index = hexshards.read_index(work / "one")
    splits = index.splits.values()
    positions = sum(split.positions for split in splits)
    size = sum(shard.size_bytes for split in splits for shard in split.shards)
    medians = {name: positions / statistics.median(times) for name, times in found.items()}
    base = medians["gzip + pickle, unchecked, 1 process"]
    lines = [
        f"{positions:,} positions of side {index.side} in {len(files)} files; {REPEATS} runs, medians.",
        machine(),
        f"Shards: {size / positions:.1f} bytes per position.",
        "",
        "| system | positions/s | ratio to gzip + pickle |",
        "|---|---:|---:|",
    ]
    lines += [f"| {name} | {speed:,.0f} | {speed / base:.2f} |" for name, speed in medians.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    record("Converting", measure, doc=__doc__, games=1000)
