"""Canonical streams: one order for every number of ranks that divides them, of which each reads its part."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from helpers.loading import digest, open_loader, stream
from helpers.small_data import dataset, rows_of

import hexshards
from hexshards import rng
from hexshards.loading.batching import StreamBuffers
from hexshards.loading.expansion.expand import Packed
from hexshards.loading.loader import Loader
from hexshards.loading.mixture import Blend
from hexshards.loading.options import LoaderSpec
from hexshards.loading.order import Window, plan_epoch, window_rows
from hexshards.loading.streams import RankShare, plan_streams
from hexshards.options import as_recorded
from hexshards.training.options import TrainSpec

STREAMS = (1, 2, 4, 8)


def divisors(streams):
    return [size for size in (1, 2, 4, 8) if streams % size == 0]


# the slow, obvious twin: every row of every pass in a list, the lists cut, shuffled and dealt ----------------------


def twin(shard_blocks, block_rows, spec, *, epoch):
    """Rows (pass, block, row) of each global batch of an epoch, stream by stream."""
    passes = 4 if spec.augment == "all" else 1
    walks = [walk(shard_blocks, block_rows, spec, epoch=epoch, pass_=pass_) for pass_ in range(passes)]
    total, number, streams = int(block_rows.sum()), 0, []
    for each in range(spec.streams):
        rows = []
        for pass_, groups in enumerate(walks):
            low, high = (
                (pass_ + 1) * total * s // spec.streams - pass_ * total * s // spec.streams for s in (each, each + 1)
            )
            cut = list(chain(*groups))[low:high]
            number = number if spec.streams > 1 else 0
            # one stream begins a window with each group of shards, streams fill theirs up
            for part in groups if spec.streams == 1 else [cut]:
                blocks = list(dict.fromkeys(block for _, block, _ in part))
                together = max(1, spec.window_blocks // spec.streams)
                for first in range(0, len(blocks), together):
                    held = [row for row in part if row[1] in blocks[first : first + together]]
                    window = Window(epoch, pass_, number, np.array(blocks))
                    rows += [held[place] for place in window_rows(window, len(held), spec=spec)]
                    number += 1
        streams.append(iter(rows))
    samples = total * passes
    batches = []
    for first in range(0, samples, spec.batch_size):
        count = min(spec.batch_size, samples - first)
        shares = [count * (each + 1) // spec.streams - count * each // spec.streams for each in range(spec.streams)]
        batches.append([next(rows) for rows, share in zip(streams, shares, strict=True) for _ in range(share)])
    assert all(next(rows, None) is None for rows in streams)
    return batches[: samples // spec.batch_size] if spec.drop_last else batches


def walk(shard_blocks, block_rows, spec, *, epoch, pass_):
    """Rows of each group of shards, in the order in which blocks are walked."""
    ends = np.cumsum(shard_blocks)
    together = max(1, spec.group_shards // spec.streams)
    order = list(range(len(shard_blocks)))
    if spec.shuffle:
        order = [order[place] for place in rng.permutation(len(order), spec.seed, rng.SHARDS, epoch, pass_)]
    groups = []
    for group in range(0, len(order), together):
        of_group = [range(ends[shard] - shard_blocks[shard], ends[shard]) for shard in order[group : group + together]]
        blocks = [block for block in chain(*of_group) if block_rows[block]]
        if spec.shuffle:
            path = (spec.seed, rng.BLOCKS, epoch, pass_, group)
            blocks = [blocks[place] for place in rng.permutation(len(blocks), *path)]
        groups.append([(pass_, block, row) for block in blocks for row in range(block_rows[block])])
    return groups


# what is under test, without data: a row's numbers in the place of its columns --------------------------------------


def delivered(plan, block_rows, spec, *, rank, world_size, start=0):
    """Rows of a rank's batches from a sample on, and the windows it read."""
    own = RankShare(plan, rank, world_size)
    needed = own.windows_from(start)
    windows = (numbered(plan.windows[number], block_rows, spec) for _, number in needed)
    buffers = StreamBuffers(windows, streams=[each for each, _ in needed], starts=own.starts(needed))
    samples = int(plan.starts[-1])
    samples -= samples % spec.batch_size if spec.drop_last else 0
    batches = []
    for first in range(start, samples, spec.batch_size):
        rows = buffers.take(own.rows(first, min(spec.batch_size, samples - first)))
        batches.append([tuple(row) for row in rows.stones.tolist()])
    return batches, [number for _, number in needed]


