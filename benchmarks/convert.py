"""Positions per second: unpickling source files unchecked, reading them checked, and converting them whole.

    python benchmarks/convert.py [FOLDER_OF_PROCESSED_FILES] [--write]

``gzip + pickle`` is what a user's own script begins with: no checks, one process. ``convert`` also validates, packs,
splits, shuffles, compresses and checksums. Systems take turns; the table shows medians of wall time. ``--write`` also
puts it into benchmarks/results/convert.md.
"""

from __future__ import annotations

import argparse
import gzip
import os
import pickle
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import hexshards
from hexshards.converters.processed import ProcessedFiles
from hexshards.synth import Player, Winner, write

REPEATS = 5
RESULTS = Path(__file__).parent / "results" / "convert.md"


class _Trusting(pickle.Unpickler):
    """What a user does today with own files; the enums are found here instead of in hex_ai."""

    def find_class(self, module: str, name: str) -> object:
        return {"Player": Player, "Winner": Winner}.get(name) or super().find_class(module, name)


def unpickled(files: list[Path]) -> None:
    """Plain gzip.open and pickle."""
    for file in files:
        with gzip.open(file) as opened:
            _Trusting(opened).load()


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
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, {datetime.now(UTC):%Y-%m-%d}.",
        f"Shards: {size / positions:.1f} bytes per position.",
        "",
        "| system | positions/s | ratio to gzip + pickle |",
        "|---|---:|---:|",
    ]
    lines += [f"| {name} | {speed:,.0f} | {speed / base:.2f} |" for name, speed in medians.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="default: 1,000 random games of side 13")
    parser.add_argument("--write", action="store_true", help="write the results file too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = arguments.folder
        files = sorted(folder.glob("*.pkl.gz")) if folder else write(Path(work) / "files", games=1000)
        table = measure(files, Path(work))
    print(table)
    if arguments.write:
        command = " ".join(["python", "benchmarks/convert.py", *sys.argv[1:]])
        RESULTS.write_text(f"# Converting\n\n`{command}`\n\n{table}")


if __name__ == "__main__":
    main()
