"""Exact repeats of a game are found over all files, before any is read for its positions.

Formats of whole games give a key for each: equal for the same moves and winner, also when all is turned by 180 degrees.
The first game of a key, by name and contents of its file and its place there, stays; the others are left out, or kept
beside it in the same split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hexshards.engines import Runner
from hexshards.errors import DataError
from hexshards.sources import Games, Input, Twin, formats, source_name
from hexshards.specs import ConvertSpec


def without_repeats(files: Sequence[Input], *, spec: ConvertSpec, runner: Runner) -> tuple[list[Input], int]:
    """The same files, told which of their games are repeats, and how many repeats there are. Memory: 50 bytes a game."""
    known = formats()
    asked = [(file,) for file in files if hasattr(known[file.format], "games")]
    listed = list(runner.each(partial(_list_games, spec=spec), asked))
    listed = sorted(
        (entry for entry in listed if entry[2] is not None), key=lambda entry: (entry[0].path.name, entry[1])
    )
    if not listed:
        return list(files), 0
    keys = np.concatenate([games.keys for _, _, games in listed if games])
    first = _first_of_each(keys)
    told: dict[Input, Input] = {}
    ends = np.cumsum([0, *(len(games.games) for _, _, games in listed if games)])
    for place, (file, _, games) in enumerate(listed):
        assert games is not None
        mine = np.arange(ends[place], ends[place + 1])
        repeats = np.flatnonzero(first[mine] != mine)
        numbers = games.games[repeats].tolist()
        if not spec.keep_duplicates:
            told[file] = replace(file, skip=tuple(numbers))
            continue
        others = first[mine][repeats]
        homes = np.searchsorted(ends, others, side="right") - 1
        told[file] = replace(
            file,
            twins=tuple(
                Twin(number, source_name(listed[home][0].path.name), int(_games(listed[home])[other - ends[home]]))
                for number, home, other in zip(numbers, homes.tolist(), others.tolist(), strict=True)
            ),
        )
    return [told.get(file, file) for file in files], int((first != np.arange(len(first))).sum())


def _games(entry: tuple[Input, str, Games | None]) -> NDArray[np.int32]:
    assert entry[2] is not None
    return entry[2].games


def _list_games(file: Input, *, spec: ConvertSpec) -> tuple[Input, str, Games | None]:
    """A file's contents by name, and its games; None where it will be refused when it is read."""
    data = file.path.read_bytes()
    converter = formats()[file.format]
    try:
        games = converter.games(data, name=file.path.name, where=str(file.path), spec=spec)  # type: ignore[union-attr]
    except DataError:
        games = None
    return file, hashlib.sha256(data).hexdigest(), games


def _first_of_each(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The place of the first row equal to each row."""
    order = np.lexsort((np.arange(len(keys)), keys[:, 1], keys[:, 0]))
    new = np.ones(len(keys), dtype=bool)
    new[1:] = (keys[order][1:] != keys[order][:-1]).any(axis=1)
    first = np.empty(len(keys), dtype=np.int64)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return first
