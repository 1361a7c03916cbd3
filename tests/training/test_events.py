from __future__ import annotations

from pathlib import Path

import pytest
from helpers.plain_run import PlainLoader, PlainTrainer, checkpoints_of, plan, stream_of

from hexshards.training.checkpointing.checkpoints import RunState
from hexshards.training.distributed import ProcessGroup
from hexshards.training.early_stopping import EarlyStopping
from hexshards.training.growing_data import Growth
from hexshards.training.mini_epochs import Cursor
from hexshards.training.stop import Stop
from hexshards.training.tracking.events import Events, record_of
from hexshards.training.tracking.hooks import (
    MiniEpochTrained,
    Noticed,
    Progressed,
    Run,
    RunEnded,
    RunStarted,
    Saved,
    Validating,
)
from hexshards.training.tracking.stopwatch import Stopwatch

STATE = RunState(cursor=Cursor(epoch=2, mini_epoch=3, samples_seen=40), train={"loss": 0.5, "learning_rate": 0.1})


class Clock(Stopwatch):
    """Says that it is time to tell, or that it is not."""

    time_to_tell = False

    def due(self, interval_s):
        return self.time_to_tell


@pytest.fixture
def told():
    return []


def events_of(*hooks, folder=Path("run"), val_loader=(1, 2, 3), watch=None):
    run = Run(
        folder=folder,
        trainer=PlainTrainer(),
        train_loader=PlainLoader(),
        val_loader=val_loader,
        options={},
        stop=lambda reason: None,
    )
    return Events(run, hooks, watch=watch or Clock(), process_group=ProcessGroup())


def stop_of() -> Stop:
    return Stop(plan(), EarlyStopping(), watch=Clock(), process_group=ProcessGroup())


def test_a_run_that_begins_tells_what_it_will_count(tmp_path, told):
    events_of(told.append).started(RunState(), stop_of(), checkpoints_of(tmp_path), stream_of(PlainLoader(10)))
    (started,) = told
    assert isinstance(started, RunStarted)
    assert (started.resumed_from, started.samples_seen, started.history) == (None, 0, [])
    assert (started.totals.samples, started.totals.steps, started.totals.mini_epochs) == (20, 6, 4)


def test_a_run_without_validation_says_so(tmp_path, told):
    events = events_of(told.append, val_loader=None)
    events.started(RunState(), stop_of(), checkpoints_of(tmp_path), stream_of(PlainLoader(10)))
    assert [event.text for event in told if isinstance(event, Noticed)] == [
        "there is no validation split: training without validation until started again with one"
    ]


def test_progress_is_told_when_it_is_time_and_at_the_end_of_a_mini_epoch(told):
    watch = Clock()
    events, stream, shares = events_of(told.append, watch=watch), stream_of(PlainLoader(16), plan(samples=16)), []
    for number, _ in enumerate(stream.batches(lambda: False, lambda: None)):
        watch.time_to_tell = number == 1
        events.progress(stream, 2.5, lambda: {"loss": 1.0})
    watch.time_to_tell = False
    events.progress(stream, 2.5, lambda: {"loss": 1.0})
    shares = [(event.progress.mini_epoch_done, event.progress.mini_epoch_samples) for event in told]
    assert all(isinstance(event, Progressed) for event in told)
    assert shares == [(4, 16), (16, 16)]
    assert (told[0].progress.best, told[0].progress.train, told[0].progress.total_samples) == (2.5, {"loss": 1.0}, 32)


def test_without_hooks_no_metric_is_asked_for():
    stream = stream_of(PlainLoader(8))
    list(stream.batches(lambda: False, lambda: None))
    events_of().progress(stream, None, pytest.fail)


def test_a_validation_tells_its_beginning_and_its_last_batch(told):
    assert list(events_of(told.append).validating([1, 2, 3])) == [1, 2, 3]
    assert [(event.batches_done, event.batches) for event in told] == [(0, 3), (3, 3)]
    assert all(isinstance(event, Validating) for event in told)


def test_a_validation_whose_length_nobody_knows_is_gone_through_all_the_same(told):
    assert list(events_of(told.append, val_loader=iter([1])).validating(iter([1, 2]))) == [1, 2]
    assert [(event.batches_done, event.batches) for event in told] == [(0, None)]


def test_what_hooks_return_joins_the_record_and_two_may_not_say_the_same():
    def says(**what):
        return lambda event: what if isinstance(event, MiniEpochTrained) else None

    added = events_of(says(norm=1.0), says(noise=2.0)).trained(STATE)
    assert added == {"norm": 1.0, "noise": 2.0}
    with pytest.raises(ValueError, match="norm"):
        events_of(says(norm=1.0), says(norm=2.0)).trained(STATE)


def test_a_record_says_where_and_what_and_how_fast():
    speed = {"samples_per_s": 9.0, "waiting": 0.1, "skipped": None, "dataset": "abc", "seconds": 3.0}
    record = record_of(STATE, {"loss": 0.7}, {"norm": 1.0}, checkpoint=Path("run/a.pt"), speed=speed)
    assert (record["epoch"], record["mini_epoch"], record["samples_seen"]) == (2, 3, 40)
    assert (record["train"], record["learning_rate"], record["val"]) == ({"loss": 0.5}, 0.1, {"loss": 0.7})
    assert (record["checkpoint"], record["norm"], record["samples_per_s"]) == ("a.pt", 1.0, 9.0)
    assert STATE.train == {"loss": 0.5, "learning_rate": 0.1}


def test_the_outcome_counts_whole_mini_epochs_and_keeps_the_notices(tmp_path, told):
    events, checkpoints = events_of(told.append), checkpoints_of(tmp_path)
    stop = stop_of()
    events.saved(tmp_path / "partial.pt", {})
    events.saved(tmp_path / "whole.pt", {"epoch": 2})
    events.grown(Growth(epoch=2, more=1))
    stop.because("a hook asked")
    outcome = events.ended(STATE, stop, checkpoints)
    assert (outcome.epochs, outcome.mini_epochs, outcome.samples_seen) == (1, 1, 40)
    assert (outcome.interrupted, outcome.stopped, outcome.best) == (False, "a hook asked", None)
    assert outcome.notices == ("the dataset has grown: epoch 2 has 1 sample more",)
    assert [type(event) for event in told] == [Saved, Saved, Noticed, RunEnded]


def test_a_run_that_a_signal_ended_before_its_last_epoch_was_interrupted(tmp_path):
    stop = stop_of()
    stop.signals.asked = True
    stop.heard()
    outcome = events_of().ended(STATE, stop, checkpoints_of(tmp_path))
    assert outcome.interrupted and outcome.stopped is None
