"""What a person sees of an evaluation: a table of its numbers beside those of the run's validation, and cautions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from hexshards.cli import display
from hexshards.dataset.index import FEW_GAMES
from hexshards.errors import escaped
from hexshards.loading.options import LOADER
from hexshards.reports.evaluation import Evaluation
from hexshards.training.steps.heads import HEADS
from hexshards.units import counted

EMA = "ema_"
"""Before the names of what is measured of the moving average of the weights."""

TWICE = {"batches", *(f"{EMA}{count}" for count in ("batches", "samples", *(head.counted for head in HEADS)))}
"""Counts that say nothing more to a person."""

METRICS = {metric.name: metric for head in HEADS for metric in head.metrics}


def evaluation_text(made: Evaluation) -> str:
    """A table: a line for each number, a column for the weights, and one for what the run wrote of its validation."""
    columns = {made.split: made.metrics, "val in the run": made.validation}
    told = {name: numbers for name, numbers in columns.items() if numbers}
    names = [name for name in made.metrics if name not in TWICE]
    target = "" if made.policy_target == str(LOADER.policy) else f", policy compared with {made.policy_target}"
    games = f"{_part(made)}{counted(made.games, 'game')} in {escaped(made.split)}"
    return "\n".join(
        [
            f"checkpoint {escaped(made.checkpoint)}",
            f"dataset: {escaped(made.dataset)}, {games}{escaped(target)}",
            *display.table([["", *told], *([name, *_cells(name, told)] for name in names)]),
        ]
    )


def _part(made: Evaluation) -> str:
    samples = made.metrics["samples"]
    return f"{samples:,.0f} of {counted(made.positions, 'position')} of " if samples < made.positions else ""


def _cells(name: str, columns: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for numbers in columns.values():
        value = numbers.get(name)
        # of a file, a number may be anything
        yield _shown(name.removeprefix(EMA), value) if isinstance(value, (int, float)) else ""


def _shown(name: str, value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return METRICS[name].shown(value) if name in METRICS else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def cautions(made: Evaluation) -> Iterator[str]:
    """What makes the numbers say less than they seem to."""
    if not made.apart:
        trained = "the network may have been trained on games of it"
        yield f"{escaped(made.dataset)} is not known to be what {escaped(made.checkpoint)} was trained on: {trained}"
    if made.few_games:
        few = f"{escaped(made.split)} has {counted(made.games, 'game')}"
        yield f"{few}, and says little of the value with fewer than {FEW_GAMES}"
    if made.skipped:
        yield f"{counted(made.skipped, 'position')} of damaged blocks did not count, and others counted in their place"


def evaluation_json(made: Evaluation) -> dict[str, Any]:
    """An evaluation for programs; a number that is not finite is null."""
    return {name: _plain(value) for name, value in asdict(made).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
