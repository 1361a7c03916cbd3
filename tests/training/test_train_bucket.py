"""The train bucket: how far samples may be ahead of positions, against a slow count of every batch."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count

import numpy as np
import pytest
from helpers.plain_run import BATCH, PlainLoader, plan, stream_of
from helpers.small_runs import SAMPLES, assert_same_run, log_lines, names, plain, train

from hexshards.training import train_bucket
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.checkpointing.schema import problem_of
from hexshards.training.distributed import ProcessGroup
from hexshards.training.mini_epochs import Cursor
from hexshards.training.options import TrainSpec
from hexshards.training.tracking.hooks import MiniEpochBegun, Waiting
from hexshards.training.train_bucket import Bucket, Level, TrainBucket

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    monkeypatch.setattr(train_bucket, "LOOKS_S", 1e-6)
    monkeypatch.setattr(train_bucket, "HEARS_S", 1e-6)


@dataclass
class Additions:
    """A dataset that grows by so many positions at each look, to the end of ``coming``; its loaders are plain ones."""

    sizes: dict[str, int]
    coming: list[int] = field(default_factory=list)
    looks: int = 0

    def positions(self, fingerprint, *, now=False):
        if not now:
            return self.sizes[fingerprint]
        self.looks += 1
        if self.coming:
            self.sizes[f"look {self.looks}"] = max(self.sizes.values()) + self.coming.pop(0)
        return max(self.sizes.values())

    def newest(self, known, *, larger=False):
        most = max(self.sizes.values())
        return known if self.sizes[known] == most else next(name for name, size in self.sizes.items() if size == most)

    def grown(self, fingerprint, before, *, later=0):
        loader = PlainLoader(self.sizes[fingerprint], fingerprint=fingerprint)
        loader.epoch = before.epoch + later
        return loader

    def as_it_was(self, fingerprint, *, where):
        return PlainLoader(self.sizes[fingerprint], fingerprint=fingerprint)


def assert_admitted_as_counted_by_hand(seed):
    draw = np.random.default_rng(seed)
    first, mini, crossing = int(draw.integers(5, 60)), int(draw.integers(1, 90)), bool(draw.integers(2))
    each = float(draw.choice([0.25, 0.3, 1, 1.1, 2, 4]))
    data = Additions({"abc": first}, draw.integers(0, 30, size=4_000).tolist())
    epochs, grow = int(draw.integers(1, 6)), str(draw.choice(["epoch", "mini-epoch"]))
    waits = []
    stream = stream_of(
        PlainLoader(first),
        plan(samples=mini, epochs=epochs, cross=crossing, most_samples=400),
        growing_data=data,
        grow=grow,
        samples_per_position=each,
        on_wait=waits.append,
    )
    given = Fraction(str(each))
    taken = 0
    while stream.cursor.epoch <= epochs and not stream.plan.samples_over(stream.cursor):
        told = len(waits)
        assert stream.begin_mini_epoch()
        positions, began = max(data.sizes.values()), stream.cursor
        for level in waits[told:]:
            # where it waited, one more sample of each that the mini-epoch may take is too many
            assert level.taken == taken
            assert taken + level.next > given * level.positions
        size = 0
        for batch in stream.batches(lambda: False, lambda: None):
            size += len(batch.value)
            taken += len(batch.value)
            # the law: samples, one by one, against the positions that were there when the mini-epoch began
            assert taken <= given * positions
        if not crossing:
            assert size == most_by_hand(began, PlainLoader(stream.loader.samples), mini, most=400)
        stream.cursor = stream.plan.after_mini_epoch(stream.cursor, stream.loader)
    return len(waits)


def most_by_hand(at, loader, mini, *, most=10**9):
    """Batch by batch, to the one that reaches the mini-epoch's samples, or the run's, or the epoch's end."""
    size, left = 0, loader.samples - at.epoch_samples
    while size < mini and at.samples_seen + size < most and left:
        size, left = size + min(BATCH, left), left - min(BATCH, left)
    return size


def test_a_mini_epoch_begins_where_a_slow_count_lets_it_and_not_before():
    assert sum(assert_admitted_as_counted_by_hand(seed) > 0 for seed in range(150)) > 50


