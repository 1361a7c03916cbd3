from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.workdir import SCRATCH, clear, held


def test_a_conversion_that_begins_while_another_tidies_up_holds_the_folder_or_is_told_that_it_is_taken(tmp_path):
    (tmp_path / SCRATCH).mkdir()

    def convert_often(_):
        done = 0
        for _ in range(1_000):
            try:
                with held(tmp_path, ConvertSpec(), base=None, tidying=True) as scratch:
                    (scratch / "spill").write_bytes(b"rows")
                    clear(scratch)
                    done += 1
            except FileExistsError as error:
                assert "another conversion into this folder is running" in str(error)
        return done

    with ThreadPoolExecutor(3) as threads:
        assert sum(threads.map(convert_often, range(3))) > 0
    assert not (tmp_path / SCRATCH).exists()


def test_what_a_link_in_the_place_of_the_scratch_folder_leads_to_is_not_cleared(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / SCRATCH).symlink_to(tmp_path / "mine")
    with pytest.raises(FileExistsError, match="is a link, where a conversion makes a folder of its own"):
        held(tmp_path / "data", ConvertSpec(), base=None).__enter__()
    assert [path.read_text() for path in (tmp_path / "mine").iterdir()] == ["dear"]


def test_a_pipe_in_the_place_of_the_note_is_not_waited_for(tmp_path):
    (tmp_path / SCRATCH).mkdir()
    os.mkfifo(tmp_path / SCRATCH / "options.json")
    with held(tmp_path, ConvertSpec(), base=None) as scratch:
        assert b"val_fraction" in (scratch / "options.json").read_bytes()
