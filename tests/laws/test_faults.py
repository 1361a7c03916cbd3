from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from helpers import warm
from helpers.loading import all_rows, open_loader, stream
from helpers.processes import SHARED_MEMORY, left_in_shared_memory, processes, wait_for
from helpers.small_data import dataset, images, rows_of, samples_of
from helpers.small_server import serving

import hexshards
from hexshards.errors import DataError
from hexshards.storage.cache import Cache

BLOCK = 16
"""Positions in a block of the dataset below."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def copy(data, tmp_path):
    return shutil.copytree(data, tmp_path / "copy")


def flip(folder, name, block):
    """Turn one bit of a block over."""
    (shard,) = [shard for shard in hexshards.read_index(folder).splits["train"].shards if shard.name == name]
    data = bytearray((folder / name).read_bytes())
    data[sum(shard.block_bytes[:block]) + 700] ^= 1
    (folder / name).write_bytes(data)


def cut(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-4000])


# damage that is skipped ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipping_replaces_the_rows_of_a_damaged_block_and_nothing_else(data, copy, num_workers, caplog):
    flip(copy, "train-000003.tar", 4)
    whole = open_loader(data, augment="none", num_workers=0)
    loader = open_loader(copy, augment="none", num_workers=num_workers, on_error="skip")
    lost = [images(*sample)[0] for sample in samples_of(data, "train")][(3 * 6 + 4) * BLOCK :][:BLOCK]
    expected = [row for batch in whole for row in rows_of(batch)]
    with caplog.at_level(logging.WARNING):
        given = [row for batch in loader for row in rows_of(batch)]
    changed = [place for place, (row, other) in enumerate(zip(expected, given, strict=True)) if row != other]
    assert Counter(expected[place] for place in changed) == Counter(lost)
    # what stands in for them is of the same window: positions that the epoch holds anyway
    assert {given[place] for place in changed} <= set(expected) - set(lost)
    assert (loader.skipped.blocks, loader.skipped.positions) == (1, BLOCK)
    assert "skipped a damaged block" in caplog.text
    assert "train-000003.tar, block 000004: checksum is" in caplog.text
    for _ in loader:  # the next epoch meets it again
        pass
    assert (loader.skipped.blocks, caplog.text.count("skipped a damaged block")) == (2, 1)


def test_a_sound_dataset_gives_the_same_with_skipping(data):
    loader = open_loader(data, on_error="skip")
    assert stream(loader) == stream(open_loader(data))
    assert (loader.skipped.blocks, loader.skipped.positions) == (0, 0)


def test_a_missing_and_a_cut_shard_are_skipped_block_by_block(copy):
    (copy / "train-000005.tar").unlink()
    cut(copy, "train-000000.tar")
    loader = open_loader(copy, on_error="skip", window_blocks=16, group_shards=8)
    whole = open_loader(copy, window_blocks=16, group_shards=8)
    assert sum(len(batch.value) for batch in loader) == whole.positions
    assert loader.skipped.blocks == 6 + 1
    assert loader.skipped.positions == 7 * BLOCK


def test_ranks_stay_in_step_when_only_one_of_them_meets_damage(data, copy):
    flip(copy, "train-000003.tar", 4)
    sound = open_loader(data, batch_size=16, rank=0, world_size=2)
    hurt = open_loader(copy, batch_size=16, rank=1, world_size=2, on_error="skip")
    sizes = [(len(one.value), len(other.value)) for one, other in zip(sound, hurt, strict=True)]
    assert len(sizes) == len(sound) == len(hurt)
    assert sum(map(sum, sizes)) == sound.positions
    assert sound.state_dict() == hurt.state_dict()


def test_a_run_that_skips_resumes_exactly(copy):
    flip(copy, "train-000003.tar", 4)
    loader, states, whole = open_loader(copy, on_error="skip"), [], []
    for batch in loader:
        states.append(loader.state_dict())
        whole.append(rows_of(batch))
    for at in (0, 12, 33):
        resumed = open_loader(copy, on_error="skip")
        resumed.load_state_dict(states[at])
        assert [rows_of(batch) for batch in resumed] == whole[at + 1 :]


def test_a_window_without_a_sound_block_is_an_error_with_skipping_too(copy):
    (copy / "train-000003.tar").unlink()
    with pytest.raises(DataError, match=r"train-000003\.tar: the shard is missing.* `hexshards convert`"):
        all_rows(open_loader(copy, on_error="skip", group_shards=1))


def test_several_damaged_blocks_of_a_window_are_replaced_by_different_rows(copy):
    for block in range(3):
        flip(copy, "train-000003.tar", block)
    loader = open_loader(copy, on_error="skip", shuffle=False, augment="none", window_blocks=6, batch_size=6 * BLOCK)
    (window,) = [rows_of(batch) for number, batch in enumerate(loader) if number == 3]
    # three blocks of sound rows stand in for three of damaged ones, each row once
    assert window[: 3 * BLOCK] == window[3 * BLOCK :]
    assert np.unique(window).size > 2 * BLOCK


def test_what_is_neither_raise_nor_skip_is_refused(data):
    with pytest.raises(ValueError, match="on_error must be one of"):
        open_loader(data, on_error="ignore")


# processes that die -------------------------------------------------------------------------------------------------

READ = """
import sys, time
import hexshards

