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

from harness.curves import Point, Runs, draw, ends_table, seconds_each, stops_table  # noqa: E402
from harness.orders import BATCH, VAL_SHARE, WAYS, held_back, loaded, trained  # noqa: E402
from learning import POINTS, Kept, run  # noqa: E402


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning")
    processed(folder / "files", games=60)
    return loaded(sorted((folder / "files").glob("*.pkl.gz")), folder / "data", val_fraction=VAL_SHARE)


def drawn(rows, name, count):
    """The rows of the first batches, and their symmetries."""
    numbered = SimpleNamespace(game=rows.game, is_val=rows.is_val, batch=lambda *drawn: drawn)
    batches = islice(WAYS[name].order(numbered, np.random.default_rng(0)), count)
    return map(np.concatenate, zip(*batches, strict=True))


def test_a_split_by_file_validates_on_games_that_were_trained_on_and_one_by_game_on_none(rows):
    by_file, by_game = held_back(rows, WAYS["in-turn"]), held_back(rows, WAYS["random"])
    assert set(by_file).isdisjoint(np.concatenate(trained(rows)))
    assert len(by_file) + sum(map(len, trained(rows))) == len(rows.game)
    seen = set(rows.game[np.concatenate(trained(rows))])
    assert len(set(rows.game[by_file]) & seen) > 0.9 * len(set(rows.game[by_file]))
    assert set(rows.game[by_game]).isdisjoint(rows.game[~rows.is_val])


def test_files_in_turn_show_the_four_symmetries_of_a_position_in_a_row(rows):
    (shown, symmetry) = drawn(rows, "in-turn", 3)
    assert symmetry.reshape(-1, 4).tolist() == [[0, 1, 2, 3]] * (3 * BATCH // 4)
    in_turn = np.concatenate(trained(rows))
    assert shown.reshape(-1, 4).tolist() == [[row] * 4 for row in in_turn[: 3 * BATCH // 4]]


def test_a_pool_that_is_full_drops_the_rest_of_each_file(rows):
    kept = np.concatenate([file[: len(file) // 2] for file in trained(rows)])
    shown, symmetry = drawn(rows, "pool", 3 * len(kept) // BATCH)
    assert sorted(shown[: len(kept)]) == sorted(kept) != sorted(np.concatenate(trained(rows)))
    assert np.bincount(symmetry).min() > len(symmetry) / 6


def test_a_file_at_a_time_is_shuffled_within_itself(rows):
    order = list(map(set, trained(rows)))
    shown, _ = drawn(rows, "in-memory", sum(map(len, order)) // BATCH)
    first_file = next(file for file in order if shown[0] in file)
    assert set(shown[: len(first_file)]) == first_file and sorted(first_file) != shown[: len(first_file)].tolist()


def test_openings_count_a_quarter_where_they_are_given_less_weight(rows):
    batch = next(WAYS["weights"].order(rows, np.random.default_rng(0)))
    stones = batch.board[:, :2].sum(dim=(1, 2, 3))
    assert set(batch.columns["weight"][stones < 10].tolist()) == {0.25}
    assert set(batch.columns["weight"][stones >= 10].tolist()) == {1.0}


@pytest.mark.parametrize("network", ["cheap", "conv"])
def test_a_run_is_judged_by_unseen_games_and_by_its_own_validation_at_every_point(rows, network):
    points = run(WAYS["random"], rows, rows, network, samples=POINTS * BATCH, seed=0)
    assert [point.samples for point in points] == [BATCH * number for number in range(1, POINTS + 1)]
    assert all(0 < point.own["samples"] < point.truth["samples"] for point in points)
    assert [point.step_s for point in points] == sorted(point.step_s for point in points)


def curve(own, truth):
    """A run whose losses are those given, and whose accuracies are a tenth of them."""
    losses = [{"loss": loss, "policy_loss": loss, "value_loss": loss, "value_accuracy": loss / 10} for loss in own]
    truths = [{"loss": loss, "policy_loss": loss, "value_loss": loss, "value_accuracy": loss / 10} for loss in truth]
    return [Point(100 * at, 0.5 * at, *both) for at, both in enumerate(zip(losses, truths, strict=True), start=1)]


def test_the_tables_tell_ends_and_stops_of_all_seeds():
    runs = Runs("cheap", "in-turn", [curve([5, 4, 3], [5, 6, 7]), curve([5, 3, 4], [5, 6, 8])])
    loading = {"pickles": 2e-2, "hexshards": 0.0}
    seconds = seconds_each([runs, Runs("cheap", "random", runs.curves[:1])], loading)
    assert seconds == {("cheap", "in-turn"): 0.005 + 0.02, ("cheap", "random"): 0.005}
    ends = ends_table([runs], seconds, loading).splitlines()[-1]
    title = "| cheap | files in turn, four symmetries in a row "
    assert ends == (
        f"{title}| 7.500 ± 0.500 | 7.500 ± 0.500 | 75.0 ± 5.0 % | 35.0 ± 5.0 % | -40.0 ± 0.0 % | 20000.0 | 8 |"
    )
    stops = stops_table([runs]).splitlines()[-1]
    assert stops == (f"{title}| 300 / 200 | 6.500 ± 0.500 | 65.0 ± 5.0 % | 7.500 ± 0.500 | 75.0 ± 5.0 % |")


def test_the_curves_are_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    draw([Runs("cheap", "random", [curve([5, 4], [5, 6])])], {("cheap", "random"): 0.1}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_part_that_was_kept_is_not_measured_again_but_for_other_settings(tmp_path):
    made = iter([[1], [2], [3]])
    kept = Kept(tmp_path, {"samples": 100})
    assert [kept.had("a", lambda: next(made)) for _ in range(2)] == [[1], [1]]
    assert Kept(tmp_path, {"samples": 200}).had("a", lambda: next(made)) == [2]
