from __future__ import annotations

import fcntl
import gc
import multiprocessing
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_data import dataset

from hexshards.errors import sendable
from hexshards.loading import buffers
from hexshards.loading.buffers import SPARED_BYTES, Slots
from hexshards.loading.epoch_plan import Epochs
from hexshards.loading.expansion.expand import Packed
from hexshards.loading.loader import Loader
from hexshards.loading.options import LoaderSpec

COLUMNS = {"stones": (np.dtype("u1"), (7,)), "policy": (np.dtype("<i2"), ()), "value": (np.dtype("<f4"), ())}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("arrival"))


@pytest.fixture
def beside(data):
    """Out of /dev/shm, where tests have theirs, for when another is mounted there: the dataset, and an empty folder."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        shutil.copytree(data, Path(folder, "data"))
        Path(folder, "empty").mkdir()
        yield Path(folder)


@pytest.fixture
def lent(monkeypatch):
    """The slots that were lent, None where there was none."""
    numbers, lend = [], Slots.lend
    monkeypatch.setattr(Slots, "lend", lambda slots: (numbers.append(lend(slots)), numbers[-1])[1])
    return numbers


def spec(**options):
    """Windows of two blocks: many more of them than two workers have slots."""
    return LoaderSpec(batch_size=10, window_blocks=2, seed=5, **options)


def copied(rows):
    return Packed(*(column.copy() for column in rows))


def same(some, others):
    return all(
        len(left) == len(right) and (left == right).all()
        for rows, other in zip(some, others, strict=True)
        for left, right in zip(rows, other, strict=True)
    )


def as_read(data, asked):
    """Every window as Windows.read makes it, in fresh memory, one after another."""
    windows = Epochs(data, asked).windows(0)
    read = [windows.read(number, Packed._fields).columns for number in range(len(windows))]
    return [Packed(**{name: columns[name] for name in Packed._fields}) for columns in read]


# windows in slots ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_windows_arrive_in_slots_as_they_are_read_elsewhere_and_no_slot_is_missed(data, num_workers, lent):
    loader = Loader(data, spec(num_workers=num_workers))
    received = [copied(rows) for rows in loader.packed()]
    whole = as_read(data, loader.spec)
    assert len(lent) == len(whole) >= 35 and None not in lent
    assert same(
        [Packed(*(np.concatenate(parts) for parts in zip(*received, strict=True)))],
        [Packed(*(np.concatenate(parts) for parts in zip(*whole, strict=True)))],
    )


@pytest.mark.parametrize("options", [{}, {"streams": 2}, {"on_error": "skip"}, {"per_game": 5}], ids=str)
def test_rows_are_the_same_whoever_decodes_their_blocks(tmp_path, options, monkeypatch):
    copy = dataset(tmp_path)
    if "on_error" in options:
        spoiled = bytearray((copy / "train-000001.tar").read_bytes())
        spoiled[1000] ^= 1
        (copy / "train-000001.tar").write_bytes(spoiled)
    loaders = [Loader(copy, spec(**options)) for _ in range(2)]
    alone = [copied(rows) for rows in loaders[0].packed()]
    # blocks as small as here are else left to the thread that reads them
    monkeypatch.setattr("hexshards.loading.window.SHARED_BYTES", 0)
    shared = [copied(rows) for rows in loaders[1].packed()]
    assert len(alone) > 20 and same(alone, shared)
    assert loaders[0].skipped == loaders[1].skipped and (loaders[1].skipped.blocks > 0) == ("on_error" in options)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_rows_that_are_held_never_change_and_others_take_fresh_memory(data, num_workers, lent):
    loader = Loader(data, spec(num_workers=num_workers))
    held, before = [], []
    for rows in loader.packed():
        held.append(rows)
        before.append(copied(rows))
    assert None in lent
    assert same(held, before)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_damage_that_is_skipped_keeps_no_slot(tmp_path, num_workers, lent):
    copy = dataset(tmp_path)
    for shard in list(copy.glob("train-*.tar"))[:6]:
        data = bytearray(shard.read_bytes())
        data[1000] ^= 1
        shard.write_bytes(data)
    loader = Loader(copy, spec(num_workers=num_workers, on_error="skip"))
    gc.disable()
    try:
        assert sum(len(rows.stones) for rows in loader.packed()) == loader.samples
    finally:
        gc.enable()
    assert loader.skipped.blocks == 6
    assert len(lent) >= 35 and None not in lent


READS = """
import sys
from hexshards.loading.loader import Loader
from hexshards.errors import DataError
from hexshards.loading.options import LoaderSpec
whole = Loader(sys.argv[1], LoaderSpec(batch_size=10, seed=5, window_blocks=2, num_workers=2))
held = []
try:
    for rows in whole.packed():
        held.append(rows)  # all slots, and then what crosses without one
    assert sum(len(rows.value) for rows in held) == whole.samples
    print("all read")
except DataError as error:
    print(error)
