"""Options of games: sides, which positions of a game are taken, random games and their files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hexshards.arguments import fit_fields
from hexshards.options import check_options, option

MIN_SIDE, MAX_SIDE = 3, 19
"""Sides that a dataset may have."""

MAX_OPTIONAL = 32
"""Most optional columns of a dataset."""

Selector = Literal["all", "final", "penultimate"]
"""Which positions of a game of M moves are taken: plies 0 to M; ply M; ply M - 1. For files of whole games."""

Format = Literal["processed", "trmph"]
"""How random games are written: ``*_processed.pkl.gz`` (every position) or ``.trmph`` (one game a line)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthSpec:
    """Random games and their files. The files are a function of these fields."""

    games: int = option(2_000, "Games; 2,000 are 305,000 positions at side 13.", least=1, shapes="bytes")
    format: Format = option("processed", "hex_ai's processed files, or game records.", shapes="bytes")
    side: int = option(13, "Side of the board.", least=MIN_SIDE, most=MAX_SIDE, shapes="bytes")
    seed: int = option(0, "Seed of the games.", least=0, shapes="bytes")
    games_per_file: int = option(
        500,
        "Games in a file; 500 are 76,000 positions, held at once: 0.5 GB at side 13.",
        least=1,
        offered="python",
        shapes="bytes",
    )

    def __post_init__(self) -> None:
        fit_fields(self)
        check_options(self)


SYNTH = SynthSpec()
