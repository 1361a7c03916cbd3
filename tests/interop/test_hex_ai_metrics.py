"""hex_ai's books of a run, read as its R script reads them."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import small_hex_ai
from helpers.small_runs import log_lines, orchestrator

from hexshards import HexAiMetrics
from hexshards.interop.hex_ai_metrics import COLUMNS, name_of
from hexshards.training.tracking.hooks import RunStarted, Saved

OPTIONS = {"learning_rate": 1e-3, "clip_norm": 5.0, "value_learning_rate_factor": 0.1, "policy_weight": 0.15}
CURVE = "lr=0.00100, mgn=5.0, vlrf=0.1"


def train(run: Path, *, epochs: int = 1, hook: HexAiMetrics | None = None) -> None:
    orchestrator(run, num_epochs=epochs, hooks=[hook or HexAiMetrics()], options=OPTIONS).run()


def books(folder: Path) -> list[Path]:
    return sorted(folder.glob("training_metrics_*.csv"))


def test_the_curves_of_a_run_that_goes_on_go_on_in_hex_ais_books(tmp_path):
    train(tmp_path / "checkpoints" / "run")
    train(tmp_path / "checkpoints" / "run", epochs=2)
    (path,) = books(tmp_path / "checkpoints" / "bookkeeping")
    curves = small_hex_ai.read_books(path)
    records = log_lines(tmp_path / "checkpoints" / "run")
    wanted = [{"epoch": r["epoch"], "mini": r["mini_epoch"], "val_value": r["val"]["value_loss"]} for r in records]
    assert curves == {CURVE: [pytest.approx(each) for each in wanted]} and len(wanted) == 6


def told(hook: HexAiMetrics, run: Path, records: list[dict[str, Any]], *, history: int = 0) -> None:
    """A hook that is told of a run, which begins after some records."""
    seen = SimpleNamespace(folder=run, options=OPTIONS, rank=0, train_loader=SimpleNamespace(samples=26))
    hook(RunStarted(run=seen, resumed_from=None, samples_seen=0, totals=None, left=None, history=records[:history]))
    for record in records[history:]:
        hook(Saved(run=seen, checkpoint=Path("c.pt"), record=record))
        hook(Saved(run=seen, checkpoint=Path("c.pt"), record={}))


def record(mini_epoch: int, *, val: dict[str, float | None] | None = None, hour: int = 14) -> dict[str, Any]:
    return {
        **{"epoch": 3, "mini_epoch": mini_epoch, "time": f"2026-11-27T{hour}:{mini_epoch:02}:00+00:00"},
        **{"train": {"loss": 0.5, "policy_loss": 2.0, "value_loss": 0.2}, "learning_rate": 1e-4 * mini_epoch},
        **{"val": {"loss": 0.6, "policy_loss": 2.5, "value_loss": 0.25} if val is None else val},
        **{"seconds": 10.0 * mini_epoch, "samples_per_s": 100.0},
    }


def test_a_row_is_there_once_however_often_a_run_is_begun_and_rows_of_other_runs_stay(tmp_path):
    records = [record(number) for number in (1, 2, 3)]
    told(HexAiMetrics(tmp_path), Path("runs/a"), records)
    told(HexAiMetrics(tmp_path), Path("runs/b"), records[:1])
    told(HexAiMetrics(tmp_path), Path("runs/a"), records, history=1)
    (path,) = books(tmp_path)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert path.name == "training_metrics_20261127_14.csv"
    assert [(row["experiment_name"], row["epoch"]) for row in rows] == [
        ("b", "3_mini1"),
        *(("a", f"3_mini{number}") for number in (1, 2, 3)),
    ]
    assert tuple(rows[0]) == COLUMNS
    assert [row["epoch_time"] for row in rows[1:]] == ["10.0", "10.0", "10.0"]
    # a curve has one learning rate, whatever the schedule does to it
    assert {row["learning_rate"] for row in rows} == {"0.001"}


def test_what_was_not_measured_is_empty_and_no_row_of_a_curve(tmp_path):
    unmeasured = {**record(3), "samples_per_s": None}
    told(HexAiMetrics(tmp_path), Path("a"), [record(1, val={}), record(2, val={"loss": None}), unmeasured])
    (path,) = books(tmp_path)
    assert [row["mini"] for row in small_hex_ai.read_books(path)[CURVE]] == [3]
    assert "None" not in path.read_text() and "nan" not in path.read_text()


def test_books_that_another_run_holds_for_long_end_no_run(tmp_path, monkeypatch, caplog):
    fcntl = pytest.importorskip("fcntl", reason="no file locks here: two runs in one file are the user's to avoid")
    monkeypatch.setattr("hexshards.interop.hex_ai_metrics.WAIT_S", 0.0)
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told(hook := HexAiMetrics(tmp_path), Path("a"), [record(1)])
    assert not books(tmp_path) and "is in use: the newest rows are written after the next" in caplog.text
    told(hook, Path("a"), [record(1), record(2)], history=1)
    assert len(small_hex_ai.read_books(*books(tmp_path))[CURVE]) == 2


def test_the_hour_in_the_name_is_that_of_the_first_mini_epoch_whatever_the_time_zone():
    assert name_of({"time": "2026-11-27T23:10:00-02:00"}) == "training_metrics_20261128_01.csv"
