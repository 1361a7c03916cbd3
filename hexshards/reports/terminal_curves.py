"""Curves of runs in a terminal: each a line of blocks, then its first, last and best number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.errors import printable
from hexshards.reports.history import History
from hexshards.training.steps.heads import HEADS, Head, Metric
from hexshards.units import counted

Line = tuple[str, str, Callable[[Any], float], Callable[[float], str]]
"""Name, path in a record, which of some numbers is the best one, and how it is shown."""


def _loss_lines(head: Head) -> list[Line]:
    name, shown = head.loss_name.replace("_", " "), "{:.3f}".format
    return [(f"training {name}", f"train.{head.loss_name}", min, shown), (name, f"val.{head.loss_name}", min, shown)]


def _metric_line(metric: Metric) -> Line:
    best = max if metric.higher_is_better else min
    return metric.name.replace("_", " "), f"val.{metric.name}", best, metric.shown


LINES: tuple[Line, ...] = (
    *(line for head in HEADS for line in _loss_lines(head)),
    *(_metric_line(head.metrics[0]) for head in HEADS),
    ("samples/s", "samples_per_s", max, "{:,.0f}".format),
)

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH = 32
"""Columns of a line of blocks; more mini-epochs than that share columns."""


NARROWEST = 8
"""Columns of a line of blocks that still show how it goes."""


def curves_text(histories: list[History], *, width: int | None = None) -> str:
    """A few lines for each run; on a terminal of so many columns the lines of blocks are as long as fits."""
    return "\n\n".join("\n".join(_lines(history, width)) for history in histories)


def _lines(history: History, width: int | None) -> Iterator[str]:
    samples = history.column("samples_seen")
    yield f"{history.name}: {counted(len(samples), 'mini-epoch')}, {counted(samples[-1], 'sample')}"
    said = list[tuple[str, NDArray[np.float64], str]]()
    for name, path, better, shown in LINES:
        numbers = history.column(path)
        if (there := np.isfinite(numbers)).any():
            kept = numbers[there]
            best = better(kept)
            at = samples[there][kept.tolist().index(best)]
            first, last, top = (shown(each) for each in (kept[0], kept[-1], best))
            said.append((name, numbers, f"{first} → {last}, best {top} at {at:,.0f}"))
    names, tails = (max((len(each[part]) for each in said), default=0) for part in (0, 2))
    blocks = WIDTH if width is None else max(NARROWEST, min(WIDTH, width - names - tails - 4))
    for name, numbers, tail in said:
        yield f"  {name:<{names}} {sparkline(numbers, blocks):<{blocks}} {tail}"
    for line in _diagnosis(history):
        yield from [line] if width is None else wrap(line, width, subsequent_indent="    ")


def _diagnosis(history: History) -> Iterator[str]:
    paths = {
        "calibration error": "calibration.expected_error",
        "value gap": "value_gap",
        "lopsided policy": "equivariance.policy",
        "value": "equivariance.value",
    }
    numbers = {name: history.column(f"diagnosis.{path}") for name, path in paths.items()}
    figures = [f"{name} {column[-1]:.3f}" for name, column in numbers.items() if np.isfinite(column[-1])]
    if figures:
        yield "  " + " · ".join(figures)
    if warning := history.newest("diagnosis.warning"):
        yield f"  warning: {printable(warning, width=300)}"
    hardest = history.newest("diagnosis.hardest")
    for position in hardest if isinstance(hardest, list) else ():
        if isinstance(position, dict):
            yield "  hard: " + _hard(position)


def _hard(position: Mapping[str, Any]) -> str:
    names = ("source", "line", "ply", "player", "value", "red_wins", "move", "move_probability", "preferred")
    says = {name: printable(position.get(name)) for name in names}
    return (
        "{source} line {line}, ply {ply}, {player} to move: value {value}, said {red_wins}; move {move} had "
        "{move_probability}, it would play {preferred}".format(**says)
    )


def sparkline(numbers: NDArray[np.float64], width: int = WIDTH) -> str:
    """Numbers as blocks between the lowest and the highest; a blank where there is none."""
    parts = np.array_split(numbers, min(width, len(numbers)))
    means = np.array([np.mean(part[np.isfinite(part)]) if np.isfinite(part).any() else np.nan for part in parts])
    there = means[np.isfinite(means)]
    low, span = (there.min(), np.ptp(there)) if len(there) else (0.0, 0.0)
    heights = [1 + round(7 * float(mean - low) / float(span or 1)) if np.isfinite(mean) else 0 for mean in means]
    return "".join(BLOCKS[height] for height in heights)
