"""hex_ai's checkpoint: ``epoch3_mini4.pt.gz``, gzip of what ``torch.save`` makes of a dict of seven names.

Its programs that play, hold tournaments and show games find it by its name under ``checkpoints/`` and load its weights
strictly. It appears whole or not at all.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from hexshards.arguments import LocalPath
from hexshards.errors import DataError
from hexshards.storage.files import write_whole
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.tracking.hooks import Event, RunStarted, Saved

COMPRESSION = 1
"""zlib's fastest: in the digits of floats there is little to find."""

RENAMED = {"loss": "total_loss"}
"""Metrics by hexshards' names, and hex_ai's."""


def name_of(epoch: int, mini_epoch: int) -> str:
    """Name of the file of a mini-epoch; both count from 1, the latter anew in each epoch."""
    return f"epoch{epoch}_mini{mini_epoch}.pt.gz"


def written(checkpoint: Path, out: Path) -> Path:
    """Write a run's checkpoint as hex_ai's into the folder ``out``; its path. Raises DataError as ``of_run`` does."""
    name, data = of_run(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / name, data)
    return out / name


def of_run(checkpoint: Path) -> tuple[str, bytes]:
    """Name and bytes of a run's checkpoint as hex_ai's. Raises DataError for one that is damaged."""
    state = checkpoint_file.read(checkpoint)
    if "model_state_dict" not in state:
        raise DataError("holds no model_state_dict", where=str(checkpoint), fix="Export one of a trainer that saves it")
    counters = state["counters"]
    torch.save(as_theirs(state), buffer := io.BytesIO())
    # no time inside: the same checkpoint makes the same bytes
    data = gzip.compress(buffer.getvalue(), COMPRESSION, mtime=0)
    return name_of(counters["epoch"], counters["mini_epoch"]), data


def as_theirs(state: Mapping[str, Any]) -> dict[str, Any]:
    """A run's checkpoint under hex_ai's seven names. Metrics are those of the newest mini-epoch that is whole."""
    record, options = state["metrics"], state["options"]
    val = renamed(record.get("val") or {})
    return {
        "epoch": state["counters"]["epoch"],
        "model_state_dict": state["model_state_dict"],
        "optimizer_state_dict": state.get("optimizer_state_dict", {}),
        "train_metrics": renamed(record.get("train") or {}),
        "val_metrics": val,
        "best_val_loss": _best(state, val),
        "mixed_precision": options.get("precision", "float32") != "float32",
    }


def renamed(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics by hex_ai's names."""
    return {RENAMED.get(name, name): value for name, value in metrics.items()}


def _best(state: Mapping[str, Any], val: Mapping[str, Any]) -> float:
    best = state["standing"]["best"]
    if best is not None and state["options"].get("best_by", "val.loss") == "val.loss":
        return float(best)
    return float(val.get("total_loss", float("inf")))


class HexAiCheckpoints:
    """A hook: each finished mini-epoch as hex_ai's checkpoint too, beside ``checkpoints/`` in the run's folder.

    With a limit on the checkpoints that are kept, those go whose own are gone. Rank 0 alone writes.
    folder: where instead. write: what writes one into a folder instead; it returns its name.
    """

    def __init__(self, folder: LocalPath | None = None, *, write: Callable[[Saved, Path], str] | None = None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._write = write or (lambda event, folder: written(event.checkpoint, folder).name)
        self._made: dict[str, str] = {}
        """By the name of a checkpoint that a record tells of, that of hex_ai's."""

    def __call__(self, event: Event, /) -> None:
        """Write what was saved."""
        if event.run.rank:
            return
        folder = self._folder or event.run.folder
        match event:
            case RunStarted(history=history):
                self._made = {each["checkpoint"]: name_of(each["epoch"], each["mini_epoch"]) for each in history}
            case Saved(checkpoint=checkpoint, record=record) if record:
                self._made[checkpoint.name] = self._write(event, folder)
                self._tidy(checkpoint.parent, folder)

    def _tidy(self, checkpoints: Path, folder: Path) -> None:
        for own in [each for each in self._made if not (checkpoints / each).exists()]:
            (folder / self._made.pop(own)).unlink(missing_ok=True)
