from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr

import pytest
import typer
from helpers import warm
from helpers.cli import call
from helpers.processes import wait_for
from helpers.small_data import CUT, dataset, examples, processed, write_examples

from hexshards.cli.console import told
from hexshards.dataset.index import read_index
from hexshards.dataset.shard import REPAIR

HEXSHARDS = [sys.executable, "-m", "hexshards"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("cli"))


@pytest.fixture
def data(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "data")


def train(data, run, *more):
    tiny = ["--channels", 2, "--blocks", 1, "--batch-size", 50, "--mini-epoch-samples", 500]
    return ["train", data, "--run", run, *tiny, *more]


# each command, done -------------------------------------------------------------------------------------------------


def test_synth_convert_info_verify_show_and_train_do_the_whole_job(tmp_path):
    assert "30 games in 1 file" in call("synth", "--out", tmp_path / "in", "--games", 30, "--side", 5).stdout
    cut = [part for name, value in CUT.items() for part in (f"--{name.replace('_', '-')}", value)]
    told = call("convert", tmp_path / "in", "--out", tmp_path / "data", "--workers", 1, *cut).stdout
    index = read_index(tmp_path / "data")
    assert f"kept {sum(split.positions for split in index.splits.values())} · rejected 0" in told
    assert index.fingerprint in call("info", tmp_path / "data").stdout
    assert call("verify", tmp_path / "data").stdout.startswith("sound: ")
    pictures = call("show", tmp_path / "data", "-n", 2).stdout
    assert pictures.count("to move, value") == 2
    assert pictures.count("   a b c d e") == 2
    trained = call(*train(tmp_path / "data", tmp_path / "run")).stdout
    assert "epoch 1 mini-epoch 1" in trained
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_show_draws_the_board_that_the_dataset_holds(tmp_path):
    (example,) = entries = examples(1)[7:8]
    write_examples(tmp_path / "in" / "one_processed.pkl.gz", entries)
    call("convert", tmp_path / "in", "--out", tmp_path / "data", "--val-fraction", 0)
    head, letters, *rows = call("show", tmp_path / "data").stdout.rstrip().splitlines()
    assert head.startswith("synth line 1, ply 7, RED to move, value ")
    assert letters == "   a b c d e"
    marks = [row.split()[1:] for row in rows]
    for r in range(5):
        for c in range(5):
            blue, red = example["board"][:, r, c]
            target = example["policy"].reshape(5, 5)[r, c]
            assert marks[r][c] == ("B" if blue else "R" if red else "*" if target else "·")


def test_json_is_one_object_with_the_numbers_of_the_index(data, tmp_path):
    index = read_index(data)
    info = json.loads(call("info", data, "--json").stdout)
    assert info["fingerprint"] == index.fingerprint
    assert info["splits"]["train"]["positions"] == index.splits["train"].positions == 1117
    verified = json.loads(call("verify", data, "--json").stdout)
    assert (verified["positions"], verified["games"], verified["problems"]) == (1309, 60, [])
    processed(tmp_path / "in")
    options = ["--val-fraction", 0.2, "--shard-positions", 96, "--block-positions", 16, "--workers", 1]
    converted = json.loads(call("convert", tmp_path / "in", "--out", tmp_path / "out", *options, "--json").stdout)
    assert converted["positions"] == 1309
    assert converted["fingerprint"] == index.fingerprint


def test_the_command_converts_with_several_processes(tmp_path, data):
    processed(tmp_path / "in")
    options = ["--val-fraction", "0.2", "--shard-positions", "96", "--block-positions", "16", "--workers", "2"]
    command = [*HEXSHARDS, "convert", tmp_path / "in", "--out", tmp_path / "out", *options]
    subprocess.run(command, check=True, capture_output=True)
    assert read_index(tmp_path / "out").fingerprint == read_index(data).fingerprint


# exit codes ---------------------------------------------------------------------------------------------------------


def test_a_damaged_dataset_ends_with_1_and_every_problem(data):
    for name in ("train-000001.tar", "val-000000.tar"):
        path = data / name
        path.write_bytes(path.read_bytes()[:700] + b"?" + path.read_bytes()[701:])
    lines = call("verify", data, code=1).stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"{data / 'train-000001.tar'}, block 000000",
        f"{data / 'val-000000.tar'}, block 000000",
    ]
    assert all(line.endswith(REPAIR) for line in lines)
    verification = json.loads(call("verify", data, "--json", code=1).stdout)
    assert verification["problems"] == lines


@pytest.mark.parametrize("num_workers", [0, 1])
def test_damage_met_in_training_ends_with_1_file_block_and_remedy(data, tmp_path, num_workers):
    path = data / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:700] + b"?" + path.read_bytes()[701:])
    told = call(*train(data, tmp_path / "run", "--num-workers", num_workers), code=1).stderr.splitlines()[-1]
    assert told.startswith(f"error: {path}, block 000000: checksum is ")
    assert told.endswith(REPAIR)


