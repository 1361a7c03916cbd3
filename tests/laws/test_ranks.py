from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.small_data import dataset, examples, images, rows_of, samples_of, write_examples

import hexshards
from hexshards.loading.loader import Loader
from hexshards.loading.options import LoaderSpec

TESTS = Path(__file__).parents[1]

LAUNCHER = """
import hashlib, json, os, sys
from multiprocessing import get_context
import torch
import torch.distributed as ranks
sys.path.insert(0, sys.argv[1])
from helpers.small_data import rows_of
from hexshards.loading.loader import Loader
from hexshards.loading.options import LoaderSpec

def train(pipe, rank, asked):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(asked["world_size"]))
    ranks.init_process_group("gloo")
    spec = LoaderSpec(**{"window_blocks": 3, "group_shards": 2, "seed": 7, **asked["options"]})
    loader = Loader(asked["folder"], spec)
    assert (loader.rank, loader.world_size) == (rank, ranks.get_world_size())
    if asked["state"]:
        loader.load_state_dict(asked["state"])
    told = []
    for number, batch in enumerate(loader):
        total = torch.tensor([len(batch.value)])
        ranks.all_reduce(total)  # a rank with fewer batches than another would leave it waiting here
        rows = [hashlib.sha256(row).hexdigest()[:12] for row in rows_of(batch)]
        told.append([rows, loader.state_dict(), int(total)])
        if number + 1 == asked["batches"]:
            break
    ranks.barrier()
    ranks.destroy_process_group()
    pipe.send({"length": len(loader), "told": told})

# forked, as every interpreter that imports torch takes two seconds
context = get_context("fork")
for line in sys.stdin:
    asked = json.loads(line)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(asked["port"]), GLOO_SOCKET_IFNAME="lo")
    pipes = [context.Pipe(duplex=False) for _ in range(asked["world_size"])]
    started = [
        context.Process(target=train, args=(pipe[1], rank, asked)) for rank, pipe in enumerate(pipes)
    ]
    for process, pipe in zip(started, pipes):
        process.start()
        pipe[1].close()
    print(json.dumps([pipe[0].recv() for pipe in pipes]), flush=True)
    for process in started:
        process.join()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Small, as many processes read it; and no number of ranks divides it."""
    return dataset(tmp_path_factory.mktemp("ranks"), games=13, val_fraction=0)


@pytest.fixture(scope="module")
def run_ranks():
    """What each of so many real processes saw, that talk by torch.distributed: batch by batch, rank by rank."""
    command = [sys.executable, "-c", LAUNCHER, TESTS]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as launcher:

        def run(folder, world_size, *, state=None, batches=-1, **options):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            asked = {"folder": str(folder), "world_size": world_size, "port": port}
            asked |= {"options": options, "state": state, "batches": batches}
            launcher.stdin.write(json.dumps(asked) + "\n")
            launcher.stdin.flush()
            ranks = json.loads(launcher.stdout.readline())
            assert len({each["length"] for each in ranks}) == 1
            return list(zip(*(each["told"] for each in ranks), strict=True))

        yield run
        launcher.stdin.close()
        assert launcher.wait(timeout=60) == 0


def global_batches(by_rank):
    """The rows of each global batch, the ranks' slices one after another; and that the ranks agree where they are."""
    for each in by_rank:
        assert len({json.dumps(state) for _, state, _ in each}) == 1
        assert {total for _, _, total in each} == {sum(len(rows) for rows, _, _ in each)}
    return [[row for rows, _, _ in each for row in rows] for each in by_rank]


def alone(folder, **options):
    loader = Loader(folder, LoaderSpec(**{"window_blocks": 3, "group_shards": 2, "seed": 7, **options}))
    return [[hashlib.sha256(row).hexdigest()[:12] for row in rows_of(batch)] for batch in loader]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
