"""Samples per second: this machine's ceilings, hexshards, and what else people load with, all on the same positions.

    python benchmarks/loading.py [FOLDER_OF_PROCESSED_FILES] [--peers] [--write]

Every system delivers what a network takes: board float32 (B, 3, S, S), policy float32 (B, S * S), value float32 (B, 1),
shuffled, each sample in one random symmetry; before it is timed it proves so. Each runs in a process of its own, and
with ``--peers`` also those that need an environment of their own, which is made on demand. Systems take turns, so that
a busy moment of the machine hits them alike; the table shows medians. ``--write`` also puts it, and a plot, into
benchmarks/results/.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from harness.contestants import ALL, OURS, Contestant, System, apart, contestant, source_of
from harness.environments import SYSTEMS, Unavailable
from harness.recording import arguments_of, files_of, machine, write_results
from harness.serving import Timing, served
from rich.progress import track

Config = tuple[str, int, int]
"""A system's name, its batch size, its number of workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What was measured, and why the rest was not."""

    contestants: list[Contestant]
    reasons: dict[str, str]
    """By the name of a system that could not run."""
    timings: dict[Config, list[Timing]] = field(default_factory=lambda: defaultdict(list))
    peak_bytes: dict[tuple[str, int], int] = field(default_factory=dict)
    """By name and number of workers, at the largest batch."""

    def speed(self, *config: object) -> float:
        """Median samples per second; NaN where nothing was measured."""
        runs = self.timings.get(config)  # type: ignore[call-overload]
        return statistics.median(run.samples_per_s for run in runs) if runs else float("nan")

    def first_ms(self, *config: object) -> float:
        """Median time to the first batch; NaN where nothing was measured."""
        runs = self.timings.get(config)  # type: ignore[call-overload]
        return 1000 * statistics.median(run.first_s for run in runs) if runs else float("nan")


def ready(systems: Sequence[System], files: list[Path], cache: Path) -> Results:
    """Install, store, prove."""
    source = source_of(files, cache=cache)
    results = Results(contestants=[], reasons={})
    for system in systems:
        print(f"{system.title}: making ready", file=sys.stderr, flush=True)
        try:
            results.contestants.append(contestant(system, source, cache=cache))
        except Unavailable as reason:
            results.reasons[system.name] = str(reason)
            print(f"  {reason}", file=sys.stderr, flush=True)
    return results


def measure(results: Results, *, batches: list[int], workers: int, repeats: int, seconds: float, cache: Path) -> None:
    """Time every contestant with so many workers, in turn, as often as asked."""
    with ExitStack() as stack:
        running = {
            each.system.name: stack.enter_context(
                served(
                    each.python, each.system.name, each.folder, workers=workers, log=cache / f"{each.system.name}.log"
                )
            )
            for each in results.contestants
            if workers in each.system.workers
        }
        turns = [(name, 0, True) for name in running]  # the first time is for memory: looking at it takes time
        for repeat in range(repeats):
            names = list(running)[repeat:] + list(running)[:repeat]
            turns += [(name, batch, False) for batch in batches for name in names]
        for name, batch, memory in track(turns, f"{workers} workers", transient=True):
            if name in results.reasons:
                continue
            try:
                if memory:
                    peak = running[name].peak_bytes(batch=max(batches), seconds=seconds)
                    results.peak_bytes[name, workers] = peak
                else:
                    results.timings[name, batch, workers].append(running[name].time(batch=batch, seconds=seconds))
            except Unavailable as reason:
                results.reasons[name] = f"with {workers} workers: {reason}"


