"""Watch an inbox: files are converted as they come and appended, one addition a look; what is broken is set aside.

An addition is whole or not there (conversion.convert), and what the dataset was made from is known by its contents: so
after any end the same command goes on. Files stay where they are; whoever puts them there may remove those taken.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from hexshards.conversion.convert import convert
from hexshards.conversion.inbox import REFUSED, Inbox, by_name, grown_from
from hexshards.conversion.options import WORK, ConvertOptions
from hexshards.conversion.report import ConversionProgress, Report, shards_of
from hexshards.conversion.workdir import WATCHED, check_folder, rejects_name
from hexshards.dataset.index import NAME, Index, read_index
from hexshards.errors import InputRejected, WorkerKilled, escaped
from hexshards.storage.files import nearest_path, real_path
from hexshards.storage.locks import locked
from hexshards.storage.remote import is_url, shown
from hexshards.units import counted

LOOKS = 2
"""A file is ready when it is the same in so many looks."""

Bars = Callable[[], AbstractContextManager[Callable[[ConversionProgress], None] | None]]
"""What shows how far a conversion is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchBegun:
    """The first look is about to be taken."""

    inbox: str
    every_s: float
    dataset: dict[str, int]
    """Positions of each split; none yet, where the first files will make it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Files were added, or were in the dataset already."""

    files: int
    """Those that were added."""
    already: int
    """Those whose contents the dataset has from before, or from another of these files."""
    positions: int
    """Added by them."""
    rejected: int
    """Examples or lines that were left out."""
    waiting: int
    """Files that are still to come."""
    dataset: dict[str, int]
    """Positions of each split, all additions together."""
    shards: int
    """Of the whole dataset."""
    fingerprint: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """A file was refused, and moved to the refused ones."""

    file: str
    problem: str
    moved_to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """Something is not taken as it is; it stays where it is."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StillChanging:
    """Files that changed between two looks are waited for."""

    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Nothing can be added for now: another conversion, a full disk, an inbox that is gone."""

    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEnded:
    """What was done since it began, and what is left."""

    files: int
    positions: int
    set_aside: int
    not_added: int
    """Files that could not be added, and stay: refused and not moved, or too large for the memory there is."""
    waiting: tuple[str, ...]


WatchEvent = WatchBegun | Added | SetAside | PassedOver | StillChanging | Held | WatchEnded


def watch(
    inbox: str | Path,
    *,
    dataset: str | Path,
    every_s: float,
    once: bool = False,
    tell: Callable[[WatchEvent], None],
    bars: Bars = nullcontext,
    workers: int = WORK.workers,
    memory: int | str = WORK.memory,
    max_rejects: int = WORK.max_rejects,
    **options: Unpack[ConvertOptions],
) -> WatchEnded:
    """Add the files that come into ``inbox`` to the dataset, until this process is interrupted.

    ``once``: end after the two looks that it takes to know which files are whole. Where there is no dataset, the first
    files make it, with these options; else its own hold.

    Raises FileNotFoundError where there is no inbox, FileExistsError where another one adds to the dataset, and
    ValueError where one folder lies in the other.
    """
    place, folder = _folders(inbox, dataset)
    work = {"workers": workers, "memory": memory, "max_rejects": max_rejects, **options}
    with _alone(folder):
        watcher = _Watcher(Inbox(place), folder, work, once, tell, bars)
        tell(WatchBegun(inbox=str(place), every_s=every_s, dataset=_positions(_index(folder))))
        try:
            for _ in range(LOOKS - 1):
                watcher.look()
                time.sleep(every_s)
            watcher.look()
            while not once:
                time.sleep(every_s)
                watcher.look()
        except KeyboardInterrupt:
            tell(watcher.ended())
            raise
        tell(ended := watcher.ended())
    return ended


def _folders(inbox: str | Path, dataset: str | Path) -> tuple[Path, Path]:
    if is_url(dataset):
        raise ValueError(
            f"{shown(str(dataset))}: files are added to a dataset in a folder. Publish that from time to time"
        )
    place, folder = Path(inbox), Path(dataset)
    if not place.is_dir():
        raise FileNotFoundError(f"{escaped(place)}: no such folder to watch{nearest_path(place)}")
    here, there = real_path(place), real_path(folder)
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise ValueError(
            f"{escaped(folder)} and {escaped(place)} lie in each other: the dataset needs a folder of its own"
        )
    return place, folder


def _index(dataset: Path) -> Index | None:
    return read_index(dataset) if (dataset / NAME).exists() else None


def _positions(index: Index | None) -> dict[str, int]:
    """Positions of each split."""
    return {name: split.positions for name, split in index.splits.items()} if index else {}


@contextmanager
def _alone(dataset: Path) -> Iterator[None]:
    """Hold the dataset as the only one that watches for it."""
    check_folder(dataset, _index(dataset))
    dataset.mkdir(parents=True, exist_ok=True)
    taken = f"{dataset}: another `hexshards watch` adds to this dataset. Wait for it, or end it"
    with locked(dataset / WATCHED, taken=taken, passing=True):
        yield


