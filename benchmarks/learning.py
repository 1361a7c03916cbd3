"""Learning: the same network, first weights, steps and games, in each order; judged by games that no side has seen.

    python benchmarks/learning.py FOLDER_OF_TRMPH [--train-files 2] [--samples 400000] [--seeds 2] [--networks cheap]

The first files are trained on and the next is unseen. What each side's own validation says stands beside the truth. Old
ways split by file, with each game spread over all files, as hex_ai's shuffler leaves them. Time is CPU time of this one
process: that of a sample's loading, measured by itself, and of its step; so it does not depend on what else runs here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from harness.recording import RESULTS, machine, write_results
from numpy.typing import NDArray
from systems import hex_ai_pickles
from torch import Tensor, nn

import hexshards
from hexshards.loading.expansion.expand import Batch, Packed, expand
from hexshards.training.options import StepSpec

BATCH, FILES, VAL_SHARE, POOL_SHARE, PER_GAME = 256, 20, 0.1, 0.5, 8
POINTS = 6
"""Times that a run is judged."""
JUDGED = 2_048
"""Positions that it is judged on, evenly taken."""
Pieces = Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]
"""Rows and their symmetries, without end."""


class Rows(NamedTuple):
    """All positions of the training files, packed, and which split of hexshards each is in."""

    packed: Packed
    game: NDArray[np.int64]
    is_val: NDArray[np.bool_]
    side: int
    folder: Path

    def batch(self, rows: NDArray[np.int64], symmetry: NDArray[np.uint8]) -> Batch:
        """Rows as a network takes them."""
        taken = [column[rows] for column in self.packed[:4]]
        return expand(Packed(*taken, symmetry), side=self.side)


class Way(NamedTuple):
    """An order, and what it holds back to validate on."""

    title: str
    order: Callable[[Rows, np.random.Generator], Iterator[Batch]]
    by_game: bool
    loading: str


def files_of(rows: Rows, seed: int) -> list[NDArray[np.int64]]:
    """Shuffled files: every game is spread over all of them. The last of them are validated on."""
    return np.array_split(np.random.default_rng(seed).permutation(len(rows.game)), FILES)


def trained(rows: Rows) -> list[NDArray[np.int64]]:
    """The files that a split by file trains on."""
    return files_of(rows, 0)[: -round(VAL_SHARE * FILES)]


def held_back(rows: Rows, way: Way) -> NDArray[np.int64]:
    """The positions that a way validates on."""
    return (
        np.flatnonzero(rows.is_val) if way.by_game else np.concatenate(files_of(rows, 0)[-round(VAL_SHARE * FILES) :])
    )


def in_batches(all_rows: Rows, stream: Pieces) -> Iterator[Batch]:
    """A stream of pieces as batches."""
    rows, symmetry = np.empty(0, np.int64), np.empty(0, np.uint8)
    for more, shown in stream:
        rows, symmetry = np.concatenate([rows, more]), np.concatenate([symmetry, shown])
        while len(rows) >= BATCH:
            yield all_rows.batch(rows[:BATCH], symmetry[:BATCH])
            rows, symmetry = rows[BATCH:], symmetry[BATCH:]


def at_random(rows: NDArray[np.int64], draw: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Rows in a random order, each in a random symmetry."""
    return draw.permutation(rows), draw.integers(4, size=len(rows), dtype=np.uint8)


def sequential(rows: Rows, draw: np.random.Generator) -> Iterator[Batch]:
    """Files one after another, as they are stored, each position in its four symmetries one after another."""

    def stream() -> Pieces:
        while True:
            for file in trained(rows):
                yield file.repeat(4), np.tile(np.arange(4, dtype=np.uint8), len(file))

    return in_batches(rows, stream())


def pool(rows: Rows, draw: np.random.Generator) -> Iterator[Batch]:
    """A pool over the files that drops what does not fit: the rest of a file is not seen in this epoch."""

    def stream() -> Pieces:
        while True:
            kept = [file[: int(POOL_SHARE * len(file))] for file in trained(rows)]
            yield at_random(np.concatenate(kept), draw)

    return in_batches(rows, stream())


def in_memory(rows: Rows, draw: np.random.Generator) -> Iterator[Batch]:
    """A file at a time, shuffled in memory."""

    def stream() -> Pieces:
        while True:
            for number in draw.permutation(len(trained(rows))):
                yield at_random(trained(rows)[number], draw)

    return in_batches(rows, stream())


