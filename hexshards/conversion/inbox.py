"""Inbox: a folder, searched to any depth, into which files come; one is ready when two looks find it the same.

What is no regular file is never opened or waited for. What vanishes between two looks was never there.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hexshards.conversion.discovery import Formats, format_of_name, kind_of
from hexshards.conversion.sources import formats
from hexshards.dataset.index import Index, InputFile
from hexshards.errors import DataError, escaped
from hexshards.storage.files import Stamp, fitted, open_regular, real_path, stamp_of, write_whole

REFUSED = "refused"
"""Folder in an inbox for what was set aside; it is not looked into."""

REPORT_LINES = 1_000
"""Lines of rejects that the report on a file holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look into an inbox finds."""

    ready: tuple[Path, ...]
    """Files to take: the same as at the look before."""
    changing: tuple[Path, ...]
    """Files that changed since the look before."""
    passed_over: Mapping[str, str]
    """What is not taken, and why: a sentence each."""


@dataclass(slots=True)
class Inbox:
    """A folder that is looked into again and again."""

    folder: Path
    _before: dict[Path, Stamp] = field(default_factory=dict)
    _taken: dict[Path, Stamp] = field(default_factory=dict)

    def look(self) -> Look:
        """Look once. Raises OSError where the folder itself is gone or may not be read."""
        known, now, passed_over = formats(), dict[Path, Stamp](), dict[str, str]()
        for path in _within(self.folder):
            with suppress(FileNotFoundError):  # it vanished since it was listed
                if reason := _no_source(path, known):
                    passed_over[str(path)] = reason
                else:
                    now[path] = Stamp.of(path.stat())
        before, self._before = self._before, now
        self._taken = {path: stamp for path, stamp in self._taken.items() if path in now}
        left = self.left()
        return Look(
            ready=tuple(path for path in left if before.get(path) == now[path]),
            changing=tuple(path for path in left if path in before and before[path] != now[path]),
            passed_over=passed_over,
        )

    def left(self) -> tuple[Path, ...]:
        """Files of the last look that were not taken."""
        return tuple(path for path, stamp in self._before.items() if self._taken.get(path) != stamp)

    def take(self, files: Sequence[Path]) -> None:
        """Remember that files were taken as they were at the last look: they are ready again only once they change."""
        self._taken |= {path: self._before[path] for path in files}

    def changed(self, files: Sequence[Path]) -> bool:
        """Whether one of some files is not what it was at the last look."""
        return any(stamp_of(path) != self._before.get(path) for path in files)

    def set_aside(self, path: Path, error: DataError, lines: Sequence[str]) -> Path:
        """Move a file to the refused ones, beside a report on it. A crash leaves it where it was, or both there."""
        folder = self.folder / REFUSED
        folder.mkdir(exist_ok=True)
        place, number = folder / path.name, 1
        while os.path.lexists(place) or (os.path.lexists(_report(place)) and not _is_report_on(place, path)):
            number += 1
            place = folder / fitted(f"{number}-{path.name}")
        told = [f"{escaped(path)}: {error.problem}. {error.fix}", *lines[:REPORT_LINES]]
        write_whole(_report(place), "".join(f"{line}\n" for line in told).encode(errors="backslashreplace"))
        path.rename(place)
        del self._before[path]
        return place


def by_name(index: Index) -> dict[str, list[InputFile]]:
    """The files that a dataset was made from, by their names: there may be as many as an inbox ever had."""
    named = dict[str, list[InputFile]]()
    for file in index.inputs:
        named.setdefault(file.name, []).append(file)
    return named


def grown_from(path: Path, earlier: Sequence[InputFile]) -> InputFile | None:
    """Of earlier files of its name the one of which this one is the same with more behind it, if there is one."""
    size = path.stat().st_size
    for file in earlier:
        if 0 < file.size_bytes < size:
            with open_regular(path) as opened:
                digest, left = hashlib.sha256(), file.size_bytes
                while left and (piece := opened.read(min(left, 1 << 20))):
                    digest.update(piece)
                    left -= len(piece)
            if digest.hexdigest() == file.sha256:
                return file
    return None


def _report(place: Path) -> Path:
    return place.with_name(fitted(place.name, ".report.txt"))


def _is_report_on(place: Path, path: Path) -> bool:
    """Whether there is a report on a file that then was not moved, for a crash came in between."""
    with suppress(OSError), open_regular(_report(place)) as opened:
        return opened.read(1 << 16).startswith(f"{escaped(path)}: ".encode(errors="backslashreplace"))
    return False


# what lies there ----------------------------------------------------------------------------------------------------


def _within(folder: Path) -> Iterator[Path]:
    """Everything but folders that lies in a folder and the folders in it, links followed, each folder once."""
    seen, waiting = {real_path(folder / REFUSED)}, [folder]
    while waiting:
        place = waiting.pop()
        if (real := real_path(place)) in seen:
            continue
        seen.add(real)
        try:
            inside = [(path, path.is_dir()) for path in sorted(place.iterdir()) if not _on_its_way(path.name)]
        except OSError:
            if place == folder:
                raise
            continue  # it vanished, or is not ours to read: its files are not there yet
        waiting += [path for path, is_folder in inside if is_folder]
        yield from (path for path, is_folder in inside if not is_folder)


def _on_its_way(name: str) -> bool:
    """Whether a name says that it is not the last one; as of what rsync copies, or ``write_trmph`` writes."""
    return name.startswith(".") or name.endswith(".partial")


def _no_source(path: Path, known: Formats) -> str:
    """Why something is not taken; empty where it is. Raises FileNotFoundError where it has vanished."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        try:
            mode = path.stat().st_mode
        except OSError:
            return f"{escaped(path)}: a link that leads nowhere. Mend it or remove it"
    if not stat.S_ISREG(mode):
        return f"{escaped(path)}: {escaped(kind_of(mode))}, not a regular file. Write what it holds into a file"
    if not format_of_name(path.name, known):
        return f"{escaped(path)}: not named like any known format. Rename it, or take it out of the inbox"
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        return f"{escaped(path)}: this file may not be read. Allow it, or take it out of the inbox"
    return ""
