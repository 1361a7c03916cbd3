"""Figures of a dataset: each a chart with a title, a sentence that says what it answers, and a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexshards.dataset.facts import SPLIT_KINDS, plies_chart
from hexshards.dataset.index import Index
from hexshards.drawing.charts import TONE_RED, Series, bar_list, chart
from hexshards.drawing.svg import Element
from hexshards.game.columns import UNKNOWN, VISITS, Column
from hexshards.game.diagram import Diagram
from hexshards.game.diagram_svg import draw
from hexshards.reports.copies import copies_by_ply
from hexshards.reports.sample import Sample
from hexshards.reports.source_files import SourceFiles
from hexshards.units import show_bytes

FEWEST = 20
"""Positions from which a share is still drawn."""

SHOWN_FILES = 600
"""Source files that are drawn as dots."""

SHOWN_ELSEWHERE = ("stones", "policy", "player", "value", "source", "game", "ply", "plies")
"""Columns that other figures show; each of the others gets one of its own."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Figure:
    """A picture and what it says."""

    title: str
    caption: str
    picture: Element
    legend: Sequence[tuple[int, str]] = ()
    """Tones and names."""
    wide: bool = False
    """Whether it is given the room of two."""


def figures_of(index: Index, samples: Sequence[Sample], files: SourceFiles) -> list[Figure]:
    """All figures of a dataset that have something to show."""
    train = samples[0]
    made = [
        _plies(index),
        _lengths(samples),
        _balance(samples),
        _winners_by_file(files),
        _copies(samples),
        _moves(train),
        _entropy(train),
        *(_column(train, kind) for kind in index.layout.declared if kind.name not in SHOWN_ELSEWHERE),
        _bytes(index, train),
    ]
    return [each for each in made if each is not None]


def _legend(names: Sequence[str]) -> list[tuple[int, str]]:
    return [*enumerate(names)] if len(names) > 1 else []


def _plies(index: Index) -> Figure:
    return Figure(
        title="How far into the game positions are",
        caption="The share of a split's positions by the stones on the board. All splits should look alike.",
        picture=plies_chart(index),
        legend=_legend([*index.splits]),
    )


