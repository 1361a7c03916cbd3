"""Learning: the same network, first weights, steps and games, in each order; judged by games that no side has seen.

    python benchmarks/learning.py FOLDER_OF_TRMPH [--train-files 3] [--seeds 3] [--samples cheap=500000 conv=150000]

Each seed has first weights, an order and files of its own; the last files are unseen by all. What each side's own
validation says stands beside the truth. Time is CPU time of this one process: that of a sample's loading, measured by
itself, and of its step; so it does not depend on what else runs here. Each finished run is kept: the same command goes
on where it was stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness.curves import Point, Runs, draw, ends_table, seconds_each, stops_table
from harness.orders import BATCH, VAL_SHARE, WAYS, Rows, Way, held_back, loaded
from harness.recording import RESULTS, machine, write_results
from systems import hex_ai_pickles
from torch import Tensor, nn

import hexshards
from hexshards.training.options import StepSpec

POINTS = 10
"""Times that a run is judged."""
JUDGED = 3_072
"""Positions that it is judged on, evenly taken."""
UNSEEN_FILES = 4
STEPS = StepSpec(learning_rate=1e-3, warmup_samples=20_000)


class Cheap(nn.Module):
    """A network so cheap that data is the limit."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * side * side, 64), nn.ReLU())
        self.policy, self.value = nn.Linear(64, side * side), nn.Linear(64, 1)

    def forward(self, board: Tensor) -> tuple[Tensor, Tensor]:
        """Policy logits and the value's logit."""
        seen = self.body(board)
        return self.policy(seen), self.value(seen)


class Convolutional(nn.Module):
    """A small network of the common kind: a convolution, a residual block, and heads that see the whole board."""

    def __init__(self, side: int, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(self._convolution(3, channels), nn.ReLU())
        self.block = nn.Sequential(
            self._convolution(channels, channels), nn.ReLU(), self._convolution(channels, channels)
        )
        self.policy = nn.Sequential(nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * side**2, side**2))
        self.value = nn.Sequential(
            *(nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(2 * side**2, 64), nn.ReLU(), nn.Linear(64, 1)),
        )

    def forward(self, board: Tensor) -> tuple[Tensor, Tensor]:
        """Policy logits and the value's logit."""
        seen = self.stem(board)
        seen = torch.relu(seen + self.block(seen))
        return self.policy(seen), self.value(seen)

    @staticmethod
    def _convolution(before: int, after: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after))


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"cheap": Cheap, "conv": Convolutional}


def run(way: Way, rows: Rows, unseen: Rows, network: str, *, samples: int, seed: int) -> list[Point]:
    """Train one network in one order."""
    torch.manual_seed(seed)
    trainer = hexshards.Trainer(NETWORKS[network](rows.side), STEPS)
    order, steps, points, spent = way.order(rows, np.random.default_rng(seed)), samples // BATCH, list[Point](), 0.0
    own = rows.evenly(held_back(rows, way), most=JUDGED)
    truth = unseen.evenly(np.arange(len(unseen.game)), most=JUDGED)
    for point in range(1, POINTS + 1):
        part = steps * point // POINTS - steps * (point - 1) // POINTS
        for begin in range(0, part, 64):
            batches = list(islice(order, min(64, part - begin)))
            begun = time.process_time()
            trainer.train_on_batches(batches)
            spent += time.process_time() - begun
        points.append(Point(steps * point // POINTS * BATCH, spent, trainer.validate(own), trainer.validate(truth)))
    return points


def loading_s(rows: Rows, pickles: Path | None) -> dict[str, float]:
    """CPU seconds that a sample takes to load: by hexshards, and as hex_ai does from its processed files."""
    epochs = (hexshards.loader(rows.folder, batch_size=BATCH, seed=seed) for seed in itertools.count())
    batches = itertools.chain.from_iterable(epochs)
    with_hexshards = _seconds_each((len(batch.value) for batch in batches), at_least=400_000)
    if not pickles:
        return {"hexshards": with_hexshards, "pickles": float("nan")}
    samples = hex_ai_pickles.Samples(pickles, 1_000)
    return {"hexshards": with_hexshards, "pickles": _seconds_each((1 for _ in samples), at_least=80_000)}


def _seconds_each(loaded_each: Iterable[int], *, at_least: int) -> float:
    """Over so many, which are several files and epochs: opening them is part of it."""
    count, begun = 0, time.process_time()
    for more in loaded_each:
        count += more
        if count >= at_least:
            break
    return (time.process_time() - begun) / count


@dataclass(frozen=True)
class Kept:
    """Finished parts of a measurement, a file each, whole or not there; those of other settings are not seen."""

    folder: Path
    settings: dict[str, object]

    def had(self, name: str, make: Callable[[], Any]) -> Any:
        """What was kept under a name; else it is made, and kept."""
        path = self.folder / f"{name}.json"
        if path.exists():
            kept = json.loads(path.read_text())
            if kept["settings"] == self.settings:
                return kept["made"]
        made = make()
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"settings": self.settings, "made": made}))
        part.replace(path)
        return made


