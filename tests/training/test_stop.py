from __future__ import annotations

import pytest
from helpers.plain_run import plan

from hexshards.training.distributed import ProcessGroup
from hexshards.training.early_stopping import EarlyStopping, Standing
from hexshards.training.mini_epochs import Cursor
from hexshards.training.stop import Stop
from hexshards.training.tracking.stopwatch import Stopwatch

RECORD = {"val": {"loss": 2.0}}


class Clock(Stopwatch):
    """Shows what it is told to."""

    shown_s = 0.0

    def used_s(self):
        return self.shown_s


def stop_of(early=None, *, max_samples=None, **limits):
    return Stop(
        plan(most_samples=max_samples, **limits), early or EarlyStopping(), watch=Clock(), process_group=ProcessGroup()
    )


def due(stop, cursor=None, standing=None):
    return stop.due(cursor or Cursor(), standing or Standing(), RECORD)


def test_a_run_with_more_to_train_goes_on():
    stop = stop_of()
    assert (due(stop), stop.reason, stop.leave(pytest.fail)) == (False, None, False)


def test_it_ends_after_the_last_epoch_without_a_reason():
    stop = stop_of(epochs=2)
    assert [due(stop, Cursor(epoch=epoch)) for epoch in (1, 2, 3)] == [False, False, True]
    assert stop.reason is None


def test_it_ends_at_the_limit_of_samples():
    stop = stop_of(max_samples=20)
    assert [due(stop, Cursor(samples_seen=seen)) for seen in (19, 20)] == [False, True]
    assert stop.reason == "20 samples were the limit"


class OneOfTwo:
    """A process group of which the other process has waited long enough, or has not; what is asked is noted."""

    def __init__(self, *, others):
        self.others, self.asked = others, []

    def any(self, flag):
        self.asked.append(flag)
        return flag or (self.others and len(self.asked) == 1)

    def same(self, value):
        return value


@pytest.mark.parametrize("own", [True, False])
def test_processes_whose_metrics_differ_look_for_more_data_together(own):
    looked: list[bool] = []
    standing = Standing(best=1.0, checkpoint="a.pt", waited=3 if own else 0)
    group = OneOfTwo(others=not own)
    stop = Stop(
        plan(),
        EarlyStopping(patience=3),
        watch=Clock(),
        process_group=group,
        more_to_come=lambda: bool(looked.append(group.asked[-1])),
    )
    due(stop, standing=standing)
    assert looked == [own]
    assert (stop.reason or "").startswith("val.loss has not improved for 3") == own


def test_it_ends_where_the_time_is_used_up():
    stop = stop_of(time_s=60.0)
    assert not due(stop)
    stop._watch.shown_s = 60.0
    assert due(stop)
    assert stop.reason == "the time is used up"


def test_a_mini_epoch_is_left_in_time_for_what_closes_it():
    stop = stop_of(time_s=60.0)
    stop._watch.shown_s, stop._watch.closing_s = 50.0, 5.0
    assert not stop.leave(pytest.fail)
    stop._watch.closing_s = 10.0
    assert stop.leave(pytest.fail)
    assert (stop.time_up, stop.signalled) == (True, False)


def test_it_ends_when_patience_does():
    stop = stop_of(EarlyStopping(patience=2))
    assert not due(stop, standing=Standing(1.0, "best.pt", 1))
    assert due(stop, standing=Standing(1.0, "best.pt", 2))
    assert stop.reason == "val.loss has not improved for 2 mini-epochs; the best: 1.0000 in best.pt"


def test_the_first_reason_counts():
    stop = stop_of()
    stop.because("a hook asked")
    stop.because("another hook asked")
    assert (due(stop), stop.reason) == (True, "a hook asked")


def test_a_signal_saves_once_and_leaves():
    stop, saved = stop_of(), []
    stop.signals.asked = True
    assert stop.leave(lambda: saved.append(1))
    assert (saved, stop.signalled, stop.time_up, due(stop), stop.reason) == ([1], True, False, True, None)


def test_a_request_to_save_is_met_once_and_training_goes_on():
    stop, saved = stop_of(), []
    stop.signals.save_asked = True
    assert [stop.leave(lambda: saved.append(1)) for _ in range(3)] == [False] * 3
    assert saved == [1]


def test_a_signal_counts_for_more_than_the_clock():
    stop = stop_of(time_s=1.0)
    stop._watch.shown_s, stop.signals.asked = 2.0, True
    assert stop.leave(lambda: None)
    assert (stop.signalled, stop.time_up) == (True, False)


def test_begun_again_nothing_has_been_asked_for():
    stop = stop_of()
    stop.because("enough")
    stop.signals.asked = stop.time_up = True
    stop.heard()
    stop.begin()
    assert (due(stop), stop.reason, stop.heard(), stop.time_up) == (False, None, False, False)