if __name__ == "__main__":
    loader = hexshards.loader(sys.argv[1], batch_size=8, num_workers=2)
    while True:
        for batch in loader:
            print("batch", flush=True)
            time.sleep(0.2)
"""

posix = pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="processes and shared memory are looked for on Linux")


@contextmanager
def reader(*command):
    """A program that reads with two workers, in a process group of its own, which is empty afterwards."""
    before = left_in_shared_memory()
    process = warm.Program([sys.executable, *command], pipe=True)
    try:
        yield process
        # a worker looks for its parent twice a second; nobody needs half a minute
        wait_for(lambda: group_of(process) == [], wait_s=30)
        wait_for(lambda: not left_in_shared_memory() - before, wait_s=30)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.close()


def group_of(process):
    return [pid for pid, _, group, _ in processes() if group == process.pid]


def children_of(process):
    """The workers, once both are there."""
    return wait_for(
        lambda: children if len(children := [p for p in group_of(process) if p != process.pid]) == 2 else None
    )


@posix
@pytest.mark.parametrize("died_of", [signal.SIGKILL, signal.SIGSEGV], ids=lambda number: number.name)
def test_a_worker_that_dies_ends_the_program_and_is_named(data, died_of):
    with reader("-c", READ, data) as process:
        assert process.stdout.readline() == "batch\n"
        worker = children_of(process)[0]
        os.kill(worker, died_of)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"pid {worker})" in told
    assert re.search(f"Killed|Segmentation fault|{died_of.name}", told), told


def kill_workers_of(process):
    """Kill a worker until the program ends: an epoch is short, and its workers may be leaving when one is killed."""
    children_of(process)
    while process.poll() is None:
        for worker in [each for each in group_of(process) if each != process.pid][:1]:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
            yield worker
        time.sleep(0.2)


@posix
def test_the_command_line_tells_of_a_dead_worker_in_a_line(data, tmp_path):
    command = ["-m", "hexshards", "train", data, "--run", tmp_path / "run", "--num-workers", "2", "--epochs", "1000"]
    with reader(*command, "--batch-size", "8", "--channels", "4", "--blocks", "1") as process:
        # while torch imports parts of itself, in its first steps, it swallows what is raised and warns instead
        assert process.stdout.readline()
        killed = set(kill_workers_of(process))
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = after_start(told)
    named = re.match(r"error: a worker process of the loader \(pid (\d+)\) died: ", line)
    assert named and int(named[1]) in killed
    assert re.search("Killed|SIGKILL", line)


@posix
def test_after_kill_9_of_the_program_nothing_is_left(data):
    with reader("-c", READ, data) as process:
        assert process.stdout.readline() == "batch\n"
        assert len(children_of(process)) == 2
        process.kill()


@posix
def test_ctrl_c_ends_a_loop_and_its_workers_say_nothing(data):
    with reader("-c", READ, data) as process:
        assert process.stdout.readline() == "batch\n"
        assert len(children_of(process)) == 2
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert told.count("Traceback") == 1
    assert told.rstrip().endswith("KeyboardInterrupt")


ORPHANED = """
import multiprocessing, os, time
from hexshards.loading.workers import start_worker

