from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.small_data import images, processed, rows_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from harness import proof  # noqa: E402
from harness.contestants import ALL, apart, source_of  # noqa: E402
from harness.environments import Unavailable, python_of  # noqa: E402
from harness.rows import Shuffled, expand, expand_one, plain  # noqa: E402
from loading import Results, table  # noqa: E402

HERE = [system for system in ALL if system.samples and not apart(system)]

PROVE_EACH = """
import json, sys
sys.path.insert(0, sys.argv[1])
from harness import proof, trial

for name in sys.argv[4:]:
    folder = f"{sys.argv[3]}/{name}"
    trial.Path(folder).mkdir()
    proofs = []
    for workers in "0", "2":
        try:
            stored = trial.prepare(name, sys.argv[2], folder)["positions"] if workers == "0" else stored
            proofs.append(trial.prove(name, sys.argv[2], folder, workers, "1")["proved"])
        except proof.Unsound as error:
            proofs.append(str(error))
    print(json.dumps({"name": name, "stored": stored, "proved": proofs}))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    return source_of(processed(folder / "files", games=60, games_per_file=60), cache=folder)


@pytest.fixture(scope="module")
def positions(source):
    return np.array(source.rows)


@pytest.fixture(scope="module")
def proofs(source, tmp_path_factory):
    work = tmp_path_factory.mktemp("systems")
    arguments = [BENCHMARKS, source.folder, work, *(system.name for system in HERE)]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROVE_EACH, *arguments], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    return {proof["name"]: proof for proof in map(json.loads, ended.stdout.splitlines())}


@pytest.mark.parametrize("system", HERE, ids=lambda system: system.name)
def test_a_system_delivers_every_position_once_an_epoch(proofs, positions, system):
    assert proofs[system.name]["stored"] == len(positions)
    assert proofs[system.name]["proved"] == [len(positions)] * 2


def test_rows_are_shown_as_the_slow_reader_shows_them(positions):
    few = positions[::9]
    whole = [images(board, policy.reshape(5, 5), value) for board, policy, (value,) in zip(*plain(few), strict=True)]
    for symmetry in range(4):
        shown = expand(few, np.full(len(few), symmetry, np.uint8))
        assert _bytes(shown) == [each[symmetry] for each in whole]
        ones = [expand_one(row, symmetry) for row in few]
        assert _bytes([np.stack(parts) for parts in zip(*ones, strict=True)]) == _bytes(shown)


def _bytes(batch):
    import torch

    return rows_of([torch.from_numpy(part) for part in batch])


# the proof fails where it should ------------------------------------------------------------------------------------


def epoch(positions, *, show=expand):
    return [show(positions[numbers]) for numbers in Shuffled(len(positions), 256, 1)]


def test_a_sound_epoch_is_proved(positions):
    proof.prove(epoch(positions), positions, times=1)
    proof.prove(epoch(positions) + epoch(positions), positions, times=2)


def grouped(rows):
    return expand(rows, np.sort(np.arange(len(rows)) % 4).astype(np.uint8))


def doubled(rows):
    board, policy, value = expand(rows)
    return board.astype(np.float64), policy, value


def kept_value(rows):
    board, policy, _ = expand(rows)
    return board, policy, plain(rows)[2]


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (lambda rows: epoch(rows)[:-1], "delivers .* samples an epoch"),
        (lambda rows: [*epoch(rows[1:]), expand(rows[5:6])], "some positions too often"),
        (lambda rows: epoch(rows, show=plain), "symmetries in shares of 1.00"),
        (lambda rows: epoch(rows, show=grouped), "groups the samples"),
        (lambda rows: [expand(rows)], "in the order of the dataset"),
        (lambda rows: epoch(rows, show=doubled), "delivers float64"),
        (lambda rows: epoch(rows, show=kept_value), "some positions too often"),
        (lambda rows: [tuple(part * 2 for part in batch) for batch in epoch(rows)], "other than 0 and 1"),
        (lambda rows: [], "delivers nothing"),
    ],
)
def test_an_epoch_that_is_not_what_was_asked_for_is_not_proved(positions, spoil, finding):
    with pytest.raises(proof.Unsound, match=finding):
        proof.prove(spoil(positions), positions, times=1)


# the programs -------------------------------------------------------------------------------------------------------


EXPLAIN_EACH = """
import runpy, sys
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        assert not ended.code, script
"""


def test_every_script_starts_and_says_what_it_measures():
    scripts = sorted(BENCHMARKS.glob("*.py"))
    command = [sys.executable, "-W", "ignore", "-c", EXPLAIN_EACH, *scripts]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300).stdout
    named = re.findall(r"^ +python benchmarks/(\w+)\.py", shown, re.MULTILINE)
    assert named == [script.stem for script in scripts]


def test_the_benchmark_measures_and_prints_a_row_for_each_system(tmp_path, pytestconfig):
    processed(tmp_path / "files", games=40)
    options = ["--systems", "ceiling_write", "hexshards_dense", "--workers", "0", "--repeats", "1", "--seconds", "0.05"]
    ended = subprocess.run(
        [sys.executable, BENCHMARKS / "loading.py", tmp_path / "files", "--cache", tmp_path / "cache", *options],
        env={**os.environ, "NUMBA_CACHE_DIR": str(pytestconfig.cache.mkdir("numba"))},  # compiled once, not each time
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    for title in ("ceiling: one core writing float32 batches", r"\*\*hexshards\*\*"):
        rows = re.findall(rf"^\| {title} \| ([\d,]+) \|", ended.stdout, re.MULTILINE)
        assert len(rows) == 2  # batch 1024 and 256
        assert min(int(row.replace(",", "")) for row in rows) > 0
    assert re.search(r"^\| \*\*hexshards\*\* .* 1 \| ", ended.stdout, re.MULTILINE)


def test_a_peer_that_cannot_be_installed_is_in_the_table_with_the_reason(tmp_path):
    needs = tmp_path / "peer.txt"
    needs.write_text(f"{tmp_path / 'nowhere.whl'}\n")
    with pytest.raises(Unavailable, match=r"cannot be installed: .*nowhere\.whl") as caught:
        python_of("peer", cache=tmp_path, needs=needs)
    system = next(filter(apart, ALL))
    results = Results(contestants=[], reasons={system.name: str(caught.value)})
    shown = table(results, [system], batch=256, workers=[0, 2], memory=False)
    assert f"| {system.title} | not measured: cannot be installed" in shown


@pytest.mark.parametrize("needs", sorted(BENCHMARKS.glob("systems/*.txt")), ids=lambda path: path.stem)
def test_what_a_peer_needs_is_pinned_and_brings_no_torch(needs):
    pins = [line for line in needs.read_text().splitlines() if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin)] == []
    assert not {pin.split("==")[0] for pin in pins} & {"torch", "torchvision", "numpy"}
    assert needs.stem in {system.name for system in ALL}
