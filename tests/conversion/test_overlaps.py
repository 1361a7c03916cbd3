import os
import re
from collections import Counter

import numpy as np
import pytest

from hexshards.conversion.convert import convert
from hexshards.conversion.duplicates import overlap_notes, overlaps
from hexshards.conversion.duplicates.exact_overlap import MAX_POSITIONS, Boards, held_already, joined, several_times
from hexshards.conversion.duplicates.overlaps import MAX_ROWS, MAX_SKETCHES, Overlap, overlap, overlap_with, sketch
from hexshards.conversion.estimate import estimate
from hexshards.conversion.random_files import examples_of, trmph_line, write_processed
from hexshards.game.random_games import play


def sketch_of(games, plies):
    keys = np.repeat(np.arange(games, dtype=np.uint64), plies)
    stones = np.tile(np.arange(plies, dtype=np.uint8)[:, None], (games, 8))
    return sketch(keys, stones)


@pytest.fixture
def folder(tmp_path):
    """Twenty games as a file of records, and as the processed file that was made of it."""
    games = play(20, side=5, seed=3)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "games.trmph").write_text("".join(trmph_line(game) + "\n" for game in games))
    examples = [
        example
        for line, game in enumerate(games, start=1)
        for example in examples_of(game, game_id=(0, line), source_file="games.trmph")
    ]
    write_processed(tmp_path / "in" / "games_processed.pkl.gz", examples, source_file="games.trmph", games=20)
    return tmp_path / "in"


def notes_on(report):
    return [note for note in report.notes if "more than once" in note]


def test_games_that_come_as_records_and_processed_are_told_with_their_counts_and_the_option(folder, tmp_path):
    (note,) = notes_on(convert(folder, out=tmp_path / "out"))
    positions = sum(len(game.moves) + 1 for game in play(20, side=5, seed=3))
    assert note.startswith(f"{positions} positions of 20 games are there more than once") and "--dedupe" in note


def test_where_equal_positions_are_merged_nothing_is_told(folder, tmp_path):
    report = convert(folder, out=tmp_path / "out", dedupe="positions")
    assert notes_on(report) == []
    assert report.merged >= sum(len(game.moves) + 1 for game in play(20, side=5, seed=3))


def test_of_one_file_nothing_is_told(folder, tmp_path):
    assert notes_on(convert(folder / "games.trmph", out=tmp_path / "out")) == []


def test_a_sketch_is_bounded_and_still_tells_about_how_many():
    one, other = sketch_of(4000, 20), sketch_of(1000, 20)
    assert len(one) <= MAX_ROWS + 1
    shared = overlap([one, other])
    assert not shared.exact
    assert 850 < shared.games < 1150 and shared.positions == pytest.approx(20 * shared.games, rel=0.01)
    assert overlap([one]).positions == 0


@pytest.mark.parametrize("options", [{}, {"bake_symmetries": True}])
def test_games_added_that_the_dataset_holds_from_other_files_are_told(folder, tmp_path, options):
    convert(folder / "games.trmph", out=tmp_path / "out", **options)
    report = convert(folder / "games_processed.pkl.gz", out=tmp_path / "out", append=True)
    positions = sum(len(game.moves) + 1 for game in play(20, side=5, seed=3))
    (note,) = [note for note in report.notes if "in the dataset already" in note]
    assert note.startswith(f"{positions} positions of 20 games") and notes_on(report) == []


def again(notes):
    return [note for note in notes if "in the dataset already" in note]


