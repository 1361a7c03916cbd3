"""Source files compared with each other: who wins in each, how long its games are, how much of the board it uses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexshards.errors import printable
from hexshards.reports.sample import Sample
from hexshards.units import counted

FAR = 5.0
"""Standard deviations from the other files, beyond which a file is odd: once in two million by chance."""

SHARE_APART, LENGTH_APART = 0.1, 0.1
"""How far a file's share of BLUE's wins, and its mean length in proportion, must be off besides."""

ENOUGH_GAMES = 30
"""Games of a file from which on it may be called odd, or its boards smaller than they look."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceFiles:
    """Source files (F) by their numbers in the index, from the games of a sample."""

    names: tuple[str, ...]
    games: NDArray[np.int64]
    blue: NDArray[np.float64]
    """The share of its games that BLUE won, NaN for none."""
    length: NDArray[np.float64]
    """Mean stones at the end of its games."""
    reach: NDArray[np.int64]
    """The highest row or column, counted from 1, in which one of its stones stands."""
    mean_blue: float
    odd_winners: tuple[int, ...]
    odd_lengths: tuple[int, ...]
    small_boards: tuple[int, ...]

    @property
    def odd(self) -> tuple[int, ...]:
        """Files that are odd in any way."""
        return tuple(sorted({*self.odd_winners, *self.odd_lengths, *self.small_boards}))

    def name(self, file: int) -> str:
        """As a person may see it."""
        return printable(self.names[file])

    def hint(self, file: int) -> str:
        """What is known of one."""
        return f"{self.name(file)}: BLUE won {self.blue[file]:.0%} of {counted(self.games[file], 'game')} met"


def source_files(sample: Sample) -> SourceFiles:
    """Compare the files of a sample."""
    positions, rows = sample.upright, sample.games
    files, side = len(sample.index.sources), sample.index.side
    source = positions.source[rows].astype(np.int64)
    games = np.bincount(source, minlength=files)
    value = positions.value[rows].astype(np.float64)
    plies = positions.plies[rows].astype(np.float64)
    plies[plies < 0] = math.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        blue = 1 - np.bincount(source, weights=value, minlength=files) / games
        length = np.bincount(source, weights=plies, minlength=files) / games
    mean_blue = float(1 - value.mean()) if len(value) else math.nan
    enough = games >= ENOUGH_GAMES
    spread = math.sqrt(max(mean_blue * (1 - mean_blue), 0.0)) if len(value) else math.nan
    off = np.abs(blue - mean_blue)
    deviation = float(np.nanstd(plies)) if np.isfinite(plies).any() else math.nan
    mean_length = float(np.nanmean(plies)) if np.isfinite(plies).any() else math.nan
    apart = np.abs(length - mean_length)
    root = np.sqrt(np.maximum(games, 1))
    reach = _reach(sample)
    return SourceFiles(
        names=sample.index.sources,
        games=games,
        blue=blue,
        length=length,
        reach=reach,
        mean_blue=mean_blue,
        odd_winners=_numbers(enough & (off > SHARE_APART) & (off * root > FAR * spread)),
        odd_lengths=_numbers(enough & (apart > LENGTH_APART * mean_length) & (apart * root > FAR * deviation)),
        small_boards=_numbers(enough & (reach < side)),
    )


def _numbers(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask).tolist())


def _reach(sample: Sample) -> NDArray[np.int64]:
    """Rows and columns that each file's stones come to."""
    positions, side = sample.positions, sample.index.side
    reach = np.zeros(len(sample.index.sources), dtype=np.int64)
    order = np.argsort(positions.source, kind="stable")
    numbers, first = np.unique(positions.source[order], return_index=True)
    stones = np.bitwise_or.reduceat(positions.stones[order], first, axis=0)
    planes = np.unpackbits(stones, axis=1, count=2 * side * side).reshape(-1, 2, side, side)
    bits = np.asarray(planes.any(axis=1))
    for number, board in zip(numbers.tolist(), bits, strict=True):
        used = np.flatnonzero(board.any(axis=0) | board.any(axis=1))
        reach[number] = used.max() + 1 if len(used) else 0
    return reach
