"""Where a file that is open can be neither removed nor renamed, as on Windows, all that is done here is done too."""

from __future__ import annotations

import os

import pytest
from helpers.as_on_windows import open_files_stay
from helpers.small_data import dataset
from helpers.small_runs import train

from hexshards.conversion.workdir import SCRATCH
from hexshards.storage import cache
from hexshards.storage.cache import Cache
from hexshards.storage.locks import locked

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="what is open is told by Linux")


def test_the_rule_bites(tmp_path, monkeypatch):
    open_files_stay(monkeypatch)
    with open(tmp_path / "a", "w"), pytest.raises(PermissionError):
        (tmp_path / "a").unlink()
    (tmp_path / "a").unlink()


def test_a_conversion_leaves_nothing_behind(tmp_path, monkeypatch):
    open_files_stay(monkeypatch)
    data = dataset(tmp_path, games=5)
    assert {path.suffix for path in data.iterdir()} == {".json", ".tar"} and not (data / SCRATCH).exists()


def test_a_run_is_trained_and_gone_on_with(tmp_path, monkeypatch):
    open_files_stay(monkeypatch)
    for epochs in (1, 2):
        train(tmp_path, num_epochs=epochs)
    assert (tmp_path / "best.pt").exists() and len([*(tmp_path / "checkpoints").iterdir()]) == 6


def test_a_passing_lock_is_gone_in_the_end_and_holds_until_then(tmp_path, monkeypatch):
    open_files_stay(monkeypatch)
    with locked(tmp_path / "lock", taken="taken", passing=True):
        with pytest.raises(FileExistsError, match="taken"), locked(tmp_path / "lock", taken="taken", passing=True):
            pass
        assert (tmp_path / "lock").exists()
    assert [*tmp_path.iterdir()] == []


def test_a_download_takes_its_name_and_what_is_read_stays_in_the_cache(tmp_path, monkeypatch):
    open_files_stay(monkeypatch)
    monkeypatch.setattr(cache, "fcntl", None)
    kept = Cache(tmp_path, limit_bytes=10)
    with kept.writing("ab") as part:
        part.append(b"12345")
        assert part.publish()
    with kept.open("ab", size_bytes=5) as file:
        kept.make_room(100)
        assert file.read() == b"12345" and kept.path("ab").exists()
    kept.make_room(100)
    assert not kept.path("ab").exists()