@dataclass(frozen=True)
class Plan:
    """Which files each seed trains on, how long, and what is kept of it."""

    files: list[Path]
    train_files: int
    samples: dict[str, int]
    kept: Kept

    @classmethod
    def of(cls, given: argparse.Namespace) -> Plan:
        """The plan that a command line states."""
        files = sorted(given.folder.glob("*.trmph"))
        samples = {name: int(number) for name, _, number in (each.partition("=") for each in given.samples)}
        settings = {"files": [file.name for file in files], "train_files": given.train_files, "samples": samples}
        settings |= {"points": POINTS, "judged": JUDGED, "unseen": UNSEEN_FILES}
        given.keep.mkdir(parents=True, exist_ok=True)
        return cls(files, given.train_files, samples, Kept(given.keep, settings))

    @property
    def unseen_files(self) -> list[Path]:
        """The last files."""
        return self.files[-UNSEEN_FILES:]

    def files_of(self, seed: int) -> list[Path]:
        """The files of a seed."""
        seen = self.files[:-UNSEEN_FILES]
        return [seen[(seed * self.train_files + number) % len(seen)] for number in range(self.train_files)]

    def measured(self, seeds: int, work: Path) -> dict[tuple[str, str], list[list[Point]]]:
        """Every network in every order, seed by seed."""
        unseen = loaded(self.unseen_files, work / "unseen", val_fraction=0.0)
        curves: dict[tuple[str, str], list[list[Point]]] = {}
        for seed in range(seeds):
            rows = loaded(self.files_of(seed), work / f"seed{seed}", val_fraction=VAL_SHARE)
            print(f"seed {seed}:", self.kept.had(f"counts-{seed}", partial(counts, rows)), flush=True)
            for network, name in itertools.product(self.samples, WAYS):
                make = partial(*(run, WAYS[name], rows, unseen, network), samples=self.samples[network], seed=seed)
                points = [Point(*point) for point in self.kept.had(f"{network}-{name}-{seed}", make)]
                curves.setdefault((network, name), []).append(points)
                print(network, name, seed, f"{time.process_time():.0f} CPU s", points[-1].truth, flush=True)
        return curves

    def loading(self, work: Path, pickles: Path | None) -> dict[str, float]:
        """What it takes to load a sample."""
        return self.kept.had(
            "loading", lambda: loading_s(loaded(self.files_of(0), work / "loading", val_fraction=0.0), pickles)
        )


def counts(rows: Rows) -> str:
    """Positions and games, and games that hexshards holds back."""
    games, held = len(np.unique(rows.game)), len(np.unique(rows.game[rows.is_val]))
    return f"{len(rows.game):,} positions of {games:,} games, {held:,} of them held back by game"


def report(results: list[Runs], loading: dict[str, float], plan: Plan, seeds: int) -> str:
    """The results file below its title and command."""
    head = machine(f"PyTorch {torch.__version__}", f"hexshards {hexshards.__version__}")
    trained = ", ".join(f"{network} {samples:,} samples" for network, samples in plan.samples.items())
    seen = "; ".join(plan.kept.had(f"counts-{seed}", str) for seed in range(seeds))
    return (
        f"{head} Each seed has its own games: {seen}. Unseen by all: {500 * len(plan.unseen_files):,} games. "
        f"{trained}. Means over {seeds} seeds; behind ±, half the distance of the farthest two.\n\n"
        f"## At the end\n\n{ends_table(results, seconds_each(results, loading), loading)}\n"
        f"## Stopped where its own validation was best\n\nBy its loss, of {POINTS} looks, as `--patience` does: so "
        f"many samples for each seed, and what unseen games say there.\n\n{stops_table(results)}"
    )


def main() -> None:
    """Measure, print, and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pickles", type=Path, help="processed files, to measure what loading them takes")
    parser.add_argument("--train-files", type=int, default=3, help="of each seed")
    parser.add_argument("--samples", nargs="+", default=["cheap=500000", "conv=150000"], metavar="NETWORK=SAMPLES")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, default=Path.home() / ".cache" / "hexshards-learning")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    plan = Plan.of(given)
    with tempfile.TemporaryDirectory() as work:
        curves = plan.measured(given.seeds, Path(work))
        loading = plan.loading(Path(work), given.pickles)
    order = sorted(curves, key=lambda key: (list(plan.samples).index(key[0]), list(WAYS).index(key[1])))
    results = [Runs(network, way, curves[network, way]) for network, way in order]
    text = report(results, loading, plan, given.seeds)
    print(text)
    if given.write:
        write_results("Learning: the same network in several orders", text + "\n![curves](learning.png)\n")
        draw(results, seconds_each(results, loading), RESULTS / "learning.png")


if __name__ == "__main__":
    main()