"""


def run_with_little_memory(beside, *, shared_bytes, together=1, temporary_bytes=1 << 26):
    """What programs say that read at the same time, with so much room in /dev/shm, and in a folder for files."""
    temporary = beside / "empty"
    mounts = f"mount -t tmpfs -o size={shared_bytes} tmpfs /dev/shm"
    mounts += f" && mount -t tmpfs -o size={temporary_bytes} tmpfs {temporary}"
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-m", "sh", "-c", mounts], capture_output=True).returncode
    ):
        pytest.skip("nothing can be mounted here, so this is NOT CHECKED: shared memory that is full")
    one = shlex.join([sys.executable, "-c", READS, str(beside / "data")])
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mounts} && {{ {' & '.join([one] * together)} & wait; }}"],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        timeout=120,
    )
    assert ended.stderr == ""
    return ended.stdout.splitlines()


def test_processes_that_fill_shared_memory_at_once_read_by_files(beside):
    said = run_with_little_memory(beside, shared_bytes=SPARED_BYTES + (1 << 14), together=2)
    assert said == ["all read"] * 2


def test_where_files_have_no_room_either_one_sentence_says_so(beside):
    room = {"shared_bytes": SPARED_BYTES, "temporary_bytes": 4096}
    (told,) = run_with_little_memory(beside, **room)
    assert told.startswith(f"/dev/shm and {beside / 'empty'}: no room for ")
    assert told.endswith("set TMPDIR to a folder with room, or take fewer workers")


def test_what_would_leave_too_little_is_not_taken_even_for_a_moment(tmp_path, monkeypatch):
    # semaphores of other processes are made meanwhile, and need what is spared
    taken = []
    monkeypatch.setattr(buffers, "_reserve", lambda handle, size: taken.append(size))
    room = os.statvfs(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        buffers._reserved(tmp_path, 1 << 20, spared=room.f_bavail * room.f_frsize)
    assert taken == [] and list(tmp_path.iterdir()) == []


def test_processes_reserve_in_turn_and_who_waits_too_long_takes_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(buffers, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(buffers, "TURN_S", 0.01)
    places, real = [], buffers._reserve

    def reserve(handle, size):
        places.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        real(handle, size)

    monkeypatch.setattr(buffers, "_reserve", reserve)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    buffers.shared_memory(4096)
    os.close(other)
    buffers.shared_memory(4096)
    assert [place.is_relative_to(tmp_path) for place in places] == [False, True]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_the_system_says_of_a_shard_is_the_same_from_a_worker(tmp_path, num_workers):
    copy = dataset(tmp_path)
    for shard in copy.glob("train-*.tar"):
        shard.unlink()
        shard.symlink_to(shard.name)
    with pytest.raises(OSError, match=r"^\[Errno \d+\] Too many levels of symbolic links: '.*tar'$"):
        list(Loader(copy, spec(num_workers=num_workers)).packed())


class Odd(OSError):
    """Another process cannot make it again."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


def test_an_error_that_cannot_be_sent_is_sent_as_its_words():
    sent = sendable(Odd("disk", "gone"))
    assert type(sent) is OSError
    assert str(sent) == "disk gone"


# slots --------------------------------------------------------------------------------------------------------------


def viewed(holder, views):
    return {
        "view": lambda: views["stones"][2:, 1:3],
        "tensor": lambda: torch.from_numpy(views["value"])[1:],
        "reshaped": lambda: views["policy"].reshape(2, -1).view(np.uint8),
    }[holder]()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("holder", ["view", "tensor", "reshaped"])
def test_a_slot_is_lent_again_when_the_last_look_at_it_is_gone(holder, shared):
    slots = Slots(COLUMNS, 10, count=1, shared=shared)
    assert slots.lend() == 0
    assert slots.lend() is None  # it is away
    slots.views(0, 10)["value"][:] = 3
    assert slots.lend() is None
    views = slots.landed(0, 10)
    assert slots.lend() is None  # it is looked at
    held = viewed(holder, views)
    del views
    assert slots.lend() is None
    del held
    assert slots.lend() == 0


@pytest.mark.parametrize("shared", [False, True])
def test_columns_of_slots_have_their_shapes_share_no_byte_and_are_aligned(shared):
    slots = Slots(COLUMNS, 9, count=2, shared=shared)
    columns = [column for number in range(2) for column in slots.views(number, 9).values()]
    for number, column in enumerate(columns):
        column.view(np.uint8)[:] = number
    for number, column in enumerate(columns):
        assert (column.view(np.uint8) == number).all()
        assert column.flags.aligned and column.flags.c_contiguous
    assert [(column.dtype, column.shape[1:]) for column in columns[:3]] == list(COLUMNS.values())
    assert len(slots.views(1, 4)["stones"]) == 4


def fill(slots):
    slots.views(1, 10)["policy"][:] = np.arange(10)


def test_a_process_that_is_not_forked_fills_the_same_memory():
    slots = Slots(COLUMNS, 10, count=2, shared=True)
    process = multiprocessing.get_context("spawn").Process(target=fill, args=(slots,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert slots.views(1, 10)["policy"].tolist() == list(range(10))
    assert not slots.views(0, 10)["policy"].any()
