"""The orders that benchmarks/learning.py compares are what it says of them."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.small_data import processed

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from learning import BATCH, PER_GAME, WAYS, Point, held_back, loaded, run, table, trained  # noqa: E402

ALL = {way.title: way for way in WAYS}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning")
    processed(folder / "files", games=60)
    return loaded(sorted((folder / "files").glob("*.pkl.gz")), folder / "data", val_fraction=0.2)


def drawn(rows, title, count):
    """The rows of the first batches, and their symmetries."""
    numbered = SimpleNamespace(game=rows.game, is_val=rows.is_val, batch=lambda *drawn: drawn)
    batches = islice(ALL[title].order(numbered, np.random.default_rng(0)), count)
    return map(np.concatenate, zip(*batches, strict=True))


def test_a_split_by_file_validates_on_games_that_were_trained_on_and_one_by_game_on_none(rows):
    by_file, by_game = held_back(rows, WAYS[0]), held_back(rows, ALL["**hexshards**, `random`"])
    assert set(by_file).isdisjoint(np.concatenate(trained(rows)))
    assert len(by_file) + sum(map(len, trained(rows))) == len(rows.game)
    seen = set(rows.game[np.concatenate(trained(rows))])
    assert len(set(rows.game[by_file]) & seen) > 0.9 * len(set(rows.game[by_file]))
    assert set(rows.game[by_game]).isdisjoint(rows.game[~rows.is_val])


def test_files_in_turn_show_the_four_symmetries_of_a_position_in_a_row(rows):
    (shown, symmetry) = drawn(rows, "files in turn, four symmetries in a row", 3)
    assert symmetry.reshape(-1, 4).tolist() == [[0, 1, 2, 3]] * (3 * BATCH // 4)
    in_turn = np.concatenate(trained(rows))
    assert shown.reshape(-1, 4).tolist() == [[row] * 4 for row in in_turn[: 3 * BATCH // 4]]


def test_a_pool_that_is_full_drops_the_rest_of_each_file(rows):
    kept = np.concatenate([file[: len(file) // 2] for file in trained(rows)])
    shown, symmetry = drawn(rows, "pool that drops the rest of a file", 3 * len(kept) // BATCH)
    assert sorted(shown[: len(kept)]) == sorted(kept) != sorted(np.concatenate(trained(rows)))
    assert np.bincount(symmetry).min() > len(symmetry) / 6


def test_a_file_at_a_time_is_shuffled_within_itself(rows):
    order = list(map(set, trained(rows)))
    shown, _ = drawn(rows, "a file at a time, shuffled in memory", sum(map(len, order)) // BATCH)
    first_file = next(file for file in order if shown[0] in file)
    assert set(shown[: len(first_file)]) == first_file and sorted(first_file) != shown[: len(first_file)].tolist()


def test_few_positions_of_a_game_are_drawn_anew_in_each_epoch(rows):
    games = np.unique(rows.game[~rows.is_val])
    epoch = sum(min(PER_GAME, int((rows.game == game).sum())) for game in games)
    shown, _ = drawn(rows, "at most 8 positions a game, drawn anew", 2 * epoch // BATCH)
    first, second = shown[:epoch], shown[epoch:]
    assert np.unique(rows.game[first], return_counts=True)[1].tolist() == [PER_GAME] * len(games)
    assert not rows.is_val[shown].any() and len(set(second) - set(first)) > len(second) / 4


def test_a_run_is_judged_on_unseen_games_and_the_table_says_what_its_own_validation_says(rows):
    points = run(ALL["**hexshards**, `random`"], rows, rows, "cheap", samples=6 * BATCH, seed=0)
    assert [point.samples for point in points] == [BATCH * number for number in range(1, 7)]
    assert all(isinstance(point, Point) and point.own["samples"] < point.truth["samples"] for point in points)
    shown = table({("cheap", "**hexshards**, `random`"): [points]}, {"hexshards": 1e-6, "pickles": 1e-5})
    accuracy = 100 * points[-1].own["value_accuracy"]
    assert f"| {accuracy:.1f} ± 0.0 % | 1.0 |" in shown
