"""Random games and their files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hexshards.arguments import fit_fields
from hexshards.options import require

Format = Literal["processed", "trmph"]
"""How random games are written: ``*_processed.pkl.gz`` (every position) or ``.trmph`` (one game a line)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthSpec:
    """Random games and their files. The files are a function of these fields."""

    games: int = 2_000
    """305,000 positions with side 13."""
    format: Format = "processed"
    side: int = 13
    seed: int = 0
    games_per_file: int = 500
    """76,000 positions, held at once: 0.5 GB with side 13."""

    def __post_init__(self) -> None:
        fit_fields(self)
        for name in ("games", "games_per_file"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        require(self.seed >= 0, "seed must not be negative", self.seed)


SYNTH = SynthSpec()
