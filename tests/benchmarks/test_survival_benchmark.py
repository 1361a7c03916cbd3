from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.small_data import processed

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import survival  # noqa: E402
from harness import stops, survivors  # noqa: E402
from harness.contestants import Contestant, System, source_of  # noqa: E402
from harness.environments import Unavailable  # noqa: E402
from harness.processes import processor_s  # noqa: E402
from harness.rows import Code, Resumable, packed, plain, steps  # noqa: E402
from harness.survivors import Walk  # noqa: E402
from loading import Results, Timing  # noqa: E402


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    return source_of(processed(folder / "files", games=12), cache=folder)


@pytest.fixture(scope="module")
def rows(source):
    return np.array(source.rows)


def test_a_batch_in_no_symmetry_is_told_as_the_rows_it_was_made_of(rows):
    assert np.array_equal(packed(plain(rows)), rows)


def test_rows_are_numbered_by_what_they_hold_and_others_are_unknown(rows):
    code = Code(rows)
    numbers = code.of(rows)
    assert np.array_equal(rows[numbers], rows)
    other = rows[:1].copy()
    other[0, 0] ^= 1
    assert code.of(np.full_like(other, 255)).tolist() == [Code.UNKNOWN]
    assert (code.of(other)[0] == Code.UNKNOWN) == (other.tobytes() not in {row.tobytes() for row in rows})


class Stored:
    """A system that reads a file of rows; ``checks``: and compares it with what it was."""

    def __init__(self, *, checks=False, leaves_out=False):
        self.checks, self.leaves_out = checks, leaves_out

    def resumable(self, folder, *, batch, workers, rank, world_size, states):
        read = np.load(folder / "rows.npy")
        if self.checks and read.tobytes() != np.load(folder.parent / "whole.npy").tobytes():
            raise ValueError("a bit has flipped")
        known = {row.tobytes() for row in np.load(folder.parent / "whole.npy")}
        if self.leaves_out:
            read = np.array([row for row in read if row.tobytes() in known])
        return Resumable(read[first : first + batch] for first in range(0, len(read), batch))


@pytest.mark.parametrize(
    ("system", "kind"),
    [
        (Stored(), "wrong samples, no error"),
        (Stored(checks=True), "error"),
        (Stored(leaves_out=True), "samples missing, no error"),
    ],
)
def test_what_a_flipped_bit_comes_to_is_told_apart(rows, tmp_path, system, kind):
    folder, code = tmp_path / "data", Code(rows)
    folder.mkdir()
    for path in (tmp_path / "whole.npy", folder / "rows.npy"):
        np.save(path, rows)
    whole = Counter(code.of(rows).tolist())
    sound = stops._outcome(system, folder, code, whole)
    assert survival.kind_of(sound) == "nothing changed"
    stops._flip(folder / "rows.npy", (folder / "rows.npy").stat().st_size - 3 * rows.shape[1] + 3, 5)
    assert survival.kind_of(stops._outcome(system, folder, code, whole)) == kind
    assert survival.kind_of({"crash": "exit -11"}) == "crash or hang"


def test_flips_fall_everywhere_and_alike_in_every_run():
    drawn = [stops._draw(number) for number in range(400)]
    assert drawn == [stops._draw(number) for number in range(400)]
    shares = np.histogram([share for share, _ in drawn], bins=4, range=(0, 1))[0]
    assert shares.min() > 70 and {bit for _, bit in drawn} == set(range(8))


def test_global_batches_are_the_slices_of_all_ranks_also_of_one_that_ends_sooner():
    by_rank = [[np.array([1, 2]), np.array([3])], [np.array([2])]]
    assert survivors.batches_of(by_rank) == [Counter({2: 2, 1: 1}), Counter([3])]


def test_the_same_samples_in_other_batches_are_not_the_same_and_lost_and_repeated_ones_are_counted():
    rest = [Counter([1, 2]), Counter([3, 4])]

    def compared(*batches):
        told = survivors._compared(rest, Walk([[np.array(batch) for batch in batches]], [], 0.0, 0.0, None))
        return told["same"], told["lost"], told["twice"]

    assert compared([2, 1], [3, 4]) == (True, 0, 0)
    assert compared([3, 4], [1, 2]) == (False, 0, 0)
    assert compared([1, 3], [2, 4]) == (False, 0, 0)
    assert compared([1, 2], [3, 3, 1]) == (False, 1, 2)


