"""Anybody can write an index whose fingerprint fits: whoever opens one goes on, or refuses it in a sentence."""

from __future__ import annotations

import copy
import io
import itertools
import json
import math
import resource
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partial

import pytest
from fuzz.datasets import CUT, sealed
from fuzz.harness import check_text, refusal
from helpers.small_data import processed
from typer.main import get_command

import hexshards
from hexshards.cli.app import app
from hexshards.dataset.index import NAME

MEMORY_BYTES = 2 << 30
"""Address space that may come on top."""

SHARD = ("splits", "train", "shards", 0)


# what an index may say ------------------------------------------------------------------------------------------------


def at(entry, path):
    for key in path:
        entry = entry[key]
    return entry


def put(entry, *path, to):
    at(entry, path[:-1])[path[-1]] = to


def larger_block(entry, size):
    """A block of another size, and a shard that agrees."""
    shard = at(entry, SHARD)
    shard["size_bytes"] += size - shard["block_bytes"][0]
    shard["block_bytes"][0] = size


def claimed(entry, *, block_positions, blocks=None):
    """Full blocks of so many positions, in all shards as many as there are or as are given; all counts agree."""
    entry["layout"]["block_positions"] = block_positions
    for split in entry["splits"].values():
        for shard in split["shards"]:
            if blocks:
                shard |= {"block_bytes": [512] * blocks, "block_crc32": [0] * blocks, "size_bytes": 512 * blocks + 1024}
            shard["positions"] = block_positions * len(shard["block_bytes"])
        total = sum(shard["positions"] for shard in split["shards"])
        split["plies"] = [total] + [0] * (len(split["plies"]) - 1)


def escapes(entry, *, part):
    """Names that would move the cursor, and set the title of the window."""
    match part:
        case "sources":
            entry["sources"] = [f"\x1b[2J\x1b]0;x\x07\n{name}" for name in entry["sources"]]
        case "inputs":
            for file in entry["inputs"]:
                file |= {"name": f"\x1b[2J\n{file['name']}", "format": "\x1b[2J", "notes": "\x1b[2J\r"}
        case "options":
            entry["options"] |= {"codec": "\x1b[2J\n", "\x1b[31mkey": "x"}


def dropped(entry, *path):
    del at(entry, path[:-1])[path[-1]]


WRONG = {"10^18": 10**18, "10^30": 10**30, "negative": -512, "a fraction": 512.0, "infinite": math.inf, "null": None}
NAMES = ["../train-000000.tar", "/etc/passwd", "train-000000.tar\0", "http://127.0.0.1:1/x.tar", "train-000000.tar\n"]
NAMES += ["\x1b[2Jtrain-000000.tar", "train-00000\u0660.tar"]
FIELDS = {"size_bytes": (), "block_bytes": (0,), "block_crc32": (0,), "positions": ()}
MISSING = [("layout",), ("splits",), ("inputs",), ("sources",), ("options",), ("version",), ("format",)]
MISSING += [(*SHARD, "sha256"), ("splits", "train", "games"), ("layout", "side")]

HOSTILE = {
    **{
        f"{field} {what}": partial(lambda entry, path, to: put(entry, *path, to=to), path=(*SHARD, field, *rest), to=to)
        for field, rest in FIELDS.items()
        for what, to in WRONG.items()
    },
    **{f"name {name!r}": partial(lambda entry, to: put(entry, *SHARD, "name", to=to), to=name) for name in NAMES},
    **{f"no {path[-1]}": partial(lambda entry, path: dropped(entry, *path), path=path) for path in MISSING},
    **{f"escapes in {part}": partial(escapes, part=part) for part in ("sources", "inputs", "options")},
    "a block of 2^40 bytes": partial(larger_block, size=1 << 40),
    "a block of 2^47 bytes": partial(larger_block, size=1 << 47),
    "no blocks": lambda entry: at(entry, SHARD).update(block_bytes=[], block_crc32=[]),
    "no shards": lambda entry: put(entry, "splits", "train", "shards", to=[]),
    "a shard twice": lambda entry: entry["splits"]["train"]["shards"].insert(0, copy.deepcopy(at(entry, SHARD))),
    "a shard 10,000 times": lambda entry: entry["splits"]["train"]["shards"].extend([at(entry, SHARD)] * 10_000),
    "no sources listed": lambda entry: entry["sources"].clear(),
    "a source too few": lambda entry: entry["sources"].pop(),
    "options of text": lambda entry: entry["options"].update(dict.fromkeys(entry["options"], "\x1b[2J")),
    "options of 10^30": lambda entry: entry["options"].update(dict.fromkeys(entry["options"], 10**30)),
    "options cleared": lambda entry: entry["options"].clear(),
    "plies that do not add up": lambda entry: put(entry, "splits", "train", "plies", 0, to=10**6),
    "nobody won": lambda entry: entry["splits"]["train"].update(blue_wins=0, red_wins=0),
    "2^48 games": lambda entry: put(entry, "splits", "train", "games", to=1 << 48),
    "blocks of 2^19 positions": partial(claimed, block_positions=1 << 19),
    "20,000 blocks a shard": partial(claimed, block_positions=1 << 19, blocks=20_000),
}


