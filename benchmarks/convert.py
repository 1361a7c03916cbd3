"""Positions per second: unpickling source files unchecked, reading them checked, and converting them whole.

    python benchmarks/convert.py [FOLDER_OF_PROCESSED_FILES] [--write]

``gzip + pickle`` is what a user's own script begins with: no checks, one process. ``convert`` also validates, packs,
splits, shuffles, compresses and checksums. Systems take turns; the table shows medians of wall time, and of processor
time with that of workers. A process takes a second to start, so name a folder of millions of positions to see what
many take; ``benchmarks/scale.py`` looks at memory and disk. Raw games come from the folder ``trmph`` beside the one
that is named, or are random ones; making a processed file of such games with hex_ai runs at 3,200 positions a second.
The blocks of the shards are read, checked and decompressed with all their columns. ``--write`` also puts all of it
into benchmarks/results/convert.md.
"""

from __future__ import annotations

import gzip
import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
from harness.recording import Trusting, machine, record

import hexshards
from hexshards.conversion.random_files import write
from hexshards.converters.processed import ProcessedFiles
from hexshards.converters.trmph import TrmphFiles
from hexshards.dataset.blocks import Blocks
from hexshards.dataset.index import Index
from hexshards.game.options import Format
from hexshards.storage.files import Folder

REPEATS, MANY, REPEATS_OF_MANY = 5, 1_000_000, 3
"""Runs of each system, and of so many positions or more."""

USERS = 97_000_000
"""Positions of the first user, in 500 files."""

SMALL_FILES = 2000
"""Files of one game each that are compared with one file of the same games."""

HEX_AI = 3200
"""Positions per second at which hex_ai makes a processed file of raw games."""

BASE = "gzip + pickle, unchecked, 1 process"

Seconds = tuple[float, float]
"""Of wall time, and of processor time, workers included."""


def unpickled(files: list[Path]) -> None:
    """Plain gzip.open and pickle."""
    for file in files:
        with gzip.open(file) as opened:
            Trusting(opened).load()


def read(files: list[Path], converter: ProcessedFiles | TrmphFiles) -> int:
    """The converter alone: decompress, check, pack. Positions."""
    return sum(
        len(chunk.positions)
        for file in files
        for chunk in converter.read(file.read_bytes(), name=file.name, where=file.name)
    )


def converted(files: list[Path], out: Path, workers: int) -> None:
    """All of it, into a fresh folder."""
    shutil.rmtree(out, ignore_errors=True)
    hexshards.convert(files, out=out, workers=workers)


def many_over_one(work: Path) -> dict[Format, float]:
    """How many times as long many small files take to convert as one file with the same games, by format."""
    ratios = dict[Format, float]()
    for form in get_args(Format):
        many, one = work / form / "many", work / form / "one"
        write(many, games=SMALL_FILES, format=form, games_per_file=1)
        write(one, games=SMALL_FILES, format=form, games_per_file=SMALL_FILES)
        seconds = in_turn({at.name: partial(converted, [at], work / form / "out", 1) for at in (many, one)})
        ratios[form] = seconds["many"][0] / seconds["one"][0]
    return ratios


def decompressed(out: Path, index: Index) -> None:
    """All columns of all blocks, one after another."""
    for split in index.splits:
        blocks = Blocks(Folder(out), index, split)
        for number in range(len(blocks)):
            blocks.read(np.array([number]), list(index.layout.columns()))


def taken(system: Callable[[], object]) -> Seconds:
    """What running something takes."""
    start, before = time.perf_counter(), sum(os.times()[:4])
    system()
    return time.perf_counter() - start, sum(os.times()[:4]) - before


def in_turn(systems: Mapping[str, Callable[[], object]], *, repeats: int = REPEATS) -> dict[str, Seconds]:
    """Medians of what each takes."""
    times: dict[str, list[Seconds]] = {name: [] for name in systems}
    for _ in range(repeats):
        for name, system in systems.items():
            times[name].append(taken(system))
    return {name: _medians(runs) for name, runs in times.items()}


def _medians(runs: list[Seconds]) -> Seconds:
    wall, processor = zip(*runs, strict=True)
    return statistics.median(wall), statistics.median(processor)


def measure(files: list[Path], work: Path) -> str:
    """Run all systems in turn and lay out the medians."""
    games = sorted((files[0].parent.parent / "trmph").glob("*.trmph"))
    origin = "of the games beside those files" if games else "of random games"
    games = games or write(work / "games", games=1000, format="trmph")
    converted(files, work / "one", 1)
    index = hexshards.read_index(work / "one")
    positions, two = sum(split.positions for split in index.splits.values()), "whole convert, 2 workers"
    repeats = REPEATS_OF_MANY if positions >= MANY else REPEATS
    seconds = in_turn(
        {
            BASE: lambda: unpickled(files),
            "our reader, checked, 1 process": lambda: read(files, ProcessedFiles()),
            "whole convert, 1 worker": lambda: converted(files, work / "one", 1),
            two: lambda: converted(files, work / "two", 2),
        },
        repeats=repeats,
    )
    if hexshards.read_index(work / "two") != index:
        raise AssertionError("two workers made other shards than one")
    rest = in_turn({"games": lambda: read(games, TrmphFiles()), "blocks": lambda: decompressed(work / "one", index)})
    played = read(games, TrmphFiles())
    small = ", ".join(f"{form} {ratio:.1f}" for form, ratio in many_over_one(work).items())
    size = sum(shard.size_bytes for split in index.splits.values() for shard in split.shards)
    by_games, by_blocks = played / rest["games"][0], positions / rest["blocks"][0]
    lines = [
        f"{positions:,} positions of side {index.side} in {len(files)} files; {repeats} runs, medians.",
        machine(),
        "",
        "| system | positions/s | ratio to gzip + pickle | processor, µs a position |",
        "|---|---:|---:|---:|",
        *(_row(name, seconds[name], seconds[BASE], positions) for name in seconds),
        "",
        f"- Shards: {size / positions:.1f} bytes per position, the same for 1 and 2 workers.",
        f"- {USERS:,} positions at the rate of 2 workers: {seconds[two][0] * USERS / positions / 60:.1f} minutes.",
        f"- Blocks read, checked and decompressed: {by_blocks:,.0f} positions/s, 1 process.",
        f"- Raw games, {played:,} positions {origin}: {by_games:,.0f} positions/s, 1 process, "
        f"{by_games / HEX_AI:,.0f} times hex_ai's {HEX_AI:,}.",
        f"- {SMALL_FILES:,} files of one random game, times one file with the same games, 1 worker: {small}.",
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, seconds: Seconds, base: Seconds, positions: int) -> str:
    wall, processor = seconds
    return f"| {name} | {positions / wall:,.0f} | {base[0] / wall:.2f} | {1e6 * processor / positions:.1f} |"


if __name__ == "__main__":
    record("Converting", measure, doc=__doc__, games=1000)
