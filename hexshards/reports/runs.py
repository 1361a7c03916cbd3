"""Table of runs: what each run in a folder brought, and which of their options differ."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hexshards.config_files import read_toml
from hexshards.errors import DataError, escaped
from hexshards.options import about
from hexshards.reports.history import History, number, read_history
from hexshards.reports.validations import Validated, named, validated, validation_index
from hexshards.storage.files import nearest_path, real_path
from hexshards.training.options import CONFIG, HIGHER_IS_BETTER, TRAIN, TrainSpec

DEPTH = 4
"""Folders below the one that is looked through: a sweep's trials are two below that of the sweeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run brought. Numbers that it does not tell are None."""

    name: str
    """Path below the folder that was looked through."""
    metric: str = TRAIN.best_by
    best: float | None = None
    """The metric of the best mini-epoch."""
    last: float | None = None
    """The metric of the last mini-epoch that has one."""
    mini_epochs: int = 0
    samples: int = 0
    seconds: float | None = None
    """Over all starts."""
    time: str | None = None
    """When the last mini-epoch ended, UTC."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """As config.toml in the run's folder has them; empty where a release before it wrote the run."""
    validation: Validated | None = None
    """What it was validated on; None where its folder does not say."""
    problem: str | None = None
    """Why nothing else is known of it, beginning with the path of its folder or of a file in it."""


def runs_in(*folders: str | Path) -> list[RunSummary]:
    """The runs in folders, the best first; those that tell nothing last. Raises FileNotFoundError for one without any.

    Those that were validated on the same positions stand together, for others cannot be compared with them: first those
    among which is the best of all. The runs of one folder are named by their paths below it, those of several by the
    folders too.
    """
    return [run for _, run in _ranked(folders)]


def run_folders(*folders: str | Path) -> tuple[list[Path], list[str]]:
    """The folders of the runs in folders, in the order of runs_in, and why others have nothing to show.

    One that is named itself is never left out. Raises FileNotFoundError for a folder without a run that tells anything.
    """
    named_ones, ready, left_out = {real_path(Path(each)) for each in folders}, list[Path](), list[str]()
    for path, run in _ranked(folders):
        if run.problem is None or real_path(path) in named_ones:
            ready.append(path)
        else:
            left_out.append(run.problem)
    if not ready:
        raise FileNotFoundError(escaped(left_out[0]))
    return ready, left_out


def _ranked(folders: Sequence[str | Path]) -> list[tuple[Path, RunSummary]]:
    by_place = dict[Path, tuple[Path, RunSummary]]()
    for folder in map(Path, folders):
        paths = [*_folders(folder)]
        if not paths:
            hint = "" if folder.exists() else nearest_path(folder, Path.is_dir)
            none = "no run in here with a finished mini-epoch (no metrics.jsonl)"
            raise FileNotFoundError(f"{escaped(folder)}: {none}{hint}")
        for path in paths:
            run = summary_of(path, folder)
            one = path, replace(run, name=str(path)) if len(folders) > 1 else run
            by_place.setdefault(real_path(path), one)
    ranked = sorted(by_place.values(), key=lambda each: _rank(each[1]))
    names = named([run.validation for _, run in ranked if run.problem is None])
    places = {identity: place for place, identity in enumerate(names)}
    last = len(places)

    def group(each: tuple[Path, RunSummary]) -> int:
        validation = each[1].validation
        return places.get(validation.identity, last) if validation else last

    return sorted(ranked, key=group)


def differing(runs: Sequence[RunSummary]) -> list[str]:
    """Options that are not the same in all of some runs, of those that change what is trained, on what, or how long."""
    shaping = [name for name, each in about(TrainSpec).items() if each.shapes != "nothing" or name == "data"]
    told = [run for run in runs if run.options]
    return [name for name in shaping if len({repr(option_of(run, name)) for run in told}) > 1]


_OF = {"min_improvement": "patience"}
"""Options that change nothing of what is trained where another one is not given."""


def option_of(run: RunSummary, name: str) -> Any:
    """An option of a run, None where it is not known, not given, or changes nothing of what is trained."""
    needed = _OF.get(name)
    return run.options.get(name) if needed is None or run.options.get(needed) is not None else None


def _folders(folder: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(folder):
        here = Path(path)
        if "metrics.jsonl" in files:
            yield here
        deep = len(here.relative_to(folder).parts) >= DEPTH
        # a run holds no other run, and its folders may be large
        folders[:] = [] if "metrics.jsonl" in files or deep else sorted(each for each in folders if each[0] != ".")


def summary_of(path: Path, folder: Path) -> RunSummary:
    """What the run in a folder below another one brought."""
    name = str(path.relative_to(folder)) if path != folder else path.name or str(path)
    try:
        history, options = read_history(path), _options(path)
    except (DataError, FileNotFoundError, ValueError) as error:
        return RunSummary(name=name, problem=str(error))
    metric = str(options.get("best_by", TRAIN.best_by))
    values = _values(history, metric)
    time = history.newest("time")
    return RunSummary(
        name=name,
        metric=metric,
        best=max(values) if metric.endswith(HIGHER_IS_BETTER) and values else min(values, default=None),
        last=values[-1] if values else None,
        mini_epochs=len(history.records),
        samples=int(number(history.records[-1], "samples_seen")),
        seconds=next(iter(_values(history, "seconds")[-1:]), None),
        time=time if isinstance(time, str) else None,
        options=options,
        validation=validated(validation_index(path), most=options.get("val_samples")),
    )


def _options(path: Path) -> Mapping[str, Any]:
    config = path / CONFIG
    return read_toml(config) if config.exists() else {}


def _values(history: History, path: str) -> list[float]:
    values = (number(record, path) for record in history.records)
    return [value for value in values if math.isfinite(value)]


def _rank(run: RunSummary) -> tuple[bool, str, float, str]:
    best = run.best if run.best is not None else 0.0
    return run.best is None, run.metric, -best if run.metric.endswith(HIGHER_IS_BETTER) else best, run.name
