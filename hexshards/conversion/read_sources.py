"""Source readers: the converter of a format reads its files, one by one or, where it can, many small ones at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.sorted_runs import ReadFile
from hexshards.conversion.sources import (
    Chunk,
    Contents,
    Games,
    GameSource,
    Input,
    ListsGamesOfEach,
    ReadsEach,
    Source,
    formats,
    source_apart,
)
from hexshards.dataset.index import InputFile
from hexshards.errors import DataError, or_refusal
from hexshards.game.board import BLUE, RED, connects
from hexshards.game.columns import GENERATION, NO_POLICY, UNKNOWN, VISITS, fault_of
from hexshards.game.positions import Positions, concat
from hexshards.game.validation import taken_cells
from hexshards.game.visits import visit_rules
from hexshards.storage.files import open_regular


def read_file(file: Input, *, spec: ConvertSpec) -> ReadFile:
    """A source file as its converter reads it. Raises DataError when the whole file is refused."""
    (read,) = read_each([file], spec=spec)
    if isinstance(read, DataError):
        raise read
    return read


def read_each(files: Sequence[Input], *, spec: ConvertSpec) -> Iterator[ReadFile | DataError]:
    """Source files as their converters read them, in their order; of one that is refused, why."""
    for form, same in groupby(files, key=lambda file: file.format):
        opened = _Opened(list(same))
        for file, chunks in zip(opened.files, _chunks_of_each(opened, formats()[form], spec), strict=True):
            size, sha256 = opened.known.pop(0)
            yield chunks if isinstance(chunks, DataError) else or_refusal(_as_read, file, size, sha256, chunks)


def games_of_each(files: Sequence[Input], *, spec: ConvertSpec) -> Iterator[tuple[str, Games | DataError]]:
    """SHA-256 and games of files of games, in their order; of one that is refused, why."""
    for form, same in groupby(files, key=lambda file: file.format):
        opened = _Opened(list(same))
        for games in _games_of_each(opened, cast(GameSource, formats()[form]), spec):
            yield opened.known.pop(0)[1], games


class _Opened:
    """Files that are read from disk as they are asked for."""

    def __init__(self, files: Sequence[Input]) -> None:
        self.files = files
        self.known: list[tuple[int, str]] = []
        """Size and SHA-256 of those that were read."""

    def __iter__(self) -> Iterator[Contents]:
        for file in self.files:
            with open_regular(file.path) as source:
                data = source.read()
            self.known.append((len(data), hashlib.sha256(data).hexdigest()))
            yield Contents(data, file.path.name, str(file.path), file.skip)
            del data  # before the next one is read


def _chunks_of_each(
    opened: Iterable[Contents], converter: Source | GameSource, spec: ConvertSpec
) -> Iterator[list[Chunk] | DataError]:
    if isinstance(converter, ReadsEach):
        return converter.read_each(opened, spec=spec)

    def read(contents: Contents) -> list[Chunk]:
        data, name, where, skip = contents
        asked: dict[str, Any] = {"skip": skip} if skip else {}
        return list(converter.read(data, name=name, where=where, spec=spec, **asked))

    return map(lambda contents: or_refusal(read, contents), opened)  # holds on to no file while the next one is read


def _games_of_each(opened: Iterable[Contents], converter: GameSource, spec: ConvertSpec) -> Iterator[Games | DataError]:
    if isinstance(converter, ListsGamesOfEach):
        return converter.games_each(opened, spec=spec)

    def games(contents: Contents) -> Games:
        data, name, where, _ = contents
        return converter.games(data, name=name, where=where, spec=spec)

    return map(lambda contents: or_refusal(games, contents), opened)


def _as_read(file: Input, size_bytes: int, sha256: str, chunks: Sequence[Chunk]) -> ReadFile:
    try:
        positions = chunks[0].positions if len(chunks) == 1 else concat([chunk.positions for chunk in chunks])
    except ValueError as error:
        raise DataError(str(error), where=str(file.path), fix="Mend the converter, which declares it") from None
    _check_optional(positions, where=str(file.path))
    headers = dict(chunks[-1].headers)
    if file.generation != UNKNOWN:
        positions = _of_generation(positions, file.generation)
        headers.setdefault("generation", str(file.generation))
    rejects = [reject for chunk in chunks for reject in chunk.rejects]
    lost = positions_without_move(positions)
    notes = [*chunks[-1].notes, *([f"{lost:,} without policy before the end of their game"] if lost else ())]
    entry = InputFile(
        name=file.path.name,
        format=file.format,
        size_bytes=size_bytes,
        sha256=sha256,
        positions=len(positions),
        rejected=len(rejects),
        without_game=int((positions.game == UNKNOWN).sum()),
        notes="; ".join(notes),
        headers=headers,
    )
    sources = chunks[-1].sources
    names = [source_apart(name, file) for name in sources]
    return ReadFile(entry, positions, sources, names, rejects, file.twins, lost)


def _of_generation(positions: Positions, generation: int) -> Positions:
    """The positions; where the file does not say which network played, it was that one."""
    stated = positions.optional.get(GENERATION)
    if stated is None:
        stated = GENERATION.unknowns(len(positions), side=positions.side)
    return positions.with_optional({GENERATION: np.where(stated == UNKNOWN, np.int32(generation), stated)})


def _check_optional(positions: Positions, *, where: str) -> None:
    """Hold what a converter brings besides against what it declares. Raises DataError."""
    for kind, column in positions.optional.items():
        fix = f"Mend the converter, which declares {kind.name}"
        if fault := fault_of(kind):
            raise DataError(fault, where=where, fix=fix)
        if kind == VISITS:
            _check_visits(positions, column, where=where, fix=fix)
        beyond = np.argwhere(~kind.within(column))
        if len(beyond):
            problem = f"position {beyond[0][0]} has {kind.name} {column[tuple(beyond[0])]}, {kind.bounds}"
            raise DataError(problem, where=where, fix=fix)


def _check_visits(positions: Positions, visits: NDArray[np.uint16], *, where: str, fix: str) -> None:
    taken = taken_cells(positions.planes().reshape(len(positions), -1) == 1)
    for reason, bad, finding in visit_rules(visits, taken):
        if bad.any():
            row = int(bad.argmax())
            raise DataError(f"position {row} has {reason} ({finding(row)})", where=where, fix=fix)


def positions_without_move(positions: Positions) -> int:
    """How many positions have no policy although the game goes on: final ones never have one."""
    policy = positions.policy
    missing = ~policy.any(axis=1) if positions.soft else policy == NO_POLICY
    stated = positions.plies != UNKNOWN
    early = int((missing & stated & (positions.ply < positions.plies)).sum())
    unstated = np.flatnonzero(missing & ~stated)
    return early + (_going_on(positions.take(unstated)) if len(unstated) else 0)


def _going_on(positions: Positions) -> int:
    """On how many boards nobody has connected yet."""
    stones = positions.planes() == 1
    return int((~connects(stones[:, 0], player=BLUE) & ~connects(stones[:, 1], player=RED)).sum())
