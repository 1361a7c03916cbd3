"""Facts of a dataset for people, from its index alone: what a notebook shows of it, and a report says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from hexshards.drawing.charts import Kind, Series, chart
from hexshards.drawing.svg import Element
from hexshards.drawing.tables import Table, facts, summary, table
from hexshards.errors import printable
from hexshards.units import counted, show_bytes

if TYPE_CHECKING:
    from hexshards.dataset.index import Index

LISTED_OPTIONS = 100
"""Options that are named: releases have a dozen, and an index may say anything."""

SPLIT_KINDS: tuple[Kind, ...] = ("bars", "line", "dashed")
"""How the numbers of train, of val and of test are drawn."""


def summary_of(index: Index) -> str:
    """What a notebook shows of a dataset."""
    return summary(lead(index), table(splits(index)), facts(facts_of(index)), plies_chart(index))


def lead(index: Index) -> str:
    """A dataset in a sentence."""
    positions = sum(split.positions for split in index.splits.values())
    games = sum(split.games for split in index.splits.values())
    return (
        f"{counted(positions, 'position')} of {counted(games, 'game')} of Hex on boards of {index.side} by "
        f"{index.side}, from {counted(len(index.inputs), 'source file')}."
    )


def splits(index: Index) -> Table:
    """A row for each split."""
    heads = ["Split", "Positions", "Games", "Shards", "BLUE won", "RED won", "Without a move", "Stones"]
    return Table(heads=heads, rows=[_split(index, name) for name in index.splits], numbers=range(1, len(heads)))


def _split(index: Index, name: str) -> Sequence[str]:
    split = index.splits[name]
    plies = np.array(split.plies)
    used = np.flatnonzero(plies)
    mean = float((np.arange(len(plies)) * plies).sum() / plies.sum())
    counts = (split.positions, split.games, len(split.shards))
    shares = (split.blue_wins, split.red_wins, split.without_policy)
    return [
        name,
        *(f"{count:,}" for count in counts),
        *(f"{share / split.positions:.1%}" for share in shares),
        f"{used[0]} to {used[-1]}, mean {mean:.1f}",
    ]


def facts_of(index: Index) -> Iterator[tuple[str, str]]:
    """How a dataset is stored and what it was made with."""
    shards = [shard for split in index.splits.values() for shard in split.shards]
    layout = index.layout
    yield "Size", f"{show_bytes(sum(shard.size_bytes for shard in shards))} in {counted(len(shards), 'shard')}"
    yield "Codec", f"{layout.codec}, blocks of {counted(layout.block_positions, 'position')}"
    yield "Format", f"version {index.version}"
    yield "Policy targets", "distributions over all cells" if layout.soft else "single moves"
    yield "Columns", ", ".join(column.name for column in layout.declared)
    options = (f"{printable(name)} {_said(value)}" for name, value in index.options.items())
    yield "Options", ", ".join(islice(options, LISTED_OPTIONS))
    yield "Fingerprint", index.fingerprint


def _said(value: object) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else printable(value)


def plies_chart(index: Index) -> Element:
    """The share of each split's positions by the stones on the board."""
    series = []
    for at, split in enumerate(index.splits.values()):
        plies = np.array(split.plies, dtype=np.float64)
        used = np.arange(int(np.flatnonzero(plies).max()) + 1)
        series.append(Series(x=used, y=plies[used] / plies.sum(), tone=at, kind=SPLIT_KINDS[at]))
    return chart(series, title="plies", below="stones on the board", percent=True, low=0)
