"""Source formats: each is a converter found by name; the core imports none of them.

A converter may bring columns of its own: it declares a ``Column`` whose name begins with ``x_``, and gives its numbers
to ``positions.with_optional({column: numbers})``. The index lists the column, and all else follows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.options import ConvertSpec
from hexshards.errors import DataError, printable
from hexshards.game.columns import Column as Column
from hexshards.game.positions import Positions
from hexshards.game.validation import Reject

GROUP = "hexshards.sources"
"""Entry points of this group name the formats: ``name = "package.module:Class"``, a class without arguments."""


class Chunk(NamedTuple):
    """Chunk of a source file: some of its positions, in its order, and what was not kept of them."""

    positions: Positions
    """Column ``source`` numbers ``sources``."""
    sources: Sequence[str]
    """Names of the files that the games came from, as far as seen; later chunks only add to it."""
    rejects: Sequence[Reject]
    notes: Sequence[str] = ()
    """On the file as a whole, for the report: its generation, and what was read otherwise than it is written."""
    headers: Mapping[str, str] = {}
    """What the file says of how its games were made: model, simulations, temperature, seed, commit, ..."""


class Games(NamedTuple):
    """The sound games of a file, by what was played in them."""

    keys: NDArray[np.uint64]
    """(G, 2): equal for two games of the same moves and the same winner, also if one is turned by 180 degrees."""
    games: NDArray[np.int32]
    """(G,) ascending: the number of each in its file, as in the column ``game``."""


class Contents(NamedTuple):
    """A file that was read from disk; ``name``, ``where`` and ``skip`` as for GameSource.read."""

    data: bytes
    name: str
    where: str
    skip: Collection[int] = ()


class Source(Protocol):
    """Converter protocol: reads one format of source files."""

    patterns: tuple[str, ...]
    """Names that files of this format go by, e.g. ``*.pkl.gz``. Within a folder others are passed over."""

    def read(self, data: bytes, *, name: str, where: str, spec: ConvertSpec) -> Iterator[Chunk]:
        """Yield the positions of a file whose contents are ``data``, a few thousand at a time.

        ``name`` is the file's name; ``where`` names it in errors; ``spec`` holds what is asked of formats. What can't
        be kept is a reject with its place and reason. Raises DataError when the whole file must be refused. Never runs,
        calls or imports what the file names.
        """
        ...


@runtime_checkable
class NamedPatterns(Protocol):
    """What a converter has whose files may go by names too common to be taken in a folder."""

    named_patterns: tuple[str, ...]
    """Taken only where a file is named, or by a glob."""


@runtime_checkable
class Recognises(Protocol):
    """What a converter can do whose files go by names that files of another format go by too."""

    @staticmethod
    def recognises(head: bytes) -> bool:
        """Whether a file that begins so (HEAD_BYTES at most, decompressed) is of this format."""
        ...


@runtime_checkable
class Needs(Protocol):
    """What a converter says that needs a package which is not installed with hexshards."""

    needs: tuple[str, str]
    """The module, and the extra of hexshards, or the package, that brings it."""


HEAD_BYTES = 4096
"""How much of a file tells its format, where its name does not."""


@runtime_checkable
class ListsGames(Protocol):
    """What a converter can do whose files hold whole games."""

    def games(self, data: bytes, *, name: str, where: str, spec: ConvertSpec) -> Games:
        """The games whose positions ``read`` yields."""
        ...


@runtime_checkable
class ReadsEach(Protocol):
    """What a converter can do that reads many small files at once; what comes out is the same."""

    def read_each(self, files: Iterable[Contents], *, spec: ConvertSpec) -> Iterator[list[Chunk] | DataError]:
        """What ``read`` yields of each file, or why it refuses it; no more is held than of one large file."""
        ...


@runtime_checkable
class ListsGamesOfEach(Protocol):
    """What a converter can do that lists the games of many small files at once; what comes out is the same."""

    def games_each(self, files: Iterable[Contents], *, spec: ConvertSpec) -> Iterator[Games | DataError]:
        """What ``games`` finds in each file, or why it refuses it."""
        ...


class GameSource(NamedPatterns, ListsGames, Protocol):
    """Converter protocol for files of whole games, so that repeats of a game can be found before it is read."""

    patterns: tuple[str, ...]

    def read(
        self, data: bytes, *, name: str, where: str, spec: ConvertSpec, skip: Collection[int] = ()
    ) -> Iterator[Chunk]:
        """As Source.read, but for the games numbered in ``skip``."""
        ...


class SmallFiles(GameSource, ReadsEach, ListsGamesOfEach, Protocol):
    """What a converter is that does the work of many small files at once."""


class Twin(NamedTuple):
    """A game that repeats another one and shares its split."""

    game: int
    source: str
    """File of the other game."""
    other: int
    """Number of the other game in it."""


@dataclass(frozen=True, slots=True)
class Input:
    """A file to convert, the format it goes by, and what other files say of its games."""

    path: Path
    format: str
    skip: tuple[int, ...] = ()
    """Games that an earlier file holds, or that came earlier in this one."""
    twins: tuple[Twin, ...] = ()
    """The same, where repeats are kept."""
    generation: int = -1
    """Which network played in it, for positions whose file does not say; -1 unknown."""
    apart: str = ""
    """Tells this file's own games from those of another file of its name: the beginning of its SHA-256, or nothing."""


def source_name(stated: str) -> str:
    """The name by which a file of games is known: without folders and suffixes, as the same games come by many ways."""
    last = stated.replace("\\", "/").rsplit("/", 1)[-1]
    for suffix in (".gz", ".pkl", "_processed", ".trmph", ".txt"):
        last = last.removesuffix(suffix)
    return printable(last, width=200)


def source_apart(name: str, file: Input) -> str:
    """The name in the dataset of a source of a file: its own source is told apart, one that many files share is not."""
    return f"{name}@{file.apart}" if file.apart and name == source_name(file.path.name) else name


@cache
def formats() -> dict[str, Source | GameSource]:
    """The installed converters by name, in the order of their names.

    Looked for once in each process: with thousands of small files that takes longer than reading them.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    return {name: points[name].load()() for name in sorted(points)}
