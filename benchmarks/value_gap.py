"""Value gap: what ``--per-game`` does to a value head that learns games by heart, at equal epochs and equal samples.

    python benchmarks/value_gap.py DATASET [--samples perceptron=320k residual=240k] [--seeds 3] [--processes 2]

The same network, first weights and steps; value losses are of the same weights on as many positions of training and of
validation, whose games training never shows. The perceptron is so cheap that it can be measured anywhere, and large
enough to know games by heart; the residual network is hexshards' own, small. No time is measured, so other work on the
machine changes nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from harness.recording import machine, write_results
from torch import Tensor, nn

import hexshards
from hexshards.training.steps.model import TwoHeadedResNet
from hexshards.units import parse_count

BATCH, JUDGED, POINTS = 256, 4_096, 8
SAMPLES = ("perceptron=320k", "residual=240k")


class Perceptron(nn.Module):
    """Two layers over all planes."""

    def __init__(self, cells: int, width: int = 256) -> None:
        super().__init__()
        first, second = nn.Linear(3 * cells, width), nn.Linear(width, width)
        self.trunk = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU())
        self.policy, self.value = nn.Linear(width, cells), nn.Linear(width, 1)

    def forward(self, board: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the policy and of RED's win."""
        known = self.trunk(board)
        return self.policy(known), self.value(known)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "perceptron": lambda side: Perceptron(side**2),
    "residual": lambda side: TwoHeadedResNet(channels=24, blocks=3),
}


class Run(NamedTuple):
    """What is trained, and by how much."""

    network: str
    samples: int
    per_game: int | None
    seed: int


class Judged(NamedTuple):
    """Where a run stood after some samples."""

    samples: int
    epochs: float
    train: float
    val: float


def value_loss(model: nn.Module, loader: hexshards.Loader) -> float:
    """Mean over all positions of a loader."""
    losses = list[Tensor]()
    model.eval()
    with torch.no_grad():
        for board, _, value in loader:
            losses.append(nn.functional.binary_cross_entropy_with_logits(model(board)[1], value, reduction="none"))
    model.train()
    return float(torch.cat(losses).mean())


def trained(dataset: Path, run: Run) -> list[Judged]:
    """A run, judged after equal parts of its samples."""
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    samples = run.samples
    loader = hexshards.loader(dataset, batch_size=BATCH, seed=run.seed, per_game=run.per_game, drop_last=True)
    fixed = {"augment": "none", "shuffle": False, "positions": JUDGED}
    seen, unseen = (hexshards.loader(dataset, split=split, **fixed) for split in ("train", "val"))
    model = NETWORKS[run.network](loader.index.side)
    optimizer, judged, done = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4), list[Judged](), 0
    while done < samples:
        for board, policy, value in loader:
            logits, wins = model(board)
            move = -(policy * nn.functional.log_softmax(logits, dim=1)).sum(dim=1).mean()
            loss = 0.15 * move + 0.85 * nn.functional.binary_cross_entropy_with_logits(wins, value)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += len(value)
            if done * POINTS // samples > len(judged):
                losses = value_loss(model, seen), value_loss(model, unseen)
                judged.append(Judged(done, done / loader.samples, *losses))
            if done >= samples:
                break
    return judged


def row(name: str, runs: list[list[Judged]], point: int) -> str:
    """A line of the table: means over seeds, and how far these are apart."""
    at = [run[point] for run in runs]
    figures = [[one.train for one in at], [one.val for one in at], [one.val - one.train for one in at]]
    shown = [f"{statistics.mean(each):.3f} ± {statistics.pstdev(each):.3f}" for each in figures]
    return f"| {name} | {at[0].samples:,} | {at[0].epochs:.1f} | {' | '.join(shown)} |"


def table(runs: dict[Run, list[Judged]]) -> list[str]:
    """A line for each number of positions of a game and each point, of one network."""
    lines = [
        "| positions of a game an epoch | samples | epochs | value loss, training | value loss, unseen games | gap |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for most in dict.fromkeys(run.per_game for run in runs):
        these = [judged for run, judged in runs.items() if run.per_game == most]
        lines += [row(f"at most {most}" if most else "all", these, point) for point in range(POINTS)]
    return lines


def main() -> None:
    """Print the tables, and write them on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--per-game", type=int, default=8)
    parser.add_argument("--samples", nargs="+", default=SAMPLES, help=f"of each network: {' '.join(SAMPLES)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    runs = [
        Run(network, parse_count(samples), most, seed)
        for network, _, samples in (each.partition("=") for each in given.samples)
        for most in (None, given.per_game)
        for seed in range(given.seeds)
    ]
    judged = dict[Run, list[Judged]]()
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        for run, points in zip(runs, pool.imap(partial(trained, given.dataset), runs), strict=True):
            judged[run] = points
            print(run, points[-1], flush=True)
    splits = hexshards.read_index(given.dataset).splits
    held = [f"{split.positions:,} positions of {split.games:,} games of {name}" for name, split in splits.items()]
    text = f"{machine()} {', '.join(held)}. {given.seeds} seeds, losses and gaps ± their spread.\n"
    for network in dict.fromkeys(run.network for run in runs):
        lines = table({run: points for run, points in judged.items() if run.network == network})
        text += "\n".join(["", f"## The {network} network", "", *lines, ""])
    print(text)
    if given.write:
        write_results("Value gap with and without a limit per game", text)


if __name__ == "__main__":
    main()
