"""How source files become a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from hexshards.arguments import fit_fields
from hexshards.dataset.options import Codec
from hexshards.options import require

Dedupe = Literal["none", "games", "positions", "symmetric"]
"""What is kept once: nothing; each game, by however many files it comes; or equal positions of all games, merged into
one (positions), also those that are equal when turned by 180 degrees (symmetric)."""

Engine = Literal["local", "ray"]
"""Where a conversion's tasks run: in processes of this machine, or on a Ray cluster. The shards do not depend on it."""

Selector = Literal["all", "final", "penultimate"]
"""Which positions of a game of M moves are taken: plies 0 to M; ply M; ply M - 1. For files of whole games."""

V1Value = Literal["check", "as-is", "inverted"]
"""How a first-generation file's values are taken: 1.0 where RED won (as-is), or where BLUE won (inverted)."""

Unfinished = Literal["reject", "keep"]
"""What becomes of a game in which nobody connected: reject it, or trust the result that is written beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSpec:
    """How source files become a dataset. The shards are a function of these fields and of the files' contents."""

    val_fraction: float = 0.02
    """Share of the games, chosen by a stable hash of each, that go to the split ``val``."""
    seed: int = 0
    """Seed of the global shuffle. The split does not depend on it."""
    shard_positions: int = 262_144
    """Positions in a shard, the last of a split excepted: 6 MB at 23 bytes each."""
    block_positions: int = 8_192
    """Positions in a block, the last of a shard excepted. At 4,096 a position costs 2 bytes more (tar and zstd)."""
    codec: Codec = "zstd"
    """zstd, or none for shards that stock WebDataset decodes without a handler (4 times larger)."""
    positions: Selector = "all"
    unfinished: Unfinished = "reject"
    v1_value: V1Value = "check"
    """For files of the first generation: compare each with its terminal boards, or trust as-is or inverted values."""
    keep_duplicates: bool = False
    """Keep exact repeats of a game, also turned by 180 degrees, where whole games are read."""
    bake_symmetries: bool = False
    """Write every position in each of its four symmetries, for readers that cannot augment: four times the data."""
    dedupe: Dedupe = "none"
    """Keep a game once however it comes; or merge equal positions of a split into one with the mean value, the mean
    policy and a count."""

    def __post_init__(self) -> None:
        fit_fields(self)
        require(0.0 <= self.val_fraction <= 1.0, "val_fraction must be 0 to 1", self.val_fraction)
        require(self.seed >= 0, "seed must not be negative", self.seed)
        # a window of 16 full blocks must stay below the 16.8 million rows that order.permutation takes
        require(1 <= self.block_positions <= 1 << 19, "block_positions must be 1 to 524,288", self.block_positions)
        require(
            self.shard_positions >= 1 and self.shard_positions % self.block_positions == 0,
            f"shard_positions must be a multiple of block_positions ({self.block_positions})",
            self.shard_positions,
        )
        require(
            not (self.keep_duplicates and self.dedupe == "games"),
            "keep_duplicates keeps what dedupe games leaves out: give one of them, keep_duplicates",
            self.keep_duplicates,
        )

    @property
    def merges(self) -> bool:
        """Whether equal positions become one."""
        return self.dedupe in ("positions", "symmetric")


class ConvertOptions(TypedDict, total=False):
    """The fields of ConvertSpec as keyword arguments, those that are given."""

    val_fraction: float
    seed: int
    shard_positions: int
    block_positions: int
    codec: Codec
    positions: Selector
    unfinished: Unfinished
    v1_value: V1Value
    keep_duplicates: bool
    bake_symmetries: bool
    dedupe: Dedupe


def changed(options: ConvertOptions) -> ConvertOptions:
    """The options that are not the defaults."""
    given = {name: value for name, value in options.items() if value != getattr(CONVERT, name)}
    return given  # type: ignore[return-value]  # some of the same keys


CONVERT = ConvertSpec()

MEMORY = "1GiB"
"""What a conversion may hold in memory, over all its processes."""
