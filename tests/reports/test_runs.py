"""A table of runs says what each brought, and in which options they differ."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import pytest
from helpers.cli import call
from helpers.small_data import dataset, processed

from hexshards.cli.runs_view import runs_text
from hexshards.cli.sweep_view import sweep_text
from hexshards.conversion.compact import compact
from hexshards.conversion.convert import convert
from hexshards.dataset.index import read_index
from hexshards.reports.runs import differing, runs_in
from hexshards.reports.validations import apart, validation_of
from hexshards.sweeps.search_space import Trial
from hexshards.sweeps.sweep import Sweep


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
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "metrics.jsonl").touch()
    told = call("runs", tmp_path).output.splitlines()[-3:]
    assert told[0].startswith(f"{tmp_path / 'b' / 'config.toml'}: is not TOML")
    assert told[1].startswith(f"{tmp_path / 'c' / 'metrics.jsonl'}, line 1: is not the record of a mini-epoch")
    assert told[2].startswith(f"{tmp_path / 'd'}: no run here")
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


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """A dataset, the same one grown, and another: as runs keep what they validate on."""
    folder = tmp_path_factory.mktemp("states")
    first = dataset(folder / "first", games=24)
    grown = shutil.copytree(first, folder / "grown")
    convert(processed(folder / "more", games=24, seed=9), out=grown, append=True)
    return {"first": first, "grown": grown, "other": dataset(folder / "other", games=24, seed=5)}


def validated_on(run, state):
    place = run / "datasets" / "validation"
    place.mkdir(parents=True)
    shutil.copy(state / "index.json", place)


def test_runs_that_were_validated_on_other_positions_stand_apart_and_it_is_said(tmp_path, states):
    of = {"a": "first", "b": "other", "c": "first", "d": "grown", "e": "first"}
    for (name, state), loss in zip(of.items(), (0.9, 0.8, 0.7, 0.6, 0.5), strict=True):
        run_in(tmp_path / name, loss, **({"val_samples": 10} if name == "e" else {"channels": 8}))
        validated_on(tmp_path / name, states[state])
    run_in(tmp_path / "unknown", 0.1)
    runs = runs_in(tmp_path)
    assert [run.name for run in runs] == ["e", "d", "c", "a", "b", "unknown"]
    shown = runs_text(runs).splitlines()
    assert [line.split()[1] for line in shown[:7]] == ["validation", "v1", "v2", "v3", "v3", "v4", "?"]
    first, grown, other = (read_index(state).splits["val"].positions for state in states.values())
    assert shown[7].startswith(
        f"runs of different validations cannot be compared: v1 10 positions of side 5; v2 {grown} positions of side 5; "
        f"v3 {first} positions of side 5; v4 {other} positions of side 5. `hexshards evaluate RUN --split val"
    )
    told = json.loads(call("runs", tmp_path, "--json").output)
    assert told["runs"][2]["validation"] == told["runs"][3]["validation"] == asdict(runs[2].validation)
    alone = call("runs", tmp_path / "a", tmp_path / "c", tmp_path / "unknown").output
    assert "validation" not in alone and alone.split("\n")[1].split()[0].endswith("unknown")


def test_of_a_validation_that_is_merged_or_damaged_nothing_false_is_said(tmp_path, states):
    merged = shutil.copytree(states["grown"], tmp_path / "merged")
    compact(merged, held_out=True, keep=0)
    assert len(read_index(merged).splits["val"].shards) < len(read_index(states["grown"]).splits["val"].shards)
    runs = [tmp_path / name for name in ("before", "after", "damaged")]
    for run, state in zip(runs, (states["grown"], merged, merged), strict=True):
        run_in(run, 0.5)
        validated_on(run, state)
    (runs[2] / "datasets" / "validation" / "index.json").write_text("{")
    # the same positions, whole; a share of them is of shards
    assert apart([validation_of(run) for run in runs]) == "" and validation_of(runs[2]) is None
    for run in runs[:2]:
        (run / "config.toml").write_text("val_samples = 30\n")
    assert apart([validation_of(run) for run in runs]) != ""


def test_what_changes_nothing_without_another_option_is_no_difference(tmp_path):
    run_in(tmp_path / "a", 1.0, min_improvement=0.0, seed=1)
    run_in(tmp_path / "b", 1.0, min_improvement=0.05, seed=2)
    assert differing(runs_in(tmp_path)) == ["seed"]
    run_in(tmp_path / "c", 1.0, min_improvement=0.05, patience=3, seed=3)
    assert set(differing(runs_in(tmp_path))) == {"seed", "patience", "min_improvement"}
    assert "min_improvement 0," not in runs_text(runs_in(tmp_path), width=40)


def test_a_plot_of_runs_that_cannot_be_compared_says_so(tmp_path, states):
    for name, state in (("a", "first"), ("b", "other")):
        run_in(tmp_path / name, 0.9, 0.8)
        validated_on(tmp_path / name, states[state])
        (tmp_path / name / "config.toml").write_text("")
    shown = call("plot", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "runs.png").output
    assert "runs of different validations cannot be compared: v1 " in shown
    assert "validations" not in call("plot", tmp_path / "a", "--out", tmp_path / "run.png").output


def test_a_sweep_over_data_that_grew_says_that_its_trials_cannot_all_be_compared(tmp_path, states):
    rest = {"state": "complete", "value": 0.5, "mini_epochs": 1, "samples": 9, "options": {}, "error": None}
    sweep = Sweep(
        out=tmp_path, metric="val.loss", trials=tuple(Trial(number=n, **rest) for n in range(3)), interrupted=False
    )
    for number, state in enumerate(("first", "first", "grown")):
        run_in(sweep.folder(sweep.trials[number]), 0.5, channels=8)
        validated_on(sweep.folder(sweep.trials[number]), states[state])
    assert "\nruns of different validations cannot be compared: v1 19 positions of side 5; v2 39" in sweep_text(sweep)
    shutil.rmtree(sweep.folder(sweep.trials[2]))
    assert "cannot be compared" not in sweep_text(sweep)
