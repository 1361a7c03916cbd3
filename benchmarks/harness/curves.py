"""Curves of many runs as tables and a picture: what unseen games say, and what each side's own validation says."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from harness.orders import WAYS


class Point(NamedTuple):
    """Where a run stood after so many samples: CPU seconds of its steps, and what was seen by whom."""

    samples: int
    step_s: float
    own: dict[str, float]
    truth: dict[str, float]


class Runs(NamedTuple):
    """A network in one order, a curve for each seed."""

    network: str
    way: str
    curves: list[list[Point]]

    @property
    def ends(self) -> list[Point]:
        """Where the runs ended."""
        return [curve[-1] for curve in self.curves]

    @property
    def stops(self) -> list[Point]:
        """Where each run's own validation was best."""
        return [min(curve, key=lambda point: point.own["loss"]) for curve in self.curves]


Seconds = Mapping[tuple[str, str], float]
"""CPU seconds that a sample takes, by network and way: to load, and of its step."""


def seconds_each(results: Iterable[Runs], loading: Mapping[str, float]) -> Seconds:
    """What a sample takes to load, and of its step, which is the same in every order: the median of a network's runs.

    loading: by the way of loading.
    """
    steps: dict[str, list[float]] = {}
    for runs in results:
        steps.setdefault(runs.network, []).extend(end.step_s / end.samples for end in runs.ends)
    return {
        (runs.network, runs.way): statistics.median(steps[runs.network]) + loading[WAYS[runs.way].loading]
        for runs in results
    }


def ends_table(results: Iterable[Runs], seconds: Seconds, loading: Mapping[str, float]) -> str:
    """The end of each run."""
    head = ["network", "order", "policy loss", "value loss", "winner right", "its own validation says"]
    head += ["off by", "us to load a sample", "CPU s in all"]
    lines = []
    for runs in results:
        ends = runs.ends
        lines.append(
            [
                *(runs.network, WAYS[runs.way].title),
                *(spread([end.truth[name] for end in ends], digits=3) for name in ("policy_loss", "value_loss")),
                percent([end.truth["value_accuracy"] for end in ends]),
                percent([end.own["value_accuracy"] for end in ends]),
                percent([end.own["value_accuracy"] - end.truth["value_accuracy"] for end in ends], sign="+"),
                f"{1e6 * loading[WAYS[runs.way].loading]:.1f}",
                f"{seconds[runs.network, runs.way] * ends[0].samples:.0f}",
            ]
        )
    return _table(head, lines)


def stops_table(results: Iterable[Runs]) -> str:
    """Each run stopped where its own validation's loss was least, and what unseen games say of it there."""
    head = ["network", "order", "stops after", "value loss", "winner right", "at the end: value loss", "winner right"]
    lines = []
    for runs in results:
        cells = [runs.network, WAYS[runs.way].title]
        cells.append(" / ".join(f"{point.samples:,}" for point in runs.stops))
        for points in (runs.stops, runs.ends):
            cells.append(spread([point.truth["value_loss"] for point in points], digits=3))
            cells.append(percent([point.truth["value_accuracy"] for point in points]))
        lines.append(cells)
    return _table(head, lines)


def _table(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, rule, *lines])


def spread(numbers: list[float], *, digits: int, sign: str = "") -> str:
    """The mean and half the distance of the farthest two."""
    return f"{statistics.mean(numbers):{sign}.{digits}f} ± {(max(numbers) - min(numbers)) / 2:.{digits}f}"


def percent(shares: list[float], *, sign: str = "") -> str:
    """The same in percent."""
    return f"{spread([100 * share for share in shares], digits=1, sign=sign)} %"


SHOWN = {"policy_loss": "policy loss", "value_loss": "value loss", "value_accuracy": "winner right"}


def draw(results: list[Runs], seconds: Seconds, path: Path) -> None:
    """Curves over samples and over seconds: solid, on unseen games; dotted, by a side's own validation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    networks = list(dict.fromkeys(runs.network for runs in results))
    over: dict[str, Callable[[Runs], float]] = {
        "samples": lambda runs: 1,
        "CPU seconds of loading and steps": lambda runs: seconds[runs.network, runs.way],
    }
    places = [(network, title) for network in networks for title in over]
    figure, axes = pyplot.subplots(len(places), len(SHOWN), figsize=(15, 4 * len(places)), squeeze=False)
    for row, (network, title) in zip(axes, places, strict=True):
        for axis, (name, called) in zip(row, SHOWN.items(), strict=True):
            axis.set_title(f"{network}: {called}")
            axis.set_xlabel(title)
            for runs in results:
                if runs.network == network:
                    across = [over[title](runs) * point.samples for point in runs.curves[0]]
                    colour = f"C{list(WAYS).index(runs.way)}"
                    label = WAYS[runs.way].title.replace("*", "").replace("`", "")
                    axis.plot(across, _mean(runs, "truth", name), "-", color=colour, label=label)
                    if title == "samples":
                        axis.plot(across, _mean(runs, "own", name), ":", color=colour)
    axes[0][0].legend(fontsize=7)
    figure.suptitle("solid: games that no side has seen; dotted: what the side's own validation says; means of seeds")
    figure.tight_layout(rect=(0, 0, 1, 0.99))
    figure.savefig(path, dpi=70)


def _mean(runs: Runs, part: str, name: str) -> list[float]:
    at = [[getattr(point, part)[name] for point in curve] for curve in runs.curves]
    return [statistics.mean(each) for each in zip(*at, strict=True)]