def test_an_epoch_that_leaves_samples_out_or_repeats_them_is_told_with_the_batches_of_each_rank():
    epoch = survivors.whole_epoch([[np.array([1, 2]), np.array([3])], [np.array([1])]], Counter([1, 2, 3, 4, 5]))
    assert epoch == {"left_out": 2, "repeated": 1, "batches": [2, 1]}


def test_ranks_that_stop_are_judged_to_go_on_with_the_same_batches_as_one_rank(source, tmp_path):
    from systems import hexshards_dense

    (tmp_path / "data").mkdir()
    hexshards_dense.prepare(source, tmp_path / "data")

    def walk(ranks, *, states, stop):
        told = []
        (tmp_path / "states").write_bytes(pickle.dumps(states))
        for rank in range(ranks):
            asked = {"batch": 32 // ranks, "workers": 0, "rank": rank, "world_size": ranks, "stop": stop, "begun": 0}
            asked |= {"states": str(tmp_path / "states"), "out": str(tmp_path / "out")}
            stops.walk("hexshards_dense", str(tmp_path / "data"), str(source.folder / "rows.npy"), json.dumps(asked))
            told.append(pickle.loads((tmp_path / "out").read_bytes()))  # noqa: TID251  # our own
        assert not any(each["error"] for each in told)
        return Walk([each["batches"] for each in told], [each["state"] for each in told], 0.0, 0.0, None)

    before = walk(2, states=None, stop=3)
    rest = survivors.batches_of(before.batches)[3:]
    assert survivors._compared(rest, walk(1, states=before.states, stop=None))["same"]
    again = survivors._compared(rest, walk(1, states=None, stop=None))
    assert (again["same"], again["lost"], again["twice"]) == (False, 0, 3 * 32)


def test_a_step_has_a_micro_batch_of_each_worker_and_the_last_what_is_left():
    micro_batches = [np.full((2, 1), number, np.uint8) for number in range(5)]
    assert [step[:, 0].tolist() for step in steps(micro_batches, count=2)] == [[0, 0, 1, 1], [2, 2, 3, 3], [4, 4]]


def entrant_that(does, tmp_path):
    """A system whose interpreter is a script: it is told the first flip as ${10}."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{does}\n")
    python.chmod(0o755)
    return Contestant(System("some", "some"), python, tmp_path / "cache" / "systems" / "some" / "data", 1.0)


def test_a_system_that_crashes_at_a_flip_is_started_again_behind_it(tmp_path):
    one = json.dumps({"error": None, "wrong": 0, "lost": 0, "twice": 0})
    crashing = f"echo '{{}}'; echo '{one}'; [ ${{10}} = 2 ] || kill -ABRT $$; echo '{one}'"
    outcomes = survivors.flipped(entrant_that(crashing, tmp_path), tmp_path, count=4)
    kinds = [survival.kind_of(outcome) for outcome in outcomes]
    assert kinds == ["nothing changed", "crash or hang", "nothing changed", "nothing changed"]


def test_a_system_that_cannot_read_its_own_data_is_not_measured_and_the_reason_is_told(tmp_path):
    with pytest.raises(Unavailable, match="no such library"):
        survivors.flipped(entrant_that("echo no such library >&2; exit 1", tmp_path), tmp_path, count=4)


def test_processor_seconds_are_those_of_all_that_was_started_whether_it_runs_or_has_ended():
    before = processor_s(os.getpid())
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-ISc", burn], stdin=-1, stdout=-1) as process:
        process.stdout.readline()
        running = processor_s(os.getpid()) - before
        process.communicate(b"\n")
    assert running >= 0.15
    assert processor_s(os.getpid()) - before >= running


def test_a_benchmark_that_was_stopped_goes_on_with_what_it_measured_and_another_does_not(tmp_path):
    first = Results(contestants=[], reasons={})
    first.timings["a", 256, 0].append(Timing(5.0, 0.5))
    first.peak_bytes["a", 0] = 9
    first.keep(tmp_path / "kept.json", "this")
    same, other = Results(contestants=[], reasons={}), Results(contestants=[], reasons={})
    same.go_on(tmp_path / "kept.json", "this")
    other.go_on(tmp_path / "kept.json", "that")
    assert (same.timings, same.peak_bytes) == (first.timings, first.peak_bytes)
    assert not other.timings and not other.peak_bytes
