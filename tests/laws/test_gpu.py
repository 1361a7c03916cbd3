"""What a GPU must give: the CPU's bits, whatever stream, layout or precision, and runs that go on exactly.

They need a card. ``HEXSHARDS_TEST_DEVICE=cpu`` runs them on the CPU, which shows that they run through.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from helpers.small_data import dataset

import hexshards
from hexshards import TrainSpec

DEVICE = os.environ.get("HEXSHARDS_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no GPU: NOTHING OF A GPU IS CHECKED"
    ),
]


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("hard"))


@pytest.fixture(scope="module")
def soft(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("soft"), dedupe="positions")


def assert_same(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for part, wanted in zip(one, other, strict=True):
            assert torch.equal(part.cpu(), wanted.cpu())


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("augment", ["none", "random", "all"])
@pytest.mark.parametrize("batch_size", [1, 37, 256])
def test_batches_made_on_the_device_are_the_bits_made_on_the_cpu(kind, augment, batch_size, request):
    options = {"batch_size": batch_size, "augment": augment, "seed": 3}
    data = request.getfixturevalue(kind)
    there = islice(hexshards.loader(data, device=DEVICE, **options), 40)
    assert_same(there, islice(hexshards.loader(data, **options), 40))


def test_workers_change_nothing_on_the_device(hard):
    there = hexshards.loader(hard, device=DEVICE, batch_size=64, num_workers=2)
    assert_same(there, hexshards.loader(hard, batch_size=64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_small_floats_and_layouts_hold_the_same_numbers(hard, dtype, channels_last):
    there = hexshards.loader(hard, device=DEVICE, batch_size=64, dtype=dtype, channels_last=channels_last)
    for one, other in zip(there, hexshards.loader(hard, batch_size=64), strict=True):
        assert one.board.dtype == one.policy.dtype == one.value.dtype == dtype
        wanted = torch.channels_last if channels_last else torch.contiguous_format
        assert one.board.is_contiguous(memory_format=wanted)
        for part, whole in zip(one, other, strict=True):
            assert torch.equal(part.cpu().float(), whole.to(dtype).float())


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("augment", ["random", "all"])
def test_a_split_that_stays_on_the_device_is_drawn_in_the_same_order(kind, augment, request):
    data, options = request.getfixturevalue(kind), {"batch_size": 50, "augment": augment, "seed": 1}
    resident = hexshards.loader(data, device=DEVICE, resident=True, **options)
    plain = hexshards.loader(data, **options)
    for _ in range(2):
        assert_same(resident, plain)


def test_a_resident_loader_goes_on_from_a_state(hard):
    first = hexshards.loader(hard, device=DEVICE, resident=True, batch_size=50)
    passing = iter(first)
    for _ in range(5):
        next(passing)
    second = hexshards.loader(hard, device=DEVICE, resident=True, batch_size=50)
    second.load_state_dict(first.state_dict())
    assert_same(second, passing)


def test_batches_that_crossed_together_end_where_an_epoch_and_a_resume_do(hard, monkeypatch):
    monkeypatch.setattr("hexshards.loading.batching.DEVICE_ROWS", 100)
    wanted = list(hexshards.loader(hard, batch_size=32))
    for done in (0, 1, 2, 3, 7, len(wanted) - 1):
        first = hexshards.loader(hard, device=DEVICE, batch_size=32)
        for _ in islice(iter(first), done):
            pass
        second = hexshards.loader(hard, device=DEVICE, batch_size=32)
        second.load_state_dict(first.state_dict())
        assert_same(second, wanted[done:])


def test_batches_do_not_change_while_they_are_held_and_the_card_is_busy(hard):
    wanted = list(hexshards.loader(hard, batch_size=32))
    load = torch.randn(1024, 1024, device=DEVICE)
    held = []
    for batch in hexshards.loader(hard, device=DEVICE, batch_size=32):
        load = load @ load / 1024  # the stream of the step lags behind the one that copies
        held.append(tuple(part + 0 for part in batch))
        del batch
    assert_same(held, wanted)


def test_another_stream_may_use_a_batch_it_was_handed(hard):
    if DEVICE != "cuda":
        pytest.skip("streams are CUDA's")
    copies, stream = [], torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for batch in hexshards.loader(hard, device=DEVICE, batch_size=32):
            torch.cuda._sleep(200_000)
            copies.append(tuple(part * 1 for part in batch))
    stream.synchronize()
    assert_same(copies, hexshards.loader(hard, batch_size=32))


def trained(data, run, **options):
    given = {"channels": 8, "blocks": 1, "batch_size": 64, "warmup_samples": 64, "device": DEVICE, "diagnose": 128}
    return hexshards.train(TrainSpec(data=data, run=run, mini_epoch_samples=400, **{**given, **options}))


def weights_of(path):
    return torch.load(path, map_location="cpu", weights_only=True)["model_state_dict"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "bfloat16", "channels_last": True},
        {"precision": "float16", "clip_norm": 1.0, "ema": 0.9},
        {"optimizer": "sgd", "accumulate": 2},
    ],
    ids=["float32", "bfloat16-channels-last", "float16-scaled", "sgd-accumulated"],
)
def test_a_run_that_stops_and_goes_on_ends_with_the_same_bits(hard, tmp_path, options):
    if DEVICE == "cpu" and options.get("precision") == "float16":
        pytest.skip("float16 is for cards")
    whole = trained(hard, tmp_path / "whole", epochs=2, **options)
    trained(hard, tmp_path / "cut", epochs=2, max_samples=700, **options)
    cut = trained(hard, tmp_path / "cut", epochs=2, **options)
    assert cut.resumed_from is not None
    ours, theirs = weights_of(cut.checkpoint), weights_of(whole.checkpoint)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_validation_on_the_device_agrees_with_the_cpu(hard, tmp_path):
    there = trained(hard, tmp_path / "there").metrics["val"]
    here = trained(hard, tmp_path / "here", device="cpu").metrics["val"]
    assert there["samples"] == here["samples"]
    assert there["policy_loss"] == pytest.approx(here["policy_loss"], rel=0.05)


def test_one_process_of_torchrun_trains(hard, tmp_path):
    command = ["-m", "--", "hexshards", "train", str(hard), "--run", str(tmp_path / "rank")]
    options = ["--channels", "8", "--blocks", "1", "--batch-size", "64", "--warmup-samples", "64", "--device", DEVICE]
    options += ["--mini-epoch-samples", "400", "--diagnose", "0"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(hexshards.__file__).parents[1]), *sys.path])}
    ended = subprocess.run(
        [*torchrun, *command, *options], capture_output=True, text=True, env=environment, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    newest = max((tmp_path / "rank" / "checkpoints").iterdir())
    assert all(tensor.isfinite().all() for tensor in weights_of(newest).values())


def test_a_group_of_one_over_nccl_adds_shares_and_gathers(tmp_path):
    program = """
import sys, torch
from torch import distributed
from hexshards import Trainer, TwoHeadedResNet, loader
device, data = sys.argv[1:]
distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", init_method="tcp://127.0.0.1:0",
                               rank=0, world_size=1)
total = torch.ones(3, device=device)
distributed.all_reduce(total)
parts = [torch.empty(3, device=device)]
distributed.all_gather(parts, total)
print(parts[0].tolist())
model = torch.nn.parallel.DistributedDataParallel(TwoHeadedResNet(channels=4, blocks=1).to(device))
for board, policy, value in loader(data, batch_size=64, device=device):
    logits, red = model(board)
    (logits.sum() + red.sum()).backward()
print("done")
distributed.destroy_process_group()
"""
    data = dataset(tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(hexshards.__file__).parents[1]), *sys.path])}
    command = [sys.executable, "-c", program, DEVICE, str(data)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert ended.stdout.split("\n")[:2] == ["[1.0, 1.0, 1.0]", "done"], ended.stderr