def table(results: Results, systems: Sequence[System], *, batch: int, workers: list[int], memory: bool) -> str:
    """Rows of one batch size."""
    heads = [f"samples/s, {count} workers" for count in workers] + [f"ratio, {count}" for count in workers]
    heads += [f"first batch, ms, {count}" for count in workers]
    heads += [f"peak memory, MiB, {count}" for count in workers] if memory else []
    lines = [f"| batch {batch} | {' | '.join(heads)} | bytes/position |", "|---|" + "---:|" * (len(heads) + 1)]
    sizes = {each.system.name: each.bytes_per_position for each in results.contestants}
    for system in systems:
        if system.name in results.reasons:
            lines.append(f"| {system.title} | not measured: {results.reasons[system.name]} |{' |' * len(heads)}")
            continue
        speeds = [results.speed(system.name, batch, count) for count in workers]
        ratios = [speed / results.speed(OURS, batch, count) for speed, count in zip(speeds, workers, strict=True)]
        cells = [_shown(speed, ",.0f") for speed in speeds] + [_shown(ratio, ".3g") for ratio in ratios]
        cells += [_shown(results.first_ms(system.name, batch, count), ",.0f") for count in workers]
        peaks = [results.peak_bytes.get((system.name, count), float("nan")) for count in workers]
        cells += [_shown(peak / 2**20, ",.0f") for peak in peaks] if memory else []
        size = _shown(sizes[system.name] if system.samples else float("nan"), ",.1f")
        lines.append(f"| {system.title} | {' | '.join(cells)} | {size} |")
    return "\n".join(lines)


def _shown(number: float, how: str) -> str:
    return format(number, how) if number == number else "-"


def plot(results: Results, systems: Sequence[System], *, batch: int, workers: list[int], path: Path) -> None:
    """Samples per second as bars on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [system for system in reversed(systems) if system.name not in results.reasons]
    figure, axes = pyplot.subplots(figsize=(9, 0.5 * len(shown) + 1.2), layout="constrained")
    height = 0.8 / len(workers)
    for number, count in enumerate(workers):
        speeds = [results.speed(system.name, batch, count) for system in shown]
        places = [place + 0.4 - height * (number + 0.5) for place in range(len(shown))]
        bars = axes.barh(places, speeds, height, label=f"{count} workers")
        axes.bar_label(bars, [f" {_shown(speed, ',.0f')}" for speed in speeds], fontsize=7)
    axes.set_yticks(range(len(shown)), [system.title.replace("*", "").replace("`", "") for system in shown], fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.01)  # room for the numbers
    axes.set_xlabel(f"samples/s, batch {batch}")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def versions(systems: Sequence[System]) -> str:
    """What each environment of its own pins first."""
    pins = [
        next(line for line in (SYSTEMS / f"{each.name}.txt").read_text().splitlines() if line[:1].isalpha())
        for each in systems
        if apart(each)
    ]
    return f"In environments of their own: {', '.join(pins)}." if pins else ""


def main() -> None:
    """Measure, print, and write if asked."""
    parser = arguments_of(__doc__, games=500)
    parser.add_argument("--peers", action="store_true", help="also systems that need environments of their own")
    parser.add_argument("--systems", nargs="+", metavar="NAME", choices=[each.name for each in ALL], help="only these")
    parser.add_argument("--batch", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--workers", nargs="+", type=int, choices=[0, 2], default=[0, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of every measurement, once a system is warm")
    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "hexshards-bench"
    parser.add_argument(
        "--cache", type=Path, default=home, help="environments and prepared files; default: %(default)s"
    )
    given = parser.parse_args()
    systems = [
        each for each in ALL if (each.name in given.systems if given.systems else given.peers or not apart(each))
    ]
    files = files_of(given, given.cache / "files", games=500)
    results = ready(systems, files, given.cache)
    for workers in given.workers:
        measure(
            results,
            batches=given.batch,
            workers=workers,
            repeats=given.repeats,
            seconds=given.seconds,
            cache=given.cache,
        )
    tables = [
        table(results, systems, batch=batch, workers=given.workers, memory=batch == max(given.batch))
        for batch in reversed(given.batch)
    ]
    positions = len(source_of(files, cache=given.cache).rows)
    text = "\n".join(
        [
            f"{positions:,} positions; {given.repeats} runs of {given.seconds:g} s, medians; ratios are to hexshards.",
            machine(f"torch {torch.__version__}"),
            *filter(None, [versions(systems)]),
            "",
            "\n\n".join(tables),
        ]
    )
    print(text)
    if given.write:
        written = write_results("Loading", text + "\n\n![samples per second](loading.png)\n")
        plot(results, systems, batch=max(given.batch), workers=given.workers, path=written.with_suffix(".png"))


if __name__ == "__main__":
    main()
