"""The folder of a run: ``checkpoints/``, ``best.pt`` and ``metrics.jsonl``, which agree again when a run goes on.

One process uses it at a time.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hexshards.dataset.index import NAME as DATASET
from hexshards.errors import DataError, Misused, escaped
from hexshards.storage.files import check_named, open_regular, remove_halves, write_whole
from hexshards.storage.locks import locked
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.checkpointing.retention import Retention
from hexshards.training.checkpointing.schema import problem_of_record
from hexshards.training.options import CONFIG, STATES
from hexshards.units import counted

_LOCK, ALL = ".lock", Retention()

EPOCHS_LOOKED_AT = 4
"""Checkpoints are large, and a fitting one is of one of the newest epochs or was removed."""

RESUMES = ("auto", "never")
"""What may be asked for in place of a checkpoint's path."""


def check_checkpoint(path: Path) -> None:
    """Raise FileNotFoundError where a named checkpoint is not there, ValueError where it is a folder.

    That names a checkpoint in the folder: the best of a run, or the newest.
    """
    check_named(path, fix=_one_in(path) if path.is_dir() else "")


def _one_in(folder: Path) -> str:
    run = RunFolder(folder)
    best = [run.best] if run.best.exists() else []
    there = [*best, *checkpoint_file.newest_first(run.checkpoints), *checkpoint_file.newest_first(run.path)]
    if not there:
        return "it holds no checkpoint; name a file, such as RUN/best.pt"
    return f"name a checkpoint in it, such as {there[0].relative_to(run.path)}"


class RunFolder:
    """Finds the checkpoint to go on from, and keeps the folder free of what no longer counts."""

    def __init__(self, path: str | Path, retention: Retention = ALL) -> None:
        path = Path(path).absolute()
        self.path, self.checkpoints, self.best = path, path / "checkpoints", path / "best.pt"
        self.log = MetricsLog(path / "metrics.jsonl")
        self._retention = retention

    def check_place(self, option: str = "run") -> None:
        """Raise ValueError where no run can be: a file, or the folder of a dataset. option: what names the place."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{escaped(option)}: {escaped(self.path)} is a file; name a folder")
        if (self.path / DATASET).exists():
            shown = escaped(self.path)
            raise ValueError(
                f"{escaped(option)}: {shown} holds a dataset; name another folder, such as {shown}-{escaped(option)}"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """The folder, made where it is missing, for this process alone.

        Raises FileExistsError when it is in use, ValueError where no run can be.
        """
        self.check_place()
        self.path.mkdir(parents=True, exist_ok=True)
        taken = f"{self.path}: another process trains in this folder. Wait for it to end, or use another --run"
        with locked(self.path / _LOCK, taken=taken):
            yield

    def suspect(self, rank: int, size: int) -> Path:
        """Where a process puts the batch whose loss was not finite."""
        return self.path / ("suspect" if size == 1 else f"suspect-{rank}")

    def find(
        self, resume: str | Path, reader: checkpoint_file.Reader, *, on_damage: Callable[[str], None]
    ) -> tuple[Path, dict[str, Any]] | None:
        """The checkpoint to go on from and its state, None to begin; damaged ones are skipped and told.

        Raises DataError where a run was and no checkpoint can be read: none is ever begun over what is left of it.
        """
        present = checkpoint_file.newest_first(self.checkpoints)
        if resume == "never" and present:
            problem = f"already holds {counted(len(present), 'checkpoint')}"
            raise Misused(problem, where=str(self.checkpoints), fix="Resume from them, or use another run folder")
        if resume not in RESUMES:
            check_checkpoint(Path(resume))
            return Path(resume), reader.take(Path(resume))
        damage: list[DataError] = []
        for path in present:
            try:
                state = reader.take(path)
            except checkpoint_file.Unopened:
                raise
            except DataError as error:
                damage.append(error)
                continue
            for each in damage:
                on_damage(f"skipped a damaged checkpoint: {each}")
            return path, state
        if damage:
            count = f"holds {counted(len(damage), 'checkpoint')}, and none can be read"
            newest = f"the newest, {damage[0].where}, {damage[0].problem}"
            fix = "Put back a good copy, or begin anew in another run folder; nothing here was changed"
            raise DataError(f"{count}; {newest}", where=str(self.checkpoints), fix=fix)
        self._check_new()
        return None

    def newest_that(self, fits: Callable[[Mapping[str, Any]], bool]) -> Path | None:
        """The newest checkpoint whose state fits, of the last ones of the newest epochs."""
        last = dict[int, Path]()
        for path in checkpoint_file.newest_first(self.checkpoints):
            place = checkpoint_file.place_in_run(path)
            if place and place[2]:
                last.setdefault(place[0], path)
        for path in [*last.values()][:EPOCHS_LOOKED_AT]:
            with suppress(DataError):
                if fits(checkpoint_file.read(path)):
                    return path
        return None

    def _check_new(self) -> None:
        """Raise DataError where checkpoints were taken away from what is left of a run."""
        told = len(self.log.records())
        if not (told or self.best.exists()):
            return
        left = f"{self.log.path.name} tells of {counted(told, 'mini-epoch')}" if told else "best.pt is here"
        best = f"go on from the best with --resume {self.best}, " if self.best.exists() else ""
        fix = f"Put them back, {best}or begin anew in another run folder; nothing here was changed"
        raise DataError(f"{left}, but there are no checkpoints in checkpoints/", where=str(self.path), fix=fix)

    def check_newest(self, path: Path, counters: Mapping[str, Any]) -> None:
        """Raise DataError if newer checkpoints are there: the next restart would jump ahead to them."""
        here = (counters["epoch"], counters["mini_epoch"], bool(counters["finished"]))
        present = checkpoint_file.newest_first(self.checkpoints)
        if newer := [other for other in present if (checkpoint_file.place_in_run(other) or here) > here]:
            problem = (
                f"{counted(len(newer), 'checkpoint', verb='is/are')} newer than {path.name}, up to {newer[0].name}"
            )
            fix = "Move them away first, or use another run folder"
            raise Misused(problem, where=str(self.checkpoints), fix=fix)

    def go_on(self, *, until: tuple[int, int], last: Mapping[str, Any], best: str | None) -> None:
        """Bring log and ``best.pt`` to where a checkpoint stands: see MetricsLog.cut."""
        self.log.cut(until=until, last=last)
        self._link_best(best)

    def tidy(self, record: Mapping[str, Any], *, best: str | None) -> None:
        """After a mini-epoch's checkpoint: log it, keep it if it is the best, and remove those that may go."""
        self.log.append(record)
        self._link_best(best)
        self._remove_partials(before=(record["epoch"], record["mini_epoch"], True))
        for name in self._retention.superseded(self.log.checkpoints):
            if checkpoint_file.place_in_run(Path(name)):
                (self.checkpoints / name).unlink(missing_ok=True)

    def _link_best(self, name: str | None) -> None:
        """Make ``best.pt`` another name of a checkpoint, which costs no room and outlives the first."""
        if name is None or not (path := self.checkpoints / name).exists():
            return
        if self.best.exists() and self.best.samefile(path):
            return  # to rename one name of a file to another would leave both
        link = self.path / "best.pt.partial"
        link.unlink(missing_ok=True)
        try:
            os.link(path, link)
        except OSError:  # a filesystem without links
            write_whole(self.best, path.read_bytes())
        else:
            os.replace(link, self.best)

    def _remove_partials(self, *, before: tuple[int, int, bool]) -> None:
        """Remove the checkpoints of interrupted mini-epochs that the run has gone past."""
        for path in checkpoint_file.newest_first(self.checkpoints):
            at = checkpoint_file.place_in_run(path)
            if at and at < before and not at[2]:
                path.unlink()

    def remove_leftovers(self) -> None:
        """Remove what a killed run was writing, under names that nothing reads."""
        remove_halves(self.checkpoints, r"checkpoint_.*\.pt")
        remove_halves(
            self.path, "|".join(re.escape(path.name) for path in (self.log.path, self.best, self.path / CONFIG))
        )
        for state in (self.path / STATES).glob("*/"):
            remove_halves(state, re.escape(DATASET))


