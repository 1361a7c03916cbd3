"""What a person sees of many runs: a table, the best first, with the options in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from hexshards.cli import display
from hexshards.errors import escaped, printable
from hexshards.reports.runs import RunSummary, differing, option_of
from hexshards.reports.validations import MEASURE, apart, name_of, named
from hexshards.units import show_duration


def runs_text(runs: Sequence[RunSummary], *, width: int | None = None) -> str:
    """All runs, a line each; where these are wider than ``width``, the options that differ stand below each."""
    known = [run for run in runs if run.problem is None]
    names = differing(known)
    metrics = {run.metric for run in known}
    # most runs are compared by the same number, which then stands once
    one = metrics.pop() if len(metrics) == 1 else None
    validations = [run.validation for run in known]
    groups = named(validations)
    head = ["run", *(["validation"] if groups else []), *([] if one else ["metric"])]
    head += [f"best {one}" if one else "best", "last", "mini-epochs", "samples"]
    rows = [[*head, "time", *names], *(_row(run, names, groups, with_metric=not one) for run in known)]
    lines = display.table(rows) if known else []
    if known and width is not None and max(map(len, lines)) > width:
        lines = _folded(rows, len(head) + 1, width)
    told = [f"{apart(validations)}. {MEASURE}"] if groups else []
    return "\n".join([*lines, *told, *(escaped(run.problem) for run in runs if run.problem)])


def _folded(rows: Sequence[Sequence[str]], own: int, width: int) -> list[str]:
    """A table of the first columns, and below each row what the others say. The end of a name tells runs apart."""
    room = max(SHORTEST, width - max(map(len, display.table([row[1:own] for row in rows]))) - 2)
    short = [[name if len(name := row[0]) <= room else "…" + name[-room + 1 :], *row[1:own]] for row in rows]
    lines = display.table(short)
    for at in range(len(rows) - 1, 0, -1):
        said = ", ".join(f"{name} {value}" for name, value in zip(rows[0][own:], rows[at][own:], strict=True) if value)
        lines[at + 1 : at + 1] = wrap(said, width, initial_indent="  ", subsequent_indent="  ")
    return lines


SHORTEST = 8
"""Letters of a run's name that are shown on the narrowest terminal."""


def _row(run: RunSummary, names: Sequence[str], groups: Mapping[str, str], *, with_metric: bool) -> list[str]:
    return [
        escaped(run.name),
        *([name_of(run.validation, groups)] if groups else []),
        *([printable(run.metric)] if with_metric else []),
        _number(run.best),
        _number(run.last),
        f"{run.mini_epochs:,}",
        f"{run.samples:,}",
        show_duration(run.seconds) if run.seconds is not None else "",
        *(_shown(option_of(run, name)) for name in names),
    ]


def runs_json(runs: Sequence[RunSummary]) -> dict[str, Any]:
    """All runs for programs."""
    return {"runs": [asdict(run) for run in runs], "differ": differing(runs)}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else printable(value, width=40)
