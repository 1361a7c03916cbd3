import numpy as np
import pytest

from hexshards.conversion.convert import convert
from hexshards.conversion.duplicates.overlaps import MAX_ROWS, MAX_SKETCHES, overlap, overlap_with, sketch
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
