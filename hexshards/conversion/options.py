"""Options of a conversion: how source files become a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from hexshards.arguments import fit_fields
from hexshards.dataset.options import MAX_BLOCK_POSITIONS, Codec
from hexshards.game.game_filter import GameFilter
from hexshards.game.options import MAX_SIDE, MIN_SIDE
from hexshards.game.options import Selector as Selector
from hexshards.options import check_options, option, require

Dedupe = Literal["none", "games", "positions", "symmetric"]
"""What is kept once: nothing; each game, by however many files it comes; or equal positions of all games, merged into
one (positions), also those that are equal when turned by 180 degrees (symmetric)."""

Engine = Literal["local", "ray"]
"""Where a conversion's tasks run: in processes of this machine, or on a Ray cluster. The shards do not depend on it."""

V1Value = Literal["check", "as-is", "inverted"]
"""How a first-generation file's values are taken: 1.0 where RED won (as-is), or where BLUE won (inverted)."""

Unfinished = Literal["reject", "resigned", "keep"]
"""What becomes of a game in which nobody connected: leave it out; trust the result where the file says that somebody
resigned; trust any result that is written beside a game."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSpec:
    """Options of a conversion. The shards are a function of these fields and of the source files' contents."""

    val_fraction: float = option(
        0.02,
        "Share of the games kept for validation, chosen by a stable hash of each.",
        least=0,
        most=1,
        shapes="bytes",
    )
    test_fraction: float = option(
        0.0,
        "Share of the games kept for a test (hexshards evaluate), by the other end of the same hash: none of them "
        "would be validation.",
        least=0,
        most=1,
        shapes="bytes",
        later=True,
    )
    seed: int = option(0, "Seed of the global shuffle; the split does not depend on it.", least=0, shapes="bytes")
    shard_positions: int = option(
        262_144,
        "Positions in a shard, the last of a split excepted: 6 MB at 23 bytes each.",
        least=1,
        most=1 << 48,  # as an index counts
        shapes="bytes",
    )
    block_positions: int = option(
        8_192,
        "Positions in a block, the last of a shard excepted. At 4,096 a position costs 2 bytes more (tar and zstd).",
        least=1,
        most=MAX_BLOCK_POSITIONS,
        shapes="bytes",
    )
    codec: Codec = option("zstd", "none: stock WebDataset decodes without a handler, 4 times larger.", shapes="bytes")
    positions: Selector = option(
        "all", "Game records: all positions, the final one, or the one before it.", shapes="bytes"
    )
    unfinished: Unfinished = option(
        "reject",
        "Game records in which nobody connected: reject; trust the result where somebody resigned; keep all, and "
        "trust any result.",
        shapes="bytes",
    )
    side: int | None = option(
        None,
        "Side of the games to take from files that hold several.",
        least=MIN_SIDE,
        most=MAX_SIDE,
        unset="the one that most games of a file have",
        shapes="bytes",
        later=True,
    )
    games: str = option(
        "",
        'Game records to take, like "rated=yes, rating=1800.., bots=no", of files that say so.',
        shapes="bytes",
        later=True,
    )
    v1_value: V1Value = option(
        "check",
        "First-generation files: compare values with the boards, or trust them (as-is: 1.0 where RED won).",
        shapes="bytes",
    )
    keep_duplicates: bool = option(
        False, "Game records: keep exact repeats of a game, also turned by 180 degrees.", shapes="bytes"
    )
    bake_symmetries: bool = option(
        False,
        "Write all four symmetries of each position, for readers that cannot augment: four times the data.",
        shapes="bytes",
    )
    dedupe: Dedupe = option(
        "none",
        "games: keep each once, though it comes by several files or formats. positions: merge equal ones of a split "
        "into one with the mean value, the mean policy and a count; symmetric: also those that are equal when turned "
        "by 180 degrees.",
        shapes="bytes",
    )

    def __post_init__(self) -> None:
        fit_fields(self)
        check_options(self)
        GameFilter.parse(self.games)
        whole = self.val_fraction + self.test_fraction
        require(whole <= 1, "val_fraction and test_fraction must be at most 1 together", whole)
        require(
            self.shard_positions % self.block_positions == 0,
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
    """The fields of ConvertSpec as keyword arguments, those that are given: for type checkers."""

    val_fraction: float
    test_fraction: float
    seed: int
    shard_positions: int
    block_positions: int
    codec: Codec
    positions: Selector
    unfinished: Unfinished
    side: int | None
    games: str
    v1_value: V1Value
    keep_duplicates: bool
    bake_symmetries: bool
    dedupe: Dedupe


CONVERT = ConvertSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSpec:
    """Resources of a conversion: workers, memory, engine. The shards depend on none of it."""

    workers: int = option(1, "Processes.", least=1, shapes="nothing")
    engine: Engine = option("local", "Where they run; ray: see docs/ray.md.", shapes="nothing")
    max_rejects: int = option(
        0, "Examples, or lines of games, that may be left out as faulty.", least=0, shapes="nothing"
    )
    memory: int | str = option("2GiB", "What all processes together may hold, like 512MiB.", shapes="nothing")

    def __post_init__(self) -> None:
        fit_fields(self)
        check_options(self)


WORK = WorkSpec()
