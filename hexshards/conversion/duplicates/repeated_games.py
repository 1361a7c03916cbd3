"""Repeated games, equal move for move, are found over all files before any is read for its positions.

Formats of whole games give a key for each: equal for the same moves and winner, also when all is turned by 180 degrees.
The first game of a key, by name and contents of its file and its place there, stays; the others are left out, or kept
in the same split. Memory: 50 bytes a game.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.duplicates.same_games import changes
from hexshards.conversion.executors.runner import Runner
from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.read_sources import games_of_each
from hexshards.conversion.sorted_runs import save_arrays
from hexshards.conversion.sources import Games, Input, ListsGames, Twin, formats, source_name
from hexshards.errors import DataError

_LISTED = np.dtype([("keys", "<u8", (2,)), ("game", "<i4"), ("file", "<i4")])


class _List(NamedTuple):
    """The games of one file."""

    file: Input
    sha256: str
    games: Games


def holds_games(file: Input) -> bool:
    """Whether a file's format is one of whole games."""
    return isinstance(formats()[file.format], ListsGames)


def without_repeats(
    groups: Sequence[tuple[Sequence[Input], Path]],
    *,
    spec: ConvertSpec,
    runner: Runner,
    at_once: int,
    tell: Callable[[], None] = lambda: None,
) -> tuple[dict[Input, Input], int]:
    """Files of games, each with itself told which of its games are repeats; and how many those are.

    Each group of files comes with a path at which the list of its games is kept, so that it is made once. tell: is
    called after each group.
    """
    lists = list[_List]()
    for group in runner.each(partial(_list_games, spec=spec), groups, at_once=at_once):
        lists += group
        tell()
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


def _list_games(files: Sequence[Input], kept: Path, *, spec: ConvertSpec) -> list[_List]:
    """The games of some files; those that will be refused when they are read are left out."""
    path = kept.with_name(f"{kept.name}.games")
    if not path.exists():
        _keep_lists(path, [_listed(*listed) for listed in games_of_each(files, spec=spec)])
    with open(path, "rb") as opened:
        sums, rows = (np.load(opened, allow_pickle=False) for _ in range(2))
    ends = np.searchsorted(rows["file"], np.arange(len(files) + 1))
    games = [Games(rows["keys"][start:end], rows["game"][start:end]) for start, end in pairwise(ends.tolist())]
    each = zip(files, sums.tolist(), games, strict=True)
    return [_List(file, digest.decode(), listed) for file, digest, listed in each if digest]


def _listed(sha256: str, games: Games | DataError) -> tuple[str, Games]:
    """A file's checksum and games; nothing of one that will be refused when it is read."""
    if isinstance(games, DataError):
        return "", Games(np.zeros((0, 2), dtype=np.uint64), np.zeros(0, dtype=np.int32))
    return sha256, games


def _keep_lists(path: Path, lists: Sequence[tuple[str, Games]]) -> None:
    """Write the checksums of some files and all their games, each with the number of its file."""
    sizes = [len(games.games) for _, games in lists]
    rows = np.zeros(sum(sizes), dtype=_LISTED)
    rows["keys"] = np.concatenate([games.keys for _, games in lists])
    rows["game"] = np.concatenate([games.games for _, games in lists])
    rows["file"] = np.repeat(np.arange(len(lists)), sizes)
    save_arrays(path, np.array([digest for digest, _ in lists], dtype="S64"), rows)


def _first_of_each(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The place of the first row equal to each row."""
    order = np.lexsort((np.arange(len(keys)), keys[:, 1], keys[:, 0]))
    new = changes(*keys[order].T)
    first = np.empty(len(keys), dtype=np.int64)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return first
