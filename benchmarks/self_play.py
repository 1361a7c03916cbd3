"""A long loop of self-play, as real processes: what it keeps on disk, what a step costs, and that nothing is lost.

    python benchmarks/self_play.py [FOLDER] [--generations 32] [--compact-every 8] [--write]

Each generation is player, watch, train and now and then compact. After each a slow twin, which reads games as text
and shards with tarfile and NumPy alone, is compared with the dataset, its splits and the newest positions that a loader
draws.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from harness.recording import machine, write_results

import hexshards
from hexshards.units import show_bytes

PLAYER = Path(__file__).parents[1] / "examples" / "self_play" / "player.py"
SIDE, WINDOW, SAMPLES = 5, 2000, 640
WATCH = "--every 0.1s --once --workers 1 --val-fraction 0.1 --block-positions 64 --shard-positions 4096"
TRAIN = (
    "--grow mini-epoch --mini-epoch-samples 320 --epochs 100000 --batch-size 32 --channels 4 --blocks 1 --keep-last 3 "
    f"--window {WINDOW} --policy-target search --val-samples 64 --diagnose 0 --threads 1 --device cpu --augment none"
)
WHAT = (
    f"Side {SIDE}, a window of {WINDOW:,} positions, {SAMPLES} samples a generation. Seconds are processor time, the "
    "start of a program in them. After each generation all positions, splits, the window and a loader's resume were as "
    "the slow twin has them, and in every eighth a run that was stopped in its middle had the bits of one that was not."
)

Row = tuple[str, bytes]


def step(*command: object) -> float:
    """Run a program to its end; its processor time in seconds."""
    before = os.times()
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *map(str, command)], check=True, env=env, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


# the slow twin ------------------------------------------------------------------------------------------------------


def boards_of(path: Path) -> Iterable[Row]:
    """Every position of the games of a file, played by hand."""
    for line in path.read_text().splitlines():
        if line.startswith(f"#{SIDE},"):
            planes = np.zeros((2, SIDE, SIDE), dtype=np.uint8)
            yield path.stem, planes.tobytes()
            moves = line.partition(",")[2].split()[0]
            for ply, cell in enumerate(zip(moves[::2], moves[1::2], strict=True)):
                planes[ply % 2, int(cell[1]) - 1, ord(cell[0]) - ord("a")] = 1
                yield path.stem, planes.tobytes()


def columns_of(path: Path) -> dict[str, Any]:
    """The columns of a shard."""
    parts: dict[str, list[Any]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            data = tar.extractfile(member).read()  # type: ignore[union-attr]
            if member.name.endswith(".zst"):
                data = zstandard.ZstdDecompressor().decompress(data)
            parts.setdefault(member.name.split(".")[1], []).append(np.load(io.BytesIO(data)))
    return {name: np.concatenate(each) for name, each in parts.items()}


def rows_of(data: Path, split: str) -> tuple[list[Row], set[tuple[int, int]]]:
    """The positions of a split in the order of its shards, by the file that each is from; and its games."""
    index = hexshards.read_index(data)
    rows, games = list[Row](), set[tuple[int, int]]()
    for shard in index.splits[split].shards if split in index.splits else ():
        columns = columns_of(data / shard.name)
        bits = np.unpackbits(columns["stones"], axis=1, bitorder="big")[:, : 2 * SIDE * SIDE]
        names = [Path(index.sources[source]).stem for source in columns["source"]]
        rows += [(name, each.tobytes()) for name, each in zip(names, bits, strict=True)]
        games |= set(zip(columns["source"].tolist(), columns["game"].tolist(), strict=True))
    return rows, games


def drawn(batches: Iterable[Any]) -> list[bytes]:
    """The boards of batches, in their order."""
    return [board[:2].astype(np.uint8).tobytes() for batch in batches for board in batch[0].numpy()]


# the checks ---------------------------------------------------------------------------------------------------------


def check(inbox: Path, data: Path, splits: dict[tuple[int, int], str]) -> None:
    """Compare games, splits, the newest window and its resume with the twin."""
    played = Counter(row for path in inbox.glob("*.trmph") for row in boards_of(path))
    held = {split: rows_of(data, split) for split in ("train", "val")}
    assert Counter(held["train"][0]) + Counter(held["val"][0]) == played, "a position is lost, or there twice"
    for split, (_, games) in held.items():
        assert all(splits.setdefault(game, split) == split for game in games), "a game changed its split"
    # names of files are in the order of time; which positions of the oldest file are in the window is not told
    newest = Counter(name for name, _ in sorted(held["train"][0], key=lambda row: row[0])[-WINDOW:])
    oldest = min(newest)
    inside = Counter(board for name, board in held["train"][0] if name > oldest)
    edge = Counter(board for name, board in held["train"][0] if name == oldest)
    options: dict[str, Any] = {"batch_size": 128, "augment": "none", "window": str(WINDOW), "seed": len(played)}
    loader = hexshards.loader(data, **options)
    batches, states = [], []
    for batch in loader:
        batches.append(batch)
        states.append(loader.state_dict())
    left = Counter(drawn(batches))
    assert not inside - left, "a position of the window is missing"
    left -= inside
    assert not left - edge and left.total() == newest[oldest], "a position is in the window that is too old"
    for done in {1, len(batches) // 2, len(batches) - 1} & set(range(1, len(batches))):
        again = hexshards.loader(data, **options)
        again.load_state_dict(states[done - 1])
        assert drawn(again) == drawn(batches[done:]), "resume diverged"


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Those of the newest checkpoint."""
    return hexshards.load_network(run).model.state_dict()


