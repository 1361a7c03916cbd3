from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.small_data import dataset
from typer.testing import CliRunner

from hexshards.cli.app import app
from hexshards.cli.dataset_view import throughput_text
from hexshards.cores import usable_cores
from hexshards.loading.options import LoaderSpec
from hexshards.reports import throughput as module
from hexshards.reports.throughput import LoaderTiming, Throughput, measure_throughput
from hexshards.training.options import TrainSpec
from hexshards.training.steps.model_factory import network
from hexshards.units import counted

STAGES = ["read", "checksum", "decompress", "permute", "cross", "expand"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("throughput"))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(module, "STAGE_S", 0.01)
    monkeypatch.setattr(module, "RUN_S", 0.05)


def test_every_stage_and_every_number_of_workers_is_measured(data):
    model = TrainSpec(data=data, run=Path(), batch_size=32, channels=4, blocks=1)
    steps = []
    measured = measure_throughput(
        data, LoaderSpec(batch_size=32), model=model, progress=lambda done, total: steps.append((done, total))
    )
    assert list(measured.stages) == STAGES
    assert all(ns >= 0 for ns in measured.stages.values())
    assert measured.stages["read"] > 0 and measured.stages["expand"] > 0
    assert [run.workers for run in measured.runs][:2] == [0, 1]
    assert all(run.samples_per_s > 0 and run.first_batch_s > 0 and run.wait_ns >= 0 for run in measured.runs)
    assert measured.model_samples_per_s > 0
    assert steps == [(done, steps[-1][1]) for done in range(1, len(steps))] + [(steps[-1][1],) * 2]


RUNS = tuple(
    LoaderTiming(workers=n, samples_per_s=rate, first_batch_s=0.1, wait_ns=1.0) for n, rate in ((0, 100), (1, 300))
)
THROUGHPUT = Throughput(
    positions=9,
    side=5,
    batch_size=30,
    device="cpu",
    cores=2,
    threads=2,
    stages=dict.fromkeys(STAGES, 1.0),
    runs=RUNS,
    model_samples_per_s=None,
)


@pytest.mark.parametrize(
    ("model", "bound", "workers", "says"),
    [
        (None, None, 1, "a step that takes 100.00 ms or more does not wait"),
        (50.0, "compute", 0, "compute-bound: the model takes 50 samples/s, the loader gives 300"),
        (90.0, "compute", 1, "compute-bound"),
        (290.0, "loader", 1, "LOADER-BOUND: the model could take 290 samples/s, the loader gives 300"),
    ],
)
def test_the_verdict_follows_from_what_was_measured(model, bound, workers, says):
    measured = replace(THROUGHPUT, model_samples_per_s=model)
    assert (measured.bound, measured.workers) == (bound, workers)
    text = throughput_text(measured)
    assert says in text
    assert text.endswith(f"train with --num-workers {workers}")


def test_the_command_prints_the_figures_or_one_object(data):
    given = ["bench", str(data), "--batch-size", "32", "--channels", "4"]
    shown = CliRunner().invoke(app, given)
    assert shown.exit_code == 0, shown.output
    assert "nanoseconds: read" in shown.output and "bound" in shown.output.lower()
    printed = CliRunner().invoke(app, [*given, "--json"])
    measured = json.loads(printed.stdout)
    assert measured["bound"] in ("loader", "compute") and measured["workers"] in (0, 1, 2, 4, 8)
    assert list(measured["stages"]) == STAGES


def test_the_model_is_measured_with_the_threads_that_training_would_take_or_is_told_to(data, monkeypatch):
    before, used = torch.get_num_threads(), []
    monkeypatch.setattr(
        module, "network", lambda *given, **named: used.append(torch.get_num_threads()) or network(*given, **named)
    )
    for given, threads in (["--threads", "3"], 3), ([], min(before, usable_cores())):
        shown = CliRunner().invoke(app, ["bench", str(data), "--batch-size", "32", "--channels", "2", *given])
        assert shown.exit_code == 0, shown.output
        assert counted(threads, "thread") in shown.output and used.pop() == threads
        assert torch.get_num_threads() == before
    assert CliRunner().invoke(app, ["bench", str(data), "--threads", "0"]).exit_code == 2


def test_where_there_is_no_dataset_the_command_says_so(tmp_path):
    assert CliRunner().invoke(app, ["bench", str(tmp_path)]).exit_code == 2