class MetricsLog:
    """metrics.jsonl: a line per finished mini-epoch. One that a kill tore is cut off; the checkpoint has it whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints: list[str] = []
        """Names of the checkpoints of all lines."""

    def cut(self, *, until: tuple[int, int], last: Mapping[str, Any]) -> None:
        """Keep the lines before the mini-epoch ``until``, then ``last``: its own record, where it is done."""
        lines = self._lines()
        kept = [line for line in lines if _place_in_run(line) < until]
        # a kill between checkpoint and log leaves the line in the checkpoint alone
        kept += [_json_line(last)] if last else []
        if lines or kept:
            write_whole(self.path, "".join(f"{line}\n" for line in kept).encode())
        self.checkpoints = [record["checkpoint"] for record in self.records()]

    def records(self) -> list[dict[str, Any]]:
        """The records of all lines that are records."""
        return [record for line in self._lines() if (record := _record(line))]

    def _lines(self) -> list[str]:
        try:
            with open_regular(self.path) as file:
                return file.read().decode("utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            fix = "Move it away: a new one is begun, and the checkpoints stay"
            raise DataError(f"cannot be read ({error.strerror})", where=str(self.path), fix=fix) from None

    def append(self, record: Mapping[str, Any]) -> None:
        """Add the record of the next mini-epoch."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{_json_line(record)}\n")
            file.flush()
            os.fsync(file.fileno())
        self.checkpoints.append(str(record["checkpoint"]))


def _json_line(record: Mapping[str, Any]) -> str:
    """One line of JSON; numbers that JSON does not know, such as NaN, become null."""
    return json.dumps(_finite(record), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _place_in_run(line: str) -> tuple[float, float]:
    """(epoch, mini-epoch) of a line of metrics.jsonl; beyond everything when it is not one."""
    record = _record(line)
    return (record["epoch"], record["mini_epoch"]) if record else (math.inf, math.inf)


def _record(line: str) -> dict[str, Any] | None:
    """Parse a line: its record, or None where it is no record of a mini-epoch."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return None if problem_of_record(record) else record