def _lengths(samples: Sequence[Sample]) -> Figure | None:
    series = []
    for at, sample in enumerate(samples):
        plies = sample.positions.plies[sample.games]
        known = plies[plies >= 0]
        if len(known):
            width = max(1, sample.index.side**2 // 42)
            counts = np.bincount(known // width).astype(np.float64)
            first = int(np.flatnonzero(counts)[0])
            x = np.arange(first, len(counts)) * width
            kind = SPLIT_KINDS[at]
            series.append(
                Series(
                    x=x + (width / 2 if kind != "bars" else 0),
                    y=counts[first:] / len(known),
                    kind=kind,
                    tone=at,
                    width=width,
                )
            )
    if not series:
        return None
    return Figure(
        title="How long games are",
        caption="The share of the games that were met by their length. A peak at very few stones is of games that were "
        "given up, or cut off.",
        picture=chart(series, title="lengths of games", below="stones at the end", percent=True, low=0),
        legend=_legend([each.split for each in samples]),
    )


def _balance(samples: Sequence[Sample]) -> Figure:
    series = []
    for at, sample in enumerate(samples):
        ply, value = sample.upright.ply, sample.upright.value.astype(np.float64)
        cells = sample.index.side**2 + 1
        counts = np.bincount(ply, minlength=cells)
        with np.errstate(invalid="ignore"):
            blue = 1 - np.bincount(ply, weights=value, minlength=cells) / counts
        blue[counts < FEWEST] = math.nan
        series.append(Series(x=np.arange(cells), y=blue, tone=at))
    return Figure(
        title="Who wins, by the stones on the board",
        caption="The share of positions that BLUE won. Far from half, a network can be right without looking at the "
        "board; a zigzag says that late positions tell the winner by who is to move.",
        picture=chart(
            series, title="label balance by ply", below="stones on the board", percent=True, low=0, high=1, guides=[0.5]
        ),
        legend=_legend([each.split for each in samples]),
    )


def _winners_by_file(files: SourceFiles) -> Figure | None:
    enough = np.flatnonzero(files.games >= FEWEST)
    if len(enough) < 2:
        return None
    # of thousands of files, those that are odd and every so many-th of the others
    few = enough[:: -(-len(enough) // SHOWN_FILES)]
    enough = np.union1d(few, np.intersect1d(enough, np.array(files.odd[:SHOWN_FILES], dtype=np.int64)))
    order = enough[np.argsort(files.blue[enough], kind="stable")]
    odd = np.isin(order, files.odd)
    hints = [files.hint(at) for at in order.tolist()]
    x = np.arange(1, len(order) + 1)
    series = [
        Series(
            x=x[part],
            y=files.blue[order][part],
            kind="dots",
            tone=tone,
            hints=[hint for hint, shown in zip(hints, part.tolist(), strict=True) if shown],
        )
        for part, tone in ((~odd, 0), (odd, TONE_RED))
    ]
    return Figure(
        title="Who wins, by source file",
        caption="Each dot is a file: the share of its games that BLUE won, files in this order. A dot far off, in red, "
        "is a file whose values may be inverted, or that another player made.",
        picture=chart(
            series,
            title="winners by source file",
            below="files, by this share",
            percent=True,
            guides=[files.mean_blue],
        ),
    )


def _copies(samples: Sequence[Sample]) -> Figure | None:
    series = []
    for at, sample in enumerate(samples):
        often = copies_by_ply(sample)
        counts = np.bincount(sample.positions.ply, minlength=len(often))
        often[counts < FEWEST] = math.nan
        series.append(Series(x=np.arange(len(often)), y=often, tone=at))
    if not any(each.there.any() for each in series):
        return None
    return Figure(
        title="How often the same position is there",
        caption="How many equal positions a position has in its split, itself counted and turned boards taken for "
        "equal. Real games share their first moves; copies later in the game mean games that are there twice.",
        picture=chart(series, title="copies by ply", below="stones on the board", log=True, low=1),
        legend=_legend([each.split for each in samples]),
    )


def _moves(sample: Sample) -> Figure | None:
    positions = sample.upright
    cells = positions.side**2
    if positions.soft:
        weight = positions.policy.sum(axis=0, dtype=np.float64)
    else:
        weight = np.bincount(positions.policy[positions.policy >= 0], minlength=cells).astype(np.float64)
    if not weight.any():
        return None
    heat = weight / weight.max()
    board = Diagram(side=positions.side, stones=np.full(cells, -1), heat=heat, title="where moves are played")
    return Figure(
        title="Where moves are played",
        caption="The stronger its shade, the more often a cell is the move to learn, over all positions.",
        picture=draw(board, shared=True),
    )


def _entropy(sample: Sample) -> Figure | None:
    positions = sample.positions
    if not positions.soft:
        return None
    total, cells = np.zeros(positions.side**2 + 1), positions.side**2 + 1
    counts = np.zeros(cells)
    for first in range(0, len(positions), 16384):  # as float64, all at once would take gigabytes
        part = positions.policy[first : first + 16384].astype(np.float64)
        ply = positions.ply[first : first + 16384]
        known = part.any(axis=1)
        entropy = -(part * np.log2(np.where(part > 0, part, 1))).sum(axis=1)
        total += np.bincount(ply[known], weights=entropy[known], minlength=cells)
        counts += np.bincount(ply[known], minlength=cells)
    with np.errstate(invalid="ignore"):
        mean = np.where(counts >= FEWEST, total / counts, math.nan)
    return Figure(
        title="How undecided the policy targets are",
        caption="The mean entropy of the policy by the stones on the board: 0 bits is one move, 3 bits are as many "
        "choices as eight equal ones.",
        picture=chart(
            [Series(x=np.arange(cells), y=mean)],
            title="policy entropy",
            below="stones on the board",
            unit="bits",
            low=0,
        ),
    )


def _column(sample: Sample, kind: Column) -> Figure | None:
    """A histogram of a column; of one with several numbers a position, of their sum."""
    column = sample.positions.columns()[kind.name]
    counts = column[:, 1] if kind is VISITS else column
    numbers = counts.astype(np.float64).reshape(len(column), -1).sum(axis=1)
    known = numbers[_says(kind, numbers)]
    if not len(known):
        return None
    low, high = float(known.min()), float(known.max())
    whole = column.dtype.kind in "iu" and high - low < 60
    bins = np.arange(low, high + 2) - 0.5 if whole else np.linspace(low, high if high > low else low + 1, 41)
    counts, edges = np.histogram(known, bins=bins)
    said = "all positions say it" if len(known) == len(numbers) else f"{len(known) / len(numbers):.0%} say it"
    several = ", added up over its entries" if kind.size else ""
    span = f"from {low:.4g} to {high:.4g}, mean {known.mean():.4g}"
    return Figure(
        title=f"Column {kind.name}",
        caption=f"{kind.doc[:1].upper()}{kind.doc[1:]}{several}: {said}, {span}.",
        picture=chart(
            [Series(x=edges[:-1], y=counts / len(known), kind="bars", width=float(edges[1] - edges[0]), tone=3)],
            title=f"column {kind.name}",
            below=kind.name,
            percent=True,
            low=0,
        ),
    )


def _says(kind: Column, numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which positions say it. What an unknown weight holds, 1, is as good as said."""
    silent = (
        numbers == kind.unknown if kind.unknown == UNKNOWN or kind is VISITS else np.zeros(len(numbers), dtype=bool)
    )
    return np.asarray(np.isfinite(numbers) & ~silent)


def _bytes(index: Index, sample: Sample) -> Figure:
    sizes = sorted(sample.column_bytes.items(), key=lambda each: -each[1])
    shards = [shard for split in index.splits.values() for shard in split.shards]
    size, rows = sum(shard.size_bytes for shard in shards), sum(shard.positions for shard in shards)
    return Figure(
        title="What a position takes on disk",
        caption=f"Bytes of each column as it is compressed. All shards together have {show_bytes(size)}, "
        f"{size / rows:.1f} bytes a position, the tar's own included.",
        picture=bar_list([(name, value, f"{value:.2f} B", 0) for name, value in sizes], title="bytes per column"),
    )
