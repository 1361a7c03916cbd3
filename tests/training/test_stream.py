from __future__ import annotations

from dataclasses import replace
from functools import partial
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


@pytest.mark.parametrize(("cross", "val_every", "most"), [(False, 1, None), (False, 2, 70), (True, 1, 70)])
def test_what_is_left_of_a_run_is_what_it_then_does_wherever_it_stands(cross, val_every, most):
    path = replace(plan(samples=9, epochs=3, cross=cross, most_samples=most), val_every=val_every)
    stream, steps, minis, validations, stood = stream_of(PlainLoader(26), path), 0, 0, 0, []

    def stands(more=0):
        nonlocal steps
        steps += more
        stood.append((stream.cursor, steps, minis, validations))

    while stream.cursor.epoch <= 3 and not path.samples_over(stream.cursor):
        stands()
        taken(stream, done=partial(stands, 1))
        minis += 1
        validations += path.validates(stream.cursor, stream.loader)
        stream.cursor = path.after_mini_epoch(stream.cursor, stream.loader)
    for cursor, *before in stood:
        left, samples = path.totals(stream.loader, cursor), max(0, (most or 78) - cursor.samples_seen)
        assert [left.steps, left.mini_epochs, left.validations] == [
            whole - part for whole, part in zip((steps, minis, validations), before, strict=True)
        ]
        assert left.samples == samples


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


def test_where_growth_cut_an_epoch_short_what_is_left_is_counted_from_where_the_run_stands():
    # an epoch of twelve, cut after eight
    stands, path = Cursor(epoch=2, epoch_batches=1, epoch_samples=4, samples_seen=12), plan(samples=4, most_samples=30)
    left = path.totals(PlainLoader(12), stands)
    assert (left.samples, left.steps, left.mini_epochs) == (8, 2, 2)


def test_what_was_skipped_is_counted_from_the_beginning_of_the_mini_epoch():
    loader = PlainLoader(10)
    assert stream_of(loader).skipped() is None
    loader.skipped = SimpleNamespace(blocks=1, positions=16)
    stream = stream_of(loader)
    loader.skipped = SimpleNamespace(blocks=3, positions=40)
    assert stream.skipped() == {"blocks": 2, "positions": 24}
    stream.begin_mini_epoch()
    assert stream.skipped() == {"blocks": 0, "positions": 0}
