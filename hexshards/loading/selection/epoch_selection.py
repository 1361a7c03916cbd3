"""Selection of an epoch: shards and filters, of these the newest, of these so many a game, of these a share.

Each step is a pure function of index, options and epoch, and how many rows it leaves of each block is known before any
is delivered. What reads no column costs nothing but the index: shards, and a window by additions. Filters, a window by
generations and a limit per game read the columns that they look at once, when the loader is made, of those blocks that
the steps before leave.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hexshards.dataset.blocks import Columns
from hexshards.dataset.filters import Filter, Selection, even_shares
from hexshards.dataset.index import Index
from hexshards.dataset.merged_shards import ages
from hexshards.errors import escaped
from hexshards.loading.options import LoaderSpec
from hexshards.loading.order import Walk, per_stream
from hexshards.loading.selection.game_ranks import GameRanks
from hexshards.loading.selection.newest import Generations, NewestRows, newest_by_age, newest_by_shard
from hexshards.loading.selection.replay_window import ReplayWindow
from hexshards.storage.files import Home
from hexshards.units import counted

_HELD = 4
"""Epochs whose rows are remembered: a mix is in two at a time."""


class EpochSelection(Selection):
    """What the epochs of a loader draw from one dataset. Raises ValueError where nothing is left.

    ``limit``: so many positions, the same in every epoch.
    """

    def __init__(self, home: Home, index: Index, spec: LoaderSpec, *, limit: int | None) -> None:
        self.window, self.per_game = ReplayWindow.parse(spec.window), spec.per_game
        if self.window.keep and limit is not None:
            raise ValueError("window has keep, and positions is another limit: give one of them")
        self._newest: NewestRows | None = None
        self._ranks: GameRanks | None = None
        self._epochs: dict[int, tuple[NDArray[np.int64], Share | None]] = {}
        plain = not str(self.window) and self.per_game is None
        super().__init__(
            home,
            index,
            spec.split,
            where=Filter.parse(spec.where),
            limit=limit if plain else None,
            sources=spec.sources,
            shards=spec.shards,
        )
        self._limit, self._limited = (None if plain else self.window.keep or limit), limit is not None
        self._newest = self._cut(self.window.size(self.kept))
        if self._newest:
            self.block_rows = self._newest.rows
        self.in_window = int(self.block_rows.sum()) if self._newest else self.kept
        self._starts = np.cumsum(self.block_rows) - self.block_rows
        if self.per_game is not None:
            self._ranks = GameRanks(self._games(), seed=spec.seed)
        self.walk = None if plain and not (spec.sources or spec.shards) else self._walk(spec)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that say which rows are used."""
        return tuple(dict.fromkeys((*super().columns, *(self._newest.columns if self._newest else ()))))

    @property
    def chosen(self) -> bool:
        """Whether anything but a number of positions chooses."""
        return super().chosen or bool(self._newest or self._ranks or self.window.keep)

    @property
    def ages(self) -> range | None:
        """Which positions an epoch draws from, of those that filters leave, numbered from the oldest on.

        None where these are no such range: shards are left out, time is a column, or the same share is always taken.
        """
        by_column = self._newest is not None and self._newest.oldest is not None
        always_the_same = self._limited and not self.window.keep
        if by_column or always_the_same or self._named_shards:
            return None
        return range(self.kept - self.in_window, self.kept)

    @property
    def positions(self) -> int:
        """Positions that an epoch uses, the same number in each."""
        return int(self.rows_in(0).sum())

    def rows_in(self, epoch: int) -> NDArray[np.int64]:
        """Rows that each block gives in an epoch."""
        rows, share = self._of_epoch(epoch)
        return share.given() if share else rows

    def _of_epoch(self, epoch: int) -> tuple[NDArray[np.int64], Share | None]:
        """Rows of each block after the limit per game, and which of these are the epoch's share."""
        if epoch not in self._epochs:
            rows = self.block_rows
            if self._ranks and self.per_game:
                rows = self._ranks.rows(rows, epoch=epoch, most=self.per_game)
            share = None
            if self._limit is not None:
                share = Share.of(rows, self.blocks.first, self._limit, turn=epoch if self.window.keep else 0)
            self._epochs = dict([*self._epochs.items()][1 - _HELD :]) | {epoch: (rows, share)}
        return self._epochs[epoch]

    def _rows(self, block: int, columns: Columns, epoch: int) -> slice | NDArray[np.int64]:
        if not (self._newest or self._ranks or self._limit):
            return super()._rows(block, columns, epoch)
        rows, (_, share) = self._window_rows(block, columns), self._of_epoch(epoch)
        if self._ranks and self.per_game:
            first = int(self._starts[block])
            rows = rows[self._ranks.chosen(first, first + len(rows), epoch=epoch, most=self.per_game)]
        return share.cut(block, rows) if share else rows

    def _window_rows(self, block: int, columns: Columns) -> NDArray[np.int64]:
        """Which rows of a block are in the window."""
        rows = self._meeting(columns) if self.filters else np.arange(int(self.blocks.rows[block]))
        return self._newest.cut(block, columns, rows) if self._newest else rows

    def _cut(self, count: int) -> NewestRows | None:
        """The newest rows, so many of those that filters leave; None where that is all of them."""
        if count == self.kept:
            return None
        if self.window.by == "addition":
            return self._by_age(newest_by_shard(self.block_rows, count))
        if "generation" not in self.index.layout.columns():
            raise ValueError(
                f"{escaped(self.home)}: window: by=generation needs the column generation, which this dataset lacks. "
                "Leave it out: then time is the order in which shards were added"
            )
        generations = Generations()
        for blocks in self._shards_with(self.block_rows):
            for block, columns in self._columns_of(blocks, (*super().columns, "generation")):
                rows = self._meeting(columns) if self.filters else slice(None)
                generations.add(block, columns["generation"][rows])
        return generations.newest(count, blocks=len(self.blocks))

    def _by_age(self, newest: NewestRows) -> NewestRows:
        """The window as it is where it begins in a merged shard, whose rows are not in the order of time."""
        shard = self._first_shard(newest)
        first, end = self.blocks.first[shard : shard + 2].tolist()
        parts = self.index.parts_of(self.blocks.shards[shard])
        if len(parts) == 1 or not newest.skip[first:end].any():
            return newest
        each = np.split(ages(parts), np.cumsum(self.blocks.rows[first : end - 1]))
        for block, columns in self._columns_of(np.arange(first, end), super().columns) if self.filters else ():
            kept = np.zeros(len(each[block - first]), dtype=np.bool_)
            kept[self._meeting(columns)] = True
            each[block - first][~kept] = -1
        return newest_by_age(newest, first, each)

    def _first_shard(self, newest: NewestRows) -> int:
        """Number of the shard that the window begins in."""
        return int(np.flatnonzero(np.add.reduceat(newest.rows, self.blocks.first[:-1]))[0])

    def _walk(self, spec: LoaderSpec) -> Walk:
        """The shards that have rows: as ever without a choice, for an order that was is never changed."""
        shards = np.flatnonzero(np.add.reduceat(self.block_rows, self.blocks.first[:-1]))
        return Walk(shards=shards, window_rows=per_stream(spec.window_blocks, spec) * self.index.layout.block_positions)

    def _games(self) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.int32]]]:
        """The columns ``source`` and ``game`` of the rows in the window, shard by shard."""
        for blocks in self._shards_with(self.block_rows):
            games, sources = list[NDArray[np.int32]](), list[NDArray[np.uint32]]()
            for block, columns in self._columns_of(blocks, (*self.columns, "source", "game")):
                rows = self._window_rows(block, columns)
                games.append(columns["game"][rows])
                sources.append(columns["source"][rows])
            yield np.concatenate(sources), np.concatenate(games)

    def _shards_with(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """The blocks that have rows, shard by shard."""
        for first, end in pairwise(self.blocks.first.tolist()):
            blocks = first + np.flatnonzero(rows[first:end])
            if len(blocks):
                yield blocks

    def __str__(self) -> str:
        parts, count = self._filtered(), self.in_window
        if self._newest:
            parts.append(
                f"window {self.window.shown}: the newest {count:,} of {counted(self.kept, 'position')}, the oldest of "
                f"them {self._oldest(self._newest)}"
            )
        if self._ranks and self.per_game:
            shown = int(self._of_epoch(0)[0].sum())
            none = f", and {self._ranks.without_game:,} that say no game" if self._ranks.without_game else ""
            parts.append(
                f"{shown:,} of {counted(count, 'position')} an epoch, at most {self.per_game:,} of each of "
                f"{counted(self._ranks.games, 'game')}{none}, others in the next"
            )
            count = shown
        if self.window.keep and self.positions < count:
            parts.append(f"{self.positions:,} of {counted(count, 'position')} an epoch, others in the next")
        elif self.positions < count:
            parts.append(self._used_of(count))
        return "; ".join(parts)

    def _oldest(self, newest: NewestRows) -> str:
        """Where the window begins, in words, and how much of that is in it."""
        if newest.oldest is not None:
            old = int(newest.skip.sum())
            part = f", of which {old:,} {'is' if old == 1 else 'are'} too old" if old else ""
            return f"of generation {newest.oldest}{part}"
        shard = self._first_shard(newest)
        blocks = slice(*self.blocks.first[shard : shard + 2].tolist())
        held, old = int(newest.rows[blocks].sum()), int(newest.skip[blocks].sum())
        part = f" ({held:,} of its {held + old:,})" if old else ""
        return f"in {self.blocks.shards[shard].name}{part}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Share:
    """An even share of the shards' rows, from a place in each shard on that each turn moves by the share, and round."""

    rows: NDArray[np.int64]
    """Of each block, as are the others."""
    before: NDArray[np.int64]
    """Rows of its shard before it."""
    held: NDArray[np.int64]
    """Rows of its shard."""
    first: NDArray[np.int64]
    """The first row of its shard that is taken."""
    count: NDArray[np.int64]
    """How many rows of its shard are taken."""

    @classmethod
    def of(cls, rows: NDArray[np.int64], first_block: NDArray[np.int64], limit: int, *, turn: int) -> Share:
        """The share of ``limit`` rows that comes in a turn."""
        starts = np.concatenate([[0], np.cumsum(rows)])
        held, count = np.diff(starts[first_block]), even_shares(rows, first_block, limit)
        homes = np.repeat(np.arange(len(held)), np.diff(first_block))
        first = count * (turn % np.maximum(held, 1)) % np.maximum(held, 1)
        return cls(
            rows=rows,
            before=starts[:-1] - starts[first_block][homes],
            held=held[homes],
            first=first[homes],
            count=count[homes],
        )

    def given(self) -> NDArray[np.int64]:
        """Rows that each block gives."""
        end = self.first + self.count
        given: NDArray[np.int64] = self._within(self.first, end) + self._within(self.first - self.held, end - self.held)
        return given

    def _within(self, first: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        overlap = np.minimum(end, self.before + self.rows) - np.maximum(first, self.before)
        within: NDArray[np.int64] = np.maximum(overlap, 0)
        return within

    def cut(self, block: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of a block's rows that are in the share."""
        places = self.before[block] + np.arange(len(rows)) - self.first[block]
        taken: NDArray[np.int64] = rows[places % max(int(self.held[block]), 1) < self.count[block]]
        return taken
