from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.plain_run import PlainLoader, plan, stream_of

from hexshards.errors import DataError
from hexshards.training.growing_data import Growth
from hexshards.training.mini_epochs import Cursor


def taken(stream, leave=lambda: False, done=lambda: None):
    return [batch.name for batch in stream.batches(leave, done)]


def whole_run(stream, mini_epochs):
    mini_epoch_batches = []
    for _ in range(mini_epochs):
        stream.begin_mini_epoch()
        mini_epoch_batches.append(taken(stream))
        stream.cursor = stream.plan.after_mini_epoch(stream.cursor, stream.loader)
    return mini_epoch_batches


def test_a_mini_epoch_ends_with_its_samples_or_with_the_epoch():
    stream = stream_of(PlainLoader(10))
    assert whole_run(stream, 4) == [[(0, 0), (0, 1)], [(0, 2)], [(1, 0), (1, 1)], [(1, 2)]]
    assert stream.cursor == Cursor(epoch=3, samples_seen=20)


def test_a_mini_epoch_may_go_on_over_the_end_of_an_epoch():
    stream = stream_of(PlainLoader(10), plan(cross=True))
    assert whole_run(stream, 2) == [[(0, 0), (0, 1)], [(0, 2), (1, 0), (1, 1)]]


def test_the_loader_is_opened_once_an_epoch_however_many_mini_epochs_it_has():
    loader = PlainLoader(40)
    whole_run(stream_of(loader), 5)
    assert (loader.opened, loader.epoch) == (1, 1)


def test_the_cursor_moves_when_a_batch_is_done_and_not_before():
    stream, seen = stream_of(PlainLoader(10)), []
    for _ in stream.batches(lambda: False, lambda: seen.append(stream.cursor.samples_seen)):
        seen.append(-stream.cursor.samples_seen)
    assert seen == [0, 4, -4, 8]


def test_leaving_before_any_batch_and_going_on_gives_the_batches_of_one_that_was_not_left():
    whole = whole_run(stream_of(PlainLoader(10)), 1)[0]
    for at in range(len(whole)):
        stream = stream_of(PlainLoader(10))
        asked = iter([False] * at + [True])
        before = taken(stream, leave=lambda asked=asked: next(asked))
        state, cursor = stream.loader.state_dict(), stream.cursor
        again = stream_of(PlainLoader(10))
        again.loader.load_state_dict(state)
        again.begin(cursor)
        assert (before, before + taken(again)) == (whole[:at], whole)


@pytest.mark.parametrize(("count", "told"), [(4, "ended after 3 of 4 batches"), (2, "goes on after 2 batches")])
def test_a_loader_that_counts_wrongly_is_told(count, told):
    stream = stream_of(PlainLoader(10, count=count), plan(samples=100))
    with pytest.raises(RuntimeError, match=told):
        taken(stream)


def test_where_a_checkpoint_counts_other_batches_than_the_loader_it_is_named():
    stream = stream_of(PlainLoader(10, count=4), plan(samples=100))
    stream.begin(Cursor(), resumed_from=Path("run/checkpoint.pt"))
    with pytest.raises(DataError, match=r"run/checkpoint\.pt: counts other batches .* another run folder"):
        taken(stream)


def test_the_newest_batches_are_found_again():
    stream = stream_of(PlainLoader(400), plan(samples=400))
    names = taken(stream)
    assert [stream.recent(ago).name for ago in (0, 1, 50, 99)] == [names[-1 - ago] for ago in (0, 1, 50, 99)]
    assert stream.recent(100) is None


def test_a_dataset_that_grew_is_gone_on_with_where_an_epoch_begins_and_told():
    small, large, told = PlainLoader(8), PlainLoader(12, fingerprint="grown"), []
    large.epoch = 1
    grown = SimpleNamespace(newest=lambda *_, **__: "grown", grown=lambda *_, **__: large)
    stream = stream_of(small, plan(), growing_data=grown, on_growth=told.append)
    assert whole_run(stream, 2) == [[(0, 0), (0, 1)], [(1, 0), (1, 1)]]
    assert (stream.loader, told) == (large, [Growth(epoch=2, more=4)])


def test_an_epoch_ends_where_a_mini_epoch_finds_the_dataset_larger_unless_it_is_the_last():
    def run_of(epochs, looks, mini_epochs):
        small, large, told = PlainLoader(12), PlainLoader(12, fingerprint="grown"), []
        large.epoch, newest = 1, iter(looks)
        data = SimpleNamespace(newest=lambda known, **_: next(newest) or known, grown=lambda *_, **__: large)
        grows = {"growing_data": data, "grow": "mini-epoch", "on_growth": told.append}
        return whole_run(stream_of(small, plan(epochs=epochs, samples=4), **grows), mini_epochs), told

    # an epoch has three mini-epochs; the second look finds more
    assert run_of(2, [None, "grown"], 5) == (
        [[(0, 0)], [(0, 1)], [(1, 0)], [(1, 1)], [(1, 2)]],
        [Growth(epoch=2, more=0)],
    )
    assert run_of(1, [], 3) == ([[(0, 0)], [(0, 1)], [(0, 2)]], [])


def test_what_was_skipped_is_counted_from_the_beginning_of_the_mini_epoch():
    loader = PlainLoader(10)
    assert stream_of(loader).skipped() is None
    loader.skipped = SimpleNamespace(blocks=1, positions=16)
    stream = stream_of(loader)
    loader.skipped = SimpleNamespace(blocks=3, positions=40)
    assert stream.skipped() == {"blocks": 2, "positions": 24}
    stream.begin_mini_epoch()
    assert stream.skipped() == {"blocks": 0, "positions": 0}
