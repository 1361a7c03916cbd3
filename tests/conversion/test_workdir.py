from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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
