"""Shuffle window, the unit of reading: its blocks are fetched, checked, decompressed and shuffled together, at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.dataset.blocks import Columns
from hexshards.dataset.filters import Selection
from hexshards.dataset.layout import Shard
from hexshards.errors import DataError
from hexshards.game.columns import VISITS, declared
from hexshards.game.positions import as_distributions
from hexshards.loading import mixture, order
from hexshards.loading.expansion.expand import Rows, rows_of
from hexshards.loading.expansion.extra_columns import ExtraColumns, check_rules, extra_columns, weight_rules, weighted
from hexshards.loading.expansion.policy_targets import PolicyTarget, check_searched, search_shares
from hexshards.loading.gather.rows import Gather
from hexshards.loading.options import LoaderSpec
from hexshards.loading.order import EpochPlan, Window
from hexshards.loading.threads import SharedWork
from hexshards.storage.files import Home
from hexshards.storage.remote import Unreachable

COLUMNS = ("stones", "player", "policy", "value")
"""What a sample is made of; the other columns stay on disk."""

DERIVED = ("place", "symmetry")
"""What is known of a row besides: a number of its own in the split, and the symmetry that it is to be shown in."""

SHARED_BYTES = 200_000
"""Bytes of a block's rows from which on whoever waits decodes too: 3,922 rows at side 13. What less takes is mostly
Python's, of which two threads do no more than one."""

NOWHERE: Columns = {}
"""No arrays to write to: fresh ones are made."""


class Mixed(NamedTuple):
    """The rows of a window in the order in which they are delivered, and what others stand in for."""

    rows: Rows
    damage: tuple[DataError, ...]
    """A finding for each block that could not be read, with ``on_error="skip"``."""
    lost: int
    """Rows of those blocks."""


