"""Samples per second: this machine's ceiling, hexshards, and one process that unpickles, all on the same positions.

    python benchmarks/loading.py [FOLDER_OF_PROCESSED_FILES] [--write]

Every system delivers what a network takes: board float32 (B, 3, S, S), policy float32 (B, S * S), value float32 (B, 1),
each sample in one random symmetry. Systems take turns, so that a busy moment of the machine hits them alike; the table
shows medians. ``--write`` also puts it into benchmarks/results/loading.md.
"""

from __future__ import annotations

import gzip
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from recording import Trusting, machine, record

import hexshards
from hexshards.specs import ConvertSpec

BATCH, REPEATS, SECONDS = 1024, 5, 1.0

System = Callable[[], Iterator[int]]
"""Yields the number of samples each time it has delivered some; ends with its data."""


def ceiling(side: int) -> System:
    """One core writing constant batches into fresh memory: no loader in one thread that hands out its own is faster."""

    def run() -> Iterator[int]:
        for number in range(2_000):
            for shape in ((BATCH, 3, side, side), (BATCH, side * side), (BATCH, 1)):
                np.full(shape, number, dtype=np.float32)
            yield BATCH

    return run


def shards(data: Path, workers: int) -> System:
    """hexshards.loader with its defaults."""
    loader = hexshards.loader(data, batch_size=BATCH, num_workers=workers)
    return lambda: (len(batch.value) for batch in loader)


def unpickled(files: list[Path]) -> System:
    """Gzip and pickle, then a sample at a time through NumPy and torch.stack, one random symmetry each."""

    def run() -> Iterator[int]:
        draw = np.random.Generator(np.random.Philox(0))
        for file in files:
            with gzip.open(file) as opened:
                examples = Trusting(opened).load()["examples"]
            for start in range(0, len(examples), BATCH):
                batch = [_sample(example, int(draw.integers(4))) for example in examples[start : start + BATCH]]
                torch.stack([torch.from_numpy(board) for board, _, _ in batch])
                torch.stack([torch.from_numpy(policy) for _, policy, _ in batch])
                torch.tensor([[value] for _, _, value in batch])
                yield len(batch)

    return run


def _sample(example: dict, symmetry: int) -> tuple[np.ndarray, np.ndarray, float]:
    board, side = example["board"], example["board"].shape[1]
    policy = np.zeros(side * side, np.float32) if example["policy"] is None else example["policy"]
    policy, player, value = policy.reshape(side, side), example["player_to_move"].value, example["value"]
    if symmetry in (1, 3):
        board, policy = board[:, ::-1, ::-1], policy[::-1, ::-1]
    if symmetry >= 2:
        board, policy, player, value = board[::-1].swapaxes(1, 2), policy.T, 1 - player, 1 - value
    planes = np.concatenate([board, np.full((1, side, side), player, np.float32)])
    return planes, np.ascontiguousarray(policy).reshape(-1), value


def rate(system: System) -> tuple[float, float]:
    """Samples per second over about SECONDS or one pass, and seconds until the first batch."""
    start = time.perf_counter()
    samples, first = 0, 0.0
    for count in system():
        samples += count
        now = time.perf_counter() - start
        first = first or now
        if now > SECONDS and samples > 50 * BATCH:
            break
    return samples / (time.perf_counter() - start), first


def measure(files: list[Path], work: Path) -> str:
    """Run all systems in turn and lay out the medians."""
    data = work / "data"
    report = hexshards.convert(files, out=data, val_fraction=0.0)
    side = report.index.side
    systems: dict[str, System] = {
        "ceiling: one core writing fresh batches": ceiling(side),
        "hexshards, 0 workers": shards(data, 0),
        "hexshards, 2 workers": shards(data, 2),
        "gzip + pickle, a sample at a time": unpickled(files),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
    for _ in range(REPEATS):
        for name, system in systems.items():
            found[name].append(rate(system))
    medians = {name: statistics.median(speed for speed, _ in runs) for name, runs in found.items()}
    base = medians["hexshards, 0 workers"]
    lines = [
        f"{report.positions:,} positions of side {side}, batch {BATCH}; {REPEATS} runs, medians.",
        machine(f"torch {torch.__version__}"),
        f"Shards: {report.shard_bytes / report.positions:.1f} bytes per position (defaults: {ConvertSpec().codec}).",
        "",
        "| system | samples/s | ratio to hexshards, 0 workers | first batch, ms |",
        "|---|---:|---:|---:|",
    ]
    for name, speed in medians.items():
        first = 1000 * statistics.median(seconds for _, seconds in found[name])
        lines.append(f"| {name} | {speed:,.0f} | {speed / base:.3g} | {first:,.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    record("Loading", measure, doc=__doc__, games=500)