def numbered(window, block_rows, spec):
    rows = [(window.pass_, block, row) for block in window.blocks.tolist() for row in range(block_rows[block])]
    count = len(rows) if window.count is None else window.count
    taken = np.array(rows)[window_rows(window, count, spec=spec) + window.skip]
    return Packed(taken, *[taken[:, 0]] * 4)


def sizes_of(draw):
    shard_blocks = draw.integers(1, 7, size=draw.integers(1, 8)).tolist()
    block_rows = draw.choice([0, 1, 7, 10, 10, 10], size=sum(shard_blocks))
    block_rows[draw.integers(len(block_rows))] += 9
    return shard_blocks, block_rows


@pytest.mark.parametrize("seed", range(40))
def test_every_number_of_ranks_that_divides_the_streams_sees_the_batches_of_the_slow_twin(seed):
    draw = np.random.default_rng(seed)
    (shard_blocks, block_rows), streams = sizes_of(draw), STREAMS[seed % len(STREAMS)]
    spec = LoaderSpec(
        batch_size=8 * int(draw.integers(1, 5)),
        streams=streams,
        shuffle=bool(draw.random() < 0.8),
        augment="all" if draw.random() < 0.5 else "none",
        window_blocks=int(draw.integers(1, 10)),
        group_shards=int(draw.integers(1, 5)),
        seed=seed,
        drop_last=bool(draw.random() < 0.3),
    )
    epoch = seed % 3
    while 0 < block_rows.sum() * (4 if spec.augment == "all" else 1) % spec.batch_size < 8:
        block_rows[0] += 1  # a loader refuses a last batch that not all streams have a row of
    expected = twin(shard_blocks, block_rows, spec, epoch=epoch)
    plan = (plan_streams if streams > 1 else plan_epoch)(shard_blocks, block_rows, epoch=epoch, spec=spec)
    once = Counter(chain(*expected))
    assert set(once.values()) <= {1}
    if not spec.drop_last:
        assert len(once) == block_rows.sum() * (4 if spec.augment == "all" else 1)
    for world_size in divisors(streams):
        options = {"world_size": world_size}
        by_rank = [delivered(plan, block_rows, spec, rank=rank, **options) for rank in range(world_size)]
        assert joined(by_rank) == expected
        sizes = [[len(batch) for batch in batches] for batches, _ in by_rank]
        assert all(max(of_batch) - min(of_batch) <= 1 for of_batch in zip(*sizes, strict=True))
        # each window is read by one rank, unless a single stream is read by all
        assert Counter(number for _, numbers in by_rank for number in numbers) == dict.fromkeys(
            range(len(plan.windows)), 1 if streams > 1 else world_size
        )
        stop, go_on = int(draw.integers(len(expected) + 1)), int(draw.choice(divisors(streams)))
        rest = [
            delivered(plan, block_rows, spec, rank=rank, world_size=go_on, start=stop * spec.batch_size)
            for rank in range(go_on)
        ]
        assert joined(rest) == expected[stop:]


def joined(by_rank):
    """The ranks' slices of each batch one after another."""
    return [list(chain(*parts)) for parts in zip(*(batches for batches, _ in by_rank), strict=True)]


