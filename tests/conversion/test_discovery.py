from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from itertools import permutations
from pathlib import Path

import pytest
from helpers.cli import call
from helpers.small_data import files_of

from hexshards.conversion.convert import convert
from hexshards.conversion.discovery import discover
from hexshards.conversion.estimate import estimate
from hexshards.conversion.random_files import write


@pytest.fixture
def folder(tmp_path):
    """Two files of games, and a third one elsewhere."""
    games = write(tmp_path / "made", games=60, format="trmph", side=5, games_per_file=20)
    (tmp_path / "games").mkdir()
    for path, name in zip(games, ("games/a.trmph", "games/b.trmph", "elsewhere/c.trmph"), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        path.rename(tmp_path / name)
    return tmp_path / "games"


def inputs_in(*sources):
    return [file.path.name for file in discover(sources).inputs]


# links and folders --------------------------------------------------------------------------------------------------


def test_a_linked_folder_is_searched_like_any_other_and_a_circle_of_links_ends(folder):
    (folder / "more").symlink_to(folder.parent / "elsewhere")
    (folder / "circle").symlink_to(folder)
    assert inputs_in(folder) == ["c.trmph", "a.trmph", "b.trmph"]
    assert inputs_in(f"{folder}/*") == inputs_in(folder), "a folder that a pattern matches is searched, as from a shell"


@pytest.mark.parametrize("target", ["nowhere", "broken.trmph"], ids=["to nothing", "to itself"])
@pytest.mark.parametrize("way", ["folder", "file", "pattern"])
def test_a_link_that_leads_nowhere_is_refused_by_name(folder, target, way):
    (folder / "broken.trmph").symlink_to(folder / target)
    source = {"folder": folder, "file": folder / "broken.trmph", "pattern": f"{folder}/*.trmph"}[way]
    with pytest.raises(
        FileNotFoundError, match=r"broken\.trmph: a link to .* that leads nowhere\. Mend it or remove it"
    ):
        discover(source)


def test_a_link_to_a_folder_that_is_gone_is_refused_whatever_its_name(folder):
    (folder / "more").symlink_to(folder / "gone")
    with pytest.raises(FileNotFoundError, match="more: a link to"):
        discover(folder)


@pytest.mark.parametrize(
    ("locked", "mode", "finding"),
    [
        ("locked", 0, "locked: this folder may not be read"),
        ("locked", 0o400, "its folder may not be entered"),
        ("locked/a.trmph", 0, r"a\.trmph: this file may not be read"),
    ],
)
def test_what_may_not_be_read_is_refused_by_name(locked, mode, finding):
    place = Path(tempfile.mkdtemp())
    try:
        place.chmod(0o755)
        (place / "locked").mkdir()
        (place / "locked" / "a.trmph").touch()
        (place / locked).chmod(mode)
        if os.geteuid() == 0:
            os.chown(place / locked, 65534, 65534)
            os.seteuid(65534)  # nothing is locked for root
        with pytest.raises(PermissionError, match=finding):
            discover(place)
    finally:
        os.seteuid(os.getuid())
        (place / "locked").chmod(0o700)
        shutil.rmtree(place)


def test_what_is_no_regular_file_is_refused_and_never_opened(folder, monkeypatch):
    monkeypatch.chdir(folder)  # the path of a socket is short
    os.mkfifo("pipe.trmph")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket.trmph")
    for source, kind in (("pipe.trmph", "a pipe"), ("socket.trmph", "a socket"), ("/dev/zero", "a device")):
        with pytest.raises(ValueError, match=f"{source}: {kind}, not a regular file"):
            discover(source)
    server.close()
    for source in (folder, "*.trmph"):
        with pytest.raises(ValueError, match=r"pipe\.trmph: a pipe"):
            discover(source)


# one name -----------------------------------------------------------------------------------------------------------


def test_shards_follow_neither_the_order_of_the_sources_nor_their_links_and_spellings(folder, monkeypatch):
    monkeypatch.chdir(folder)
    Path("z.trmph").symlink_to("a.trmph")
    Path("0.trmph").symlink_to("a.trmph")
    convert(["a.trmph", "b.trmph"], out="plain", val_fraction=0.4)
    for number, sources in enumerate(permutations(["z.trmph", "../games/a.trmph", str(folder / "b.trmph"), "0.trmph"])):
        if number % 5 == 0:
            convert(sources, out=f"other{number}", val_fraction=0.4)
            assert files_of(Path(f"other{number}")) == files_of(Path("plain"))
    convert(folder, out=folder.parent / "whole", val_fraction=0.4)
    assert files_of(folder.parent / "whole") == files_of(Path("plain"))


def test_of_links_alone_the_smallest_name_counts_whichever_is_given_first(folder):
    for name in ("y.trmph", "x.trmph", "z.trmph"):
        (folder.parent / name).symlink_to(folder.parent / "elsewhere" / "c.trmph")
    for names in permutations(["y.trmph", "x.trmph", "z.trmph"]):
        assert inputs_in(*(folder.parent / name for name in names)) == ["x.trmph"]


def test_what_was_read_under_another_name_of_the_file_is_not_taken_for_it(folder):
    (folder / "z.trmph").symlink_to(folder / "a.trmph")
    (folder / "bad.trmph").write_bytes(b"")
    for out, tries in (("one", ["z.trmph", "a.trmph"]), ("two", ["a.trmph"])):
        with pytest.raises(Exception, match="is empty"):
            convert([folder / tries[0], folder / "bad.trmph"], out=folder.parent / out, val_fraction=0.4)
        convert([folder / name for name in tries], out=folder.parent / out, val_fraction=0.4)
    one, two = (files_of(folder.parent / out) for out in ("one", "two"))
    assert {name: data for name, data in one.items() if name != "rejects.jsonl"} == {
        name: data for name, data in two.items() if name != "rejects.jsonl"
    }


# what is passed over ------------------------------------------------------------------------------------------------


def test_what_is_passed_over_in_a_folder_is_listed_with_what_to_do(folder):
    for name in ("C.TRMPH", "d.txt", "e.pkl", "F.PKL.GZ", "g.PKL", "notes.md", "README", "more.md"):
        (folder / name).touch()
    sentences = [
        f"passed over {folder}/C.TRMPH: endings are written in small letters: rename it to C.trmph",
        f"passed over {folder}/F.PKL.GZ: endings are written in small letters: rename it to F.pkl.gz",
        f"passed over {folder}/d.txt: name it, or a glob of such files, if it holds games",
        f"passed over {folder}/e.pkl, {folder}/g.PKL: it is not compressed: run gzip on it",
        "passed over 3 files of no known format (.md 2, without ending 1)",
    ]
    assert inputs_in(folder) == ["a.trmph", "b.trmph"]
    assert sorted(discover(folder).passed_over) == sorted(sentences)
    assert set(sentences) <= set(estimate(folder, out=folder.parent / "out").notes)
    assert set(sentences) <= set(convert(folder, out=folder.parent / "out").notes)


def test_a_folder_of_nothing_else_says_so_and_a_named_file_says_what_to_do(tmp_path):
    (tmp_path / "A.TRMPH").touch()
    with pytest.raises(FileNotFoundError, match=r"no file in this folder is named like .*rename it to A\.trmph"):
        discover(tmp_path)
    with pytest.raises(ValueError, match=r"A\.TRMPH: endings are written in small letters: rename it to A\.trmph"):
        discover(tmp_path / "A.TRMPH")
    (tmp_path / "inner").mkdir()
    with pytest.raises(FileNotFoundError, match="nothing to convert"):
        discover(f"{tmp_path}/inn*")


def test_a_file_that_is_also_named_is_not_said_to_be_passed_over(folder):
    (folder / "d.txt").write_bytes((folder / "a.trmph").read_bytes())
    assert discover([folder, folder / "d.txt"]).passed_over == ()


def test_a_format_whose_package_is_missing_is_told_before_a_folder_is_made(tmp_path, monkeypatch):
    (tmp_path / "a.sgf").write_text("(;FF[4]GM[11]SZ[13];B[a1])")
    monkeypatch.setitem(sys.modules, "sgfmill", None)
    ended = call("convert", tmp_path / "a.sgf", "--out", tmp_path / "out", code=2)
    assert "a.sgf is sgf, which needs sgfmill. Run: pip install 'hexshards[sgf]'" in ended.stderr
    assert not (tmp_path / "out").exists()


# parts of sources ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Two folders of five files each."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(5):
            (tmp_path / folder / f"{folder}{number}.trmph").write_text("#13,a1 b\n")
    return [tmp_path / "a", tmp_path / "b"]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ("", "a0 a1 a2 a3 a4 b0 b1 b2 b3 b4"),
        ("all", "a0 a1 a2 a3 a4 b0 b1 b2 b3 b4"),
        ("1-2", "a1 a2 b1 b2"),
        ("3-99 all", "a3 a4 b0 b1 b2 b3 b4"),
        ("4,0-0", "a4 b0"),
    ],
)
def test_some_files_of_each_source_are_counted_from_0_and_the_last_is_among_them(folders, ranges, expected):
    names = [file.path.stem for file in discover(folders, shard_ranges=ranges).inputs]
    assert names == expected.split()


@pytest.mark.parametrize(
    ("ranges", "fault"),
    [
        ("5-3", "shard_ranges: '5-3' is no range of files"),
        ("1..3", "is no range of files"),
        ("7-9", "a: shard_ranges 7-9 begins behind the last of 5 files"),
        ("1-2,all,all", "shard_ranges: 3 ranges for 2 sources: give one, or one for each"),
    ],
)
def test_a_range_of_no_files_is_refused_in_one_sentence(folders, ranges, fault):
    with pytest.raises(ValueError, match=fault):
        discover(folders, shard_ranges=ranges)