class Windows:
    """The windows of one epoch by number. One thread at a time may read.

    ``first``: the number of the epoch's first sample among those of all epochs.
    """

    def __init__(self, selections: Sequence[Selection], plan: EpochPlan, spec: LoaderSpec, *, first: int = 0) -> None:
        self.selections, self.spec, self.plan, self.first = selections, spec, plan, first
        layouts = [selection.index.layout for selection in selections]
        self.softened = len({layout.soft for layout in layouts}) > 1
        softest = max(layouts, key=lambda layout: layout.soft).columns()
        self.rules = weight_rules(spec.weights)
        optional = [each for layout in layouts for each in layout.optional]
        asked = (*spec.columns, *(("weight",) if self.rules else ()))
        self.extra: ExtraColumns | None = extra_columns(asked, optional, declared(soft=False), side=layouts[0].side)
        """What was asked for beside that."""
        self.columns = {**{name: softest[name] for name in COLUMNS}, "symmetry": (np.dtype(np.uint8), ())}
        """Dtype and shape per row of what a batch is made of."""
        self.target: PolicyTarget | None = None
        shares = search_shares(spec.policy)
        if shares.most:
            check_searched(layouts)
            cells = layouts[0].side ** 2
            self.target = PolicyTarget(shares, soft=any(layout.soft for layout in layouts), cells=cells)
            self.columns["policy"] = self.target.field
        self._shows_visits = VISITS.name in spec.columns
        self._besides: tuple[str, ...] = (VISITS.name,) if self.target else ()
        if self.extra:
            self.columns["columns"] = (self.extra.record, ())
            needed = (*self.extra.reads, *(name for rule in self.rules for name in rule.where.columns))
            self._besides = tuple(dict.fromkeys((*self._besides, *needed)))
        self._kinds = {each.name: each for each in optional}
        check_rules(self.rules, {name: kind for layout in layouts for name, kind in layout.kinds.items()})
        self._gather = Gather()
        self._row_bytes = sum(dtype.itemsize * prod(shape) for dtype, shape in self.columns.values())
        self.shared = SharedWork()
        """What of a window's making is done by those who wait for it too."""

    def __len__(self) -> int:
        return len(self.plan.windows)

    def rows_of(self, number: int) -> int:
        """How many rows window ``number`` delivers."""
        return int(self.plan.starts[number + 1] - self.plan.starts[number])

    @property
    def most_rows(self) -> int:
        """Rows of the largest window."""
        return int(np.diff(self.plan.starts).max())

    def mix(self, number: int, into: Columns) -> Mixed:
        """Read and shuffle window ``number``; its rows go to arrays of the right size, or to fresh ones."""
        if self.target:
            self.target.stand_at(self.first + self.plan.sample_of(number))
        window = self.read(number, (*COLUMNS, *self._besides), into)
        if self.extra:
            window.columns["columns"] = self.extra.packed(window.columns)
        for name, column in into.items():
            if window.columns[name] is not column:
                column[...] = window.columns[name]
        columns = {**window.columns, **into}
        rows = rows_of({name: columns[name] for name in self.columns})
        return Mixed(rows, window.damage, window.lost)

    def read(self, number: int, names: Sequence[str], into: Columns = NOWHERE) -> WindowColumns:
        """Any columns of window ``number``, and ``symmetry``, in the order in which its rows are delivered.

        A column for which there is an array ``into`` which it fits is written there.
        """
        window = self.plan.windows[number]
        if isinstance(window, Window):
            return self._shuffled(window, names, into)
        runs = [self._shuffled(run, names, NOWHERE) for run in window.runs]
        rows = mixture.sequence(window, spec=self.spec)
        return WindowColumns(
            {
                name: self._gather.take([run.columns[name] for run in runs], rows, into.get(name))
                for name in runs[0].columns
            },
            tuple(error for run in runs for error in run.damage),
            sum(run.lost for run in runs),
        )

    def side_by_side(self, numbers: Sequence[int]) -> int:
        """How many streams these windows are of: so many are in use at a time."""
        return len({self.plan.stream_of(number) for number in numbers})

    def shards_of(self, number: int) -> Iterator[tuple[Home, Shard]]:
        """The shards that window ``number`` reads from."""
        window = self.plan.windows[number]
        for run in (window,) if isinstance(window, Window) else window.runs:
            blocks = self.selections[run.dataset].blocks
            for shard in np.unique(np.searchsorted(blocks.first, run.blocks, side="right") - 1):
                yield blocks.home, blocks.shards[shard]

    def _shuffled(self, window: Window, names: Sequence[str], into: Columns) -> WindowColumns:
        """Shuffle the rows of a window that are of one dataset."""
        selection = self.selections[window.dataset]
        held = selection.index.layout.kinds
        lacking = [name for name in names if name not in held and name not in DERIVED]
        placed, names = "place" in names, tuple(name for name in names if name in held)
        sizes = selection.rows_in(window.epoch)[window.blocks]
        count = int(sizes.sum()) if window.count is None else window.count
        shared = self.shared if count * self._row_bytes >= SHARED_BYTES * len(window.blocks) else SharedWork()
        drawn = shared.begin(order.window_rows, window, count, spec=self.spec)
        read = selection.read(window.blocks, names, epoch=window.epoch, mapped=shared.map)
        damage = tuple(block for block in read if isinstance(block, DataError))
        blocks = self._without_gaps(selection, window, read)
        lost = sum(int(size) for block, size in zip(read, sizes, strict=True) if isinstance(block, DataError))
        targets = list[NDArray[Any]]()
        if self.target and VISITS.name in names:
            targets = [self.target.packed((block["policy"], block[VISITS.name]) for block in blocks)]
            names = tuple(name for name in names if name != VISITS.name or self._shows_visits)
        rows = drawn.result()
        if window.skip:
            rows += window.skip
        parts = {name: [block[name] for block in blocks] for name in (*names, *(("place",) if placed else ()))}
        if targets:
            parts["policy"] = targets
        # a byte is quicker to move than a place
        places = np.concatenate([block["place"] for block in blocks])
        parts["symmetry"] = [order.symmetries(places, window, augment=self.spec.augment, seed=self.spec.seed)]
        columns = {name: self._gather.take(part, rows, into.get(name)) for name, part in parts.items()}
        if self.softened and "policy" in names and columns["policy"].ndim == 1:
            columns["policy"] = as_distributions(columns["policy"], cells=selection.index.side**2)
        columns |= {name: self._kinds[name].unknowns(len(rows), side=selection.index.side) for name in lacking}
        if self.rules and "weight" in names:
            columns["weight"] = weighted(columns, self.rules, selection.index.sources)
        return WindowColumns(columns, damage, lost)

    def _without_gaps(self, selection: Selection, window: Window, read: Sequence[Columns | DataError]) -> list[Columns]:
        """Replace the blocks that could not be read by rows of the sound ones.

        A window keeps its length, so that batches, steps and states do not depend on which rank met the damage.
        """
        sound = [block for block in read if not isinstance(block, DataError)]
        damage = [block for block in read if isinstance(block, DataError)]
        lasting = [error for error in damage if isinstance(error, Unreachable) or self.spec.on_error == "raise"]
        if lasting or (damage and not sound):
            raise (lasting or damage)[0]
        if not damage:
            return sound
        joined = {name: np.concatenate([block[name] for block in sound]) for name in sound[0]}
        whole, taken = list[Columns](), 0
        for number, block in zip(window.blocks.tolist(), read, strict=True):
            if isinstance(block, DataError):
                size = int(selection.rows_in(window.epoch)[number])
                rows = np.arange(taken, taken + size) % len(joined["place"])
                taken += size
                lent = {name: column[rows] for name, column in joined.items()}
                whole.append({**lent, "place": selection.places(number)[:size]})
            else:
                whole.append(block)
        return whole


class WindowColumns(NamedTuple):
    """Columns of a window, and as in Mixed what could not be read."""

    columns: dict[str, NDArray[Any]]
    damage: tuple[DataError, ...]
    lost: int