@dataclass(slots=True)
class _Watcher:
    inbox: Inbox
    dataset: Path
    work: dict[str, Any]
    once: bool
    tell: Callable[[WatchEvent], None]
    bars: Bars
    files: int = 0
    positions: int = 0
    refused: int = 0
    unmoved: int = 0
    _told: dict[str, WatchEvent] = field(default_factory=dict)
    """What was said last, by what it is about."""

    def look(self) -> None:
        """Look into the inbox, and add what is ready."""
        try:
            look = self.inbox.look()
        except OSError as error:
            self._held(error)
            return
        still = {*look.passed_over, "changing"}
        self._told = {about: event for about, event in self._told.items() if about in still}
        for path, reason in look.passed_over.items():
            self._say_once(path, PassedOver(file=path, reason=reason))
        self._say_once("changing", StillChanging(files=tuple(map(str, look.changing))))
        groups: list[Sequence[Path]] = [self._without_grown(look.ready)] if look.ready else []
        while groups:  # no recursion: there may be as many as files
            if group := groups.pop():
                groups += self._add(group)

    def ended(self) -> WatchEnded:
        """What was done, and what is left."""
        waiting = tuple(map(str, self.inbox.left()))
        return WatchEnded(
            files=self.files,
            positions=self.positions,
            set_aside=self.refused,
            not_added=self.unmoved,
            waiting=waiting,
        )

    def _add(self, group: Sequence[Path]) -> list[Sequence[Path]]:
        """Add some files; where that is refused, the groups in which to try again, the last first."""
        base = _index(self.dataset)
        try:
            with self.bars() as progress:
                report = convert(group, out=self.dataset, append=base is not None, progress=progress, **self.work)
        except InputRejected as error:
            rejects = self.dataset / rejects_name(base)
            lines = _rejected(rejects)
            if len(group) > 1:
                rejects.unlink(missing_ok=True)
                return _apart(group, {error.where, *(str(line.get("file")) for line in lines)})
            if self._set_aside(group[0], error, lines):
                rejects.unlink(missing_ok=True)
            return []
        except (WorkerKilled, MemoryError) as error:
            return self._without_memory(group, error)
        except (OSError, ValueError) as error:
            if self.inbox.changed(group):  # as at the next look it is
                return []
            if isinstance(error, ValueError):
                raise
            self._held(error)
            return []
        self._told.pop("held", None)
        self.inbox.take(group)
        self._count(report, group)
        return []

    def _without_memory(self, group: Sequence[Path], error: Exception) -> list[Sequence[Path]]:
        """Both halves of files that there was no memory for; one alone is left, for another may be what took it."""
        if len(group) > 1:
            return [group[len(group) // 2 :], group[: len(group) // 2]]
        (path,) = group
        if not self.inbox.changed(group):
            self.inbox.take(group)
            self.unmoved += 1
            why = escaped(error) or "out of memory"
            reason = f"{escaped(path)}: it takes more memory than there is, or is no sound file ({why})"
            self.tell(PassedOver(file=str(path), reason=f"{reason}. It is tried again at the next start"))
        return []

    def _count(self, report: Report, group: Sequence[Path]) -> None:
        others = len(group) - len({real_path(path) for path in group})  # names of one file
        already = len(report.already) + len(report.repeated) + others
        files = len(group) - already
        self.files += files
        self.positions += report.positions
        self.tell(
            Added(
                files=files,
                already=already,
                positions=report.positions,
                rejected=sum(report.rejects.values()),
                waiting=len(self.inbox.left()),
                dataset=_positions(report.index),
                shards=len(shards_of(report.index)),
                fingerprint=report.index.fingerprint,
                notes=report.notes,
            )
        )

    def _set_aside(self, path: Path, error: InputRejected, lines: Sequence[dict[str, Any]]) -> bool:
        """Whether a refused file, and what was told of it, is among the refused ones."""
        try:
            place = self.inbox.set_aside(path, error, [json.dumps(line) for line in lines])
        except OSError as failed:
            if not self.inbox.changed([path]):
                self.inbox.take([path])
                self.unmoved += 1
                place, told = self.inbox.folder / REFUSED, f"{error.problem}. {error.fix}"
                reason = f"{escaped(path)}: {told}. It could not be moved to {escaped(place)} ({failed.strerror})"
                self.tell(PassedOver(file=str(path), reason=reason))
            return False
        self.refused += 1
        self.tell(SetAside(file=str(path), problem=f"{error.problem}. {error.fix}", moved_to=str(place)))
        return True

    def _without_grown(self, files: Sequence[Path]) -> list[Path]:
        """The files without those whose games would be added twice: they went on after they were taken."""
        index = _index(self.dataset)
        if index is None or index.options.get("dedupe") == "games":
            return list(files)
        fresh, earlier = list[Path](), by_name(index)
        for path in files:
            try:
                grown = grown_from(path, earlier.get(path.name, ()))
            except OSError:  # it vanished, or became something else: as the next look finds it
                continue
            if not grown:
                fresh.append(path)
                continue
            self.inbox.take([path])
            reason = (
                f"{escaped(path)}: {counted(grown.size_bytes, 'byte')} of it were added before, and it went on; its "
                "games would be there twice. Write files elsewhere and rename them into the inbox, or use a "
                "dataset made with --dedupe games"
            )
            self.tell(PassedOver(file=str(path), reason=reason))
        return fresh

    def _held(self, error: OSError) -> None:
        """Go on looking, unless this is the only time."""
        if self.once:
            raise error
        self._say_once("held", Held(problem=str(error)))

    def _say_once(self, about: str, event: WatchEvent) -> None:
        if self._told.get(about) != event and event != StillChanging(files=()):
            self.tell(event)
        self._told[about] = event


def _rejected(path: Path) -> list[dict[str, Any]]:
    """The lines of a refused addition's rejects, which go where the file goes."""
    with suppress(FileNotFoundError):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return []


def _apart(group: Sequence[Path], named: set[str]) -> list[Sequence[Path]]:
    """Files that were refused together: each that is named alone, before it all others; else both halves."""
    suspects = [path for path in group if named & {str(path), str(path.absolute()), path.name}]
    if not suspects:
        return [group[len(group) // 2 :], group[: len(group) // 2]]
    alone = {*suspects}
    return [*([path] for path in reversed(suspects)), [path for path in group if path not in alone]]