def train(data: Path, run: Path, samples: int) -> float:
    """Train on to so many samples of the whole run."""
    return step("-m", "hexshards", "train", data, "--run", run, *TRAIN.split(), "--max-samples", samples)


def resumes(data: Path, run: Path, samples: int) -> None:
    """Train on in two copies of the run, one of which is stopped in the middle: the same bits."""
    copies = [shutil.copytree(run, run.with_name(f"run-{name}")) for name in ("whole", "stopped")]
    train(data, copies[0], samples)
    train(data, copies[1], samples - SAMPLES // 2 + 32)
    train(data, copies[1], samples)
    one, other = map(weights, copies)
    assert all(torch.equal(one[name], other[name]) for name in one), "a run that was stopped has other weights"
    for copy in copies:
        shutil.rmtree(copy)


def disk(folder: Path) -> tuple[str, str]:
    """How many files lie there, and their size."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return f"{len(files):,}", show_bytes(sum(path.stat().st_size for path in files))


def main() -> None:
    """Play, watch, train, compact, check; print a table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a new folder, which stays; default: one that does not")
    parser.add_argument("--generations", type=int, default=32)
    parser.add_argument("--games", type=int, default=20, help="of a generation")
    parser.add_argument("--compact-every", type=int, default=8, help="generations; 0: never")
    parser.add_argument("--write", action="store_true", help="write the results file too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        text = f"{machine(f'torch {torch.__version__}')} {WHAT}\n\n{table(given.folder or Path(work), given)}\n"
    if given.write:
        write_results("A loop of self-play", text)


def table(folder: Path, given: argparse.Namespace) -> str:
    """What each generation leaves on the disk, and takes; printed as it comes."""
    inbox, data, run = (folder / name for name in ("inbox", "growing", "run"))
    inbox.mkdir(parents=True)
    splits: dict[tuple[int, int], str] = {}
    lines = [
        "| generation | positions | files of the dataset | size | files of the run | size | watch, s | train, s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    print(*lines, sep="\n")
    for number in range(1, given.generations + 1):
        step(PLAYER, inbox, run, "--side", SIDE, "--games", given.games, "--files", 1)
        watched = step("-m", "hexshards", "watch", inbox, "--dataset", data, *WATCH.split())
        if number % 8 == 4:
            resumes(data, run, number * SAMPLES)
        trained = train(data, run, number * SAMPLES)
        merged = given.compact_every and number % given.compact_every == 0
        if merged:
            step("-m", "hexshards", "compact", data)
        check(inbox, data, splits)
        positions = sum(split.positions for split in hexshards.read_index(data).splits.values())
        name, sizes = f"{number}{', compacted' if merged else ''}", [*disk(data), *disk(run)]
        lines.append(f"| {' | '.join([name, f'{positions:,}', *sizes, f'{watched:.2f}', f'{trained:.2f}'])} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
