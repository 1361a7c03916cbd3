from __future__ import annotations

import os

import pytest

from hexshards.storage.locks import locked


def test_to_lock_a_file_changes_neither_its_bytes_nor_those_of_one_that_it_leads_to(tmp_path):
    letter, lock = tmp_path / "letter", tmp_path / "lock"
    letter.write_text("dear")
    with locked(letter, taken="taken"):
        assert letter.read_text() == "dear"
    lock.symlink_to(letter)
    with pytest.raises(FileExistsError, match="is a link or a pipe, where a file to lock is needed"):
        locked(lock, taken="taken").__enter__()
    assert letter.read_text() == "dear"


def test_a_pipe_in_the_place_of_a_lock_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(FileExistsError, match="lock is a link or a pipe"):
        locked(tmp_path / "lock", taken="taken").__enter__()


def test_a_lock_is_held_by_one_at_a_time_and_gone_with_the_one_that_passes(tmp_path):
    with locked(tmp_path / "lock", taken="mine", passing=True), pytest.raises(FileExistsError, match="mine"):
        locked(tmp_path / "lock", taken="mine").__enter__()
    assert not (tmp_path / "lock").exists()