def of_loader(augment: str) -> Callable[[Rows, np.random.Generator], Iterator[Batch]]:
    """What hexshards' loader delivers of the training games, epoch after epoch."""

    def order(rows: Rows, draw: np.random.Generator) -> Iterator[Batch]:
        seed = int(draw.integers(1 << 32))
        loader = hexshards.loader(
            rows.folder, split="train", batch_size=BATCH, augment=augment, seed=seed, drop_last=True
        )
        while True:
            yield from loader

    return order


def few_per_game(rows: Rows, draw: np.random.Generator) -> Iterator[Batch]:
    """At most eight positions of each game in an epoch, others in the next."""

    def stream() -> Pieces:
        train = np.flatnonzero(~rows.is_val)
        while True:
            order = draw.permutation(train)
            grouped = order[np.argsort(rows.game[order], kind="stable")]
            _, starts = np.unique(rows.game[grouped], return_index=True)
            place = np.arange(len(grouped)) - np.repeat(starts, np.diff([*starts, len(grouped)]))
            yield at_random(grouped[place < PER_GAME], draw)

    return in_batches(rows, stream())


WAYS = [
    Way("files in turn, four symmetries in a row", sequential, False, "pickles"),
    Way("pool that drops the rest of a file", pool, False, "pickles"),
    Way("a file at a time, shuffled in memory", in_memory, False, "pickles"),
    Way("**hexshards**, `random`", of_loader("random"), True, "hexshards"),
    Way("**hexshards**, `all`", of_loader("all"), True, "hexshards"),
    Way("at most 8 positions a game, drawn anew", few_per_game, True, "hexshards"),
]


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


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "cheap": Cheap,
    "conv": lambda side: hexshards.TwoHeadedResNet(channels=8, blocks=1),
}


SHARE = {"cheap": 1.0, "conv": 0.25}
"""Of the samples that each is trained on: a convolution takes its time."""


class Point(NamedTuple):
    """Where a run stood after so many samples: CPU seconds of its steps, and what was seen by whom."""

    samples: int
    step_s: float
    own: dict[str, float]
    truth: dict[str, float]