def test_what_sketches_only_estimate_is_counted_and_where_that_is_too_much_it_is_said_to_be_an_estimate(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(overlaps, "MAX_ROWS", 100)
    positions = sum(len(game.moves) + 1 for game in play(20, side=5, seed=3))
    both = convert(folder, out=tmp_path / "both", workers=1)
    assert notes_on(both)[0].startswith(f"{positions} positions of 20 games are there more than once")
    for most, said in ((MAX_POSITIONS, rf"{positions} positions of 20 games were"), (10, ESTIMATE)):
        monkeypatch.setattr(overlap_notes, "MAX_POSITIONS", most)
        out = tmp_path / f"to-{most}"
        convert(folder / "games.trmph", out=out, workers=1)
        report = convert(folder / "games_processed.pkl.gz", out=out, append=True, workers=1)
        assert re.match(rf"{said} in the dataset already", *again(report.notes))


ESTIMATE = r"about \d+ positions of about \d+ games \(one game in \d(\.\d+)? was compared\) were"


def test_what_is_counted_is_what_one_counts_by_hand():
    random = np.random.default_rng(0)
    ours, first, second = (
        Boards(*random.integers(0, [[9], [40]], size=(2, count)).astype(np.uint64)) for count in (50, 30, 1)
    )
    held = {*first.boards_P.tolist(), *second.boards_P.tolist()}
    met = [game for game, board in zip(*map(np.ndarray.tolist, ours), strict=True) if board in held]
    nothing = joined([])
    assert 0 < len(met) < 50
    assert held_already(ours, [first, nothing, second]) == Overlap(len({*met}), len(met))
    counts = Counter(ours.boards_P.tolist())
    assert several_times(ours).positions == sum(counts.values()) - len(counts) > 0
    assert held_already(nothing, [first]) == several_times(nothing) == held_already(ours, []) == Overlap(0, 0)


@pytest.mark.parametrize(
    ("options", "then"),
    [
        ({}, "and would be added once more. A dataset made with --dedupe games"),
        ({"bake_symmetries": True}, "and would be added once more"),
        ({"dedupe": "games"}, "and would be left out (--dedupe games)"),
    ],
)
def test_a_dry_run_tells_what_the_dataset_holds_already_and_which_files_may_be_there_too(
    folder, tmp_path, options, then
):
    out, file = tmp_path / "out", folder / "games_processed.pkl.gz"
    (tmp_path / "more.trmph").write_text("".join(trmph_line(game) + "\n" for game in play(2, side=5, seed=4)))
    convert([folder / "games.trmph", tmp_path / "more.trmph"], out=out, **options)
    (told,) = again(estimate(file, out=out, append=True).notes)
    positions = sum(len(game.moves) + 1 for game in play(20, side=5, seed=3))
    start = f"of {file}, {positions} positions of 20 games are in the dataset already, from other files, {then}"
    assert told.startswith(start)
    other = tmp_path / "more_processed.pkl.gz"
    write_processed(
        other, examples_of(play(1, side=5, seed=5)[0], game_id=(0, 1), source_file="more"), source_file="more"
    )
    *_, named = estimate([file, other], out=out, append=True).notes
    assert (
        named
        == f"1 other file has the name of a source of the dataset, such as {other}: their games may be there already"
    )
    # new games of new files
    os.rename(tmp_path / "more.trmph", tmp_path / "new.trmph")
    (tmp_path / "new.trmph").write_text("".join(trmph_line(game) + "\n" for game in play(3, side=5, seed=6)))
    assert estimate(tmp_path / "new.trmph", out=out, append=True).notes == ()


def test_games_added_that_the_dataset_does_not_hold_are_not(folder, tmp_path):
    convert(folder / "games.trmph", out=tmp_path / "out")
    (tmp_path / "more.trmph").write_text("".join(trmph_line(game) + "\n" for game in play(20, side=5, seed=4)))
    report = convert(tmp_path / "more.trmph", out=tmp_path / "out", append=True)
    assert not any("already" in note for note in report.notes)


def test_sketches_of_many_shards_are_smaller_and_tell_what_is_held_already():
    held, ours = sketch_of(4000, 20), sketch_of(1000, 20)
    small = sketch(np.repeat(np.arange(4000, dtype=np.uint64), 2), np.zeros((8000, 8), np.uint8), of=16 * MAX_SKETCHES)
    assert len(small) <= MAX_ROWS // 16 + 1
    shared = overlap_with([held, held], [ours])
    assert 850 < shared.games < 1150 and shared.positions == pytest.approx(20 * shared.games, rel=0.01)