def test_processes_that_talk_see_the_batches_of_one_slice_by_slice(data, run_ranks, world_size):
    # 24 samples in a global batch, whatever the number of ranks, and one worker in each second case
    options = {"augment": "random", "num_workers": world_size % 2}
    by_rank = run_ranks(data, world_size, batch_size=24 // world_size, **options)
    assert global_batches(by_rank) == alone(data, batch_size=24, augment="random")


def test_processes_go_on_from_what_others_left_three_times_in_an_epoch(data, run_ranks):
    whole = alone(data, batch_size=24)
    first = run_ranks(data, 3, batch_size=8, batches=2)
    second = run_ranks(data, 2, batch_size=12, batches=3, state=first[-1][0][1], num_workers=1)
    third = run_ranks(data, 4, batch_size=6, batches=1, state=second[-1][0][1])
    rest = run_ranks(data, 1, batch_size=24, state=third[-1][0][1], num_workers=2)
    assert global_batches(first + second + third + rest) == whole


def test_processes_read_streams_of_their_own_and_others_go_on_with_them(data, run_ranks):
    whole = alone(data, batch_size=24, streams=8)
    first = run_ranks(data, 4, batch_size=6, batches=3, streams=8)
    rest = run_ranks(data, 2, batch_size=12, streams=8, state=first[-1][0][1], num_workers=1)
    assert global_batches(first + rest) == whole


# the same without processes, where it is cheap to try everything ----------------------------------------------------


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("batch_size", [1, 5, 7, 13, 16, 61])
def test_ranks_share_every_batch_evenly_or_the_loader_says_why_not(data, world_size, batch_size, drop_last):
    options = {"batch_size": batch_size, "drop_last": drop_last, "augment": "none"}
    positions = Loader(data, LoaderSpec()).positions
    last = positions % (batch_size * world_size)
    impossible = positions < batch_size * world_size if drop_last else 0 < last < world_size
    if impossible:
        with pytest.raises(ValueError, match=r"not one full batch|for \d ranks"):
            Loader(data, LoaderSpec(**options), rank=0, world_size=world_size)
        return
    loaders = [Loader(data, LoaderSpec(**options), rank=rank, world_size=world_size) for rank in range(world_size)]
    sizes_by_rank = [[len(batch.value) for batch in loader] for loader in loaders]
    assert {len(sizes) for sizes in sizes_by_rank} == {len(loaders[0])}
    for sizes in zip(*sizes_by_rank, strict=True):
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1
        assert max(sizes) <= batch_size
    assert sum(map(sum, sizes_by_rank)) == (positions - last if drop_last else positions)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of two cores
@pytest.mark.parametrize("num_workers", [1, 2, 3, 4])
def test_workers_from_one_to_four_change_no_batch_whatever_the_batch_size(data, num_workers):
    # more workers than windows, as many, and fewer
    for options in ({"batch_size": 13}, {"batch_size": 61, "drop_last": True, "window_blocks": 1000}):
        assert alone(data, num_workers=num_workers, **options) == alone(data, **options)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_a_dataset_smaller_than_the_ranks_is_refused_and_any_other_is_shared(tmp_path, world_size):
    write_examples(tmp_path / "few_processed.pkl.gz", examples(1)[:3])
    hexshards.convert(tmp_path, out=tmp_path / "data", val_fraction=0)

    def opened(rank, **options):
        return hexshards.loader(tmp_path / "data", augment="none", rank=rank, world_size=world_size, **options)

    if world_size > 3:
        with pytest.raises(ValueError, match=r"would hold 3 samples for 8 ranks\. Turn drop_last on, or"):
            opened(0)
        with pytest.raises(ValueError, match=r"has 3 positions, not one full batch of 8\. Lower batch_size"):
            opened(0, batch_size=1, drop_last=True)
        return
    seen = [row for rank in range(world_size) for batch in opened(rank) for row in rows_of(batch)]
    assert sorted(seen) == sorted(images(*sample)[0] for sample in samples_of(tmp_path / "data", "train"))
