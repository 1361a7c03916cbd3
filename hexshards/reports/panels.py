"""Panels: what there is to draw of runs, each a title and lines of numbers, for pictures and pages alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.reports.history import History
from hexshards.training.steps.heads import HEADS, USUAL, VALUE, Head, Metric


class Line(NamedTuple):
    """Numbers of a run (N); NaN leaves a gap."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    training: bool = False
    """Whether it was measured in training and not in validation."""
    shares: NDArray[Any] | None = None
    """How much of all each point stands for, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture of the same of several runs."""

    title: str
    lines: Callable[[History], Iterator[Line]]
    unit: str = ""
    below: str = "samples seen"
    percent: bool = False
    zero: bool = False
    """Whether the vertical axis begins at 0."""
    diagonal: bool = False
    """Whether both axes are shares, which are equal on a line that is drawn too."""

    @property
    def counts_samples(self) -> bool:
        """Whether samples go from left to right."""
        return self.below == "samples seen"


def panels_of(histories: Sequence[History]) -> list[Panel]:
    """What there is to draw of some runs."""
    heads = [head for head in HEADS if any(history.newest(f"val.{head.loss_name}") for history in histories)]
    diagnosed = any(history.newest("diagnosis") for history in histories)
    return _curves(heads or USUAL) + (_diagnoses(heads or USUAL) if diagnosed else [])


def _curve(title: str, unit: str, path: str, *, training: str = "", percent: bool = False, zero: bool = False) -> Panel:
    """A panel of a number over samples, and of its twin in training."""

    def lines(history: History) -> Iterator[Line]:
        samples = history.column("samples_seen")
        if training:
            yield Line(samples, history.column(training), training=True)
        yield Line(samples, history.column(path))

    return Panel(title=title, unit=unit, lines=lines, percent=percent, zero=zero)


def _groups(title: str, unit: str, path: str, column: str, *, below: str, percent: bool = False) -> Panel:
    """A panel of a number by groups of positions, as the newest diagnosis has it."""

    def lines(history: History) -> Iterator[Line]:
        table = history.table(path)
        if {"from", column} <= table.keys():
            known = table["from"] >= 0
            yield Line(table["from"][known], table[column][known])

    return Panel(title=title, unit=unit, lines=lines, below=below, percent=percent)


def _calibration(history: History) -> Iterator[Line]:
    table = history.table("diagnosis.calibration")
    if {"said", "found", "positions"} <= table.keys():
        positions = table["positions"]
        yield Line(table["said"], table["found"], shares=positions / max(positions.sum(), 1))


def _curves(heads: Sequence[Head]) -> list[Panel]:
    """From the means of every mini-epoch."""
    losses = [
        _curve(f"{head.title} loss", head.unit, f"val.{head.loss_name}", training=f"train.{head.loss_name}")
        for head in heads
    ]
    return [
        *losses,
        _curve("Throughput of training", "samples/s", "samples_per_s", zero=True),
        *(_metric_curve(metric) for metric in _first_metrics(heads)),
        _curve("Learning rate", "", "learning_rate", zero=True),
    ]


def _metric_curve(metric: Metric) -> Panel:
    return _curve(metric.title, metric.unit, f"val.{metric.name}", percent=metric.higher_is_better)


def _diagnoses(heads: Sequence[Head]) -> list[Panel]:
    """From the diagnosis of every mini-epoch, or the newest."""
    length = "stones at the end of the game"
    return [
        *(_by_ply(f"{head.title} loss", head.unit, head.loss_name) for head in heads),
        *(_metric_by_ply(metric) for metric in _first_metrics(heads)),
        Panel(
            title="Calibration of the value",
            unit="share that RED won",
            below="probability of RED that the network says",
            lines=_calibration,
            percent=True,
            diagonal=True,
        ),
        _groups(
            "Value loss by length of the game, newest", VALUE.unit, "diagnosis.by_length", VALUE.loss_name, below=length
        ),
        _curve("Value loss: validation less training", VALUE.unit, "diagnosis.value_gap"),
        _curve(
            "Change of the policy under the symmetries", "share moved", "diagnosis.equivariance.policy", percent=True
        ),
    ]


def _by_ply(title: str, unit: str, column: str, *, percent: bool = False) -> Panel:
    below = "stones on the board"
    return _groups(f"{title} by ply, newest", unit, "diagnosis.by_ply", column, below=below, percent=percent)


def _first_metrics(heads: Sequence[Head]) -> list[Metric]:
    return [head.metrics[0] for head in heads]


def _metric_by_ply(metric: Metric) -> Panel:
    return _by_ply(f"{metric.title},", metric.unit, metric.name, percent=metric.higher_is_better)
