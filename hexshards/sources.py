"""A source format is a converter found by name; the core imports none of them."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple, Protocol

from hexshards.positions import Positions, Reject

GROUP = "hexshards.sources"
"""Entry points of this group name the formats: ``name = "package.module:Class"``, a class without arguments."""


class Chunk(NamedTuple):
    """Some positions of a file, in its order, and what was not kept of them."""

    positions: Positions
    """Column ``source`` numbers ``sources``."""
    sources: Sequence[str]
    """Names of the files that the games came from, as far as seen; later chunks only add to it."""
    rejects: Sequence[Reject]


class Source(Protocol):
    """What a converter is: one format of source files."""

    patterns: tuple[str, ...]
    """Names that files of this format go by, e.g. ``*.pkl.gz``. Within a folder others are passed over."""

    def read(self, data: bytes, *, name: str, where: str) -> Iterator[Chunk]:
        """Yield the positions of a file whose contents are ``data``, a few thousand at a time.

        ``name`` is the file's name; ``where`` names it in errors. What can't be kept is a reject with its place and
        reason. Raises DataError when the whole file must be refused. Never runs, calls or imports what the file names.
        """
        ...


@dataclass(frozen=True, slots=True)
class Input:
    """A file to convert and the format it goes by."""

    path: Path
    format: str


def formats() -> dict[str, Source]:
    """The installed converters by name, in the order of their names."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    return {name: found[name].load()() for name in sorted(found)}


def collect(sources: Sequence[str | Path]) -> list[Input]:
    """The files that files, folders (searched to any depth) and globs stand for, each once, sorted by path.

    Raises FileNotFoundError for a source that stands for nothing, ValueError for a file of no known format.
    """
    known = formats()
    inputs = {path.resolve(): Input(path, form) for source in sources for path, form in _expand(str(source), known)}
    return [inputs[path] for path in sorted(inputs)]


def _expand(source: str, known: dict[str, Source]) -> list[tuple[Path, str]]:
    path = Path(source)
    patterns = sorted({pattern for form in known.values() for pattern in form.patterns})
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file() and _format(file, known)]
        if not files:
            raise FileNotFoundError(f"{source}: no file in this folder is named like {', '.join(patterns)}")
    else:
        files = [path] if path.exists() else [Path(match) for match in glob.glob(source, recursive=True)]
        if not files:
            raise FileNotFoundError(f"{source}: no such file, and as a pattern it matches none")
    pairs = [(file, _format(file, known)) for file in files if not file.is_dir()]
    for file, form in pairs:
        if form is None:
            raise ValueError(f"{file}: not named like any known format ({', '.join(patterns)})")
    return [(file, form) for file, form in pairs if form]


def _format(path: Path, known: dict[str, Source]) -> str | None:
    return next((name for name, form in known.items() if any(fnmatch(path.name, p) for p in form.patterns)), None)
