from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import warm
from helpers.loading import all_rows, digest, open_loader, stream
from helpers.small_data import columns_of, dataset, examples, images, rows_of, samples_of, write_examples

import hexshards
from hexshards.conversion.convert import convert
from hexshards.conversion.random_files import write
from hexshards.errors import DataError

POSITIONS = 1117
"""Of the training split below: a prime number, so that nothing divides it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("loader"))


@pytest.fixture(scope="module")
def rows(data):
    """Counter of the training positions, read without hexshards."""
    return Counter(images(*sample)[0] for sample in samples_of(data, "train"))


# order --------------------------------------------------------------------------------------------------------------


def test_the_first_batch_is_the_one_published_in_version_1(data):
    board, _, value = first = next(iter(open_loader(data)))
    assert board[:12, :2].sum(dim=(1, 2, 3)).int().tolist() == [17, 7, 22, 4, 0, 2, 1, 21, 17, 13, 12, 7]
    assert value[:12, 0].int().tolist() == [0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 1, 0]
    assert digest(first) == "7b24c20fffb88b41ea4000fe"


@pytest.mark.parametrize("augment", ["random", "all"])
def test_the_number_of_workers_never_changes_a_batch(data, augment):
    alone = stream(open_loader(data, augment=augment))
    assert stream(open_loader(data, augment=augment, num_workers=1)) == alone
    assert stream(open_loader(data, augment=augment, num_workers=2)) == alone


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_slices_of_all_ranks_are_the_batches_of_one(data, world_size):
    ranks = [open_loader(data, batch_size=32 // world_size, rank=r, world_size=world_size) for r in range(world_size)]
    assert {len(rank) for rank in ranks} == {35}
    slices = zip(*ranks, strict=True)
    assert [digest(*each) for each in slices] == stream(open_loader(data))


def test_the_place_among_ranks_comes_from_torchrun_where_none_is_given(data, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    loader = hexshards.loader(data, batch_size=16)
    assert (loader.rank, loader.world_size) == (1, 2)
    given = hexshards.loader(data, batch_size=16, rank=1, world_size=2)
    assert stream(loader) == stream(given)


def test_a_process_that_is_not_told_which_of_several_it_is_is_refused(data, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")  # as PyTorch Lightning leaves it until its process group is there
    with pytest.raises(ValueError, match="WORLD_SIZE is 2 and RANK is not set"):
        hexshards.loader(data, batch_size=16)
    assert hexshards.loader(data, batch_size=16, rank=1, world_size=2).rank == 1


@pytest.mark.parametrize(
    ("place", "fault"), [({"rank": 1}, "both"), ({"world_size": 2}, "both"), ({"rank": 2, "world_size": 2}, "2 of 2")]
)
def test_a_place_that_is_none_is_refused(data, place, fault):
    with pytest.raises(ValueError, match=fault):
        hexshards.loader(data, **place)


def test_shuffle_off_gives_the_order_of_the_dataset(data):
    loader = open_loader(data, shuffle=False, augment="none")
    given = [row for batch in loader for row in rows_of(batch)]
    assert given == [images(*sample)[0] for sample in samples_of(data, "train")]


def test_another_seed_or_epoch_gives_another_order_of_the_same_positions(data, rows):
    orders = set()
    for seed in (1, 2):
        loader = open_loader(data, seed=seed, augment="none")
        for _ in range(2):
            given = [row for batch in loader for row in rows_of(batch)]
            assert Counter(given) == rows
            orders.add(hashlib.sha256(b"".join(given)).digest())
    assert len(orders) == 4


def test_a_loader_draws_nothing_from_torchs_random_numbers(data):
    before = torch.get_rng_state()
    for num_workers in (0, 1):
        list(open_loader(data, num_workers=num_workers))
    assert torch.equal(torch.get_rng_state(), before)


# every position once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_epoch_holds_every_position_of_its_split_once(data, split):
    expected = Counter(images(*sample)[0] for sample in samples_of(data, split))
    assert all_rows(open_loader(data, split=split, augment="none")) == expected


def test_random_symmetries_still_show_every_position_once(data):
    expected = Counter(min(images(*sample)) for sample in samples_of(data, "train"))
    given = Counter()
    for batch in open_loader(data, augment="random"):
        for board, policy, value in zip(*(part.numpy() for part in batch), strict=True):
            given[min(images(board, policy.reshape(5, 5), value[0]))] += 1
    assert given == expected


def test_augment_all_shows_every_position_in_all_four_symmetries(data):
    expected = Counter(image for sample in samples_of(data, "train") for image in images(*sample))
    assert all_rows(open_loader(data, augment="all")) == expected


def test_four_epochs_of_cycle_show_what_one_of_all_does(data):
    loader = open_loader(data, augment="cycle")
    given = sum((all_rows(loader) for _ in range(4)), Counter())
    assert given == all_rows(open_loader(data, augment="all"))


def test_all_ranks_together_hold_every_position_once(data, rows):
    ranks = [open_loader(data, batch_size=9, rank=r, world_size=3, augment="none") for r in range(3)]
    assert sum(map(all_rows, ranks), Counter()) == rows


@pytest.mark.parametrize("batch_size", [1, 7, 32, 96, 100, 372, 1116, 1117, 1118, 5000])
@pytest.mark.parametrize("augment", ["none", "all"])
def test_len_is_the_number_of_batches_and_only_the_last_is_short(data, batch_size, augment):
    loader = open_loader(data, batch_size=batch_size, augment=augment)
    samples = POSITIONS * (4 if augment == "all" else 1)
    sizes = [len(batch.value) for batch in loader]
    assert sizes == [batch_size] * (samples // batch_size) + [samples % batch_size] * (samples % batch_size > 0)
    assert len(loader) == len(sizes)
    assert loader.samples == samples


@pytest.mark.parametrize("batch_size", [1, 7, 32, 100, 1116, 1117])
def test_drop_last_leaves_out_the_last_batch_that_is_not_full_and_no_other(data, batch_size):
    loader = open_loader(data, batch_size=batch_size, drop_last=True)
    given = stream(loader)
    assert given == stream(open_loader(data, batch_size=batch_size))[: POSITIONS // batch_size]
    assert len(loader) == len(given) == POSITIONS // batch_size
    assert loader.epoch == 1


def test_a_split_smaller_than_a_batch_is_one_batch_or_with_drop_last_an_error(data):
    assert len(list(open_loader(data, batch_size=5000))) == 1
    with pytest.raises(ValueError, match=r"split train has 1,117 positions, not one full batch of 5,000\. Lower"):
        open_loader(data, batch_size=5000, drop_last=True)


def test_a_last_batch_that_would_leave_a_rank_with_nothing_is_refused(data):
    # 1117 = 5 * 223 + 2: two samples for five ranks
    with pytest.raises(ValueError, match="last batch of an epoch would hold 2 samples for 5 ranks"):
        open_loader(data, batch_size=1, rank=0, world_size=5)
    ranks = [open_loader(data, batch_size=1, rank=r, world_size=5, drop_last=True) for r in range(5)]
    assert [len(list(rank)) for rank in ranks] == [223] * 5


def test_a_dataset_of_one_position_is_one_batch(tmp_path):
    write_examples(tmp_path / "one_processed.pkl.gz", examples(1)[:1])
    hexshards.convert(tmp_path, out=tmp_path / "data", val_fraction=0)
    batches = list(hexshards.loader(tmp_path / "data", augment="none"))
    assert [len(batch.value) for batch in batches] == [1]
    assert not batches[0].board.any()


# resume -------------------------------------------------------------------------------------------------------------


def recorded(loader):
    """Every batch of an epoch with the state right after it."""
    return [(digest(batch), loader.state_dict()) for batch in loader]


def assert_resumes(data, whole, at, **options):
    loader = open_loader(data, **options)
    loader.load_state_dict(whole[at][1])
    assert stream(loader) == [batch for batch, _ in whole[at + 1 :]], f"diverged after batch {at}"


@pytest.mark.parametrize("augment", ["random", "all"])
def test_a_run_stopped_after_any_batch_goes_on_with_the_very_next(data, augment):
    options = {"augment": augment, "batch_size": 32 if augment == "random" else 200}
    whole = recorded(open_loader(data, **options))
    for at in range(len(whole)):
        assert_resumes(data, whole, at, **options)


def test_a_run_goes_on_with_another_number_of_workers(data):
    whole = recorded(open_loader(data, num_workers=1))
    for at in (0, 11, 32, 33, 34):
        assert_resumes(data, whole, at, num_workers=0)
        assert_resumes(data, whole, at, num_workers=2)


def test_a_run_goes_on_with_another_number_of_ranks(data):
    whole = recorded(open_loader(data))
    for at in (0, 1, 10, 17, 33, 34):
        ranks = [open_loader(data, batch_size=16, rank=r, world_size=2) for r in range(2)]
        for rank in ranks:
            rank.load_state_dict(whole[at][1])
        assert [digest(*each) for each in zip(*ranks, strict=True)] == [batch for batch, _ in whole[at + 1 :]]
    pair = [open_loader(data, batch_size=16, rank=r, world_size=2) for r in range(2)]
    slices = islice(zip(*pair, strict=True), 5)
    assert [digest(*each) for each in slices] == [batch for batch, _ in whole[:5]]
    assert pair[0].state_dict() == pair[1].state_dict() == whole[4][1]


def test_a_resumed_run_can_be_resumed_within_the_same_epoch(data):
    whole = recorded(open_loader(data))
    loader = open_loader(data)
    loader.load_state_dict(whole[4][1])
    again = [(digest(batch), loader.state_dict()) for batch in islice(loader, 6)]
    assert again == whole[5:11]
    assert_resumes(data, whole[:10] + again[-1:] + whole[11:], 10)


def test_a_state_of_the_end_of_an_epoch_gives_an_empty_rest_and_then_the_next(data):
    loader = open_loader(data)
    whole = recorded(loader)
    following = stream(loader)
    resumed = open_loader(data)
    resumed.load_state_dict(whole[-1][1])
    assert stream(resumed) == []
    assert resumed.epoch == 1
    assert stream(resumed) == following


def test_a_state_taken_between_two_epochs_gives_the_next(data):
    loader = open_loader(data)
    list(loader)
    between = loader.state_dict()
    resumed = open_loader(data)
    resumed.load_state_dict(between)
    assert stream(resumed) == stream(loader)


def test_a_state_is_a_few_plain_values_and_its_own_restoration(data):
    loader = open_loader(data)
    next(iter(loader))
    state = loader.state_dict()
    assert all(type(value) in (int, str) for value in state.values())
    other = open_loader(data)
    other.load_state_dict(state)
    assert other.state_dict() == state


def test_iterating_moves_on_to_the_next_epoch_by_itself(data):
    loader = open_loader(data)
    epochs = [stream(loader) for _ in range(3)]
    assert loader.epoch == 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    straight = open_loader(data)
    straight.set_epoch(2)
    assert stream(straight) == epochs[2]


def test_an_epoch_that_was_left_begins_anew(data):
    loader = open_loader(data)
    begun = [digest(batch) for batch in islice(loader, 3)]
    assert loader.epoch == 0
    assert stream(loader)[:3] == begun


def test_to_set_the_current_epoch_keeps_a_resumed_place_and_another_leaves_it(data):
    whole = recorded(open_loader(data))
    loader = open_loader(data)
    loader.load_state_dict(whole[20][1])
    loader.set_epoch(0)
    assert stream(loader) == [batch for batch, _ in whole[21:]]
    loader.load_state_dict(whole[20][1])
    loader.set_epoch(1)
    loader.set_epoch(0)
    assert stream(loader) == [batch for batch, _ in whole]
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        loader.set_epoch(-1)


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"seed": 8}, "seed is 8, the state's 7"),
        ({"batch_size": 33}, "global_batch is 33, the state's 32"),
        ({"world_size": 2}, "global_batch is 64, the state's 32"),
        ({"split": "val"}, "split is val, the state's train"),
        ({"augment": "all"}, "augment is all, the state's random"),
        ({"shuffle": False}, "shuffle is 0, the state's 1"),
        ({"drop_last": True}, "drop_last is 1, the state's 0"),
        ({"window_blocks": 4}, "window_blocks is 4, the state's 3"),
        ({"group_shards": 3}, "group_shards is 3, the state's 2"),
    ],
)
def test_a_state_of_another_stream_is_refused_and_says_what_differs(data, other, differs):
    loader = open_loader(data, **other)
    with pytest.raises(ValueError, match=differs):
        loader.load_state_dict(open_loader(data).state_dict())


def test_a_state_of_another_dataset_is_refused(data, tmp_path):
    other = open_loader(dataset(tmp_path, games=20))
    with pytest.raises(ValueError, match=f"dataset is {other.index.fingerprint}, the state's"):
        other.load_state_dict(open_loader(data).state_dict())


def test_a_state_of_another_version_of_the_order_is_refused(data):
    with pytest.raises(ValueError, match="version is 1, the state's 2"):
        open_loader(data).load_state_dict({**open_loader(data).state_dict(), "version": 2})


# several iterators at once -----------------------------------------------------------------------------------------

WAYS = [{}, {"num_workers": 1}, {"resident": True}, {"mix": True}, {"packed": True}]


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("another"), games=20)


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(way) or "plain")
def passes(request, data, another):
    """A loader, and what makes an iterator of it, in each way that it delivers."""
    way = dict(request.param)
    mix, packed = way.pop("mix", False), way.pop("packed", False)
    loader = hexshards.loader({data: 0.5, another: 0.5} if mix else data, batch_size=100, **way)
    return loader, loader.packed if packed else loader.__iter__


def rows_digest(batch):
    return hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in batch)).hexdigest()


def test_each_of_several_iterators_is_a_pass_of_its_own(passes):
    loader, begin = passes
    whole = [rows_digest(batch) for batch in begin()]
    loader.set_epoch(0)
    one = begin()
    next(begin())  # looks, and goes away
    assert [rows_digest(batch) for batch in one] == whole
    assert loader.epoch == 1
    loader.set_epoch(0)
    pairs = [(rows_digest(a), rows_digest(b)) for a, b in zip(begin(), begin(), strict=False)]
    assert pairs == [(each, each) for each in whole]
    assert rows_digest(next(begin())) not in whole
    assert loader.epoch == 1


def test_an_iterator_stays_in_the_epoch_that_was_current_when_it_was_made(data):
    epochs = [stream(loader) for loader in [open_loader(data)] for _ in range(3)]
    loader = open_loader(data)
    first = iter(loader)
    seen = [digest(next(first))]
    loader.set_epoch(2)
    third = iter(loader)
    assert digest(next(third)) == epochs[2][0]
    assert seen + [digest(batch) for batch in first] == epochs[0]
    assert [digest(batch) for batch in third] == epochs[2][1:]


def test_a_state_is_of_the_iterator_that_handed_over_a_batch_last(data):
    whole = recorded(open_loader(data))
    loader = open_loader(data)
    one = islice(iter(loader), 10)
    assert [digest(batch) for batch in one] == [batch for batch, _ in whole[:10]]
    other = iter(loader)
    assert loader.state_dict()["samples"] == 0  # of the one that was made last
    next(other)
    assert loader.state_dict() == whole[0][1]


def test_to_look_at_a_batch_in_the_middle_of_an_epoch_changes_neither_batches_nor_states(data):
    whole = recorded(open_loader(data))
    loader, seen = open_loader(data), []
    for number, batch in enumerate(loader):
        if number == 7:
            next(iter(loader))
        else:
            seen.append((digest(batch), loader.state_dict()))
    assert seen == whole[:7] + whole[8:]
    assert loader.epoch == 1


def test_a_loaded_place_is_for_the_first_iterator_after_it_and_no_other(data):
    whole = recorded(open_loader(data))
    loader = open_loader(data)
    before = iter(loader)
    loader.load_state_dict(whole[20][1])
    after, fresh = iter(loader), iter(loader)
    assert [digest(batch) for batch in after] == [batch for batch, _ in whole[21:]]
    for each in (before, fresh):
        assert [digest(batch) for batch in each] == [batch for batch, _ in whole]


# damage and use -----------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(data, tmp_path):
    return shutil.copytree(data, tmp_path / "copy")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_flipped_bit_stops_the_loader_and_names_shard_and_block(copy, num_workers):
    loader = open_loader(copy, num_workers=num_workers)
    shard = loader.index.splits["train"].shards[3]
    path = copy / shard.name
    data = bytearray(path.read_bytes())
    data[sum(shard.block_bytes[:4]) + 700] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train-000003\.tar, block 000004: checksum is .* Fetch this shard") as caught:
        list(loader)
    assert caught.value.where == f"{path}, block 000004"
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_missing_shard_stops_the_loader_and_is_named(copy, num_workers):
    (copy / "train-000005.tar").unlink()
    with pytest.raises(DataError, match=r"train-000005\.tar: the shard is missing"):
        list(open_loader(copy, num_workers=num_workers))


def test_a_shard_cut_short_stops_the_loader_and_names_the_block(copy):
    path = copy / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(DataError, match=r"train-000000\.tar, block 000005: the file ends after"):
        list(open_loader(copy))


def test_a_dataset_without_the_split_is_an_error_that_names_those_it_has(tmp_path):
    with pytest.raises(DataError, match=r"has no split 'val' \(only train\)"):
        hexshards.loader(dataset(tmp_path, games=20, val_fraction=0), split="val")


def test_where_there_is_no_dataset_the_error_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no dataset here.*hexshards convert"):
        hexshards.loader(tmp_path)


def test_an_iteration_that_was_left_leaves_no_process(data):
    loader = open_loader(data, num_workers=2)
    for _ in loader:
        assert len(multiprocessing.active_children()) == 2
        break
    assert multiprocessing.active_children() == []


LEAVE_IN_THE_MIDDLE = """
import sys
import hexshards
batches = iter(hexshards.loader(sys.argv[1], batch_size=8, num_workers=2))
next(batches)
raise SystemExit(7)
"""


def test_a_program_that_ends_in_the_middle_of_an_epoch_ends(data):
    assert warm.run([sys.executable, "-c", LEAVE_IN_THE_MIDDLE, data]).returncode == 7


def test_a_batch_is_the_callers_own(data):
    loader = open_loader(data, shuffle=False)
    untouched = stream(loader)
    loader.set_epoch(0)
    for batch, digest_before in zip(loader, untouched, strict=True):
        assert digest(batch) == digest_before
        for part in batch:
            part.fill_(9)


def test_batches_hold_what_the_other_columns_say(data):
    columns = columns_of(data, "val")
    loader = open_loader(data, split="val", shuffle=False, augment="none", batch_size=1000)
    (batch,) = loader
    assert batch.board.shape == (len(columns["ply"]), 3, 5, 5)
    assert batch.policy.shape == (len(columns["ply"]), 25)
    assert batch.value.shape == (len(columns["ply"]), 1)
    assert {part.dtype for part in batch} == {torch.float32}
    assert batch.board[:, :2].sum(dim=(1, 2, 3)).int().tolist() == columns["ply"].tolist()
    assert torch.equal(batch.board[:, 2, 0, 0], torch.from_numpy(columns["ply"] % 2).float())


def test_a_plain_training_loop_learns(data):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(75, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loader = hexshards.loader(data, batch_size=64)
    losses = []
    for _ in range(8):
        for board, _policy, value in loader:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(board), value)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert sum(losses[-18:]) < 0.95 * sum(losses[:18])


# memory -------------------------------------------------------------------------------------------------------------

GROWTH = """
import re, sys
from pathlib import Path
from hexshards.loading.loader import Loader
from hexshards.loading.options import LoaderSpec

def held(name):
    return 1024 * int(re.search(name + ":[^0-9]*([0-9]+) kB", open("/proc/self/status").read())[1])

loader = Loader(Path(sys.argv[1]), LoaderSpec(window_blocks=1, batch_size=256))
next(iter(loader))
before = held("VmRSS")
assert sum(len(batch.value) for batch in loader) == loader.positions
print(held("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_an_epoch_takes_a_few_windows_of_memory_however_many_there_are(tmp_path):
    write(tmp_path / "games", games=6_000, format="trmph", games_per_file=1_000)
    report = convert(tmp_path / "games", out=tmp_path / "data", val_fraction=0)
    held_at_once = 51 * report.positions
    bound = 2 * 3 * 51 * 8192 + (16 << 20)  # the formula, and the batches and the allocator's own
    assert held_at_once > 2 * bound
    ended = subprocess.run(
        [sys.executable, "-c", GROWTH, tmp_path / "data"], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < bound
