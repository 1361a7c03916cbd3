"""Plot runs as one picture: a colour for each, samples from left to right, what was validated as a full line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hexshards.errors import escaped
from hexshards.reports.history import History
from hexshards.storage.files import publishing
from hexshards.training.steps.heads import HEADS, VALUE, Head, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES = (4.6, 3.2)
ACROSS = 3
LEGEND_INCHES = 0.5

Panel = Callable[["Axes", Sequence[History], Sequence[str]], None]


def runs_figure(histories: Sequence[History]) -> Figure:
    """All there is to draw of some runs. Raises ValueError where matplotlib is missing."""
    heads = [head for head in HEADS if any(history.newest(f"val.{head.loss_name}") for history in histories)]
    panels = _curves(heads or HEADS)
    if any(history.newest("diagnosis") for history in histories):
        panels += _diagnoses(heads or HEADS)
    figure = new_figure(len(panels))
    colours = line_colours(len(histories))
    for axes, panel in zip(figure.axes, panels, strict=True):
        panel(axes, histories, colours)
    _legend(figure, histories, colours)
    return figure


class NoMatplotlib(ValueError):
    """The library that draws is missing."""


def new_figure(panels: int) -> Figure:
    """A figure with so many panels, and room for a legend above them. Raises ValueError without matplotlib."""
    try:
        # a Figure of its own needs no display, and leaves no global state
        from matplotlib.figure import Figure
    except ImportError:
        raise NoMatplotlib("matplotlib is not installed. Run: pip install 'hexshards[plot]'") from None
    rows = -(-panels // ACROSS)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * ACROSS, height * rows + LEGEND_INCHES), layout="constrained")
    top = LEGEND_INCHES / (height * rows + LEGEND_INCHES)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - top), h_pad=0.08, w_pad=0.08)
    for place in range(panels):
        axes = figure.add_subplot(rows, ACROSS, place + 1)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def save_figure(figure: Figure, out: Path) -> None:
    """Put a figure into a file, whole or not at all, in the format of its name: png, pdf, svg; else ValueError."""
    with publishing(out, durable=False) as file:
        figure.savefig(file, format=out.suffix.removeprefix(".") or "png", dpi=110)


def line_colours(count: int) -> list[str]:
    """A colour for each of some lines: ten that are easily told apart, then shades."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    table = colormaps["tab10"] if count <= 10 else colormaps["viridis"].resampled(count)
    return [to_hex(table(number)) for number in range(count)]


def label_samples(axes: Axes) -> None:
    """Samples from left to right, counted as 200k and 1.5M."""
    from matplotlib.ticker import EngFormatter

    axes.set_xlabel("samples seen")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def plain_label(text: str) -> str:
    """A name as it is: matplotlib takes $ for formulas, passes over what begins with _, and draws nothing but UTF-8."""
    return escaped(text).lstrip("_").replace("$", r"\$")


def _legend(figure: Figure, histories: Sequence[History], colours: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    runs = [
        Line2D([], [], color=colour, lw=3, label=plain_label(history.name))
        for history, colour in zip(histories, colours, strict=True)
    ]
    styles = [
        Line2D([], [], color="0.4", lw=1.6, label="validation"),
        Line2D([], [], color="0.4", lw=1.2, ls="--", label="training"),
    ]
    figure.legend(handles=[*runs, *styles], loc="upper center", ncols=6, frameon=False)


def _curve(title: str, unit: str, path: str, *, training: str = "", percent: bool = False, zero: bool = False) -> Panel:
    """A panel of a number over samples, and of its twin in training."""

    def draw(axes: Axes, histories: Sequence[History], colours: Sequence[str]) -> None:
        for history, colour in zip(histories, colours, strict=True):
            samples = history.column("samples_seen")
            if training:
                _line(axes, samples, history.column(training), color=colour, lw=1.2, ls="--", alpha=0.6)
            _line(axes, samples, history.column(path), color=colour, lw=1.6)
        label_samples(axes)
        _name(axes, title, unit, percent=percent)
        if zero:
            axes.set_ylim(bottom=0)

    return draw


def _groups(title: str, unit: str, path: str, column: str, *, below: str, percent: bool = False) -> Panel:
    """A panel of a number by groups of positions, as the newest diagnosis has it."""

    def draw(axes: Axes, histories: Sequence[History], colours: Sequence[str]) -> None:
        for history, colour in zip(histories, colours, strict=True):
            table = history.table(path)
            if {"from", column} <= table.keys():
                known = table["from"] >= 0
                _line(axes, table["from"][known], table[column][known], color=colour, lw=1.6)
        axes.set_xlabel(below)
        _name(axes, title, unit, percent=percent)

    return draw


def _calibration(axes: Axes, histories: Sequence[History], colours: Sequence[str]) -> None:
    axes.plot([0, 1], [0, 1], color="0.6", lw=1, ls=":")
    for history, colour in zip(histories, colours, strict=True):
        table = history.table("diagnosis.calibration")
        if {"said", "found", "positions"} <= table.keys():
            said, won, positions = (table[name] for name in ("said", "found", "positions"))
            axes.plot(said, won, color=colour, lw=1.2)
            axes.scatter(said, won, color=colour, s=8 + 90 * positions / max(positions.sum(), 1), zorder=3)
    axes.set_xlabel("probability of RED that the network says")
    _name(axes, "Calibration of the value", "share that RED won", percent=True)
    axes.xaxis.set_major_formatter(axes.yaxis.get_major_formatter())


def _line(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], **style: object) -> None:
    there = np.isfinite(y)
    few = int(there.sum()) <= 24
    axes.plot(x[there], y[there], marker="o" if few else "", ms=3, **style)


def _name(axes: Axes, title: str, unit: str, *, percent: bool) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_ylabel(unit)
    if percent:
        from matplotlib.ticker import PercentFormatter

        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))


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
        _calibration,
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
