"""Options of a report on a dataset."""

from __future__ import annotations

from dataclasses import dataclass

from hexshards.arguments import fit_fields
from hexshards.options import check_options, option


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSpec:
    """How much of a dataset a report looks at."""

    sample: int = option(
        400_000,
        "Positions of each split that are read, in whole blocks drawn at random; smaller splits are read whole.",
        least=1,
        shapes="nothing",
    )
    seed: int = option(0, "Seed of what is drawn: blocks, and the boards that are shown.", least=0, shapes="nothing")

    def __post_init__(self) -> None:
        fit_fields(self)
        check_options(self)


REPORT = ReportSpec()
