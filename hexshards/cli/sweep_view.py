"""What a person sees of a sweep: a line per trial as it ends, a table with the best first, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hexshards.errors import escaped, printable
from hexshards.reports.history import read_history
from hexshards.reports.plots import label_samples, new_figure, plain_label
from hexshards.reports.validations import MEASURE, apart, validation_of
from hexshards.sweeps.sweep import Sweep
from hexshards.units import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hexshards.sweeps.search_space import Trial

ERROR_WIDTH = 200


def trial_line(trial: Trial) -> str:
    """One trial that ended."""
    if trial.error:
        return f"trial {trial.number} failed: {printable(trial.error, width=ERROR_WIDTH)}"
    options = " · ".join(f"{name} {shown_option(value)}" for name, value in trial.options.items())
    best = "no number" if trial.value is None else f"{trial.value:.4f}"
    return f"trial {trial.number} {trial.state} after {counted(trial.mini_epochs, 'mini-epoch')}: {best} · {options}"


def sweep_text(sweep: Sweep) -> str:
    """All trials, and where the best one is."""
    names = sorted({name for trial in sweep.trials for name in trial.options})
    rows = [["trial", sweep.metric, "state", "mini-epochs", "samples", *names]]
    rows += [_row(trial, names) for trial in sweep.trials]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    failed = [trial_line(trial) for trial in sweep.trials if trial.error]
    ending = ["interrupted; give the same command again to go on"] if sweep.interrupted else []
    if differ := apart([validation_of(sweep.folder(trial)) for trial in sweep.trials]):
        ending.append(f"{differ}. {MEASURE}")
    if sweep.best:
        ending.append(f"best: trial {sweep.best.number}, run {escaped(sweep.folder(sweep.best))}")
    return "\n".join([*lines, *failed, *ending])


def _row(trial: Trial, names: Sequence[str]) -> list[str]:
    value = "" if trial.value is None else f"{trial.value:.4f}"
    options = [shown_option(trial.options.get(name, "")) for name in names]
    return [str(trial.number), value, trial.state, str(trial.mini_epochs), f"{trial.samples:,}", *options]


def shown_option(value: Any) -> str:
    """The value of an option that a sweep tries."""
    return f"{value:.4g}" if isinstance(value, float) else printable(value, width=40)


def sweep_json(sweep: Sweep) -> dict[str, Any]:
    """A sweep for programs."""
    trials = [{**asdict(trial), "run": str(sweep.folder(trial))} for trial in sweep.trials]
    best = sweep.best.number if sweep.best else None
    return {
        "out": str(sweep.out),
        "metric": sweep.metric,
        "interrupted": sweep.interrupted,
        "best": best,
        "trials": trials,
    }


def sweep_figure(sweep: Sweep) -> Figure:
    """The curves of all trials, and for each option what its values brought. Raises ValueError without matplotlib."""
    names = sorted({name for trial in sweep.trials for name in trial.options})
    figure = new_figure(1 + len(names))
    _curves(figure.axes[0], sweep)
    for axes, name in zip(figure.axes[1:], names, strict=True):
        _option(axes, sweep, name)
    states = {trial.state for trial in sweep.trials}
    says = "red: the best trial" + (" · pale: pruned" if "pruned" in states else "")
    title = f"{plain_label(str(sweep.out))}: {counted(len(sweep.trials), 'trial')} · {says}"
    figure.text(0.5, 0.99, title, ha="center", va="top", fontsize=11)
    return figure


def _curves(axes: Axes, sweep: Sweep) -> None:
    for trial in reversed(sweep.trials):
        try:
            history = read_history(sweep.folder(trial))
        except FileNotFoundError:  # it ran on another machine, or failed at once
            continue
        axes.plot(
            history.column("samples_seen"), history.column(sweep.metric), marker="o", ms=3, **_style(trial, sweep)
        )
    label_samples(axes)
    axes.set_title("All trials", fontsize=11, loc="left")
    axes.set_ylabel(sweep.metric)


def _option(axes: Axes, sweep: Sweep, name: str) -> None:
    there = [trial for trial in reversed(sweep.trials) if trial.value is not None and name in trial.options]
    values = [trial.options[name] for trial in there]
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    places = values if len(numbers) == len(values) else [plain_label(str(value)) for value in values]
    for trial, place in zip(there, places, strict=True):
        axes.plot([place], [trial.value], ls="", marker="o", ms=6, **_style(trial, sweep))
    if len(numbers) == len(values) and numbers and min(numbers) > 0 and max(numbers) >= 20 * min(numbers):
        axes.set_xscale("log")
    axes.set_title(name, fontsize=11, loc="left")
    axes.set_xlabel(name)
    axes.set_ylabel(f"best {sweep.metric}")


def _style(trial: Trial, sweep: Sweep) -> dict[str, Any]:
    best = trial is sweep.best
    colour = "tab:red" if best else "tab:blue"
    return {
        "color": colour,
        "alpha": 1.0 if best else 0.25 if trial.state == "pruned" else 0.7,
        "zorder": 3 if best else 2,
    }
