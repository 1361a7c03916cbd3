"""Plot runs as one picture: a colour for each, samples from left to right, what was validated as a full line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hexshards.errors import escaped
from hexshards.reports.history import History
from hexshards.reports.panels import Panel, panels_of
from hexshards.storage.files import publishing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES = (4.6, 3.2)
ACROSS = 3
LEGEND_INCHES = 0.5


def runs_figure(histories: Sequence[History]) -> Figure:
    """All there is to draw of some runs. Raises ValueError where matplotlib is missing."""
    panels = panels_of(histories)
    figure = new_figure(len(panels))
    colours = line_colours(len(histories))
    for axes, panel in zip(figure.axes, panels, strict=True):
        _draw(axes, panel, histories, colours)
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


def _draw(axes: Axes, panel: Panel, histories: Sequence[History], colours: Sequence[str]) -> None:
    if panel.diagonal:
        axes.plot([0, 1], [0, 1], color="0.6", lw=1, ls=":")
    for history, colour in zip(histories, colours, strict=True):
        for line in panel.lines(history):
            style = {"lw": 1.2, "ls": "--", "alpha": 0.6} if line.training else {"lw": 1.6}
            _line(axes, line.x, line.y, color=colour, **style)
            if line.shares is not None:
                axes.scatter(line.x, line.y, color=colour, s=8 + 90 * line.shares, zorder=3)
    _name(axes, panel)


def _line(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], **style: object) -> None:
    there = np.isfinite(y)
    few = int(there.sum()) <= 24
    axes.plot(x[there], y[there], marker="o" if few else "", ms=3, **style)


def _name(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=11, loc="left")
    axes.set_ylabel(panel.unit)
    if panel.counts_samples:
        label_samples(axes)
    else:
        axes.set_xlabel(panel.below)
    if panel.zero:
        axes.set_ylim(bottom=0)
    if panel.percent:
        from matplotlib.ticker import PercentFormatter

        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    if panel.diagonal:
        axes.xaxis.set_major_formatter(axes.yaxis.get_major_formatter())
