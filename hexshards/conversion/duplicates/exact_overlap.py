"""Overlap of files counted exactly, by game and board: shards are read again once an estimate tells that there is any.

Legend of shapes: P positions, B different pairs of game and board.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.duplicates.overlaps import Overlap
from hexshards.dataset.index import Index
from hexshards.dataset.layout import Shard
from hexshards.dataset.shard import open_shard
from hexshards.dataset.split import game_keys
from hexshards.game.columns import UNKNOWN
from hexshards.game.symmetry import stone_keys
from hexshards.rng import Words, mix
from hexshards.storage.files import Folder

MAX_POSITIONS, MAX_READ = 1 << 21, 1 << 24
"""Positions whose overlap is counted, which takes 40 bytes of each, and those of the shards that are read for it."""


class Boards(NamedTuple):
    """Of positions that say which game they are from: a word of the game, and one of game and board."""

    games_P: Words
    boards_P: Words


def boards_of(sources: Sequence[str], columns: Mapping[str, NDArray[Any]]) -> Boards:
    """The words of positions, of their columns source, game and stones; ``sources`` are the names of the first."""
    known = np.flatnonzero(columns["game"] != UNKNOWN)
    games = game_keys(sources, columns["source"][known], columns["game"][known])
    return Boards(games, mix(games ^ stone_keys(columns["stones"][known], seed=0)))


def boards_of_shards(shards: Iterable[Shard], *, folder: Path, index: Index) -> Iterator[Boards]:
    """The words of shards that are read, block by block."""
    for shard in shards:
        with open_shard(Folder(folder), shard) as file:
            for number in range(len(shard.block_bytes)):
                names = ("source", "game", "stones")
                columns = file.read_block(number, layout=index.layout, sources=len(index.sources), names=names)
                yield boards_of(index.sources, columns)


def joined(boards: Iterable[Boards]) -> Boards:
    """All of them as one."""
    parts = [Boards(np.zeros(0, np.uint64), np.zeros(0, np.uint64)), *boards]
    return Boards(*(np.concatenate(words) for words in zip(*parts, strict=True)))


def held_already(ours: Boards, held: Iterable[Boards]) -> Overlap:
    """How many of our positions are among others, which may hold them several times."""
    boards_B, place_P = np.unique(ours.boards_P, return_inverse=True)
    met_B = np.zeros(len(boards_B), dtype=np.bool_)
    for each in held:
        if len(boards_B):
            place = np.minimum(np.searchsorted(boards_B, each.boards_P), len(boards_B) - 1)
            met_B[place[boards_B[place] == each.boards_P]] = True
    return _counted(ours.games_P[met_B[place_P]])


def several_times(ours: Boards) -> Overlap:
    """How many of our positions are there once more, each as often as it is."""
    order = np.argsort(ours.boards_P)
    boards = ours.boards_P[order]
    return _counted(ours.games_P[order[1:][boards[1:] == boards[:-1]]])


def _counted(games: Words) -> Overlap:
    return Overlap(len(np.unique(games)), len(games))