@pytest.mark.parametrize("each", [0.1, 0.3, 0.7, 1, 1.5, 3, 4])
def test_what_is_lacking_is_the_smallest_addition_that_is_enough(each):
    given = Fraction(str(each))
    for taken in range(0, 40, 3):
        for coming in (1, 4, 9):
            for positions in range(1, 30, 4):
                enough = next(more for more in count() if taken + coming <= given * (positions + more))
                level = Level(taken, coming, positions, each)
                assert level.lacking == enough
                assert level.most <= given * positions < level.most + 1


def test_what_it_waits_for_is_said_with_its_numbers():
    assert str(Level(40_000, 10_000, 10_000, 4.0)) == (
        "waits: 40,000 samples of 10,000 positions are taken; 2,500 more positions let the next mini-epoch begin"
    )
    assert "; 1 more position lets the next" in str(Level(40_000, 1, 10_000, 4.0))


def test_a_run_that_waited_ends_bit_for_bit_as_one_that_did_not(tmp_path):
    train(tmp_path / "free")
    waits = []
    hooks = [lambda event: waits.append(event.level) if isinstance(event, Waiting) else None]
    slow = Still({"abc": SAMPLES}, [0, 0, 2, 0, 5, 0, 50])
    train(tmp_path / "limited", growing_data=slow, samples_per_position=1, hooks=hooks)
    assert [level.taken for level in waits] == [26] * len(waits)
    assert len(waits) > 2
    assert log_lines(tmp_path / "limited") == log_lines(tmp_path / "free")
    for name in names(tmp_path / "free"):
        ours, theirs = (checkpoint_file.read(tmp_path / each / "checkpoints" / name) for each in ("limited", "free"))
        assert ours["counters"].pop("bucket") == {"samples": 0, "chosen": SAMPLES, "split": SAMPLES}
        assert plain(ours) == plain(theirs)


class Still(Additions):
    """Positions are added, and no epoch takes them up."""

    def newest(self, known, *, larger=False):
        return known


def test_a_signal_ends_a_run_that_waits_with_a_checkpoint_and_it_goes_on_from_what_it_counted(tmp_path):
    train(tmp_path / "whole", growing_data=Still({"abc": SAMPLES}, [100]), samples_per_position=1)
    looked = []

    def stop(event):
        if isinstance(event, Waiting):
            looked.append(event.level)
            os.kill(os.getpid(), signal.SIGTERM)

    ended = train(
        tmp_path / "run", growing_data=Still({"abc": SAMPLES}), samples_per_position=1, hooks=[stop], num_epochs=2
    )
    assert (ended.interrupted, ended.samples_seen, len(looked)) == (True, SAMPLES, 1)
    assert names(tmp_path / "run")[-1] == "checkpoint_epoch0002_mini0001_partial.pt"
    # what was added meanwhile is counted, and no new beginning
    added = Still({"abc": SAMPLES}, [SAMPLES])
    assert not train(tmp_path / "run", growing_data=added, samples_per_position=1).interrupted
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_time_that_is_up_and_a_hook_end_a_run_that_waits(tmp_path):
    never = Still({"abc": SAMPLES})
    ended = train(tmp_path / "time", growing_data=never, samples_per_position=0.5, max_time_s=0.3)
    assert (ended.stopped, ended.samples_seen) == ("the time is used up", 12)

    def stop(event):
        if isinstance(event, Waiting):
            event.stop("no more is coming")

    ended = train(tmp_path / "hook", growing_data=never, samples_per_position=0.5, hooks=[stop])
    assert (ended.stopped, ended.samples_seen, ended.interrupted) == ("no more is coming", 12, False)


def test_sigusr1_saves_while_a_run_waits_and_it_goes_on_waiting(tmp_path):
    events = []

    def save(event):
        events.append(type(event))
        if isinstance(event, Waiting) and events.count(Waiting) == 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    data = Still({"abc": SAMPLES}, [0, 0, 0, 0, 0, 0, 100])
    assert train(tmp_path, growing_data=data, samples_per_position=1, hooks=[save]).samples_seen == 2 * SAMPLES
    begun = [at for at, event in enumerate(events) if event is MiniEpochBegun]
    waited = [at for at, event in enumerate(events) if event is Waiting]
    assert begun[2] < waited[0] < waited[-1] < begun[3]


