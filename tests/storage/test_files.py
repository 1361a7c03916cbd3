from __future__ import annotations

import errno
import gzip
import os
import zlib

import pytest

from hexshards.errors import DataError
from hexshards.storage import files
from hexshards.storage.files import GUNZIP_FLOOR_BYTES, GUNZIP_RATIO, gunzip, publishing, write_whole

TEXT = b"one game a line\n" * 20
ZIPPED = gzip.compress(TEXT, mtime=0)


def test_a_published_file_takes_its_name_when_the_block_ends(tmp_path):
    path = tmp_path / "a.tar"
    with publishing(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, old, failure):
    path = tmp_path / "a.tar"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(failure), publishing(path) as file:
        file.write(b"half of the ne")
        file.flush()
        raise failure
    assert [each.read_bytes() for each in tmp_path.iterdir()] == ([] if old is None else [old])


def test_publish_replaces_the_whole_file(tmp_path):
    path = tmp_path / "index.json"
    write_whole(path, b"a long old text")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_files_whose_names_are_as_long_as_a_disk_takes_are_published_and_told_apart(tmp_path):
    ends = ("a" * 255, "é" * 127)
    for name in ends:
        write_whole(tmp_path / name, name.encode())
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == sorted(ends)
    cut = {files.fitted("a" * 254 + letter, ".partial") for letter in "ab"}
    assert len(cut) == 2
    assert {len(name) for name in cut} == {255}
    assert files.fitted("a", ".b") == "a.b"


def test_publishing_into_a_folder_that_is_not_there_fails_as_open_does(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "nowhere" / "a", b"")


def test_gunzip_gives_all_members_one_after_another():
    assert gunzip(ZIPPED, where="here") == TEXT
    parts = [TEXT[:7], b"", TEXT[7:]]
    assert gunzip(b"".join(gzip.compress(part) for part in parts), where="here") == TEXT
    assert gunzip(gzip.compress(b""), where="here") == b""


@pytest.mark.parametrize("data", [ZIPPED, ZIPPED + gzip.compress(b"more")], ids=["one member", "two members"])
def test_a_file_cut_at_any_byte_is_a_data_error(data):
    whole = {0, len(ZIPPED)} if len(data) > len(ZIPPED) else {0}
    for end in range(len(data)):
        if end in whole - {0}:
            assert gunzip(data[:end], where="here") == TEXT
            continue
        with pytest.raises(DataError) as damage:
            gunzip(data[:end], where="here.gz")
        assert damage.value.where == "here.gz"


def test_no_flipped_bit_changes_what_a_file_holds_without_being_found():
    unnoticed = 0
    for bit in range(8 * len(ZIPPED)):
        damaged = bytearray(ZIPPED)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert gunzip(bytes(damaged), where="here") == TEXT
            unnoticed += 1
        except DataError:
            pass
    # time stamp and origin in the header, and what fills the last byte of the stream
    assert unnoticed < 8 * 7 + 8


@pytest.mark.parametrize(
    "trailing", [b"\0garbage", b"\0" * 512 + ZIPPED, b"garbage", b"\x1f", b"\x1f\x8b", zlib.compress(TEXT)]
)
def test_anything_after_the_last_member_is_a_data_error(trailing):
    with pytest.raises(DataError, match="gzip"):
        gunzip(ZIPPED + trailing, where="here")


@pytest.mark.parametrize("zeros", [1, 512, 1 << 20])
def test_zeros_after_the_last_member_are_passed_over_as_gzip_does(zeros):
    assert gunzip(ZIPPED + bytes(zeros), where="here") == TEXT
    assert gunzip(ZIPPED + ZIPPED + bytes(zeros), where="here") == TEXT + TEXT


@pytest.mark.parametrize(
    "data", [b"<!DOCTYPE html>", b"version https://git-lfs", zlib.compress(TEXT), b"\x1f", b"\x8b\x1f"]
)
def test_what_is_not_gzip_is_called_that(data):
    with pytest.raises(DataError, match="is not gzip"):
        gunzip(data, where="here")


def test_an_empty_file_is_called_that():
    with pytest.raises(DataError, match="is empty"):
        gunzip(b"", where="here")


def test_a_file_may_grow_to_its_limit_and_not_a_byte_further(monkeypatch):
    assert (GUNZIP_FLOOR_BYTES, GUNZIP_RATIO) == (16 << 20, 256)
    monkeypatch.setattr(files, "GUNZIP_FLOOR_BYTES", 1000)
    monkeypatch.setattr(files, "GUNZIP_RATIO", 3)

    def stored(size):
        return gzip.compress(bytes(size), compresslevel=9, mtime=0)

    size = next(size for size in range(1000, 2000) if 1000 + 3 * len(stored(size)) == size)
    assert gunzip(stored(size), where="here") == bytes(size)
    with pytest.raises(DataError, match="decompresses to more than"):
        gunzip(stored(size + 1), where="here")


def test_members_share_one_limit():
    # each of 20 members stays under the floor
    member = gzip.compress(bytes(4 << 20))
    with pytest.raises(DataError, match="decompresses to more than"):
        gunzip(member * 20, where="here")


def test_a_bomb_is_refused_in_bounded_memory(small_machine):
    source = """
import gzip, json
from hexshards.errors import DataError
from hexshards.storage.files import gunzip
bomb = gzip.compress(bytes(16 << 20)) * 256  # 4 GB in 4 MB
try:
    gunzip(bomb, where="here")
except DataError as error:
    print(json.dumps(str(error)))
"""
    assert "decompresses to more than" in small_machine(source)


def test_what_cannot_be_written_is_told_by_the_name_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/missing/page.html: there is no folder {tmp_path}/missing"):
        write_whole(tmp_path / "missing" / "page.html", b"")
    with pytest.raises(OSError, match=r"No space left on device: '.*/page.html'"), publishing(tmp_path / "page.html"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not any(tmp_path.iterdir())
