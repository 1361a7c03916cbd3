"""A table of runs says what each brought, and in which options they differ."""

from __future__ import annotations

import json

import pytest
from helpers.cli import call

from hexshards.reports.runs import differing, runs_in


def run_in(folder, *losses, metric="loss", seconds=60.0, **options):
    folder.mkdir(parents=True)
    lines = [
        json.dumps({"samples_seen": 100 * n, "val": {metric: loss}, "seconds": seconds * n, "time": f"day {n}"})
        for n, loss in enumerate(losses, start=1)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if options:
        (folder / "config.toml").write_text("".join(f"{name} = {json.dumps(v)}\n" for name, v in options.items()))


def test_the_best_comes_first_with_best_last_samples_and_time(tmp_path):
    run_in(tmp_path / "a", 0.9, 0.7, 0.8)
    run_in(tmp_path / "sweep" / "trials" / "0001", 0.6)
    run_in(tmp_path / "c", None)
    first, second, third = runs_in(tmp_path)
    assert (first.name, first.best, first.last) == ("sweep/trials/0001", 0.6, 0.6)
    assert (second.name, second.best, second.last, second.mini_epochs, second.samples) == ("a", 0.7, 0.8, 3, 300)
    assert (second.seconds, second.time) == (180.0, "day 3")
    assert (third.name, third.best, third.last) == ("c", None, None)


def test_a_metric_that_is_better_higher_is_ranked_so(tmp_path):
    for name, top in (("a", 0.2), ("b", 0.4)):
        run_in(tmp_path / name, top, top / 2, metric="policy_top1", best_by="val.policy_top1")
    assert [(run.name, run.best) for run in runs_in(tmp_path)] == [("b", 0.4), ("a", 0.2)]


def test_options_that_differ_are_those_that_change_what_is_trained(tmp_path):
    same = {"blocks": 4, "data": "/d"}
    run_in(tmp_path / "a", 1.0, channels=8, num_workers=0, **same)
    run_in(tmp_path / "b", 1.0, channels=16, num_workers=2, seed=1, **same)
    run_in(tmp_path / "of-an-earlier-release", 1.0)
    assert set(differing(runs_in(tmp_path))) == {"channels", "seed"}


def test_the_command_shows_a_table_and_json(tmp_path):
    run_in(tmp_path / "a", 0.5, channels=8)
    run_in(tmp_path / "b", 0.25, channels=16)
    head, best, other = call("runs", tmp_path).output.splitlines()
    assert head.split() == ["run", "best", "val.loss", "last", "mini-epochs", "samples", "time", "channels"]
    assert best.split() == ["b", "0.2500", "0.2500", "1", "100", "60", "s", "16"] and other.split()[0] == "a"
    told = json.loads(call("runs", tmp_path, "--json").output)
    assert told["differ"] == ["channels"] and [run["name"] for run in told["runs"]] == ["b", "a"]


def test_a_damaged_run_is_named_and_the_others_are_shown(tmp_path):
    run_in(tmp_path / "a", 0.5)
    run_in(tmp_path / "b", 0.5, channels=8)
    (tmp_path / "b" / "config.toml").write_text("channels =")
    run_in(tmp_path / "c", 0.5)
    (tmp_path / "c" / "metrics.jsonl").write_text("{}\n")
    shown = call("runs", tmp_path).output
    assert "is not TOML" in shown and "is not the record of a mini-epoch" in shown
    assert [run.name for run in runs_in(tmp_path) if run.problem is None] == ["a"]


def test_a_folder_of_one_run_is_that_run(tmp_path):
    run_in(tmp_path / "run", 0.5)
    assert [run.name for run in runs_in(tmp_path / "run")] == ["run"]


def test_a_folder_without_runs_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run in here"):
        runs_in(tmp_path)
    assert "no run in here" in call("runs", tmp_path / "nowhere", code=2).output
