import shutil

import numpy as np
import pytest
from helpers.small_data import columns_of

from hexshards.conversion.convert import convert
from hexshards.conversion.random_files import trmph_line, write
from hexshards.dataset.index import read_index
from hexshards.dataset.split import game_keys, in_val
from hexshards.dataset.verify import verify
from hexshards.game.random_games import play


@pytest.fixture
def runs(tmp_path):
    """Two folders that hold other games in files of the same name."""
    for number, name in enumerate(("run1", "run2")):
        (tmp_path / name).mkdir()
        lines = [trmph_line(game) + "\n" for game in play(30 + 20 * number, side=5, seed=number)]
        (tmp_path / name / "games.trmph").write_text("".join(lines))
    return [tmp_path / "run1", tmp_path / "run2"]


def games_of(out):
    return sum(split.games for split in read_index(out).splits.values())


def shards_of(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_games_of_files_with_equal_names_are_counted_apart_in_any_order(runs, tmp_path):
    convert(runs, out=tmp_path / "out", val_fraction=0.3)
    convert(runs[::-1], out=tmp_path / "back", val_fraction=0.3)
    assert games_of(tmp_path / "out") == 80
    assert shards_of(tmp_path / "out") == shards_of(tmp_path / "back")
    assert verify(tmp_path / "out").problems == ()


def test_a_file_added_under_a_name_that_the_dataset_knows_is_a_source_of_its_own(runs, tmp_path):
    convert(runs[0], out=tmp_path / "out", val_fraction=0.3)
    before = read_index(tmp_path / "out").sources
    convert(runs[1], out=tmp_path / "out", append=True)
    after = read_index(tmp_path / "out").sources
    assert after[: len(before)] == before == ("games",) and len(after) == 2
    assert games_of(tmp_path / "out") == 80
    assert verify(tmp_path / "out").problems == ()


def test_the_split_is_by_the_name_alone_as_it_was_before_files_were_told_apart(runs, tmp_path):
    convert(runs, out=tmp_path / "out", val_fraction=0.3)
    for split in ("train", "val"):
        game = columns_of(tmp_path / "out", split)["game"]
        keys = game_keys(["games"], np.zeros(len(game), dtype=np.uint32), game)
        assert (in_val(keys, val_fraction=0.3) == (split == "val")).all()


def test_processed_files_of_equal_names_are_told_apart_too(tmp_path):
    for seed, name in enumerate(("run1", "run2")):
        write(tmp_path / name, games=20, side=5, seed=seed, games_per_file=20)
    report = convert([tmp_path / "run1", tmp_path / "run2"], out=tmp_path / "out", val_fraction=0.3)
    assert games_of(tmp_path / "out") == 40
    assert len(report.index.sources) == 2


def test_a_file_alone_with_its_name_keeps_it(runs, tmp_path):
    (runs[1] / "games.trmph").rename(runs[1] / "more.trmph")
    assert convert(runs, out=tmp_path / "out").index.sources == ("games", "more")


@pytest.mark.parametrize("folders", [("one", "two"), ("two", "one")])
def test_of_copies_the_smallest_name_counts_in_whichever_folder_and_order(runs, tmp_path, folders):
    for folder, name in zip(folders, ("zebra", "ant"), strict=True):
        (tmp_path / folder).mkdir()
        shutil.copy(runs[0] / "games.trmph", tmp_path / folder / f"{name}.trmph")
    copies = [tmp_path / folder for folder in folders]
    there = convert([*copies, runs[1]], out=tmp_path / "there")
    back = convert([runs[1], *copies[::-1]], out=tmp_path / "back")
    assert set(there.index.sources) == {"ant", "games"}
    assert there.repeated == back.repeated == (str(tmp_path / folders[0] / "zebra.trmph"),)
    assert shards_of(tmp_path / "there") == shards_of(tmp_path / "back")
