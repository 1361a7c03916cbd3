from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest
from helpers.small_data import dataset

from hexshards.cores import shares, usable_cores
from hexshards.errors import DataError
from hexshards.training import run
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.options import TrainSpec


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, [1.5]),
        ("0::/", {"cpu.max": "max 100000"}, []),
        ("0::/", {}, []),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, [2.0]),
        ("0::/of/the/host", {"cpu.max": "400000 100000"}, [4.0]),
        ("4:cpu,acct:/d", {"cpu,acct/d/cpu.cfs_quota_us": "50000", "cpu,acct/d/cpu.cfs_period_us": "100000"}, [0.5]),
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
        ("3:memory:/", {"memory/cpu.cfs_quota_us": "1", "memory/cpu.cfs_period_us": "1"}, []),
    ],
)  # fmt: skip
def test_limits_of_cgroups_of_both_versions_are_found(tmp_path, groups, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert list(shares(groups, tmp_path)) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here: NOT CHECKED")
def test_a_process_that_is_bound_to_a_core_uses_one():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


OPENED: list[str] = []
sys.addaudithook(lambda event, given: OPENED.append(str(given[0])) if event == "open" else None)


def test_the_checkpoint_that_a_run_goes_on_from_is_read_once(tmp_path):
    spec = TrainSpec(data=dataset(tmp_path), run=tmp_path / "run", device="cpu", channels=2, blocks=1, diagnose=0)
    newest = run.train(spec).checkpoint
    for resume in ("auto", str(newest)):
        OPENED.clear()
        assert run.train(replace(spec, resume=resume)).resumed_from == newest
        assert OPENED.count(str(newest)) == 1


def test_a_checkpoint_that_was_written_anew_since_it_was_looked_into_is_read_again(tmp_path):
    reader, path = checkpoint_file.Reader(), tmp_path / "checkpoint_epoch0001_mini0001.pt"
    run.train(TrainSpec(data=dataset(tmp_path), run=tmp_path / "run", device="cpu", channels=2, blocks=1, diagnose=0))
    (newest,) = (tmp_path / "run" / "checkpoints").glob("*.pt")
    path.write_bytes(newest.read_bytes())
    seen = reader.look(path)
    assert reader.take(path) is seen
    assert reader.take(path) is not seen
    reader.look(path)
    path.write_bytes(b"other")
    with pytest.raises(DataError, match="is no checkpoint"):
        reader.take(path)
