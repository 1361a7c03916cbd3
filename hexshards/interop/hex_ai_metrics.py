"""hex_ai's books: ``bookkeeping/training_metrics_20250908_14.csv``, a row for each mini-epoch; its R script draws them.

The script takes for one curve what has the same learning rate, ``max_grad_norm`` and ``value_learning_rate_factor``,
and passes over rows whose epoch is not like ``3_mini4``.
"""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hexshards.arguments import LocalPath
from hexshards.errors import escaped
from hexshards.storage.files import write_whole
from hexshards.storage.locks import locked
from hexshards.training.tracking.hooks import Event, RunStarted, Saved

log = logging.getLogger(__name__)

COLUMNS = (
    *("experiment_name", "date", "timestamp", "epoch", "learning_rate", "batch_size", "dataset_size"),
    *("network_structure", "policy_weight", "value_weight", "total_loss_weight", "dropout_prob", "weight_decay"),
    *("max_grad_norm", "value_learning_rate_factor", "value_weight_decay_factor"),
    *("policy_loss", "value_loss", "total_loss", "val_policy_loss", "val_value_loss", "val_total_loss"),
    *("training_time", "epoch_time", "samples_per_second", "memory_usage_mb", "gpu_memory_mb"),
    *("early_stopped", "best_val_loss", "epochs_trained"),
    *("gradient_norm", "post_clip_gradient_norm", "gradient_norm_mean", "gradient_norm_max", "gradient_norm_min"),
    *("gradient_norm_std", "weight_norm_mean", "weight_norm_std", "lr_mean", "lr_min", "lr_max", "lr_std"),
    *("loss_spikes_count", "policy_loss_ma", "value_loss_ma", "total_loss_ma"),
    *("policy_loss_es", "value_loss_es", "total_loss_es", "composite_score", "trend_slope", "trend_direction"),
    *("performance_alert", "alert_message", "notes"),
)
"""Of the CSV, as hex_ai's logger writes and expects them; what hexshards does not measure is left empty."""

OPTIONS = {
    **{name: name for name in ("learning_rate", "policy_weight", "value_weight", "weight_decay")},
    **{name: name for name in ("value_learning_rate_factor", "value_weight_decay_factor")},
    **{"batch_size": "global_batch_size", "max_grad_norm": "clip_norm", "dropout_prob": "dropout"},
}
"""Columns that are options of a run, and the options' names."""

LOSSES = {"policy_loss": "policy_loss", "value_loss": "value_loss", "total_loss": "loss"}
"""Columns that are losses, and their names in a record."""

TRIES, WAIT_S = 100, 0.05
"""Another run may be writing its rows into the same file."""


class HexAiMetrics:
    """A hook: the records of a run as rows of hex_ai's CSV, in ``bookkeeping/`` beside the run's folder.

    All rows of a run are written anew after each mini-epoch, those of others stay; so none is missing or there twice,
    however a run was stopped. Rank 0 alone writes. folder: where instead.
    """

    def __init__(self, folder: LocalPath | None = None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._records: list[Mapping[str, Any]] = []

    def __call__(self, event: Event, /) -> None:
        """Write what was saved."""
        if event.run.rank:
            return
        match event:
            case RunStarted(history=history):
                self._records = [*history]
            case Saved(record=record) if record:
                self._records.append(record)
                self._write(event.run.folder, event.run.options, samples=event.run.train_loader.samples)

    def _write(self, run: Path, options: Mapping[str, Any], *, samples: int) -> None:
        folder = self._folder or run.parent / "bookkeeping"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name_of(self._records[0])
        rows = list(rows_of(self._records, options, experiment=run.name, samples=samples))
        for _ in range(TRIES):
            try:
                with locked(folder / ".lock", taken="in use"):
                    return write_whole(path, _csv([*_others(path, run.name), *rows]))
            except FileExistsError:
                time.sleep(WAIT_S)
        log.warning("%s is in use: the newest rows are written after the next mini-epoch", escaped(path))


def name_of(first: Mapping[str, Any]) -> str:
    """Name of the file, by the hour, UTC, in which a run's first mini-epoch ended."""
    ended = datetime.fromisoformat(first["time"]).astimezone(UTC)
    return f"training_metrics_{ended:%Y%m%d_%H}.csv"


def rows_of(
    records: list[Mapping[str, Any]], options: Mapping[str, Any], *, experiment: str, samples: int
) -> Iterator[dict[str, Any]]:
    """The rows of a run; dataset_size is the samples in an epoch."""
    best, before = float("inf"), 0.0
    fixed = {column: options[name] for column, name in OPTIONS.items() if name in options}
    weights = [fixed[name] for name in ("policy_weight", "value_weight") if name in fixed]
    for record in records:
        val, ended = record.get("val") or {}, datetime.fromisoformat(record["time"])
        best = min(best, val.get("loss") or best)
        rate = record.get("learning_rate")
        yield {
            **{"learning_rate": rate, **fixed, "total_loss_weight": sum(weights) if weights else None},
            **{"experiment_name": experiment, "date": f"{ended:%Y-%m-%d}", "timestamp": record["time"]},
            **{"epoch": f"{record['epoch']}_mini{record['mini_epoch']}", "dataset_size": samples},
            **{"network_structure": _network(options)},
            **{column: record["train"].get(name) for column, name in LOSSES.items()},
            **{f"val_{column}": val.get(name) for column, name in LOSSES.items()},
            **dict.fromkeys(("training_time", "epoch_time"), record["seconds"] - before),
            **{"samples_per_second": record["samples_per_s"], "early_stopped": False},
            **{"best_val_loss": best if best < float("inf") else None},
            **dict.fromkeys(("lr_mean", "lr_min", "lr_max"), rate),
            **{"notes": "hexshards"},
        }
        before = record["seconds"]


def _network(options: Mapping[str, Any]) -> str | None:
    if name := options.get("model"):
        return f"{name} {options.get('model_args') or ''}".strip()
    return f"{options['blocks']} blocks of {options['channels']} channels" if "blocks" in options else None


def _others(path: Path, experiment: str) -> list[dict[str, Any]]:
    """The rows of other experiments in a file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        return [row for row in csv.DictReader(file) if row.get("experiment_name") != experiment]


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    return text.getvalue().encode()
