from __future__ import annotations

import html
import json
import shutil

import pytest
from helpers.cli import call
from helpers.small_data import columns_of, dataset

from hexshards.dataset.index import read_index
from hexshards.reports.dataset_report import dataset_report
from hexshards.reports.history import read_history
from hexshards.reports.panels import panels_of
from hexshards.reports.run_figures import runs_part
from hexshards.storage.remote import home_of


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("runs"), games=24)


def hard_position(data, row):
    """A position of val as a diagnosis lists it."""
    val, sources = columns_of(data, "val"), read_index(data).sources
    origin = {"source": sources[val["source"][row]], "line": int(val["game"][row]), "ply": int(val["ply"][row])}
    return {**origin, "loss": 4.5, "red_wins": 0.97, "move": "a1", "move_probability": 0.01, "preferred": "b2"}


def record(number, *, diagnosis=None, **changes):
    val = {"loss": 3.0 - 0.1 * number, "policy_loss": 2.5, "value_loss": 0.6, "policy_top1": 0.125}
    return {
        "samples_seen": 1000 * number,
        "seconds": 3600.0 * number,
        "samples_per_s": 250.0,
        "train": {"policy_loss": 2.4, "value_loss": 0.5},
        "val": val,
        "learning_rate": 1e-3,
        **({"diagnosis": diagnosis} if diagnosis else {}),
        **changes,
    }


def run(folder, *records):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in records))
    return folder


def part_of(data, *runs, most=1000):
    return runs_part(home_of(data), read_index(data), runs, most=most)


def test_a_table_has_the_newest_and_the_best_of_each_run(data, tmp_path):
    worse = record(3, val={"loss": 2.9, "policy_loss": 2.5})
    part = part_of(data, run(tmp_path / "one", record(1), record(2), worse), run(tmp_path / "two", record(1)))
    first, second = (dict(zip(part.table.heads, row, strict=True)) for row in part.table.rows)
    assert (first["Mini-epochs"], first["Samples"], first["Time"]) == ("3", "3,000", "3.0 h")
    assert (first["Best"], first["of"]) == ("2.8000", "val.loss")
    assert first["value accuracy"] == "" == first["Value loss"]
    assert second["policy top1"] == "12.5%"
    assert [name for _, name in part.legend] == [
        str(tmp_path / "one")[-40:],
        str(tmp_path / "two")[-40:],
    ] or part.legend


def test_a_run_whose_newest_mini_epoch_has_no_speed_tells_none(data, tmp_path):
    part = part_of(data, run(tmp_path / "one", record(1), record(2, samples_per_s=None)))
    assert dict(zip(part.table.heads, part.table.rows[0], strict=True))["Samples/s"] == ""
    assert any("Throughput" in figure.title for figure in part.figures)


def test_options_in_which_runs_differ_are_columns_of_their_table(data, tmp_path):
    runs = [run(tmp_path / name, record(1)) for name in ("one", "two")]
    for each, rate in zip(runs, (0.1, 0.2), strict=True):
        (each / "config.toml").write_text(f"learning_rate = {rate}\nseed = 3\n")
    part = part_of(data, *runs)
    assert part.table.heads[-1] == "learning_rate"
    assert [row[-1] for row in part.table.rows] == ["0.1", "0.2"]


def test_every_panel_is_a_figure_with_a_line_of_each_run(data, tmp_path):
    runs = [run(tmp_path / name, record(1), record(2)) for name in ("one", "two")]
    part = part_of(data, *runs)
    assert [each.title for each in part.figures] == [each.title for each in panels_of([read_history(runs[0])])]
    lines = [each for each in part.figures[0].picture.iter("polyline")]
    assert [line.get("class") for line in lines] == ["line-tone-0"] * 2 + ["line-tone-1"] * 2
    assert [line.get("stroke-dasharray") for line in lines] == ["4 3", None] * 2
    assert "training the dashed one" in part.figures[0].caption


def test_calibration_is_drawn_against_the_diagonal(data, tmp_path):
    table = {"positions": [30, 10], "said": [0.2, 0.8], "found": [0.3, 0.7]}
    part = part_of(data, run(tmp_path / "run", record(1, diagnosis={"calibration": table, "positions": 40})))
    (figure,) = [each for each in part.figures if each.title == "Calibration of the value"]
    assert [line.get("class") for line in figure.picture.iter("polyline")] == ["line-quiet", "line-tone-0"]
    for wrong in ([-1, 10], [float("nan"), 1e18]):
        ended = record(1, diagnosis={"calibration": {**table, "positions": wrong}})
        assert part_of(data, run(tmp_path / str(wrong), ended)).figures
    large, small = [float(each.get("r")) for each in figure.picture.iter("circle")][-2:]
    assert large > small


