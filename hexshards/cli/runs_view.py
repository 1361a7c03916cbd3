"""What a person sees of many runs: a table, the best first, with the options in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hexshards.cli import display
from hexshards.errors import escaped, printable
from hexshards.reports.runs import RunSummary, differing


def runs_text(runs: Sequence[RunSummary]) -> str:
    """All runs, a line each."""
    known = [run for run in runs if run.problem is None]
    names = differing(known)
    metrics = {run.metric for run in known}
    # most runs are compared by the same number, which then stands once
    one = metrics.pop() if len(metrics) == 1 else None
    head = ["run", *([] if one else ["metric"]), f"best {one}" if one else "best", "last", "mini-epochs", "samples"]
    rows = [[*head, "time", *names], *(_row(run, names, with_metric=not one) for run in known)]
    lines = display.table(rows) if known else []
    return "\n".join([*lines, *(f"{escaped(run.name)}: {escaped(run.problem)}" for run in runs if run.problem)])


def _row(run: RunSummary, names: Sequence[str], *, with_metric: bool) -> list[str]:
    return [
        printable(run.name),
        *([printable(run.metric)] if with_metric else []),
        _number(run.best),
        _number(run.last),
        f"{run.mini_epochs:,}",
        f"{run.samples:,}",
        display.duration(run.seconds) if run.seconds is not None else "",
        *(_shown(run.options.get(name, "")) for name in names),
    ]


def runs_json(runs: Sequence[RunSummary]) -> dict[str, Any]:
    """All runs for programs."""
    return {"runs": [asdict(run) for run in runs], "differ": differing(runs)}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else printable(value, width=40)
