"""Samples per second: this machine's ceilings, hexshards, and what else people load with, all on the same positions.

    python benchmarks/loading.py [FOLDER_OF_PROCESSED_FILES] [--peers] [--write]

Every system delivers what a network takes: board float32 (B, 3, S, S), policy float32 (B, S * S), value float32 (B, 1),
shuffled, each sample in one random symmetry; before it is timed it proves so. Each runs in a process of its own, and
with ``--peers`` also those that need an environment of their own, which is made on demand. Systems take turns, so that
a busy moment of the machine hits them alike; the table shows medians. ``--write`` also puts it, and a plot, into
benchmarks/results/.

Environments, stored positions and proofs are kept. It says how long it will take, and the same command goes on where it
was stopped: what was measured is kept until all is.
"""

from __future__ import annotations

import json
import statistics
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from harness.contestants import ALL, OURS, Contestant, System, add_cache, apart, contestant, source_of, versions
from harness.environments import Unavailable
from harness.recording import arguments_of, files_of, machine, write_results
from harness.serving import Timing, served
from rich.progress import track

MORE_S, NEW_MINUTES = 1.0, 2
"""A measurement's warming up and first batch; and what installing, storing and proving take, seen on two cores."""

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

    def keep(self, path: Path, made_by: str) -> None:
        """Write down what was measured so far, by which command on what."""
        timings = [[config, runs] for config, runs in self.timings.items()]
        peaks = [[config, peak] for config, peak in self.peak_bytes.items()]
        path.with_suffix(".partial").write_text(json.dumps({"by": made_by, "timings": timings, "peaks": peaks}))
        path.with_suffix(".partial").replace(path)

    def go_on(self, path: Path, made_by: str) -> None:
        """Take what the same command had measured when it was stopped."""
        if not path.exists() or (kept := json.loads(path.read_text()))["by"] != made_by:
            return
        self.timings.update({(*config,): [Timing(*run) for run in runs] for config, runs in kept["timings"]})
        self.peak_bytes.update({(*config,): peak for config, peak in kept["peaks"]})
        print(f"going on: {sum(map(len, self.timings.values()))} measurements were made", file=sys.stderr, flush=True)

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


def measure(
    results: Results,
    *,
    batches: list[int],
    workers: int,
    repeats: int,
    seconds: float,
    cache: Path,
    keep: Callable[[], None] = lambda: None,
) -> None:
    """Time every contestant with so many workers, in turn, as often as asked and not done yet."""
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
            turns += [
                (name, batch, False)
                for batch in batches
                for name in names
                if len(results.timings[name, batch, workers]) <= repeat
            ]
        turns = [turn for turn in turns if not turn[2] or (turn[0], workers) not in results.peak_bytes]
        for name, batch, memory in track(turns, f"{workers} workers", transient=True):
            if name in results.reasons:
                continue
            try:
                if memory:
                    peak = running[name].peak_bytes(batch=max(batches), seconds=seconds)
                    results.peak_bytes[name, workers] = peak
                else:
                    results.timings[name, batch, workers].append(running[name].time(batch=batch, seconds=seconds))
                keep()
            except Unavailable as reason:
                results.reasons[name] = f"with {workers} workers: {reason}"


def duration(systems: Sequence[System], given: Namespace) -> str:
    """How long it takes, at most, if a measurement takes a second beside its own time."""
    times = sum((1 + len(given.batch) * given.repeats) * len({*given.workers} & {*each.workers}) for each in systems)
    new = sum(not any(given.cache.glob(f"systems/{each.name}-*/ready.json")) for each in systems)
    return (
        f"about {-(-times * (given.seconds + MORE_S) // 60):.0f} minutes for {times} measurements of "
        f"{len(systems)} systems"
        + (f", and {new * NEW_MINUTES} more for the {new} that were never made ready here" if new else "")
    )


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


def main() -> None:
    """Measure, print, and write if asked."""
    parser = arguments_of(__doc__, games=500)
    parser.add_argument("--peers", action="store_true", help="also systems that need environments of their own")
    parser.add_argument("--systems", nargs="+", metavar="NAME", choices=[each.name for each in ALL], help="only these")
    parser.add_argument("--batch", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--workers", nargs="+", type=int, choices=[0, 2], default=[0, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of every measurement, once a system is warm")
    add_cache(parser)
    given = parser.parse_args()
    systems = [
        each for each in ALL if (each.name in given.systems if given.systems else given.peers or not apart(each))
    ]
    files = files_of(given, given.cache / "files", games=500)
    print(duration(systems, given), file=sys.stderr, flush=True)
    results = ready(systems, files, given.cache)
    kept = given.cache / "unfinished.json"
    made_by = json.dumps([*sys.argv[1:], *(str(each.folder) for each in results.contestants)])
    results.go_on(kept, made_by)
    for workers in given.workers:
        measure(
            results,
            batches=given.batch,
            workers=workers,
            repeats=given.repeats,
            seconds=given.seconds,
            cache=given.cache,
            keep=partial(results.keep, kept, made_by),
        )
    kept.unlink(missing_ok=True)
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
