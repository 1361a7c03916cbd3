"""Steps: what makes a training step on a CPU faster, each way against PyTorch's own defaults.

    python benchmarks/steps.py [FOLDER_OF_PROCESSED_FILES] [--networks 16x2 32x4 64x6] [--compile 16x2] [--write]

A bare loop takes steps of batch 256 with AdamW, on batches that are already there; every way begins with the same
weights. Ways take turns in each round, and a figure is the median of the rates, by the clock, within a round. What
``torch.compile`` makes takes minutes before its first step, so it is tried only on the networks that ``--compile``
names.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from harness.bare_loop import Taken, Way, bare_loop, held_batches, table_head
from harness.recording import arguments_of, files_of, machine, write_results

import hexshards

GAMES = 400

STEPS = {"16x2": 40, "32x4": 14, "64x6": 6}
"""Channels and residual blocks, and how many steps are timed in a round."""

PLAIN = "as PyTorch does it, one thread"

WAYS: Mapping[str, Way] = {
    PLAIN: Way(),
    "fused AdamW": Way(fused=True),
    "channels last": Way(channels_last=True),
    "channels last, fused AdamW": Way(channels_last=True, fused=True),
    "bfloat16": Way(bfloat16=True),
    "bfloat16, channels last": Way(bfloat16=True, channels_last=True),
    "two threads": Way(threads=2),
    "two threads, channels last": Way(threads=2, channels_last=True),
}

COMPILED: Mapping[str, Way] = {
    "torch.compile": Way(compiled=True),
    "torch.compile, channels last": Way(compiled=True, channels_last=True),
}


def rounds(data: Path, network: str, count: int, ways: Mapping[str, Way]) -> dict[str, list[Taken]]:
    """What a sample takes, by way, a number for each round."""
    batches, taken = held_batches(data), dict[str, list[Taken]]()
    steps = STEPS.get(network, 10)
    for number in range(count):
        for name in list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]:
            taken.setdefault(name, []).append(bare_loop(batches, network, steps=steps, way=ways[name]))
            print(network, name, f"{1e6 * taken[name][-1].clock_s:.1f} us a sample", file=sys.stderr, flush=True)
    return taken


def table(by_network: Mapping[str, Mapping[str, list[Taken]]]) -> str:
    """Rates against PyTorch's defaults, what a sample takes, and the loss of the last half of the steps."""
    networks = list(by_network)
    lines = table_head(networks)
    for name in [*WAYS, *COMPILED]:
        if not any(name in taken for taken in by_network.values()):
            continue
        cells = []
        for network in networks:
            taken = by_network[network]
            if name not in taken:
                cells.append("-")
                continue
            rate = statistics.median(
                plain.clock_s / its.clock_s for plain, its in zip(taken[PLAIN], taken[name], strict=True)
            )
            each = statistics.median(its.clock_s for its in taken[name])
            cells.append(f"{rate:.2f} ({1e6 * each:,.0f} us, {taken[name][0].loss:.3f})")
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write the results file."""
    parser: argparse.ArgumentParser = arguments_of(__doc__, games=GAMES)
    parser.add_argument("--networks", nargs="+", default=list(STEPS), help="channels x blocks")
    parser.add_argument("--compile", nargs="*", default=[], help="those to try torch.compile on too")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    ways = {name: way for name, way in WAYS.items() if way.threads <= (os.cpu_count() or 1)}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        hexshards.convert(files_of(given, Path(folder, "files"), games=GAMES), out=data, val_fraction=0.1)
        measured = {
            network: rounds(data, network, given.rounds, {**ways, **(COMPILED if network in given.compile else {})})
            for network in given.networks
        }
    amx = "with" if "amx_bf16" in _flags() else "without"
    text = (
        f"{machine(f'PyTorch {torch.__version__}')} A CPU {amx} AMX.\n\nSamples per second against those of the first "
        "line; in brackets what a sample takes, and the mean loss of the last half of the steps, which all begin with "
        f"the same weights; medians of {given.rounds} rounds:\n\n{table(measured)}"
    )
    print(text)
    if given.write:
        write_results("Ways to take a step on a CPU", text)


def _flags() -> set[str]:
    """What Linux says that the CPU can do."""
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()


if __name__ == "__main__":
    main()