def work(parent):
    while os.getppid() == parent:
        time.sleep(0.01)
    start_worker(0)
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.get_context("fork").Process(target=work, args=(os.getpid(),)).start()
    os._exit(0)
"""


@posix
def test_a_worker_whose_parent_died_before_it_began_ends_too():
    with reader("-c", ORPHANED):
        pass


@posix
def test_workers_that_wait_for_a_server_end_with_the_program_too(data, tmp_path):
    pytest.importorskip("aiohttp", reason="without aiohttp THE END OF WORKERS THAT DOWNLOAD IS NOT CHECKED")
    shutil.copytree(data, tmp_path / "served" / "data")
    with serving(tmp_path / "served") as server:
        for path in (tmp_path / "served" / "data").glob("*.tar"):
            server.fail(path.name, "stall", ...)
        script = READ.replace("num_workers=2", f"num_workers=2, cache={str(tmp_path / 'cache')!r}")
        with reader("-c", script, f"{server.url}/data") as process:
            children_of(process)
            wait_for(lambda: len(server.asked) > 1)
            process.kill()
        # the locks of its downloads are gone with it
        cache = Cache(tmp_path / "cache", limit_bytes=1 << 30)
        for part in list((tmp_path / "cache").glob("*.part")):
            with cache.writing(part.stem) as own:
                assert own is not None


def long_run(data, run):
    small = ["--batch-size", "8", "--channels", "4", "--blocks", "1", "--mini-epoch-batches", "20"]
    return ["-m", "hexshards", "train", data, "--run", run, "--num-workers", "2", "--epochs", "100000", *small]


def after_start(told):
    """What is told after the lines on what is about to be trained, the last of which counts epochs."""
    lines = told.splitlines()
    return lines[next(n for n, line in enumerate(lines, start=1) if re.search(r"\d epochs? of ", line)) :]


@posix
def test_ctrl_c_twice_leaves_at_once_with_one_line(data, tmp_path):
    with reader(*long_run(data, tmp_path / "run")) as process:
        process.stdout.readline()
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.005)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [line for line in after_start(told) if "interrupted" not in line] == []


@posix
@pytest.mark.parametrize("sign", [signal.SIGHUP, signal.SIGTERM], ids=lambda sign: sign.name)
def test_a_closed_terminal_or_a_stopped_service_saves_though_all_processes_hear_of_it(data, tmp_path, sign):
    with reader(*long_run(data, tmp_path / "run")) as process:
        process.stdout.readline()
        os.killpg(process.pid, sign)
        said, told = process.communicate(timeout=60)
    assert (process.returncode, after_start(told)) == (130, [])
    assert "interrupted" in said
    assert list((tmp_path / "run" / "checkpoints").glob("*.pt"))


@posix
def test_a_run_goes_on_when_nobody_reads_what_it_says(data, tmp_path):
    with reader(*long_run(data, tmp_path / "run"), "--max-samples", "800") as process:
        process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        _, told = process.communicate(timeout=60)
    assert (process.returncode, after_start(told)) == (0, [])
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 5


SWALLOWS = """
import sys, signal
from hexshards.cli import app
from hexshards.signals import remember_ctrl_c
from hexshards.training import run
remember_ctrl_c()
class Freed:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
sys.unraisablehook = lambda _: print("swallowed", file=sys.stderr)
Freed()
app.main()
"""


def test_ctrl_c_that_something_swallowed_before_training_began_still_stops_it(data, tmp_path):
    command = [sys.executable, "-c", SWALLOWS, *map(str, long_run(data, tmp_path / "run")[2:])]
    ended = warm.run(command)
    assert ended.returncode == 130
    assert ended.stderr.startswith("swallowed\n") and after_start(ended.stderr) == []
    assert "interrupted" in ended.stdout
