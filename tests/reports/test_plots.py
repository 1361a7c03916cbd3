from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.small_data import dataset
from typer.testing import CliRunner

from hexshards.cli.app import app
from hexshards.errors import DataError
from hexshards.reports.history import read_history
from hexshards.reports.plots import runs_figure, save_figure
from hexshards.reports.terminal_curves import BLOCKS, curves_text, sparkline
from hexshards.training.options import TrainSpec
from hexshards.training.run import train


def record(number, **changes):
    policy = 4.0 - 0.1 * number
    return {
        "epoch": 1,
        "mini_epoch": number,
        "samples_seen": 1000 * number,
        "train": {"policy_loss": policy - 0.2, "value_loss": 0.5},
        "val": {"policy_loss": policy, "value_loss": 0.6, "policy_top1": 0.01 * number, "value_accuracy": 0.7},
        "samples_per_s": 2500.0,
        "learning_rate": 1e-3,
        **changes,
    }


def written(folder, records):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in records))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A real run of two mini-epochs with its diagnosis."""
    folder = tmp_path_factory.mktemp("plots")
    tiny = {"channels": 2, "blocks": 1, "batch_size": 64, "mini_epoch_samples": 600}
    train(TrainSpec(data=dataset(folder), run=folder / "run", **tiny))
    return folder / "run"


def call(*arguments, code=0):
    result = CliRunner().invoke(app, ["plot", *map(str, arguments)])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def test_the_command_shows_a_run_and_writes_a_picture_into_its_folder(run):
    shown = call(run).stdout
    assert "2 mini-epochs, 1,117 samples" in shown.replace("\n", "")
    assert all(name in shown for name in ("policy loss", "value accuracy", "calibration error", "hard: synth"))
    assert (run / "plot.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_several_runs_are_one_picture_here_or_where_it_is_wanted(run, tmp_path, monkeypatch):
    other = written(tmp_path / "other", [record(1), record(2)])
    monkeypatch.chdir(tmp_path)
    assert "picture plot.png" in call(run, other).stdout
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG\r\n")
    call(run, other, "--out", tmp_path / "both.svg")
    assert "<svg" in (tmp_path / "both.svg").read_text()


def test_lines_hold_the_numbers_of_the_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [written(Path(name), [record(n) for n in range(1, count)]) for name, count in (("a", 4), ("b", 3))]
    figure = runs_figure([read_history(folder) for folder in runs])
    policy = figure.axes[0]
    assert policy.get_title(loc="left") == "Policy loss"
    assert [line.get_xdata().tolist() for line in policy.lines] == [[1000, 2000, 3000]] * 2 + [[1000, 2000]] * 2
    expected = [[3.7, 3.6, 3.5], [3.9, 3.8, 3.7], [3.7, 3.6], [3.9, 3.8]]
    assert [line.get_ydata().tolist() for line in policy.lines] == [pytest.approx(each) for each in expected]
    colours = [line.get_color() for line in policy.lines]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert len(figure.axes) == 6  # no diagnosis, no panels for it
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["a", "b", "validation", "training"]


def test_the_diagnosis_of_a_real_run_is_drawn(run):
    figure = runs_figure([read_history(run)])
    newest = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["diagnosis"]
    by_title = {axes.get_title(loc="left"): axes for axes in figure.axes}
    (line,) = by_title["Value loss by ply, newest"].lines
    assert line.get_xdata().tolist() == newest["by_ply"]["from"]
    assert line.get_ydata().tolist() == newest["by_ply"]["value_loss"]
    diagonal, line = by_title["Calibration of the value"].lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
    assert line.get_ydata().tolist() == newest["calibration"]["found"]


def test_names_that_matplotlib_would_take_for_something_else_are_shown_as_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figure = runs_figure([read_history(written(Path("_a$b$"), [record(1), record(2)]))])
    save_figure(figure, Path("plot.png"))
    assert figure.legends[0].get_texts()[0].get_text() == r"a\$b\$"


def test_runs_under_one_long_path_are_told_apart_by_its_end(tmp_path):
    for last in ("first", "second"):
        name = read_history(written(tmp_path / ("long" * 10) / last, [record(1)])).name
        assert name.startswith("…") and name.endswith(f"long/{last}") and len(name) == 40


def test_numbers_that_are_missing_or_null_leave_a_gap(tmp_path):
    records = [record(1), record(2, val={"policy_loss": None}), record(3, val={}, learning_rate=None), record(4)]
    history = read_history(written(tmp_path, records))
    column = history.column("val.policy_loss")
    assert np.isnan(column).tolist() == [False, True, True, False]
    figure = runs_figure([history])
    assert figure.axes[0].lines[1].get_xdata().tolist() == [1000, 4000]
    assert "policy loss" in curves_text([history])


@pytest.mark.parametrize("width", [80, 90, 100, 200])
def test_curves_are_as_wide_as_the_terminal_and_keep_their_numbers(tmp_path, width):
    history = read_history(written(tmp_path, [record(number) for number in range(1, 60)]))
    lines, whole = curves_text([history], width=width).splitlines(), curves_text([history]).splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[-4:] for line in lines] == [line.split()[-4:] for line in whole]
    assert curves_text([history], width=200) == "\n".join(whole)


def test_hostile_diagnoses_neither_end_the_picture_nor_reach_the_terminal(tmp_path):
    for number, diagnosis in enumerate(
        ["text", 5, {"by_ply": [1], "calibration": {"said": "x", "found": [1], "positions": [1, 2]}, "hardest": [3]}]
    ):
        folder = written(tmp_path / str(number), [record(1, diagnosis=diagnosis)])
        runs_figure([read_history(folder)])
    hard = {"hardest": [{"source": "\x1b[2Jx"}], "warning": "\x07bell"}
    shown = call(written(tmp_path / "hard", [record(1, diagnosis=hard)])).stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown


@pytest.mark.parametrize("line", ["{", "[1]", '{"val": {}}', '{"samples_seen": "many"}', "[" * 100_000])
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    folder = written(tmp_path, [record(1)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2: is not the record of a mini-epoch"):
        read_history(folder)
    assert "line 2" in call(folder, code=1).stderr


def test_a_folder_without_a_run_ends_with_2(tmp_path):
    assert "no run here" in call(tmp_path, code=2).stderr


def test_a_format_that_nobody_knows_ends_with_2_and_leaves_nothing(tmp_path):
    folder = written(tmp_path / "run", [record(1)])
    assert "png" in call(folder, "--out", tmp_path / "plot.doc", code=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_without_matplotlib_the_terminal_has_the_curves_and_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run = written(tmp_path, [record(1), record(2)])
    result = call(run, code=0)
    assert "policy loss" in result.stdout
    assert "no picture: matplotlib is not installed. Run: pip install 'hexshards[plot]'" in result.stderr
    assert "pip install 'hexshards[plot]'" in call(run, "--out", tmp_path / "asked.png", code=2).stderr


def test_a_line_of_blocks_rises_with_the_numbers():
    assert sparkline(np.arange(8.0)) == BLOCKS[1:]
    assert sparkline(np.array([5.0, np.nan, 5.0])) == "▁ ▁"
    assert sparkline(np.array([np.nan])) == " "
    assert sparkline(np.repeat(np.arange(8.0), 20))[::4] == BLOCKS[1:]
