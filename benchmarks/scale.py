"""Time, memory and disk of converting more and more positions: time should grow in step, memory not at all.

    python benchmarks/scale.py [--millions 5 10 20 40] [--memory 320MiB] [--workers 2] [--format trmph|processed]
                               [--work FOLDER] [--write]

The positions are those of random games of side 13, in files of 1,300 games (198,000 positions). The conversion runs as
the command line does, in processes of its own. Memory is the sum of the resident sizes of all of them, looked at every
50 ms, so a page that two of them share counts twice; disk is the largest size of the output folder.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zstandard
from harness.processes import family, resident_bytes

from hexshards.conversion.random_files import write
from hexshards.conversion.workdir import SCRATCH
from hexshards.dataset.index import read_index
from hexshards.game.options import Format
from hexshards.units import parse_bytes, show_bytes

GAMES_PER_FILE, GAME_POSITIONS = 1_300, 152.5
RESULTS = Path(__file__).parent / "results" / "scale.md"


class Run(NamedTuple):
    """One conversion, measured."""

    positions: int
    input_bytes: int
    read_s: float
    write_s: float
    peak_bytes: int
    processes: int
    scratch_bytes: int
    scratch_files: int
    shard_bytes: int

    @property
    def seconds(self) -> float:
        """From start to end."""
        return self.read_s + self.write_s


def convert(files: Path, out: Path, *, memory: str, workers: int) -> Run:
    """Convert a folder as the command line does and watch it."""
    shutil.rmtree(out, ignore_errors=True)
    options = ["--out", str(out), "--memory", memory, "--workers", str(workers), "--json"]
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "hexshards", "convert", str(files), *options], stdout=subprocess.DEVNULL
    )
    peak = most = disk = names = 0
    read_s = 0.0
    while process.poll() is None:
        sizes = [resident_bytes(pid) for pid in family(process.pid)]
        peak, most = max(peak, sum(sizes)), max(most, len(sizes))
        if not read_s:  # while files are read only scratch grows
            scratch = _sizes(out / SCRATCH)
            disk, names = max(disk, sum(scratch)), max(names, len(scratch))
            read_s = time.monotonic() - started if any(out.glob("*.tar*")) else 0.0
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(process.returncode)
    index = read_index(out)
    return Run(
        positions=sum(split.positions for split in index.splits.values()),
        input_bytes=sum(file.size_bytes for file in index.inputs),
        read_s=read_s,
        write_s=time.monotonic() - started - read_s,
        peak_bytes=peak,
        processes=most,
        scratch_bytes=disk,
        scratch_files=names,
        shard_bytes=sum(shard.size_bytes for split in index.splits.values() for shard in split.shards),
    )


def _sizes(folder: Path) -> list[int]:
    """Sizes of the files in a folder, those that vanish meanwhile left out."""
    sizes = []
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sizes


def table(runs: list[Run]) -> str:
    """The runs as rows, and what the last one foretells."""
    lines = [
        "| positions | source files | reading, s | writing, s | positions/s | peak memory | processes | scratch "
        "| files in it | shards |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for run in runs:
        lines.append(
            f"| {run.positions:,} | {show_bytes(run.input_bytes)} | {run.read_s:.0f} | {run.write_s:.0f} "
            f"| {run.positions / run.seconds:,.0f} | {show_bytes(run.peak_bytes)} | {run.processes} "
            f"| {show_bytes(run.scratch_bytes)} | {run.scratch_files:,} | {show_bytes(run.shard_bytes)} |"
        )
    last = runs[-1]
    times = 97_000_000 / last.positions
    lines += [
        "",
        f"97 million positions, {times:.1f} times the last run: {last.seconds * times / 60:.0f} minutes, "
        f"{show_bytes(last.scratch_bytes * times)} of scratch, {show_bytes(last.shard_bytes * times)} of shards.",
    ]
    return "\n".join(lines)


def measure(millions: list[float], *, memory: str, workers: int, form: Format, work: Path) -> list[Run]:
    """Convert so many million positions, one number after another."""
    runs = []
    for number in millions:
        files = work / f"{form}-{number:g}"
        if not files.exists():
            games = round(number * 1e6 / GAME_POSITIONS / GAMES_PER_FILE) * GAMES_PER_FILE
            write(files, games=max(games, GAMES_PER_FILE), format=form, games_per_file=GAMES_PER_FILE, seed=1)
        runs.append(convert(files, work / "dataset", memory=memory, workers=workers))
        print(runs[-1], file=sys.stderr, flush=True)
    return runs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", nargs="+", type=float, default=[5, 10, 20, 40])
    parser.add_argument("--memory", default="320MiB")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--format", choices=["trmph", "processed"], default="trmph")
    parser.add_argument("--work", type=Path, help="folder for files and datasets, kept; default: a temporary one")
    parser.add_argument("--write", action="store_true", help="add the table to the results file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = measure(
            given.millions,
            memory=given.memory,
            workers=given.workers,
            form=given.format,
            work=given.work or Path(folder),
        )
    command = " ".join(["python", "benchmarks/scale.py", *(arg for arg in sys.argv[1:] if arg != "--write")])
    machine = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, zstandard {zstandard.__version__}, {datetime.now(UTC):%Y-%m-%d}; memory allowed: "
        f"{show_bytes(parse_bytes(given.memory))}."
    )
    text = f"`{command}`\n\n{machine}\n\n{table(runs)}\n"
    print(text)
    if given.write:
        before = RESULTS.read_text() if RESULTS.exists() else "# Scale\n"
        RESULTS.write_text(f"{before}\n{text}")


if __name__ == "__main__":
    main()
