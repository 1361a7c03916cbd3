"""Several processes take the steps of one, and go on where others stopped."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_data import dataset
from helpers.steps import Bare, assert_equal
from helpers.three_processes import PROCESSES, WHOLE, torchrun, trained

from hexshards.errors import DataError
from hexshards.training import run as runs
from hexshards.training.options import TrainSpec
from hexshards.training.steps.model import TwoHeadedResNet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("what", ["bare", "norms"])
def test_all_processes_have_the_same_weights_and_tell_the_same(answers, what):
    for answer in answers[1:]:
        assert_equal(answer[what], answers[0][what])


def assert_close(ours: dict[str, Any], expected: dict[str, Any], *, within: float) -> None:
    # a batch is counted once, but those of a validation are shared
    assert ours["train"] == pytest.approx(expected["train"], rel=within)
    assert ours["val"] == pytest.approx(expected["val"], rel=within)
    assert torch.allclose(ours["weights"], expected["weights"], rtol=100 * within, atol=within)


def test_processes_take_the_steps_of_one_that_sees_all_rows(answers):
    assert_close(answers[0]["bare"], trained(Bare, WHOLE, optimizer="sgd"), within=1e-6)


def test_with_batch_norm_processes_are_the_parts_of_a_batch(answers):
    together = answers[0]["norms"]
    parts = trained(TwoHeadedResNet, WHOLE, accumulate=PROCESSES, optimizer="sgd")
    assert together["train"] == pytest.approx(parts["train"], rel=1e-5)
    assert torch.allclose(together["weights"], parts["weights"], rtol=1e-4, atol=1e-6)
    whole = trained(TwoHeadedResNet, WHOLE, optimizer="sgd")
    assert together["train"]["loss"] == pytest.approx(whole["train"]["loss"], rel=0.05)


def test_processes_that_go_on_from_a_state_are_those_that_never_stopped(answers):
    for answer in answers:
        assert_equal(answer["gone on"], answer["straight"])
        assert answer["drawn"] != answers[0]["drawn"] or answer is answers[0]


def test_a_loss_that_is_no_number_in_one_process_is_told_in_all(answers):
    assert [answer["spoiled"] for answer in answers] == [[3, 0]] * PROCESSES


# --- the command ---


OPTIONS: dict[str, Any] = {
    "mini_epoch_samples": 300,
    "epochs": 2,
    "model": "helpers.steps:Dying",
    "warmup_samples": 0,
    "learning_rate": 0.01,
    "schedule": "cosine",
    "ema": 0.9,
    "diagnose": 0,
    "device": "cpu",
}


def command(data: Path, run: Path, *, batch_size: int) -> list[str]:
    options = {"run": run, "batch_size": batch_size, **OPTIONS}
    spelled = [str(part) for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    return ["-m", "hexshards", "train", str(data), *spelled]


def in_one_process(data: Path, run: Path) -> None:
    assert not runs.train(TrainSpec(data=data, run=run, batch_size=64, **OPTIONS)).interrupted


def log_of(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in ("samples_seen", "train", "val", "learning_rate")} for line in lines]


def assert_same_log(run: Path, expected: Path) -> None:
    log, wanted = log_of(run), log_of(expected)
    assert len(log) == len(wanted) == 8
    for ours, theirs in zip(log, wanted, strict=True):
        for part in ("train", "val"):
            assert ours.pop(part) == pytest.approx(theirs.pop(part), rel=1e-5)
        assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """A folder with a dataset, and a run of one process that never stopped."""
    folder = tmp_path_factory.mktemp("distributed")
    dataset(folder)
    in_one_process(folder / "data", folder / "straight")
    return folder


@pytest.fixture(scope="module")
def stopped(straight) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run of two processes, of which one was killed; torchrun started them again, and one was asked to stop."""
    run = straight / "stopped"
    arguments = command(straight / "data", run, batch_size=32)
    return run, torchrun(2, *arguments, options=["--max-restarts", "1"], DYING="")


def test_a_killed_process_ends_the_others_which_say_so_and_torchrun_may_start_them_again(stopped):
    _run, ended = stopped
    assert "error: process 0 of 2 lost another, which ended or did not answer" in ended.stderr
    # each of the two starts is from the beginning or from a checkpoint, and what one process prints is there once
    told = [line.split(" · ")[0] for line in ended.stdout.splitlines() if line.startswith("epoch ")]
    assert told == ["epoch 1 mini-epoch 1", "epoch 1 mini-epoch 2"]
    assert "resumed from" in ended.stderr


def test_a_signal_to_one_process_stops_all_with_130_and_the_state_saved(stopped):
    run, ended = stopped
    assert ended.returncode == 1 and "exitcode  : 130" in ended.stderr
    assert ended.stdout.count("interrupted after ") == 1
    assert list((run / "checkpoints").glob("*_partial.pt"))


@pytest.mark.parametrize("processes", [1, 4])
def test_a_run_of_two_processes_goes_on_with_another_number_and_ends_as_that_of_one(straight, stopped, processes):
    run = shutil.copytree(stopped[0], straight / f"on-{processes}")
    if processes == 1:
        in_one_process(straight / "data", run)
    else:
        ended = torchrun(processes, *command(straight / "data", run, batch_size=64 // processes))
        assert ended.returncode == 0, ended.stderr
    assert_same_log(run, straight / "straight")


def test_another_global_batch_is_refused(straight):
    with pytest.raises(DataError, match="global_batch_size was 64, is 16"):
        runs.train(TrainSpec(data=straight / "data", run=straight / "straight", batch_size=16, **OPTIONS))
