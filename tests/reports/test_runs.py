"""A table of runs says what each brought, and in which options they differ."""

from __future__ import annotations

import json

import pytest
from helpers.cli import call

from hexshards.cli.runs_view import runs_text
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
    (tmp_path / "sweeps").mkdir()
    assert "Did you mean sweeps?" in call("runs", tmp_path / "sweep", code=2).output


def test_several_folders_are_one_table_each_run_once_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a long path would be cut
    for name, loss in (("a", 0.9), ("b", 0.7), ("more/c", 0.8)):
        run_in(tmp_path / name, loss)
    shown = call("runs", "a", "b", "more", "more/c").output
    assert [line.split()[0] for line in shown.splitlines()[1:]] == ["b", "more/c", "a"]
    assert "nowhere: no run in here" in call("runs", "a", "nowhere", code=2).output


@pytest.mark.parametrize("width", [40, 80, 100])
def test_a_terminal_gets_no_line_that_is_wider_and_no_option_less(tmp_path, width):
    options = {
        "channels": 8,
        "blocks": 4,
        "learning_rate": 0.5,
        "optimizer": "adamw",
        "schedule": "constant",
        "seed": 7,
    }
    run_in(tmp_path / "sweep" / "a-rather-long-name" / "0001", 0.5, **options)
    run_in(tmp_path / "b", 0.25, **{name: value * 2 for name, value in options.items()})
    shown = runs_text(runs_in(tmp_path), width=width).splitlines()
    assert max(map(len, shown[2:] if width == 40 else shown)) <= max(width, 66)
    said = " ".join(shown)
    assert all(f"{name} " in said for name in options)
    assert "optimizer adamwadamw" in said and "0001" in said
    assert len(runs_text(runs_in(tmp_path)).splitlines()) == 3