def test_a_limit_given_to_a_run_that_began_without_counts_from_there_and_none_is_kept_without(tmp_path):
    train(tmp_path, num_epochs=1)
    assert "bucket" not in newest(tmp_path)["counters"]
    waits, begun = [], []

    def hear(event):
        waits.extend([event.level] if isinstance(event, Waiting) else [])
        begun.extend([(event.epoch, len(waits) > 0)] if isinstance(event, MiniEpochBegun) else [])

    data = Still({"abc": SAMPLES}, [0, 0, 0, 0, 0, 0, 100])
    train(tmp_path, num_epochs=3, growing_data=data, samples_per_position=1, hooks=[hear])
    assert [waited for epoch, waited in begun if epoch == 2] == [False, False, False]
    assert newest(tmp_path)["counters"]["bucket"] == {"samples": SAMPLES, "chosen": SAMPLES, "split": SAMPLES}
    assert {(level.taken, level.next) for level in waits} == {(SAMPLES, 12)}


def newest(run):
    return checkpoint_file.read(checkpoint_file.newest_first(run / "checkpoints")[0])


@pytest.mark.parametrize("bucket", [{"samples": 27, "chosen": 1, "split": 1}, {"samples": 0}, [1, 2, 3], "four"])
def test_a_checkpoint_whose_bucket_cannot_be_is_refused(bucket, tmp_path):
    train(tmp_path, num_epochs=1)
    state = newest(tmp_path)
    assert problem_of(state) is None
    state["counters"]["bucket"] = bucket
    assert "holds counters that cannot be" in problem_of(state)


def test_of_ranks_the_first_looks_and_all_begin_together():
    class Second(ProcessGroup):
        """Rank 1 of two, which hears what rank 0 says."""

        def same(self, value):
            assert value is None
            return next(said)

    said = iter([100, 100, 150])
    data = Additions({"abc": 100}, [1, 1, 1])
    levels = []
    bucket = TrainBucket(1, growing_data=data, process_group=Second(rank=1, size=2), on_wait=levels.append)
    bucket.counts_from = Bucket(0, 100, 100)
    assert bucket.admits(PlainLoader(100), 90, 20, lambda: False) is False
    assert (data.looks, [level.positions for level in levels]) == (0, [100, 100])


def test_it_counts_positions_of_a_loader_that_tells_them_and_samples_of_one_that_does_not():
    def chosen(loader):
        bucket = TrainBucket(1, growing_data=Additions({"abc": 500}), process_group=ProcessGroup())
        bucket.admits(loader, 0, 1, lambda: False)
        return bucket.counts_from

    loader = PlainLoader(40)
    assert chosen(loader) == Bucket(0, 40, 500)
    loader.positions = 10
    assert chosen(loader) == Bucket(0, 10, 500)
    # those are what samples are counted against, and what was there beside them is not
    bucket = TrainBucket(2, growing_data=Additions({"abc": 500}, [0, 0, 3]), process_group=ProcessGroup())
    assert bucket.admits(loader, 0, 20, lambda: False) is True
    assert bucket.admits(loader, 20, 6, lambda: False) is False
    assert bucket.admits(loader, 26, 1, lambda: True) is None


def test_an_epoch_that_waited_begins_on_what_it_waited_for():
    data = Additions({"abc": 8}, [0, 3, 5])
    stream = stream_of(PlainLoader(8), plan(samples=8, epochs=3), growing_data=data, samples_per_position=1)
    for positions in (8, 16):
        assert stream.begin_mini_epoch()
        assert stream.loader.samples == positions
        assert sum(len(batch.value) for batch in stream.batches(lambda: False, lambda: None)) == 8
        stream.cursor = stream.plan.after_mini_epoch(stream.cursor, stream.loader)


def test_what_does_not_grow_is_refused(tmp_path):
    with pytest.raises(ValueError, match="samples_per_position waits for a dataset to grow, which a mix does not"):
        TrainSpec(data=tmp_path, run=tmp_path, mix="b=0.5", samples_per_position=4)
    with pytest.raises(ValueError, match="samples_per_position waits for a dataset to grow"):
        train(tmp_path, samples_per_position=4)
    with pytest.raises(ValueError, match="samples_per_position must be more than 0"):
        train(tmp_path, samples_per_position=0, growing_data=Still({"abc": SAMPLES}))


def test_the_most_a_mini_epoch_takes_is_what_its_batches_add_up_to():
    for samples in (3, 10, 23):
        for mini in (1, 4, 9, 40):
            for most in (2, 7, 10**9):
                at, path, loader = Cursor(), plan(samples=mini, most_samples=most), PlainLoader(samples)
                assert path.most_samples(at, loader) == most_by_hand(at, loader, mini, most=most)
