"""Value gap: what ``--per-game`` does to a value head that learns games by heart, at equal epochs and equal samples.

    python benchmarks/value_gap.py DATASET [--per-game 8] [--samples 400000] [--seeds 3] [--write]

The same network, first weights and steps; value losses are of the same weights on as many positions of training and of
validation, whose games training never shows. The network is a perceptron, so cheap that it can be measured anywhere,
and large enough to know games by heart.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import NamedTuple

import torch
from harness.recording import machine, write_results
from torch import Tensor, nn

import hexshards
from hexshards.units import parse_count

BATCH, JUDGED, POINTS = 256, 4_096, 8


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


class Judged(NamedTuple):
    """Where a run stood after some samples."""

    samples: int
    epochs: float
    train: float
    val: float


def value_loss(model: nn.Module, loader: hexshards.Loader) -> float:
    """Mean over all positions of a loader."""
    losses = list[Tensor]()
    with torch.no_grad():
        for board, _, value in loader:
            losses.append(nn.functional.binary_cross_entropy_with_logits(model(board)[1], value, reduction="none"))
    return float(torch.cat(losses).mean())


def trained(dataset: Path, *, per_game: int | None, samples: int, seed: int) -> list[Judged]:
    """A run, judged after equal parts of its samples."""
    torch.manual_seed(seed)
    loader = hexshards.loader(dataset, batch_size=BATCH, seed=seed, per_game=per_game, drop_last=True)
    fixed = {"augment": "none", "shuffle": False, "positions": JUDGED}
    seen, unseen = (hexshards.loader(dataset, split=split, **fixed) for split in ("train", "val"))
    model = Perceptron(loader.index.side**2)
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


def main() -> None:
    """Print the table, and write it on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--per-game", type=int, default=8)
    parser.add_argument("--samples", type=parse_count, default=400_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    index = hexshards.read_index(given.dataset)
    lines = [
        "| positions of a game an epoch | samples | epochs | value loss, training | value loss, unseen games | gap |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, most in (("all", None), (f"at most {given.per_game}", given.per_game)):
        runs = [trained(given.dataset, per_game=most, samples=given.samples, seed=seed) for seed in range(given.seeds)]
        lines += [row(name, runs, point) for point in range(POINTS)]
    held = [f"{split.positions:,} positions of {split.games:,} games of {name}" for name, split in index.splits.items()]
    text = "\n".join(
        [f"{machine()} {', '.join(held)}. {given.seeds} seeds, losses and gaps ± their spread.", "", *lines, ""]
    )
    print(text)
    if given.write:
        write_results("Value gap with and without a limit per game", text)


if __name__ == "__main__":
    main()
