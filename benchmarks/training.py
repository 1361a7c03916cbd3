"""Training: the loop of `hexshards train` against a bare PyTorch loop whose batches are already there.

    python benchmarks/training.py [FOLDER_OF_PROCESSED_FILES] [--networks 16x2 32x4 64x6] [--rounds 3] [--write]

One thread, batch 256. Both loops take steps of one network with AdamW; the bare one has a handful of batches in memory
and does nothing else. Time is processor time, from the end of the first batch to the end of the run, in rounds in which
each way has its turn; figures are medians of the rates within a round. A mini-epoch is the whole run, so that its end
(validation, diagnostics, a checkpoint, a record) weighs far more than in mini-epochs of the usual 200,000 samples.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from harness.bare_loop import BATCH, Way, bare_loop, held_batches, table_head
from harness.recording import arguments_of, files_of, machine, write_results

import hexshards
from hexshards.training.distributed import joined
from hexshards.training.options import TrainSpec
from hexshards.training.tracking.hooks import Event, Progressed, RunEnded

GAMES = 400

STEPS = {"16x2": 60, "32x4": 24, "64x6": 10}
"""Channels and residual blocks, and how many steps are timed in a round."""

WAYS: Mapping[str, dict[str, Any]] = {
    "`hexshards train`, nothing beside": {"val_samples": 1, "diagnose": 0},
    "with validation": {"diagnose": 0},
    "with validation and diagnostics": {},
    "with a moving average (EMA)": {"val_samples": 1, "diagnose": 0, "ema": 0.999},
}
"""Validation and diagnostics look at as many positions as four hundredths of the samples of the run."""

BARE, BARE_FAST, RANKS = "bare loop", "bare loop, channels last", "two ranks (gloo), nothing beside"


class Timed:
    """Hook: processor seconds of a sample, from the end of the first batch to the end of the run."""

    def __call__(self, event: Event, /) -> None:
        """Look at the clock."""
        if isinstance(event, Progressed) and not hasattr(self, "begun_s"):
            self.begun_s, self.first = time.process_time(), event.progress.samples_seen
        if isinstance(event, RunEnded):
            self.seconds = (time.process_time() - self.begun_s) / (event.outcome.samples_seen - self.first)


def spec_of(data: Path, run: Path, network: str, batch_size: int = BATCH, **options: Any) -> TrainSpec:
    """A run of as many steps as are timed, and one before."""
    channels, blocks = map(int, network.split("x"))
    samples = (1 + STEPS.get(network, 10)) * BATCH
    looked_at = {"val_samples": samples // 25, "diagnose": samples // 25, **options}
    sizes = {"channels": channels, "blocks": blocks, "batch_size": batch_size, "threads": 1, "device": "cpu"}
    ends = {"max_samples": samples, "mini_epoch_samples": samples, "epochs": 1000, "cross_epochs": True}
    return TrainSpec(data=data, run=run, **sizes, **ends, **looked_at)


def trained(spec: TrainSpec) -> float:
    """Processor seconds that a sample takes in `hexshards train`."""
    timed = Timed()
    hexshards.train(spec, hooks=[timed])
    return timed.seconds


def two_ranks(data: Path, run: Path, network: str) -> float:
    """The same in two processes that share each batch of 256: the sum of what both take."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    ended = subprocess.run(
        [*command, "--rank-of", str(data), str(run), network], check=True, capture_output=True, text=True
    )
    return float(ended.stdout.split()[-1])


def as_rank(data: Path, run: Path, network: str) -> None:
    """What each of the two processes does; rank 0 prints the sum."""
    with joined() as process_group:
        spec = spec_of(data, run, network, batch_size=BATCH // 2, val_samples=1, diagnose=0)
        total = process_group.sum([trained(spec)])[0]
        if process_group.rank == 0:
            print(total)


def rounds(data: Path, work: Path, network: str, count: int) -> dict[str, list[float]]:
    """Processor seconds of a sample, by way, a number for each round."""
    held = held_batches(data)
    steps = STEPS.get(network, 10)
    taken: dict[str, list[float]] = {}
    for number in range(count):

        def run(name: str, network: str = network, number: int = number) -> Path:
            return work / f"{network}-{number}-{len(name)}"

        ways: dict[str, Callable[[], float]] = {
            BARE: lambda: bare_loop(held, network, steps=steps).processor_s,
            BARE_FAST: lambda: bare_loop(held, network, steps=steps, way=Way(channels_last=True)).processor_s,
        }
        for name, options in WAYS.items():
            spec = spec_of(data, run(name), network, **options)
            ways[name] = lambda spec=spec: trained(spec)  # type: ignore[misc]
        ways[RANKS] = lambda: two_ranks(data, run(RANKS), network)
        for name, way in ways.items():
            taken.setdefault(name, []).append(way())
            print(network, name, f"{1e6 * taken[name][-1]:.1f} us a sample", file=sys.stderr, flush=True)
    return taken


def table(by_network: Mapping[str, Mapping[str, list[float]]]) -> str:
    """Rates against the bare loop, and what a sample takes."""
    networks = list(by_network)
    lines = table_head(networks)
    for name in next(iter(by_network.values())):
        cells = []
        for network in networks:
            taken = by_network[network]
            rate = statistics.median(alone / its for alone, its in zip(taken[BARE], taken[name], strict=True))
            cells.append(f"{rate:.2f} ({1e6 * statistics.median(taken[name]):,.0f} us)")
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write the results file."""
    if sys.argv[1:2] == ["--rank-of"]:
        data, run, network = sys.argv[2:]
        return as_rank(Path(data), Path(run), network)
    parser: argparse.ArgumentParser = arguments_of(__doc__, games=GAMES)
    parser.add_argument("--networks", nargs="+", default=list(STEPS), help="channels x blocks")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = work / "data"
        hexshards.convert(files_of(given, work / "files", games=GAMES), out=data, val_fraction=0.1)
        measured = {network: rounds(data, work, network, given.rounds) for network in given.networks}
    text = (
        f"{machine(f'PyTorch {torch.__version__}')} One thread.\n\nSamples per processor second against those of the "
        f"bare loop, and what a sample takes, medians of {given.rounds} rounds:\n\n{table(measured)}"
    )
    print(text)
    if given.write:
        write_results("The training loop against a bare one", text)


if __name__ == "__main__":
    main()
