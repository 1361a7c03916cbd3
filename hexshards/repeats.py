"""Exact repeats of a game are found over all files, before any is read for its positions.

Formats of whole games give a key for each: equal for the same moves and winner, also when all is turned by 180 degrees.
The first game of a key, by name and contents of its file and its place there, stays; the others are left out, or kept
in the same split. Memory: 50 bytes a game.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.engines import Runner
from hexshards.errors import DataError
from hexshards.sources import Games, Input, Twin, formats, source_name
from hexshards.specs import ConvertSpec
from hexshards.spill import save_array

_LISTED = np.dtype([("keys", "<u8", (2,)), ("game", "<i4")])


class _List(NamedTuple):
    """The games of one file."""

    file: Input
    sha256: str
    games: Games


def holds_games(file: Input) -> bool:
    """Whether a file's format is one of whole games."""
    return hasattr(_converters()[file.format], "games")


# looked for once in each process
_converters = cache(formats)


def without_repeats(
    files: Sequence[tuple[Input, Path | None]], *, spec: ConvertSpec, runner: Runner, at_once: int
) -> tuple[dict[Input, Input], int]:
    """Files of games, each with itself told which of its games are repeats; and how many those are.

    Each file comes with a path at which its list of games is kept, so that it is made once, or with None.
    """
    lists = [found for found in runner.each(partial(_list_games, spec=spec), files, at_once=at_once) if found]
    lists.sort(key=lambda each: (each.file.path.name, each.sha256))
    if not lists:
        return {}, 0
    first = _first_of_each(np.concatenate([each.games.keys for each in lists]))
    ends = np.cumsum([0, *(len(each.games.games) for each in lists)])
    told = dict[Input, Input]()
    for place, each in enumerate(lists):
        mine = np.arange(ends[place], ends[place + 1])
        repeats = mine[first[mine] != mine]
        numbers = each.games.games[repeats - ends[place]].tolist()
        if spec.keep_duplicates:
            told[each.file] = replace(each.file, twins=_twins(numbers, first[repeats], lists, ends))
        else:
            told[each.file] = replace(each.file, skip=tuple(numbers))
    return told, int((first != np.arange(len(first))).sum())


def _twins(
    numbers: Sequence[int], others: NDArray[np.int64], lists: Sequence[_List], ends: NDArray[np.int64]
) -> tuple[Twin, ...]:
    """For each game the one that it repeats, which is at ``others`` of all lists together."""
    homes = np.searchsorted(ends, others, side="right") - 1
    return tuple(
        Twin(number, source_name(lists[home].file.path.name), int(lists[home].games.games[other - ends[home]]))
        for number, home, other in zip(numbers, homes.tolist(), others.tolist(), strict=True)
    )


def _list_games(file: Input, kept: Path | None, *, spec: ConvertSpec) -> _List | None:
    """The games of a file; None where it will be refused when it is read."""
    for path in kept.parent.glob(f"{kept.name}.*.games") if kept else ():
        rows = np.load(path, allow_pickle=False)
        return _List(file, path.name.split(".")[-2], Games(rows["keys"], rows["game"]))
    data = file.path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    converter = _converters()[file.format]
    try:
        games = converter.games(data, name=file.path.name, where=str(file.path), spec=spec)  # type: ignore[union-attr]
    except DataError:
        return None
    if kept:
        rows = np.zeros(len(games.games), dtype=_LISTED)
        rows["keys"], rows["game"] = games
        save_array(kept.with_name(f"{kept.name}.{sha256}.games"), rows)
    return _List(file, sha256, games)


def _first_of_each(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The place of the first row equal to each row."""
    order = np.lexsort((np.arange(len(keys)), keys[:, 1], keys[:, 0]))
    new = np.ones(len(keys), dtype=bool)
    new[1:] = (keys[order][1:] != keys[order][:-1]).any(axis=1)
    first = np.empty(len(keys), dtype=np.int64)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return first
