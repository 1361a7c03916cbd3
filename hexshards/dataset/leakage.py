"""Data leakage: validation or test positions that training shows too, the same board and player, in whatever symmetry.

Real games leak by themselves near the empty board, where few boards are possible; further on, what leaks says how far
validation measures memory. Boards are compared by 64-bit hashes: at 2 million against 97 million, two different ones
are taken for equal once in 100,000 runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hexshards.dataset.blocks import Blocks
from hexshards.dataset.index import Index, read_index
from hexshards.errors import DataError
from hexshards.game.positions import Positions
from hexshards.game.symmetry import canonical, stone_keys, upright
from hexshards.rng import Words
from hexshards.storage.files import Home
from hexshards.storage.remote import home_of

_TOGETHER = 16
"""Blocks read at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leakage:
    """How many validation positions there are, by the stones on the board, and how many of these training shows.

    Of any two splits: validation stands for the one that is compared, training for the other.
    """

    validation: tuple[int, ...]
    leaked: tuple[int, ...]


def leakage(
    dataset: str | Path | Home,
    *,
    of: str = "val",
    against: str = "train",
    progress: Callable[[int, int], None] | None = None,
) -> Leakage:
    """Measure leakage: compare every validation position with every training position, or those of two other splits.

    ``progress`` is told positions done and in all. Memory: about 50 bytes a validation position, and a few blocks.
    Raises DataError where the dataset lacks one of its splits, or a block is damaged.
    """
    home, index = home_of(dataset), read_index(dataset)
    if not {of, against} <= index.splits.keys():
        problem = f"has no validation positions to compare (only {', '.join(index.splits)})"
        raise DataError(problem, where=str(home), fix="Convert with --val-fraction")
    total, done = sum(index.splits[name].positions for name in (of, against)), 0
    keys, plies = list[Words](), list[NDArray[np.int16]]()
    for positions in _read(home, index, of):
        keys.append(board_keys(positions, index))
        plies.append(positions.ply)
    distinct, place = np.unique(np.concatenate(keys), return_inverse=True)
    shown = np.zeros(len(distinct), dtype=bool)
    for positions in _read(home, index, against):
        trained = board_keys(positions, index)
        at = np.minimum(np.searchsorted(distinct, trained), len(distinct) - 1)
        shown[at[distinct[at] == trained]] = True
        done += len(positions)
        if progress:
            progress(done + len(place), total)
    ply = np.concatenate(plies)
    cells = index.side**2 + 1
    return Leakage(
        validation=tuple(np.bincount(ply, minlength=cells).tolist()),
        leaked=tuple(np.bincount(ply[shown[place]], minlength=cells).tolist()),
    )


def board_keys(positions: Positions, index: Index) -> Words:
    """A word for each position that is the same for its four images, and as good as random otherwise."""
    # who is to move follows from the stones, once their colours are those of a game that BLUE began
    return stone_keys(canonical(upright(positions) if index.baked else positions).stones, seed=0)


def _read(home: Home, index: Index, split: str) -> Iterator[Positions]:
    blocks, names = Blocks(home, index, split), tuple(index.layout.columns())
    for first in range(0, len(blocks), _TOGETHER):
        for columns in blocks.read(np.arange(first, min(first + _TOGETHER, len(blocks))), names):
            if isinstance(columns, DataError):
                raise columns
            yield Positions.of(index.side, columns, index.layout.optional)
