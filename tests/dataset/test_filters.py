from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from helpers.small_data import CUT, columns_of, examples, images, rows_of, samples_of, write_examples

from hexshards.conversion.convert import convert
from hexshards.dataset.filters import Filter, _even
from hexshards.loading.loader import Loader
from hexshards.loading.options import LoaderSpec


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset of three files whose positions have tiers 0 to 3."""
    folder = tmp_path_factory.mktemp("selection")
    for seed, name in enumerate("abc"):
        entries = examples(20, seed=seed, source=name)
        for row, example in enumerate(entries):
            example["metadata"]["value_sample_tier"] = row % 4
        write_examples(folder / "processed" / f"{name}_processed.pkl.gz", entries)
    convert(folder / "processed", out=folder / "data", **CUT)
    return folder / "data"


@pytest.fixture(scope="module")
def columns(data):
    return columns_of(data, "train")


@pytest.fixture(scope="module")
def samples(data):
    """Every training position as bytes, in the order of the dataset, read without hexshards."""
    return [images(*sample)[0] for sample in samples_of(data, "train")]


def open_loader(data, *, rank=0, world_size=1, **options):
    small = {"batch_size": 32, "window_blocks": 3, "group_shards": 2, "seed": 7, "augment": "none"}
    return Loader(data, LoaderSpec(**{**small, **options}), rank=rank, world_size=world_size)


def given(loader):
    return [row for batch in loader for row in rows_of(batch)]


def met(columns, sources, where):
    """Row by row, in plain Python: which rows a filter keeps. The slow twin of Filter.keeps."""
    kept = []
    for row in range(len(columns["ply"])):
        values = {name: int(columns[name][row]) for name in ("ply", "plies", "tier")}
        keep = all(low <= values[name] and (high is None or values[name] <= high) for name, low, high in where.ranges)
        if where.files:
            name = sources[columns["source"][row]]
            keep = keep and any(
                name == file or (file.endswith("*") and name.startswith(file[:-1])) for file in where.files
            )
        if keep:
            kept.append(row)
    return kept


FILTERS = ["ply=4..12", "ply=..3", "plies=18..", "tier=1..2", "source=a*|c*", "ply=1"]
FILTERS += ["ply=2..20, plies=10.., tier=..2, source=b*"]


@pytest.mark.parametrize("where", FILTERS[:-1])
def test_an_epoch_holds_every_position_that_meets_the_filter_once(data, columns, samples, where):
    loader = open_loader(data, where=where)
    rows = met(columns, loader.index.sources, Filter.parse(where))
    assert 0 < len(rows) < len(samples), "the filter proves nothing"
    assert Counter(given(loader)) == Counter(samples[row] for row in rows)
    assert loader.positions == loader.samples == len(rows)
    assert f"{len(rows):,} of {len(samples):,} positions meet" in loader.describe()[0]


@pytest.mark.parametrize(("batch_size", "drop_last"), [(7, False), (7, True), (32, False), (300, False)])
def test_len_and_the_ranks_agree_with_what_a_filter_leaves(data, batch_size, drop_last):
    options = {"batch_size": batch_size, "drop_last": drop_last, "where": "ply=4..12"}
    alone = open_loader(data, **options)
    batches = list(alone)
    assert len(alone) == len(batches)
    assert sum(len(batch.value) for batch in batches) == alone.samples
    ranks = [open_loader(data, **{**options, "rank": rank, "world_size": 3}) for rank in range(3)]
    sizes = [len(list(rank)) for rank in ranks]
    assert len(set(sizes)) == 1
    assert sizes[0] == len(ranks[0])


@pytest.mark.parametrize(
    "options", [{"where": "ply=4..12"}, {"positions": 300}, {"where": "tier=..2", "positions": 99}]
)
def test_what_is_chosen_resumes_anywhere_and_with_other_workers(data, options):
    options = {**options, "augment": "random"}
    loader = open_loader(data, **options)
    whole = [(rows_of(batch), loader.state_dict()) for batch in loader]
    for at in range(len(whole)):
        again = open_loader(data, **options, num_workers=int(at % 4 == 3))
        again.load_state_dict(whole[at][1])
        assert [rows_of(batch) for batch in again] == [rows for rows, _ in whole[at + 1 :]]


def test_a_filter_does_not_change_in_which_symmetry_a_position_is_shown(data):
    whole = set(given(open_loader(data, augment="random")))
    assert set(given(open_loader(data, augment="random", where="ply=4..12"))) <= whole


def test_a_state_of_another_filter_or_number_of_positions_is_refused(data):
    chosen = open_loader(data, where="ply=4..12", positions=100)
    with pytest.raises(
        ValueError, match=r"where is ply=4\.\.12, the state's not given; positions is 100, the state's n"
    ):
        chosen.load_state_dict(open_loader(data).state_dict())
    with pytest.raises(ValueError, match=r"where is not given, the state's ply=4\.\.12; positions is not given"):
        open_loader(data).load_state_dict(chosen.state_dict())
    open_loader(data, where=" ply = 4..12,", positions=100).load_state_dict(chosen.state_dict())


@pytest.mark.parametrize("positions", [1, 2, 11, 300, 1000])
def test_a_limit_takes_so_many_positions_evenly_from_the_shards_and_the_same_in_every_epoch(data, samples, positions):
    loader = open_loader(data, positions=positions, batch_size=32)
    first, second = Counter(given(loader)), Counter(given(loader))
    assert first == second
    assert sum(first.values()) == loader.samples == positions
    assert first <= Counter(samples)
    selection = loader.epochs.selections[0]
    shards = np.add.reduceat(selection.block_rows, selection.blocks.first[:-1])
    exact = positions * np.array([shard.positions for shard in selection.blocks.shards]) / len(samples)
    assert (np.abs(shards - exact) < 1).all()


def test_what_a_limit_takes_are_the_first_of_each_shard_that_the_filter_keeps(data, columns, samples):
    loader = open_loader(data, where="ply=4..12", positions=200, shuffle=False)
    selection, kept = loader.epochs.selections[0], met(columns, loader.index.sources, Filter.parse("ply=4..12"))
    expected, start = [], 0
    shares = np.add.reduceat(selection.block_rows, selection.blocks.first[:-1])
    for shard, share in zip(selection.blocks.shards, shares.tolist(), strict=True):
        expected += [row for row in kept if start <= row < start + shard.positions][:share]
        start += shard.positions
    assert given(loader) == [samples[row] for row in expected]


def test_a_limit_beyond_the_dataset_changes_nothing(data):
    assert given(open_loader(data, positions=5000)) == given(open_loader(data))


def test_a_limit_reads_few_blocks_in_vain():
    # 20 shards of 32 blocks of 8,192: 20,000 positions are 1,000 of each shard, which one block holds
    rows = np.full(640, 8192)
    shares = _even(rows, np.arange(0, 641, 32), 20_000)
    assert shares.sum() == 20_000
    assert np.flatnonzero(shares).tolist() == list(range(0, 640, 32))


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("value=0", "'value=0' is no condition"),
        ("ply", "'ply' is no condition"),
        ("ply=", "'ply=' is no condition"),
        ("ply=3, ply=4", "'ply=4' is no condition a second time"),
        ("ply=..", "no range of ply"),
        ("ply=a..3", "no range of ply"),
        ("ply=-1..3", "no range of ply"),
        ("ply=9..3", "ply=9..3 holds no number"),
        ("source=nowhere*", r"no source file matches 'nowhere\*' \(it has a"),
        ("ply=90..", r"split train has no position that meets 'ply=90\.\.'"),
    ],
)
def test_a_filter_that_is_none_or_leaves_nothing_is_refused(data, where, fault):
    with pytest.raises(ValueError, match=fault):
        open_loader(data, where=where)


def test_a_filter_says_itself_in_one_way():
    assert str(Filter.parse(" tier=1..2 ,source= b |a*,ply=..3")) == "ply=0..3, tier=1..2, source=a*|b"
    assert str(Filter.parse("plies=30..,ply=7")) == "ply=7..7, plies=30.."
    for where in FILTERS:
        assert Filter.parse(str(Filter.parse(where))) == Filter.parse(where)


def test_a_position_whose_file_does_not_say_meets_no_condition():
    tier = np.array([-1, 0, 2], dtype=np.int8)
    assert Filter.parse("tier=..2").keeps({"tier": tier}, ()).tolist() == [False, True, True]
    source = np.array([0, 1, 2], dtype=np.uint32)  # the last is none of the two files: damage
    assert Filter.parse("source=*").keeps({"source": source}, ("a", "b")).tolist() == [True, True, False]


def test_a_limit_below_one_is_refused(data):
    with pytest.raises(ValueError, match="positions must be at least 1, got 0"):
        open_loader(data, positions=0)


# the fingerprint ----------------------------------------------------------------------------------------------------


def test_a_fingerprint_tells_orders_apart_and_nothing_else(data):
    changed = [{}, {"seed": 8}, {"augment": "random"}, {"window_blocks": 4}, {"group_shards": 3}, {"shuffle": False}]
    changed += [{"where": "ply=4..12"}, {"positions": 100}, {"split": "val"}, {"augment": "all"}]
    fingerprints = [open_loader(data, **options).fingerprint(epoch) for options in changed for epoch in (0, 1)]
    assert len(set(fingerprints)) == len(fingerprints)
    same = [{"num_workers": 2}, {"batch_size": 5}, {"rank": 1, "world_size": 2}, {"drop_last": True}]
    assert {open_loader(data, **options).fingerprint(0) for options in same} == {fingerprints[0]}


def test_the_fingerprint_of_version_1_stays(data):
    assert open_loader(data).fingerprint(3) == "d7a9d2ffd253"


def test_a_fingerprint_reads_no_data(data, tmp_path):
    (tmp_path / "index.json").write_bytes((data / "index.json").read_bytes())
    assert open_loader(tmp_path).fingerprint(0) == open_loader(data).fingerprint(0)


def test_batches_of_a_filter_are_whole_tensors(data):
    board, policy, value = next(iter(open_loader(data, where="ply=4..12")))
    assert [part.shape for part in (board, policy, value)] == [(32, 3, 5, 5), (32, 25), (32, 1)]
    assert {part.dtype for part in (board, policy, value)} == {torch.float32}
    assert set(board[:, :2].sum(dim=(1, 2, 3)).int().tolist()) <= set(range(4, 13))
