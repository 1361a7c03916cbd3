from __future__ import annotations

import gc
import multiprocessing
import shutil
import threading
import time
import warnings
import weakref
from itertools import islice

import numpy as np
import pytest
import torch
from helpers.small_data import dataset

from hexshards.errors import DataError
from hexshards.loading.batching import BUFFERS, RowBuffer, StreamBuffers, chosen_device, compiled, on_cpu, on_device
from hexshards.loading.buffers import Buffers
from hexshards.loading.device_cache import wants_memory
from hexshards.loading.expansion.expand import Packed, expand
from hexshards.loading.loader import Loader
from hexshards.loading.options import LoaderSpec
from hexshards.loading.threads import ordered_map


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("delivery"))


def open_loader(data, *, device="cpu", dtype=torch.float32, channels_last=False, resident=False, **options):
    spec = LoaderSpec(**{"batch_size": 32, "window_blocks": 3, "group_shards": 2, "seed": 7, **options})
    placed = {"device": device, "dtype": dtype, "channels_last": channels_last, "resident": resident}
    return Loader(data, spec, rank=0, world_size=1, **placed)


# memory that is used again ------------------------------------------------------------------------------------------


def test_batches_that_are_kept_never_change(data):
    kept = list(open_loader(data))
    copies = [[part.clone() for part in batch] for batch in open_loader(data)]
    assert len(kept) > 3 * BUFFERS
    for batch, copy in zip(kept, copies, strict=True):
        assert all(map(torch.equal, batch, copy))


HOLDERS = {
    "tensor": lambda batch: batch.policy,
    "view": lambda batch: batch.board[3:5, 1],
    "array": lambda batch: batch.board.numpy()[::2],
    "detached": lambda batch: batch.value.detach().view(-1),
    "storage": lambda batch: batch.board.untyped_storage(),
    "dlpack": lambda batch: np.from_dlpack(batch.policy),
}


def as_bytes(held):
    return bytes(held) if isinstance(held, torch.UntypedStorage) else np.asarray(held).tobytes()


@pytest.mark.parametrize("holder", HOLDERS)
def test_whatever_still_looks_at_a_batch_keeps_its_memory(data, holder):
    batches = iter(open_loader(data))
    held = HOLDERS[holder](next(batches))
    before = as_bytes(held)
    for _ in batches:
        pass
    assert as_bytes(held) == before


def test_memory_that_nobody_looks_at_is_used_again(data):
    addresses = {batch.board.data_ptr() for batch in open_loader(data)}
    assert len(addresses) <= BUFFERS < len(open_loader(data))


def test_no_more_arrays_are_remembered_than_are_kept():
    buffers = Buffers(keep=2)
    lent = [buffers.lend(8) for _ in range(5)]
    assert len({array.ctypes.data for array in lent}) == 5
    del lent
    again = [buffers.lend(8) for _ in range(2)]
    assert len(buffers._known) == 2 and all(array.base is not None for array in again)


def test_a_loan_that_is_too_small_is_not_lent_for_more():
    buffers = Buffers(keep=3)
    buffers.lend(4)
    assert len(buffers.lend(9)) == 9
    assert len(buffers.lend(5)) == 5


def test_a_run_of_rows_beyond_several_windows_holds_none_of_those_it_passes():
    begun = []

    def windows():
        for first in range(0, 100, 10):
            held = [number for number, window in enumerate(begun) if window() is not None]
            assert len(held) <= 2  # the last one may still be in the hands of the loop
            window = Packed(*(np.arange(first, first + 10) for _ in Packed._fields))
            begun.append(weakref.ref(window.stones))
            yield window
            del window

    rows = RowBuffer(windows(), 0)
    for low in (5, 45, 85):
        assert rows.take(low, low + 5).stones.tolist() == list(range(low, low + 5))
    assert len(begun) == 9


@pytest.mark.parametrize("taken", [1, 10, 15])
def test_what_buffers_held_is_free_as_soon_as_they_are_without_waiting_for_python_to_look_for_it(taken):
    windows = [Packed(*(np.arange(first, first + 10) for _ in Packed._fields)) for first in (0, 0, 10, 10)]
    held = [weakref.ref(window.stones) for window in windows]
    given = iter(windows)
    del windows
    gc.disable()
    try:
        buffers = StreamBuffers(given, streams=[0, 1, 0, 1], starts={0: 0, 1: 0})
        buffers.take([(0, 0, taken), (1, 0, taken)])
        assert any(window() is not None for window in held)
        del buffers, given
        assert [window for window in held if window() is not None] == []
    finally:
        gc.enable()


# work ahead ---------------------------------------------------------------------------------------------------------


def alive():
    return [thread for thread in threading.enumerate() if thread.name.endswith("(_serve)")]


def test_results_come_in_the_order_of_their_items():
    def slowly(number):
        time.sleep(0.001 * (number % 3))
        return number

    assert list(ordered_map(slowly, range(40), threads=3, depth=4)) == list(range(40))
    assert alive() == []


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_no_more_is_begun_than_is_asked_for(depth):
    begun = []
    results = ordered_map(begun.append, range(20), threads=2, depth=depth)
    for asked in range(1, 10):
        next(results)
        assert len(begun) <= asked + depth
    results.close()
    assert alive() == []