def run(way: Way, rows: Rows, unseen: Rows, network: str, *, samples: int, seed: int) -> list[Point]:
    """Train one network in one order."""
    torch.manual_seed(seed)
    trainer = hexshards.Trainer(NETWORKS[network](rows.side), StepSpec(learning_rate=1e-3, warmup_samples=20_000))
    order, steps, points = way.order(rows, np.random.default_rng(seed)), samples // BATCH, list[Point]()
    own, truth = judged(rows, held_back(rows, way)), judged(unseen, np.arange(len(unseen.game)))
    spent = 0.0
    for point in range(1, POINTS + 1):
        part = steps * point // POINTS - steps * (point - 1) // POINTS
        batches = list(islice(order, part))
        begun = time.process_time()
        trainer.train_on_batches(batches)
        spent += time.process_time() - begun
        points.append(Point(steps * point // POINTS * BATCH, spent, trainer.validate(own), trainer.validate(truth)))
    return points


def judged(rows: Rows, chosen: NDArray[np.int64]) -> list[Batch]:
    """Positions evenly taken, as they are."""
    taken = chosen[:: max(1, len(chosen) // JUDGED)]
    parts = np.array_split(taken, max(1, len(taken) // 1024))
    return [rows.batch(part, np.zeros(len(part), np.uint8)) for part in parts]


def loaded(files: Iterable[Path], out: Path, *, val_fraction: float) -> Rows:
    """The positions of game records, converted, split by game and read back."""
    hexshards.convert([str(file) for file in files], out=out, val_fraction=val_fraction)
    parts, games, is_val = list[Packed](), list[NDArray[np.int64]](), list[NDArray[np.bool_]]()
    index = hexshards.read_index(out)
    for split in index.splits:
        loader = hexshards.loader(out, split=split, shuffle=False, augment="none", columns=("source", "game"))
        for packed in loader.packed():
            parts.append(Packed(*(np.array(column) for column in packed[:5])))
            named = packed.columns
            games.append(named["source"].astype(np.int64) << 32 | named["game"].astype(np.int64))
            is_val.append(np.full(len(games[-1]), split == "val"))
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Rows(Packed(*columns), np.concatenate(games), np.concatenate(is_val), index.side, out)


def loading_s(rows: Rows, folder: Path, pickles: Path | None) -> dict[str, float]:
    """CPU seconds that a sample takes to load: by hexshards, and as hex_ai does from its processed files."""
    loader, begun = hexshards.loader(folder, batch_size=BATCH), time.process_time()
    count = sum(len(batch.value) for batch in islice(loader, 200))
    seconds = {"hexshards": (time.process_time() - begun) / count, "pickles": float("nan")}
    if pickles:
        stream, begun = iter(hex_ai_pickles.Samples(pickles, 1)), time.process_time()
        count = sum(1 for _ in islice(stream, 20_000))
        seconds["pickles"] = (time.process_time() - begun) / count
    return seconds


def table(results: dict[tuple[str, str], list[list[Point]]], loading: dict[str, float]) -> str:
    """The end of each run: means over seeds and, behind ±, half the distance of the farthest two."""
    lines = [
        "| network | order | policy loss | value loss | winner right | its own validation says | us to load a sample "
        "| CPU s in all |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (network, title), runs in results.items():
        ends = [points[-1] for points in runs]
        way = next(each for each in WAYS if each.title == title)
        whole = statistics.mean(end.step_s + end.samples * loading[way.loading] for end in ends)
        numbers = [[end.truth[name] for end in ends] for name in ("policy_loss", "value_loss", "value_accuracy")]
        said = [end.own["value_accuracy"] for end in ends]
        cells = [*(spread(each, digits=3) for each in numbers[:2]), share(numbers[2]), share(said)]
        lines.append(f"| {network} | {title} | {' | '.join(cells)} | {1e6 * loading[way.loading]:.1f} | {whole:.0f} |")
    return "\n".join(lines) + "\n"


def spread(numbers: list[float], *, digits: int) -> str:
    """Mean and half the range."""
    return f"{statistics.mean(numbers):.{digits}f} ± {(max(numbers) - min(numbers)) / 2:.{digits}f}"


def share(numbers: list[float]) -> str:
    """The same in percent."""
    return f"{spread([100 * number for number in numbers], digits=1)} %"


def draw(results: dict[tuple[str, str], list[list[Point]]], path: Path) -> None:
    """Curves over samples: on unseen games, and dotted what each side's own validation says."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    networks = list(dict.fromkeys(network for network, _ in results))
    names = {"policy_loss": "policy loss", "value_loss": "value loss", "value_accuracy": "winner right"}
    figure, axes = pyplot.subplots(len(networks), 3, figsize=(13, 4 * len(networks)), squeeze=False)
    for row, network in zip(axes, networks, strict=True):
        for axis, (name, title) in zip(row, names.items(), strict=True):
            axis.set_title(f"{network}: {title}")
            axis.set_xlabel("samples")
            for number, way in enumerate(WAYS):
                runs = results[network, way.title]
                samples = [point.samples for point in runs[0]]
                for part, style in (("truth", "-"), ("own", ":")):
                    at = [[getattr(point, part)[name] for point in points] for points in runs]
                    means = np.mean(at, axis=0)
                    label = way.title.replace("*", "").replace("`", "") if style == "-" else None
                    axis.plot(samples, means, style, color=f"C{number}", label=label)
    axes[0][0].legend(fontsize=7)
    figure.suptitle("solid: games that nobody has seen; dotted: what the side's own validation says")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    """Measure, print, and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pickles", type=Path, help="processed files, to measure what loading them takes")
    parser.add_argument("--train-files", type=int, default=2)
    parser.add_argument("--samples", type=int, default=400_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--networks", nargs="+", default=["cheap"], choices=[*NETWORKS])
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(given.folder.glob("*.trmph"))
    with tempfile.TemporaryDirectory() as work:
        rows = loaded(files[: given.train_files], Path(work) / "train", val_fraction=VAL_SHARE)
        unseen = loaded(files[given.train_files : given.train_files + 1], Path(work) / "unseen", val_fraction=0.0)
        loading = loading_s(rows, Path(work) / "train", given.pickles)
        results = {}
        for network in given.networks:
            for way in WAYS:
                options = {"samples": round(SHARE[network] * given.samples)}
                results[network, way.title] = [
                    run(way, rows, unseen, network, seed=seed, **options) for seed in range(given.seeds)
                ]
                print(network, way.title, results[network, way.title][-1][-1].truth, flush=True)
    head = machine(f"PyTorch {torch.__version__}", f"hexshards {hexshards.__version__}")
    counts = (
        f"{len(rows.game):,} positions of {len(np.unique(rows.game)):,} games; unseen: {len(unseen.game):,} positions."
    )
    trained_on = f"{given.samples:,} samples (conv: a quarter), {given.seeds} seeds."
    text = f"{head} {counts} {trained_on}\n\n{table(results, loading)}"
    print(text)
    if given.write:
        write_results("Learning: the same network in several orders", text + "\n![curves](learning.png)\n")
        draw(results, RESULTS / "learning.png")


if __name__ == "__main__":
    main()