# who opens it ---------------------------------------------------------------------------------------------------------


MAIN = get_command(app)
"""Made once: to read all signatures takes longer than most of these commands."""


def command(*arguments):
    """What a command says is fit for a terminal, and it ends as commands do."""
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(said), pytest.raises(SystemExit) as ended:
        MAIN(args=[str(argument) for argument in arguments], prog_name="hexshards")
    check_text(said.getvalue())
    last = said.getvalue().strip().rpartition("\n")[2]
    code = ended.value.code or 0
    assert code in (0, 1, 3) or (code == 2 and last.startswith("error: ")), said.getvalue()
    assert "Traceback" not in said.getvalue()


def call(function):
    try:
        function()
    except Exception as error:
        refusal(error)


def batches(data, **options):
    call(lambda: [None for _ in itertools.islice(hexshards.loader(data, batch_size=16, **options), 30)])


def pipeline(data):
    shards = [str(path) for path in sorted(data.glob("train-*.tar"))]
    call(lambda: [None for _ in itertools.islice(hexshards.pipeline(shards, batch_size=16), 30)])


def train(data):
    small = {"channels": 4, "blocks": 1, "batch_size": 16, "mini_epoch_samples": 32, "max_samples": 32, "threads": 1}
    named = [f"--{name.replace('_', '-')}={value}" for name, value in small.items()]
    command("train", data, "--run", data.parent / "run", "--device=cpu", *named)


ENTRY_POINTS = {
    "verify": partial(command, "verify"),
    "show": partial(command, "show"),
    "info": partial(command, "info"),
    "mixing": lambda data: command("mixing", data, "--batch-size", 16),
    "loader": batches,
    "resident": partial(batches, resident=True),
    "pipeline": pipeline,
    "train": train,
    "append": lambda data: command("convert", data.parent / "more", "--out", data, "--append", "--workers", 1),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    work = tmp_path_factory.mktemp("hostile")
    hexshards.convert(processed(work / "in", games=12, games_per_file=6), out=work / "sound", workers=1, **CUT)
    processed(work / "more", games=1, seed=9)
    return work / "sound"


@pytest.fixture
def little_memory():
    """Address space is all that a claimed size needs for harm; files are as small as they are."""
    if sys.platform != "linux":
        yield
        return
    with open("/proc/self/statm") as held:
        now = int(held.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def spoilt(sound, hostile):
    """The sound dataset with another index; who is added to a dataset may have changed the last one."""
    entry, data = json.loads((sound / NAME).read_bytes()), sound.parent / "data"
    hostile(entry)
    shutil.rmtree(data, ignore_errors=True)
    shutil.rmtree(sound.parent / "run", ignore_errors=True)
    shutil.copytree(sound, data)
    (data / NAME).write_bytes(sealed(entry))
    return data


def test_the_sound_index_is_opened_by_all(sound):
    data = spoilt(sound, lambda entry: None)
    for use in ENTRY_POINTS.values():
        use(data)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_whoever_opens_a_hostile_index_goes_on_or_says_a_sentence(sound, hostile, little_memory):
    data = spoilt(sound, HOSTILE[hostile])
    for use in ENTRY_POINTS.values():
        use(data)
