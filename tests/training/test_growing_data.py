"""What a run says of data that grew: which of its positions are new, which are gone."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise

import pytest
from helpers.small_data import CUT, examples, write_examples

from hexshards.conversion.compact import compact
from hexshards.conversion.convert import convert
from hexshards.dataset.index import NAME as INDEX
from hexshards.loading.loader import Loader, loader
from hexshards.loading.options import LoaderSpec
from hexshards.storage.remote import home_of
from hexshards.training.growing_data import Earlier, Growth, ShardsGone


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """A dataset as additions come to it, merged in between and at the end; the others are of other games."""
    folder, kept = tmp_path_factory.mktemp("states"), []
    data = folder / "data"
    for number in range(5):
        source = write_examples(
            folder / f"s{number}_processed.pkl.gz", examples(2 + number, seed=number, source=f"s{number}")
        )
        convert(source, out=data, append=number > 0, **({} if number else {**CUT, "val_fraction": 0}))
        kept.append(shutil.copytree(data, folder / f"state{len(kept)}"))
        if number in (2, 4):
            compact(data, keep=0)
            kept.append(shutil.copytree(data, folder / f"state{len(kept)}"))
    return kept


def open_loader(state, **options):
    return loader(state, batch_size=32, augment="none", seed=7, num_workers=0, **options)


def drawn(loader):
    """The positions of an epoch: source, game and ply, which no two share."""
    windows, names = loader.epochs.windows(0), ("source", "game", "ply")
    read = [windows.read(number, names).columns for number in range(len(windows))]
    return {row for columns in read for row in zip(*(columns[name].tolist() for name in names), strict=True)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": "40"},
        {"window": "140"},
        {"window": "min=50 exponent=.5 expand=.3"},
        {"window": "60", "where": "ply=3.."},
        {"window": "60", "sources": "s[1-4]*"},
    ],
)
def test_what_is_new_and_what_is_gone_is_told_as_a_slow_twin_counts_it(states, options):
    moved = 0
    for earlier, later in pairwise(states[2:] if "sources" in options else states):
        before, now = open_loader(earlier, **options), open_loader(later, **options)
        told = str(Growth.between(before, now, epoch=2))
        rows = [drawn(each) for each in (before, now)]
        assert [len(each) for each in rows] == [before.samples, now.samples]
        new, gone, more = len(rows[1] - rows[0]), len(rows[0] - rows[1]), now.samples - before.samples
        if gone:
            moved += 1
            figures = [int(each) for each in re.findall(r"\d+", told.removeprefix("the window has moved: epoch 2"))]
            assert figures == [now.samples, new, now.samples - new, gone]
        elif new:
            assert told == f"the dataset has grown: epoch 2 has {more} samples more" and more == new
        else:
            assert told == "the dataset has other shards: epoch 2 has as many samples, in another order"
    assert (moved > 0) == ("window" in options)


def test_of_samples_that_are_a_part_of_the_window_it_is_told_how_the_window_moved(states):
    for options in ({"per_game": 2}, {"augment": "all"}):
        given = {"window": "40", **options}
        before, now = (loader(state, batch_size=32, seed=7, num_workers=0, **given) for state in states[3:5])
        assert before.samples != 40
        assert str(Growth.between(before, now, epoch=3)) == (
            "the window has moved: epoch 3 draws from 40 positions, 40 new and 0 as before; 40 of those before left it"
        )


@pytest.mark.parametrize("options", [{"shards": "1..1"}, {"positions": 40}, {"window": "60", "positions": 20}])
def test_where_the_indexes_do_not_say_which_positions_are_new_nothing_is_said_of_them(states, options):
    before, now = open_loader(states[1], **options), open_loader(states[2], **options)
    assert str(Growth.between(before, now, epoch=2)) == (
        "the dataset has other shards: epoch 2 has as many samples, which may be of other positions"
    )


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_shards_that_are_gone_are_no_damage_that_is_skipped(states, on_error, tmp_path):
    data = shutil.copytree(states[2], tmp_path / "data")
    (data / "train-000001.tar").unlink()
    spec = LoaderSpec(batch_size=8, on_error=on_error)
    with pytest.raises(ShardsGone):
        list(Loader(Earlier(home_of(data), states[2] / INDEX), spec, rank=0, world_size=1))
