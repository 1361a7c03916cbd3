import json

import pytest
from helpers.cli import call

from hexshards.cli.conversion_view import SHOWN_FOLDERS, folders_text
from hexshards.conversion.convert import convert
from hexshards.conversion.random_files import examples_of, trmph_line, write_processed
from hexshards.conversion.report import SourceFolder, source_folders
from hexshards.conversion.sources import Input
from hexshards.game.random_games import play


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder as hex_ai leaves it: processed files, and in it a folder of the same ones shuffled."""
    monkeypatch.chdir(tmp_path)
    games = play(4, side=5, seed=3)
    for place in ("processed", "processed/deep/shuffled"):
        (tmp_path / place).mkdir(parents=True)
        examples = [each for line, game in enumerate(games, 1) for each in examples_of(game, game_id=(0, line))]
        write_processed(tmp_path / place / f"{place[-3:]}.pkl.gz", examples, source_file="games.trmph", games=4)
    (tmp_path / "processed" / "games.trmph").write_text("".join(trmph_line(game) + "\n" for game in games))
    (tmp_path / "processed" / "notes.md").write_text("of another kind")
    return tmp_path / "processed"


FOLDERS = """\
found 2 processed, 1 trmph files in 2 folders:
  processed: 1 processed, 1 trmph files
  processed/deep/shuffled: 1 processed file, inside processed
"""


def test_what_was_found_where_is_told_before_anything_is_read(folder, tmp_path):
    told = []
    convert(
        folder,
        out=tmp_path / "out",
        announce=lambda folders, others: told.append((folders, others)),
        progress=lambda now: told.append(now.files_done),
    )
    (folders, passed_over), done = told[0], told[1]
    assert folders_text(folders) + "\n" == FOLDERS and done == 0
    assert [".md 1" in sentence for sentence in passed_over] == [True]


def test_the_command_tells_a_person_on_stderr_and_a_program_in_its_object(folder):
    assert call("convert", "processed", "--out", "out").stderr.startswith(FOLDERS + "passed over 1 file")
    assert call("convert", "processed", "--out", "dry", "--dry-run").stdout.startswith(FOLDERS)
    told = call("convert", "processed", "--out", "other", "--json")
    (outer, inner), dry = (
        json.loads(told.stdout)["folders"],
        call("convert", "processed", "--out", "d", "--dry-run", "--json"),
    )
    assert told.stderr == "" and json.loads(dry.stdout)["folders"] == [outer, inner]
    assert outer == {"folder": str(folder), "files": {"processed": 1, "trmph": 1}, "inside": ""}
    assert inner["inside"] == str(folder)


def test_of_many_folders_those_with_the_most_files_are_named_and_the_others_counted(tmp_path):
    inputs = [
        Input(tmp_path / f"{folder:02}" / f"{n}.trmph", "trmph") for folder in range(20) for n in range(folder + 1)
    ]
    lines = folders_text(source_folders(inputs)).splitlines()
    assert len(lines) == SHOWN_FOLDERS + 1 and "20 folders" in lines[0] and "13 more folders" in lines[-1]
    assert "/19: 20 trmph files" in lines[1]


def test_a_folder_is_inside_the_nearest_that_has_files_itself(tmp_path):
    names = ("a/x", "a/b/c/x", "a/b/c/d/x", "ab/x")
    listed = source_folders([Input(tmp_path / name, "trmph") for name in names])
    around = [each.inside.removeprefix(f"{tmp_path}/") for each in listed]
    assert around == ["", "a", "a/b/c", ""]


def test_a_folder_whose_name_holds_escapes_is_told_as_text():
    assert "\x1b" not in folders_text([SourceFolder("/in\x1b[2J", {"trmph": 1}, "/\x1b[1m")])
