"""A sweep is many runs on one database: real processes share it, are killed, and nothing is tried twice or lost."""

from __future__ import annotations

import json
import os
import signal
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import warm
from helpers.processes import wait_for
from helpers.small_data import dataset
from typer.testing import CliRunner

import hexshards
from hexshards.cli.app import app
from hexshards.cli.sweep_view import sweep_figure, sweep_text
from hexshards.cli.training_view import trial_lines
from hexshards.sweeps import trials
from hexshards.sweeps.options import Range, SweepSpec
from hexshards.sweeps.search_space import read_sweep
from hexshards.training.tracking.hooks import Progressed

DEADLINE_S = 120.0
TINY = {"channels": 2, "blocks": 1, "batch_size": 64, "mini_epoch_samples": 600, "warmup_samples": 0, "diagnose": 0}
GRID = {
    "sampler": "grid",
    "pruner": "none",
    "fixed": {**TINY, "positions": 600},
    "search": {"learning_rate": [0.01, 0.001], "batch_size": [32, 64]},
}
del GRID["fixed"]["batch_size"]

PROCESS = """
import sys
from hexshards.sweeps import trials
trials.HEARTBEAT_S, trials.GRACE_S = 1, 2
from hexshards.cli.app import main
sys.argv = ["hexshards", *sys.argv[1:]]
main()
"""
"""The command, in a process whose death is noticed soon."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("sweeps"))


def toml(path, config):
    """A config as the file that a person would write."""

    def value(part):
        return (
            "{" + ", ".join(f"{k} = {value(v)}" for k, v in part.items()) + "}"
            if isinstance(part, dict)
            else json.dumps(part)
        )

    top = [f"{name} = {value(part)}" for name, part in config.items() if not isinstance(part, dict)]
    tables = [
        "\n".join([f"[{name}]", *(f"{key} = {value(part)}" for key, part in table.items())])
        for name, table in config.items()
        if isinstance(table, dict)
    ]
    path.write_text("\n".join([*top, *tables]) + "\n")
    return path


def started(data, out, config):
    command = [sys.executable, "-c", PROCESS, "sweep", str(data), "--config", str(config), "--out", str(out), "--json"]
    return warm.Program(command)


def ended(process):
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    return json.loads(out)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# real processes ------------------------------------------------------------------------------------------------------


def test_two_processes_share_a_grid_and_try_each_combination_once(data, tmp_path):
    config = toml(tmp_path / "sweep.toml", GRID)
    both = [started(data, tmp_path / "out", config) for _ in range(2)]
    try:
        told = [ended(process) for process in both]
    finally:
        for process in both:
            process.kill()
    assert told[0] == told[1]
    tried = [(trial["options"]["learning_rate"], trial["options"]["batch_size"]) for trial in told[0]["trials"]]
    assert sorted(tried) == sorted(product(*GRID["search"].values()))
    assert {trial["state"] for trial in told[0]["trials"]} == {"complete"}
    values = [trial["value"] for trial in told[0]["trials"]]
    assert values == sorted(values)
    for trial in told[0]["trials"]:
        assert min(line["val"]["loss"] for line in lines_of(tmp_path / trial["run"])) == trial["value"]
        assert trial["samples"] == 600
    assert (tmp_path / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_trial_whose_process_was_killed_goes_on_from_its_checkpoint(data, tmp_path):
    config = {
        **GRID,
        "search": {"seed": [5]},
        "fixed": {**TINY, "batch_size": 50, "positions": 300, "mini_epoch_samples": 100, "epochs": 12},
    }
    file = toml(tmp_path / "sweep.toml", config)
    process = started(data, tmp_path / "out", file)
    log = tmp_path / "out" / "trials" / "0000" / "metrics.jsonl"
    try:
        wait_for(lambda: (log.exists() and log.stat().st_size) or process.poll() is not None, wait_s=DEADLINE_S)
    finally:
        process.kill()
        process.communicate()
    before = lines_of(log.parent)
    assert 1 <= len(before) < 36
    (trial,) = ended(started(data, tmp_path / "out", file))["trials"]
    assert (trial["number"], trial["state"], trial["mini_epochs"], trial["samples"]) == (0, "complete", 36, 3600)
    after = lines_of(log.parent)
    assert after[: len(before)] == before
    assert [line["samples_seen"] for line in after] == list(range(100, 3601, 100))
    assert trial["value"] == min(line["val"]["loss"] for line in after)


# in this process -----------------------------------------------------------------------------------------------------


def test_an_interrupted_sweep_goes_on_when_called_again(data, tmp_path):
    config = {**GRID, "search": {"seed": [1, 2]}}

    def interrupt(event):
        if isinstance(event, Progressed) and event.progress.samples_seen >= 300:
            os.kill(os.getpid(), signal.SIGINT)

    first = hexshards.sweep(data, config, out=tmp_path / "out", hooks=[interrupt])
    assert first.interrupted
    assert [trial.state for trial in first.trials] == ["waiting"]
    assert "give the same command again" in sweep_text(first)
    told = []
    sweep = hexshards.sweep(data, config, out=tmp_path / "out", on_trial=told.append)
    assert not sweep.interrupted
    assert sorted((trial.number, trial.state, trial.samples) for trial in sweep.trials) == [
        (0, "complete", 600),
        (2, "complete", 600),
    ]
    assert {trial.number for trial in told} == {0, 2}
    straight = hexshards.sweep(data, config, out=tmp_path / "straight")
    assert [trial.value for trial in straight.trials] == [trial.value for trial in sweep.trials]


def test_a_trial_that_is_worse_than_the_median_ends_between_mini_epochs(data, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "STARTUP_TRIALS", 1)
    config = {
        "sampler": "grid",
        "search": {"learning_rate": [0.01, 1e-12]},
        "fixed": {**TINY, "epochs": 2, "mini_epoch_samples": 300},
    }
    sweep = hexshards.sweep(data, config, out=tmp_path / "out")
    good, bad = sweep.trials
    assert (good.state, good.mini_epochs, good.samples) == ("complete", 8, 2234)
    assert (bad.state, bad.mini_epochs, bad.samples) == ("pruned", 2, 600 + 2 * (-300 % 64))
    assert sweep.best is good
    # what was pruned is an ordinary run as well
    assert len(lines_of(sweep.folder(bad))) == 2
    text = sweep_text(sweep)
    assert text.splitlines()[0].split() == ["trial", "val.loss", "state", "mini-epochs", "samples", "learning_rate"]
    assert f"best: trial {good.number}, run {sweep.folder(good)}" in text
    curves, by_rate = sweep_figure(sweep).axes
    assert len(curves.lines) == 2
    assert sorted(float(line.get_xdata()[0]) for line in by_rate.lines) == [1e-12, 0.01]


def test_more_trials_are_asked_for_later_and_ranges_keep_to_their_bounds(data, tmp_path):
    config = {
        "trials": 2,
        "search": {
            "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
            "channels": {"low": 2, "high": 6, "step": 2},
        },
        "fixed": {name: value for name, value in TINY.items() if name != "channels"}
        | {"positions": 300, "best_by": "val.value_accuracy"},
    }
    assert len(hexshards.sweep(data, config, out=tmp_path / "out").trials) == 2
    sweep = hexshards.sweep(data, config, out=tmp_path / "out", trials=4)
    assert len(sweep.trials) == 4
    for trial in sweep.trials:
        assert 1e-3 <= trial.options["learning_rate"] <= 1e-2
        assert trial.options["channels"] in (2, 4, 6)
    values = [trial.value for trial in sweep.trials]
    assert values == sorted(values, reverse=True)  # an accuracy: higher is better
    with pytest.raises(ValueError, match="was begun with another dataset, search or fixed options"):
        hexshards.sweep(data, {**config, "fixed": {**config["fixed"], "seed": 9}}, out=tmp_path / "out")


def test_a_trial_that_fails_is_told_and_the_others_go_on(data, tmp_path):
    config = {**GRID, "search": {"schedule": ["step", "constant"]}}
    sweep = hexshards.sweep(data, config, out=tmp_path / "out")
    assert [trial.state for trial in sweep.trials] == ["complete", "failed"]
    assert "schedule step needs schedule_samples" in (sweep.trials[1].error or "")
    assert "trial 0 failed: ValueError: schedule step needs" in sweep_text(sweep)


def test_a_metric_that_no_record_has_fails_every_trial_and_ends_with_1(data, tmp_path):
    config = {**GRID, "search": {"seed": [1]}, "fixed": {**GRID["fixed"], "best_by": "val.nothing"}}
    file = toml(tmp_path / "sweep.toml", config)
    result = CliRunner().invoke(app, ["sweep", str(data), "--config", str(file), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1, result.output
    assert "the metric val.nothing is not in a mini-epoch's record" in result.output


# what a file may say -------------------------------------------------------------------------------------------------


def test_a_file_is_read_into_ranges_and_choices_of_the_options_kinds(tmp_path):
    config = {
        "trials": 7,
        "search": {
            "learning_rate": {"low": 1, "high": 2},
            "channels": {"low": 8, "high": 64},
            "optimizer": ["adamw", "sgd"],
        },
        "fixed": {"weight_decay": 0, "max_time": "1h", "compile": False},
    }
    spec = read_sweep(toml(tmp_path / "sweep.toml", config))
    assert spec == SweepSpec(
        trials=7,
        search={
            "learning_rate": Range(low=1.0, high=2.0),
            "channels": Range(low=8, high=64, whole=True),
            "optimizer": ("adamw", "sgd"),
        },
        fixed={"weight_decay": 0.0, "max_time": "1h", "compile": False},
    )
    assert type(spec.fixed["weight_decay"]) is float
    assert spec.combinations is None


def test_a_grid_counts_through_all_combinations():
    spec = SweepSpec(search={"seed": (1, 2), "optimizer": ("adamw", "sgd"), "epochs": (1, 2, 3)}, sampler="grid")
    combinations = [
        tuple(spec.combination(number)[name] for name in spec.search) for number in range(spec.combinations)
    ]
    assert combinations == list(product((1, 2), ("adamw", "sgd"), (1, 2, 3)))


def test_a_file_says_counts_as_people_write_them():
    spec = read_sweep({"search": {"max_samples": ["20k", 30_000]}, "fixed": {"mini_epoch_samples": "1_000"}})
    assert spec.search["max_samples"] == (20_000, 30_000) and spec.fixed["mini_epoch_samples"] == 1_000


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, r"the table \[search\] names no option"),
        ({"serach": {"seed": [1]}}, "not known: serach. Did you mean search"),
        ({"search": {"learning-rte": [1]}}, "that can be searched: learning-rte. Did you mean learning_rate"),
        ({"search": {"run": ["x"]}}, "that can be searched: run"),
        ({"search": {"resume": ["never"]}}, "that can be searched: resume"),
        ({"search": {"best_by": ["val.loss"]}}, "best_by says what is good"),
        ({"search": {"seed": []}}, "seed: the list is empty"),
        ({"search": {"seed": 3}}, r"seed: give a list, or a range like .* belongs into \[fixed\]"),
        ({"search": {"seed": ["a"]}}, "seed must be a whole number like .*, got a"),
        ({"search": {"seed": [1.5]}}, "seed must be a whole number, got 1.5"),
        ({"search": {"seed": [True]}}, "seed must be a whole number, got True"),
        ({"search": {"seed": [-1]}}, "seed must be at least 0, got -1"),
        ({"search": {"optimizer": ["adam"]}}, r"optimizer must be one of \('adamw', 'sgd'\), got 'adam'"),
        ({"search": {"optimizer": {"low": "adamw", "high": "sgd"}}}, "optimizer is no number: give a list"),
        ({"search": {"seed": {"low": 1}}}, "seed: a range needs low and high"),
        ({"search": {"seed": {"low": 1, "high": 2, "stp": 1}}}, "not stp. Did you mean step"),
        ({"search": {"seed": {"low": 2, "high": 1}}}, "low must be less than high"),
        ({"search": {"learning_rate": {"low": 0, "high": 1}}}, "learning_rate must be more than 0, got 0"),
        ({"search": {"seed": {"low": 0, "high": 9, "log": True}}}, "must begin above 0"),
        ({"search": {"seed": {"low": 1, "high": 9, "log": True, "step": 2}}}, "log or step, not both"),
        ({"search": {"seed": {"low": 1, "high": 9, "step": 0.5}}}, "step must be a number above 0, and whole"),
        ({"search": {"seed": [1]}, "fixed": {"seed": 1}}, r"both in \[search\] and in \[fixed\]: seed"),
        ({"search": {"seed": {"low": 1, "high": 9}}, "sampler": "grid"}, "a grid needs lists, not ranges: seed"),
        ({"search": {"seed": [1]}, "sampler": "tpo"}, "sampler must be one of"),
        ({"search": {"seed": [1]}, "trials": 0}, "trials must be at least 1"),
        ({"search": {"seed": [1]}, "trials": "3"}, "trials must be a whole number, got '3'"),
        ({"search": 3}, r"search must be a table, \[search\]"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_was_meant(config, told):
    with pytest.raises(ValueError, match=told):
        read_sweep(config)


def test_a_file_that_is_missing_or_no_toml_ends_with_2(data, tmp_path):
    def told(config):
        command = ["sweep", str(data), "--config", str(config), "--out", str(tmp_path / "out")]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2, result.output
        return result.stderr

    assert "no such file" in told(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("search = [")
    assert f"{tmp_path / 'bad.toml'}: is not TOML" in told(tmp_path / "bad.toml")
    toml(tmp_path / "storage.toml", {**GRID, "storage": "nonsense://user:secret@host"})
    shown = told(tmp_path / "storage.toml")
    assert "storage: " in shown
    assert "secret" not in shown


def test_a_sweep_can_be_neither_in_a_datasets_folder_nor_in_a_file(data, tmp_path):
    with pytest.raises(ValueError, match=r"out: .* holds a dataset; name another folder, such as .*-out"):
        hexshards.sweep(data, GRID, out=data)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"out: .* is a file; name a folder"):
        hexshards.sweep(data, GRID, out=tmp_path / "file")


def test_without_optuna_the_command_that_installs_it_is_named(data, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "hexshards.sweeps.trials")
    monkeypatch.delattr(hexshards.sweeps, "trials")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"pip install 'hexshards\[sweep\]'"):
        hexshards.sweep(data, GRID, out=tmp_path / "out")


@pytest.mark.parametrize(("metric", "best"), [("val.loss", 1.0), ("val.value_accuracy", 3.0)])
def test_what_a_trial_is_worth_is_its_best_mini_epoch_not_its_last(metric, best):
    reported = {}
    trial = SimpleNamespace(report=lambda value, step: reported.update({step: value}))
    pruning = trials._Pruning(trial, SweepSpec(search={"channels": (2, 4)}, fixed={"best_by": metric}))
    name = metric.partition(".")[2]
    for record in ({name: 2.0}, {name: 1.0}, {}, {name: float("nan")}, {name: 3.0}, {name: 2.5}):
        pruning._report({"val": record})
    assert pruning.best == best
    assert reported == {1: 2.0, 2: 1.0, 5: 3.0, 6: 2.5}


def test_a_trial_that_begins_is_told_as_it_is_when_it_ends():
    started = SimpleNamespace(
        run=SimpleNamespace(options={"learning_rate": 0.008887881534289972, "blocks": 2}, folder=Path("trials/0003")),
        resumed_from=None,
    )
    told = trial_lines(started, ["blocks", "learning_rate"])
    assert told == ["trial 3 begins · blocks 2 · learning_rate 0.008888"]