def test_an_index_of_another_format_ends_with_1(data):
    entry = json.loads((data / "index.json").read_text())
    (data / "index.json").write_text(json.dumps({**entry, "version": 99}))
    told = call("info", data, code=1).stderr
    assert "index.json: has format version 99, this release reads 1 and 2. Use the release" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["info", "nowhere"], "nowhere: no dataset here (no index.json). Make one with `hexshards convert`"),
        (["convert", "nowhere", "--out", "out"], "nowhere: no such file"),
        (["convert", ".", "--out", "out"], "no file in this folder is named like"),
        (["synth", "--out", ".", "--side", "2"], "--side"),
        (["train", "nowhere", "--run", "run", "--augment", "some"], "--augment"),
        (["convert"], "SOURCE"),
        (["unknown"], "unknown"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told in call(*arguments, code=2).stderr
    assert not any(tmp_path.iterdir())


def test_a_finished_dataset_ends_with_2_and_stays(data, tmp_path):
    processed(tmp_path / "in", games=1)
    before = (data / "index.json").read_bytes()
    told = call("convert", tmp_path / "in", "--out", data, code=2).stderr
    assert f"{data} holds a finished dataset" in told
    assert "another --out" in told
    assert (data / "index.json").read_bytes() == before


def test_rejected_input_ends_with_3_and_the_option_that_would_accept_it(tmp_path):
    bad = examples(3)
    bad[6]["value"] = 0.5 - 1
    path = write_examples(tmp_path / "in" / "bad_processed.pkl.gz", bad)
    command = ["convert", path, "--out", tmp_path / "out"]
    told = call(*command, code=3).stderr
    assert f"\nrejected: {tmp_path / 'out' / 'rejects.jsonl'}: 1 example was rejected" in told
    assert "bad_processed.pkl.gz, example 6" in told
    assert "--max-rejects 1" in told
    assert "rejected 1 (" in call(*command, "--max-rejects", 1).stdout


def test_a_refused_file_ends_with_3_and_is_named(tmp_path):
    (tmp_path / "a.pkl.gz").write_bytes(b"garbage")
    told = call("convert", tmp_path / "a.pkl.gz", "--out", tmp_path / "out", code=3).stderr
    assert told.splitlines()[-1].startswith(f"rejected: {tmp_path / 'a.pkl.gz'}: is not gzip")


def test_no_traceback_and_no_control_character_of_a_file_reaches_the_terminal(tmp_path):
    bad = examples(3)
    bad[6]["metadata"]["winner"] = "\x1b[2J\x07RED"
    path = write_examples(tmp_path / "in" / "bad_processed.pkl.gz", bad)
    ended = subprocess.run([*HEXSHARDS, "convert", path, "--out", tmp_path / "out"], capture_output=True, text=True)
    assert ended.returncode == 3
    assert "Traceback" not in ended.stderr
    assert "\x1b" not in ended.stderr
    assert "\x07" not in ended.stderr


def test_ctrl_c_ends_training_with_130_and_the_same_command_completes_it(data, tmp_path):
    options = ["--batch-size", 50, "--mini-epoch-samples", 500, "--epochs", 2, "--model", "helpers.steps:Interrupted"]
    command = [*HEXSHARDS, "train", data, "--run", tmp_path / "run", *options]
    metrics = tmp_path / "run" / "metrics.jsonl"
    # in the middle of the second mini-epoch
    ended = warm.run(command, env={**os.environ, "INTERRUPTED_AT": "15"})
    assert ended.returncode == 130, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    # 1,117 samples are mini-epochs of 500, 500 and 117
    places = [(epoch, mini) for epoch in range(1, 3) for mini in range(1, 4)]
    assert len(metrics.read_text().splitlines()) == 1
    call(*command[len(HEXSHARDS) :])
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [(line["epoch"], line["mini_epoch"]) for line in lines] == places
    assert lines[-1]["samples_seen"] == 2 * 1117


def test_ctrl_c_ends_a_conversion_with_130_and_the_same_command_completes_it(tmp_path):
    processed(tmp_path / "in", games=240, games_per_file=10)
    command = [*HEXSHARDS, "convert", tmp_path / "in", "--out", tmp_path / "out", "--workers", "2"]
    # a group of its own, all of which gets the signal, as from a terminal
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_for(lambda: list(tmp_path.glob("out/.partial/*.npy")) or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, out + err
    assert "give the same command again" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out" / "index.json").exists()
    call(*command[len(HEXSHARDS) :])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "index.json",
        "train-000000.tar",
        "val-000000.tar",
    ]
    assert sum(split.games for split in read_index(tmp_path / "out").splits.values()) == 240


def test_a_second_ctrl_c_while_the_first_is_told_loses_no_line():
    class Interrupting(io.StringIO):
        heard = False

        def write(self, text):
            if not self.heard:
                self.heard = True
                signal.raise_signal(signal.SIGINT)
            return super().write(text)

    file = Interrupting()
    try:
        with redirect_stderr(file), told():
            raise KeyboardInterrupt
    except typer.Exit as ended:
        assert ended.exit_code == 130
    except KeyboardInterrupt:  # which would end all tests
        pytest.fail("the second was not answered")
    assert file.getvalue() == "interrupted; give the same command again to go on\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
