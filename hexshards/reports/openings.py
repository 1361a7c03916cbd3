"""Openings: which first moves are played, and who wins after each, on boards and in a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hexshards.game.board import move_name
from hexshards.game.diagram import Diagram
from hexshards.game.diagram_svg import draw
from hexshards.reports.figures import FEWEST, Figure
from hexshards.reports.sample import Sample
from hexshards.units import counted

OPENINGS = 12
"""First moves that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Openings:
    """First moves (C cells) of the games of a sample."""

    games: NDArray[np.float64]
    """How many begin so."""
    red: NDArray[np.float64]
    """The share that RED won, NaN for none."""

    def rows(self, side: int) -> list[tuple[str, str, str]]:
        """The most played: move, share of the games, share that BLUE won."""
        most = [cell for cell in np.argsort(-self.games, kind="stable")[:OPENINGS].tolist() if self.games[cell]]
        return [
            (move_name(cell, side=side), f"{self.games[cell] / self.games.sum():.1%}", f"{1 - self.red[cell]:.0%}")
            for cell in most
        ]


def openings_of(sample: Sample) -> Openings | None:
    """First moves, by the positions with one stone; None where there are none."""
    positions = sample.upright
    first = positions.take(np.flatnonzero(positions.ply == 1))
    if not len(first):
        return None
    cells = positions.side**2
    weight = np.ones(len(first)) if first.count is None else first.count.astype(np.float64)
    stone = first.planes()[:, 0].reshape(-1, cells).argmax(axis=1)
    games = np.bincount(stone, weights=weight, minlength=cells).astype(np.float64)
    red = np.bincount(stone, weights=weight * first.value, minlength=cells)
    with np.errstate(invalid="ignore"):
        return Openings(games=games, red=red / games)


def opening_figures(sample: Sample, openings: Openings) -> Iterator[Figure]:
    """Two maps of the first move: how often it is played, and who wins then."""
    games = openings.games
    often = Diagram(
        side=sample.index.side,
        stones=np.full(len(games), -1),
        heat=np.sqrt(games / games.max()),
        title="how often each first move is played",
    )
    played = counted(round(games.sum()), "game")
    yield Figure(
        title="Which first moves are played",
        caption=f"The stronger its shade, the more games begin on a cell, of {played}. Few shaded cells mean narrow "
        "data.",
        picture=draw(often, shared=True),
    )
    enough = games >= FEWEST
    red = np.where(enough, openings.red, 0.5)
    labels = {cell: f"{100 * (1 - openings.red[cell]):.0f}" for cell in np.flatnonzero(enough).tolist()}
    yield Figure(
        title="Who wins after each first move",
        caption=f"Blue where BLUE wins more often, red where RED does, with BLUE's percent; only after "
        f"{counted(FEWEST, 'game')} or more.",
        picture=draw(
            replace(
                often,
                heat=np.minimum(1, np.abs(red - 0.5) * 2.5) * enough,
                tones=(red > 0.5).astype(np.int64),
                labels=labels,
                title="who wins after each first move",
            ),
            shared=True,
        ),
    )