def test_a_rank_reads_its_part_of_the_shards_and_of_the_blocks():
    shard_blocks, block_rows = [32] * 40, np.full(40 * 32, 8)
    spec = LoaderSpec(batch_size=64, streams=8)
    plan = plan_streams(shard_blocks, block_rows, epoch=0, spec=spec)
    for rank in range(8):
        needed = [plan.windows[number] for _, number in RankShare(plan, rank, 8).windows_from(0)]
        blocks = np.concatenate([window.blocks for window in needed])
        assert len(blocks) == len(block_rows) // 8
        assert len(np.unique(blocks // 32)) == 5


# with data ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """1,117 positions: an epoch's last batch of 32 has 29."""
    return dataset(tmp_path_factory.mktemp("streams"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("other"), games=30, seed=5)


def by_ranks(data, world_size, *, state=None, batches=None, batch_size=32, **options):
    """Digests of global batches, made of the slices of all ranks, and the state after them."""
    loaders = [
        open_loader(data, rank=rank, world_size=world_size, batch_size=batch_size // world_size, **options)
        for rank in range(world_size)
    ]
    for loader in loaders if state else ():
        loader.load_state_dict(state)
    assert len({len(loader) for loader in loaders}) == 1
    told = []
    for parts in zip(*loaders, strict=batches is None):
        told.append(digest(*parts))
        if len(told) == batches:
            break
    (left,) = {tuple(loader.state_dict().items()) for loader in loaders}
    return told, dict(left)


CHOICES = [
    {"augment": "random"},
    {"augment": "all", "positions": 500},
    {"where": "ply=3..12", "drop_last": True},
    {"shuffle": False, "augment": "none"},
    {"window_blocks": 16, "group_shards": 8, "per_game": 6},
]


@pytest.mark.parametrize("options", CHOICES)
@pytest.mark.parametrize("streams", [2, 4, 8])
def test_runs_go_on_with_any_number_of_ranks_that_divides_the_streams(data, streams, options):
    options = {"streams": streams, **options}
    whole, _ = by_ranks(data, 1, **options)
    for world_size in divisors(streams)[1:]:
        assert by_ranks(data, world_size, **options)[0] == whole
    sizes, told, state = divisors(streams), [], None
    for world_size, batches in zip((sizes[-1], 1, sizes[-1] // 2), (3, 5, None), strict=True):
        part, state = by_ranks(data, world_size, state=state, batches=batches, **options)
        told += part
    assert told == whole


@pytest.mark.parametrize("streams", [1, 4])
def test_streams_deliver_what_one_stream_delivers_in_another_order(data, streams):
    whole = Counter(row for batch in open_loader(data, augment="none") for row in rows_of(batch))
    loader = open_loader(data, augment="none", streams=streams)
    assert Counter(row for batch in loader for row in rows_of(batch)) == whole
    again = Counter(row for batch in loader for row in rows_of(batch))
    assert again == whole


def test_workers_change_no_batch_of_streams(data):
    options = {"streams": 4, "batch_size": 32}
    assert stream(open_loader(data, num_workers=2, **options)) == stream(open_loader(data, **options))


def test_datasets_that_are_mixed_keep_their_shares_in_every_stream_and_for_every_number_of_ranks(data, other):
    mix = {str(data): 0.7, str(other): 0.3}
    for options in ({"augment": "all"}, {"where": "ply=2.."}):
        whole, _ = by_ranks(mix, 1, streams=4, **options)
        first, state = by_ranks(mix, 4, streams=4, batches=7, **options)
        rest, _ = by_ranks(mix, 2, streams=4, state=state, **options)
        assert first + rest == whole
    blended = Loader(mix, LoaderSpec(streams=4, batch_size=40)).epochs
    assert isinstance(blended._blend, Blend)
    plan = blended.plan(0)
    for numbers in plan.streams:
        windows = [plan.windows[number] for number in numbers]
        of_first = sum(run.count for window in windows for run in window.runs if run.dataset == 0)
        rows = int(plan.starts[numbers.stop] - plan.starts[numbers.start])
        assert abs(of_first - 0.7 * rows) <= 1


def test_a_target_by_schedule_follows_the_samples_delivered_and_not_their_place_in_a_stream():
    spec = LoaderSpec(batch_size=8, streams=4, window_blocks=4)
    plan = plan_streams([10] * 4, np.full(40, 8), epoch=0, spec=spec)
    assert [plan.sample_of(numbers.start) for numbers in plan.streams] == [0, 0, 0, 0]
    assert [plan.sample_of(number) for number in plan.streams[3]] == [8 * 4 * place for place in range(10)]
    one = plan_epoch([10] * 4, np.full(40, 8), epoch=0, spec=LoaderSpec())
    assert [one.sample_of(number) for number in range(len(one.windows))] == one.starts[:-1].tolist()


# what a state, a record and a refusal say ---------------------------------------------------------------------------


def test_one_stream_is_recorded_nowhere_and_more_are_part_of_the_order(data):
    assert "streams" not in open_loader(data).state_dict()
    assert "streams" not in as_recorded(LoaderSpec()) and "streams" not in as_recorded(TrainSpec(data="d", run="r"))
    assert as_recorded(TrainSpec(data="d", run="r", streams=8))["streams"] == 8
    state = open_loader(data, streams=4).state_dict()
    assert state["streams"] == 4
    with pytest.raises(ValueError, match="streams is not given, the state's 4"):
        open_loader(data).load_state_dict(state)
    with pytest.raises(ValueError, match="streams is 2, the state's 4"):
        open_loader(data, streams=2).load_state_dict(state)


def test_the_order_of_streams_is_the_one_published_with_them(data):
    loader = open_loader(data, streams=4)
    assert (loader.fingerprint(0), loader.fingerprint(3)) == ("2de25266f5eb", "cf66c8acfa38")
    assert stream(loader)[:2] == ["5a498a20ad737b397285165b", "c107a6c5296969554be7a85c"]
    assert open_loader(data, streams=4, batch_size=8, num_workers=1).fingerprint(0) == loader.fingerprint(0)


REFUSED = [
    ({"streams": 4, "world_size": 3}, "streams is 4, which 3 ranks cannot share evenly. Choose a multiple of 3"),
    (
        {"streams": 8, "batch_size": 13, "world_size": 2},
        "streams is 8, and a global batch of 26 has no equal share of each. Choose a batch_size that is a multiple of "
        "4, such as 12 or 16",
    ),
    (
        {"streams": 3, "batch_size": 256},
        "streams is 3, and a global batch of 256 has no equal share of each. Choose a batch_size that is a multiple of "
        "3, such as 255 or 258",
    ),
    (
        {"streams": 8, "batch_size": 5},
        "streams is 8, and a global batch of 5 has no equal share of each. Choose a batch_size that is a multiple of "
        "8, such as 8",
    ),
    ({"streams": 8, "batch_size": 8, "positions": 5}, "has 5 positions for 8 streams. Choose fewer"),
    (
        {"streams": 8, "positions": 36},
        "the last batch of an epoch would hold 4 samples for 8 streams. Turn drop_last on, or choose another "
        "batch_size",
    ),
    ({"streams": 0}, "streams must be at least 1, got 0"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_what_streams_cannot_share_is_refused_in_one_sentence(data, options, said):
    given = {"batch_size": 32, "rank": 0, "world_size": 1, **options}
    with pytest.raises(ValueError) as refusal:
        hexshards.loader(data, **given)
    assert str(refusal.value).removeprefix(f"{data}: ").removeprefix(f"{data} ") == said


def test_a_share_that_follows_an_epoch_and_streams_are_refused_together(data, other):
    with pytest.raises(ValueError, match="and mix_schedule follows it"):
        hexshards.loader(
            {str(data): 0.7, str(other): 0.3}, streams=2, batch_size=32, mix_schedule=f"{other}=linear 0:0.1 900:0.6"
        )