def test_what_work_raises_is_raised_in_its_turn_and_ends_the_threads():
    def work(number):
        if number == 3:
            raise DataError("no", where="here", fix="Do not")
        return number

    results = ordered_map(work, range(9), threads=2, depth=4)
    assert list(islice(results, 3)) == [0, 1, 2]
    with pytest.raises(DataError, match="no"):
        next(results)
    assert alive() == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_leaves_no_thread_however_it_is_left(data, num_workers):
    loader = open_loader(data, num_workers=num_workers)
    list(loader)
    batches = iter(loader)
    next(batches)
    assert alive() or multiprocessing.active_children()
    del batches
    with pytest.raises(KeyError):
        for _ in loader:
            raise KeyError
    iter(loader)
    assert alive() == []
    assert multiprocessing.active_children() == []


def _in_a_child(batches, data, queue):
    try:
        list(batches)
    except RuntimeError as error:
        queue.put(str(error))
    queue.put(len(list(open_loader(data))))


def test_a_process_that_forks_in_the_middle_of_an_epoch_does_not_hang(data):
    batches = iter(open_loader(data))
    next(batches)
    assert alive()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    with warnings.catch_warnings():
        # Python 3.12 warns of every fork beside threads
        warnings.simplefilter("ignore", DeprecationWarning)
        child = context.Process(target=_in_a_child, args=(batches, data, queue))
        child.start()
    child.join(60)
    assert child.exitcode == 0
    assert "begun before the process forked" in queue.get()
    assert queue.get() == len(open_loader(data)) == 1 + len(list(batches))


