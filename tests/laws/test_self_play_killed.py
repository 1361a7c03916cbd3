"""The loop of self-play in examples/: each of its parts is killed once, started again, and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.processes import wait_for
from helpers.small_data import columns_of_shard, planes_of

from hexshards.dataset.index import read_index
from hexshards.dataset.verify import verify

TESTS = Path(__file__).parents[1]
PLAYER = TESTS.parent / "examples" / "self_play" / "player.py"
SIDE, GAMES, SAMPLES = 4, 4, 320
WAIT_S = 240.0
"""A process takes seconds to begin, and on a machine with other work many."""


class Loop:
    """The folders of a loop, and its parts as people start them."""

    def __init__(self, folder, started):
        self.inbox, self.data, self.run, self._started = folder / "inbox", folder / "growing", folder / "run", started
        self.inbox.mkdir()
        self.programs = {
            "player": [PLAYER, self.inbox, self.run, "--side", SIDE, "--games", GAMES],
            "watch": [
                *("hexshards", "watch", self.inbox, "--dataset", self.data, "--every", "0.1s", "--workers", 1),
                *("--val-fraction", 0.2, "--block-positions", 64, "--shard-positions", 256),
            ],
            "compact": ["hexshards", "compact", self.data],
            "train": [
                *("hexshards", "train", self.data, "--run", self.run, "--grow", "mini-epoch", "--keep-last", 3),
                *("--mini-epoch-batches", 2, "--batch-size", 16, "--epochs", 1000, "--max-samples", SAMPLES),
                *("--channels", 2, "--blocks", 1, "--val-samples", 16, "--diagnose", 0),
                *("--threads", 1, "--device", "cpu"),
            ],
        }

    def start(self, part, *more, killed_at=("(?!)", 1)):
        """Start a part of the loop, which is killed at the so-manieth file of a name."""
        program = ["-m", "helpers.killed", *killed_at, *self.programs[part], *more]
        paths = {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, *map(str, program)], env={**os.environ, **paths})
        self._started.callback(process.wait)
        self._started.callback(process.kill)
        return process

    def ended(self, process):
        return process.wait(WAIT_S)

    def index(self):
        return read_index(self.data) if (self.data / "index.json").exists() else None

    def files(self):
        return sorted(self.inbox.glob("*.trmph"))

    def taken(self):
        """Whether the dataset holds all files of the inbox."""
        return (index := self.index()) and len(index.inputs) == len(self.files())

    def records(self):
        return (self.run / "metrics.jsonl").read_text().splitlines()

    def newest(self):
        """The newest checkpoint, by its name."""
        return max(path.stem for path in (self.run / "checkpoints").glob("*.pt"))


@pytest.fixture
def loop(tmp_path):
    with ExitStack() as started:
        yield Loop(tmp_path, started)


def played(files):
    """The boards of every game of some files, played by hand."""
    boards = Counter()
    for path in files:
        for line in path.read_text().splitlines():
            if not line.startswith(f"#{SIDE},"):
                continue
            planes = np.zeros((2, SIDE, SIDE), dtype=np.float32)
            boards[path.stem, planes.tobytes()] += 1
            moves = line.partition(",")[2].split()[0]
            for ply, cell in enumerate(zip(moves[::2], moves[1::2], strict=True)):
                planes[ply % 2, int(cell[1]) - 1, ord(cell[0]) - ord("a")] = 1
                boards[path.stem, planes.tobytes()] += 1
    return boards


def held(data):
    """The boards of a dataset by the file they came from, by a slow reader."""
    index, boards = read_index(data), Counter()
    for split in index.splits.values():
        for shard in split.shards:
            columns = columns_of_shard(data, shard.name)
            for source, stones in zip(columns["source"].tolist(), columns["stones"], strict=True):
                boards[Path(index.sources[source]).stem, planes_of(stones, SIDE).tobytes()] += 1
    return boards


def model_of(path):
    return path.read_text().split("\n", 2)[1].removeprefix("# model: ")


def test_each_part_of_the_loop_is_killed_and_goes_on(loop):
    watch = loop.start("watch", killed_at=("growing/index.json$", 2))
    player = loop.start("player", killed_at=("games-000003.trmph$", 1))
    assert loop.ended(player) == -signal.SIGKILL
    assert [path.stem for path in loop.files()] == ["games-000001", "games-000002"]
    wait_for(loop.index, wait_s=WAIT_S)

    train = loop.start("train", killed_at=(r"checkpoints/checkpoint_\w+.pt$", 3))
    assert loop.ended(train) == -signal.SIGKILL
    before, newest = loop.records(), loop.newest()
    assert len(before) == 2

    # games that one was at are played again, by the newest network
    assert loop.ended(loop.start("player", "--files", 2)) == 0
    assert [model_of(path) for path in loop.files()] == ["random", "random", newest, newest]

    assert loop.ended(watch) == -signal.SIGKILL
    assert not loop.taken()
    watch = loop.start("watch")
    wait_for(loop.taken, wait_s=WAIT_S)

    shards = len(loop.index().splits["train"].shards)
    assert loop.ended(loop.start("compact", killed_at=("growing/index.json$", 1))) == -signal.SIGKILL
    assert len(loop.index().splits["train"].shards) == shards > 1
    assert loop.ended(loop.start("compact")) == 0
    assert len(loop.index().splits["train"].shards) == 1

    assert loop.ended(loop.start("train")) == 0
    assert loop.records()[:2] == before
    records = [json.loads(line) for line in loop.records()]
    assert records[-1]["samples_seen"] >= SAMPLES
    assert all(one["samples_seen"] < other["samples_seen"] for one, other in pairwise(records))
    assert records[0]["dataset"] != records[-1]["dataset"] == loop.index().fingerprint
    assert (loop.run / "log.txt").read_text().count("the dataset has grown") == 1

    watch.terminate()
    assert loop.ended(watch) == 130
    assert held(loop.data) == played(loop.files())
    assert verify(loop.data).problems == ()
    assert not list(loop.inbox.parent.rglob("*partial*"))
    assert {path.name for path in loop.inbox.iterdir()} == {path.name for path in loop.files()}