def test_the_hardest_positions_of_a_run_are_drawn_as_the_dataset_has_them(data, tmp_path):
    hardest = [hard_position(data, row) for row in (5, 9)] + [{**hard_position(data, 5), "line": 999}]
    ended = record(1, diagnosis={"positions": 60, "hardest": hardest})
    part = part_of(data, run(tmp_path / "run", ended))
    val = columns_of(data, "val")
    assert [board.heading.split(" ·")[0] for board in part.hardest] == [f"ply {val['ply'][row]}" for row in (5, 9)]
    assert "it gave RED 97.0%; the move a1 had 1.0%; it would play b2" in part.hardest[0].caption
    assert "1 more position is not in what was read of val" in part.hardest_note


@pytest.mark.parametrize(
    "diagnosis", ["text", {"hardest": [3, {"source": [1], "line": {}, "ply": None}]}, {"hardest": 5}]
)
def test_hostile_records_neither_end_the_page_nor_stand_on_it_as_markup(data, tmp_path, diagnosis):
    name = '"><script>alert(1)<'
    ended = record(1, diagnosis=diagnosis, val={"loss": "<b>", "policy_loss": [1]}, learning_rate={})
    report = dataset_report(data, [run(tmp_path / name, ended)])
    assert "<script" not in report.html
    assert "<b>" not in report.html


def test_the_command_takes_runs_and_names_what_is_none(data, tmp_path):
    out = tmp_path / "page.html"
    call("report", data, run(tmp_path / "run", record(1)), "--out", out)
    assert 'id="runs"' in out.read_text(encoding="utf-8")
    out.unlink()
    shutil.rmtree(tmp_path / "run")
    assert "no run in here" in call("report", data, tmp_path / "run", "--out", out, code=2).stderr
    assert not out.exists()


def test_a_folder_of_runs_is_all_of_them_the_best_first_and_one_without_a_record_is_left_out(data, tmp_path):
    for name, count in (("a", 1), ("b", 3), ("c", 2)):
        run(tmp_path / "runs" / name, *map(record, range(1, count + 1)))
    run(tmp_path / "runs" / "begun")
    call("report", data, tmp_path / "runs", "--out", tmp_path / "page.html")
    page = html.unescape((tmp_path / "page.html").read_text(encoding="utf-8"))
    places = [page.index(f"runs/{name}<") for name in ("b", "c", "a")]
    assert places == sorted(places)
    assert f"Left out: {tmp_path / 'runs' / 'begun'}: no run here with a finished mini-epoch" in page
    begun = call("report", data, tmp_path / "runs" / "begun", "--out", tmp_path / "none.html", code=2)
    assert "no run here with a finished mini-epoch" in begun.stderr and not (tmp_path / "none.html").exists()


def test_runs_that_were_validated_on_other_positions_are_told_of_in_a_verdict_and_in_their_table(data, tmp_path):
    other = dataset(tmp_path / "other", games=24, seed=5)
    runs = [run(tmp_path / name, record(1)) for name in ("own", "strange")]
    for each, state in zip(runs, (data, other), strict=True):
        (each / "config.toml").write_text("")
        (each / "datasets" / "validation").mkdir(parents=True)
        shutil.copy(state / "index.json", each / "datasets" / "validation")
    made = dataset_report(data, runs)
    (verdict,) = [each for each in made.verdicts if each.name == "Validation of the runs"]
    assert verdict.level == "look"
    assert verdict.says.startswith(
        f"{runs[1]}: validated on positions that are not in val of this dataset. Runs of diff"
    )
    assert "evaluate RUN --split val --dataset DIR" in verdict.do and verdict.says in html.unescape(made.html)
    table = part_of(data, *runs).table
    assert table.heads[-1] == "validation" and [row[-1] for row in table.rows] == ["v1", "v2"]
    assert [each for each in dataset_report(data, runs[:1]).verdicts if each.name == "Validation of the runs"] == []
    (alone,) = [each for each in dataset_report(data, runs[1:]).verdicts if each.name == "Validation of the runs"]
    assert "Runs of different" not in alone.says