# packed and on a device ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_packed_rows_are_those_of_the_batches_and_count_alike(data, num_workers):
    loader, other = open_loader(data, num_workers=num_workers), open_loader(data)
    for packed, batch in zip(loader.packed(), other, strict=True):
        assert all(map(torch.equal, expand(packed, side=5), batch))
        assert loader.state_dict() == other.state_dict()
    assert loader.epoch == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_device_and_cpu_deliver_the_same_bits(data, dtype, channels_last):
    plain = open_loader(data)
    cpu = open_loader(data, dtype=dtype, channels_last=channels_last)
    rows = open_loader(data).packed()
    there = on_device(rows, side=5, device=torch.device("cpu"), dtype=dtype, channels_last=channels_last)
    for batch, mine, device in zip(plain, cpu, there, strict=True):
        for expected, one, other in zip(batch, mine, device, strict=True):
            assert one.dtype == other.dtype == dtype
            assert torch.equal(one, expected.to(dtype)) and torch.equal(other, expected.to(dtype))
        wanted = torch.channels_last if channels_last else torch.contiguous_format
        assert mine.board.is_contiguous(memory_format=wanted) and device.board.is_contiguous(memory_format=wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_the_same_with_compiled_code_and_without(data, num_workers, dtype):
    assert compiled() is not None
    ways = [
        on_cpu(open_loader(data, num_workers=num_workers).packed(), side=5, by=by, dtype=dtype, channels_last=True)
        for by in (compiled(), None)
    ]
    for batch, other in zip(*ways, strict=True):
        assert all(map(torch.equal, batch, other))
        assert batch.board.stride() == other.board.stride()


@pytest.mark.parametrize("by", [None, compiled()], ids=["NumPy", "compiled"])
def test_memory_is_used_again_and_no_thread_expands(data, by):
    addresses = set()
    for batch in on_cpu(open_loader(data).packed(), side=5, by=by):
        addresses.add(batch.board.data_ptr())
        assert len(alive()) <= 1  # which reads
    assert len(addresses) <= 3


def test_a_state_counts_no_batch_that_was_only_begun(data):
    whole = [[part.clone() for part in batch] for batch in open_loader(data)]
    loader = open_loader(data)
    for number, _ in enumerate(loader, start=1):
        assert loader.state_dict()["samples"] == 32 * number
        if number == 9:
            break
    second = open_loader(data)
    second.load_state_dict(loader.state_dict())
    for batch, other in zip(second, whole[9:], strict=True):
        assert all(map(torch.equal, batch, other))


@pytest.mark.parametrize(
    "options", [{}, {"augment": "all"}, {"where": "ply=4..12"}, {"positions": 400}, {"num_workers": 2, "batch_size": 7}]
)
def test_a_resident_split_delivers_the_same_batches(data, options):
    loader, resident = open_loader(data, **options), open_loader(data, resident=True, **options)
    for _ in range(2):
        for batch, other in zip(loader, resident, strict=True):
            assert all(map(torch.equal, batch, other))
            assert resident.state_dict() == loader.state_dict()


@pytest.mark.parametrize(
    "options", [{"window": "300"}, {"window": "300 keep=90"}, {"shards": "1..2"}, {"per_game": 3, "window": "400"}]
)
def test_resident_keeps_the_blocks_that_are_chosen_and_no_others(data, options, tmp_path):
    loader, resident = open_loader(data, **options), open_loader(data, resident=True, **options)
    selection = resident.epochs.selections[0]
    used = int((selection.block_rows > 0).sum())
    assert 0 < used < len(selection.blocks)
    for _ in range(3):  # keep and per_game choose others each epoch
        for batch, other in zip(loader, resident, strict=True):
            assert all(map(torch.equal, batch, other))
    held = {len(column) for column in resident._store.columns.values()}
    assert held == {used * selection.index.layout.block_positions}


def test_a_resident_loader_goes_on_from_a_state_and_reads_no_shard_again(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "copy")
    whole = [[part.clone() for part in batch] for batch in open_loader(data)]
    first, second = open_loader(copy, resident=True), open_loader(copy, resident=True)
    for _ in islice(first, 13):
        pass
    iter(second)  # reads the split
    for shard in copy.glob("train-*.tar"):
        shard.unlink()
    second.load_state_dict(first.state_dict())
    for batch, other in zip(second, whole[13:], strict=True):
        assert all(map(torch.equal, batch, other))


@pytest.mark.parametrize("together", [1, 31, 32, 33, 100, 10_000])
def test_batches_that_cross_together_are_those_that_cross_alone(data, monkeypatch, together):
    monkeypatch.setattr("hexshards.loading.batching.DEVICE_ROWS", together)
    spec = LoaderSpec(batch_size=32, seed=2)
    expected = list(Loader(data, spec))
    there = Loader(data, spec, resident=True)
    for done in (0, 1, 3, len(expected) - 1):
        left = Loader(data, spec, resident=True)
        if done:
            taken = list(islice(there, done))
            assert len(taken) == done
            left.load_state_dict(there.state_dict())
        rest = list(left)
        assert len(rest) == len(expected) - done
        assert all(
            torch.equal(a, b) for x, y in zip(rest, expected[done:], strict=True) for a, b in zip(x, y, strict=True)
        )


def test_a_damaged_block_is_never_resident(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "copy")
    shard = copy / "train-000002.tar"
    shard.write_bytes(shard.read_bytes()[:-3000])
    with pytest.raises(DataError, match=r"train-000002\.tar, block 00000"):
        iter(open_loader(copy, resident=True))


def test_a_mix_cannot_be_resident(data, tmp_path):
    other = dataset(tmp_path, games=20)
    with pytest.raises(ValueError, match="resident keeps one dataset on the device, and this is a mix"):
        Loader({str(data): 1.0, str(other): 1.0}, LoaderSpec(batch_size=8), rank=0, world_size=1, resident=True)


def test_another_dtype_is_refused(data):
    with pytest.raises(ValueError, match=r"dtype must be one of torch\.float32.*got torch\.int8"):
        open_loader(data, dtype=torch.int8)


def test_rows_are_the_same_whatever_the_windows_they_come_in():
    column = np.arange(50)
    for cuts in ([50], [7, 20, 50], list(range(1, 51))):
        parts = np.split(column, cuts[:-1])
        rows = RowBuffer((Packed(*([part] * 5)) for part in parts), 0)
        taken = [rows.take(low, min(low + 8, 50)) for low in range(0, 50, 8)]
        assert np.concatenate([run.value for run in taken]).tolist() == column.tolist()
        assert {len(column) for run in taken[:-1] for column in run} == {8}


def test_a_split_that_no_device_has_room_for_is_refused_before_it_is_read(data, monkeypatch):
    empty = torch.empty

    def full(shape, **options):
        return empty((shape[0] * 10**12, *shape[1:]), **options)

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(ValueError, match=r"resident would keep .* on cpu, which has too little memory"):
        next(iter(open_loader(data, resident=True)))


def test_what_is_no_want_of_memory_is_told_as_it_is(data, monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, **options: empty((-1, *shape[1:]), **options))
    with pytest.raises(RuntimeError, match="negative dimension"):
        next(iter(open_loader(data, resident=True)))


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("CUDA out of memory. Tried to allocate 820.31 GiB. GPU 0 has a total capacity of 79.11 GiB", True),
        ("MPS backend out of memory (MPS allocated: 1.10 GB, max allowed: 9.07 GB)", True),
        ("Invalid buffer size: 820.31 GiB", True),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 880803840000 bytes. Error code 12", True),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 880803840000 bytes.", True),
        ("Storage size calculation overflowed with sizes=[4611686018427387904, 1024]", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("CUDA driver initialization failed, you might not have a CUDA gpu.", False),
        ("Could not run 'aten::empty.memory_format' with arguments from the 'MPS' backend", False),
    ],
)
def test_torch_wants_memory_where_it_says_so(said, wanted):
    assert wants_memory(RuntimeError(said)) == wanted


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(1, 1, "cuda"), (1, 0, "cuda"), (0, 1, "mps"), (0, 0, "cpu")])
def test_the_device_is_the_first_there_is_of_cuda_mps_and_cpu(monkeypatch, cuda, mps, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
    assert chosen_device("auto") == chosen
    if not mps:
        with pytest.raises(ValueError, match=r"device mps: torch finds no GPU of Apple's here\. Name cpu"):
            chosen_device("mps")
