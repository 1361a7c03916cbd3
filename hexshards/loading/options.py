"""Options of a data loader: what it delivers, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from hexshards.arguments import fit_fields
from hexshards.options import check_options, option

Augment = Literal["none", "random", "cycle", "all"]
"""Which symmetry a sample shows: none of them; one of four drawn per position and epoch; four taken in turn, one an
epoch; all four in one epoch."""

OnError = Literal["raise", "skip"]
"""What a loader does where it finds a damaged block: stop with an error, or deliver other rows of the window instead,
so that the number of batches stays what the index says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSpec:
    """Options of a data loader: what it delivers, in which order; with dataset and epoch they determine every batch."""

    split: str = option("train", "train, val or test.", shapes="order")
    batch_size: int = option(
        1024, "Samples in a batch of one rank. The global batch is batch_size * world_size.", least=1, shapes="order"
    )
    shuffle: bool = option(True, "Off: the dataset's own order, which conversion made random once.", shapes="order")
    augment: Augment = option(
        "random",
        "Which symmetry a sample shows: none; random: one of four, drawn per position and epoch; cycle: four taken in "
        "turn, one an epoch; all: four times the samples.",
        shapes="order",
    )
    seed: int = option(0, "Seed of the order.", least=0, shapes="order")
    drop_last: bool = option(False, "Leave out an epoch's last global batch when it is not full.", shapes="order")
    num_workers: int = option(
        0,
        "Processes that read and permute windows; the order of the samples never depends on it.",
        least=0,
        shapes="nothing",
    )
    on_error: OnError = option(
        "raise", "At a damaged block: stop, or show other positions in its place and count.", shapes="nothing"
    )
    window_blocks: int = option(
        16, "Blocks mixed together: 131,072 positions, 6.6 MB packed.", least=1, offered="spec", shapes="order"
    )
    group_shards: int = option(
        8,
        "Shards walked at a time, so that few remote shards need to be at hand.",
        least=1,
        offered="spec",
        shapes="order",
    )
    streams: int = option(
        1,
        "Equal parts of an epoch, walked side by side; each batch has as much of each. A rank reads only its own, and "
        "all numbers of ranks that divide it see the same batches.",
        least=1,
        shapes="order",
        later=True,
    )
    where: str = option(
        "", "Use only positions like ply=10..60, plies=30.., tier=1..2, source=games_0*.", shapes="order"
    )
    positions: int | None = option(
        None,
        "Use at most so many positions in an epoch, evenly taken from all shards, the same in every epoch.",
        least=1,
        unset="all",
        shapes="order",
    )
    window: str = option(
        "",
        "Draw only from the newest positions: 500k; or by KataGo's power law min=250k exponent=0.65 expand=0.4 (scale, "
        "max). keep=100k: so many of them an epoch, others in the next. by=generation: not by additions.",
        unset="all",
        later=True,
        shapes="order",
    )
    per_game: int | None = option(
        None,
        "Use at most so many positions of one game in an epoch, others in the next.",
        least=1,
        unset="all",
        later=True,
        shapes="order",
    )
    sources: str = option(
        "", "Use only positions from source files like games_2[0-4]*.", unset="all", later=True, shapes="order"
    )
    shards: str = option(
        "",
        "Use only some shards of the split: 40%..50% of them, or those numbered 3..7 from 0 on.",
        unset="all",
        later=True,
        shapes="order",
    )
    policy: float | str = option(
        "played",
        "The policy's target: played, the move that was played; search, the shares of a search's visits; or a mix, a "
        "number from 0 (played) to 1 (search), or by the samples of all epochs, such as linear 0:0 5M:1.",
        offered="python",
        shapes="nothing",
    )
    mix_schedule: str = option(
        "",
        "Shares of mixed datasets by the samples of all epochs, in place of fixed ones: B=linear 0:0.1 5M:0.4. The "
        "others share the rest. Kinds: constant, linear, step, cosine.",
        offered="python",
        unset="fixed",
        shapes="order",
    )
    columns: Sequence[str] = option(
        (),
        'Columns that come with each batch as its fourth part, such as ("weight", "plies_left").',
        offered="python",
        shapes="nothing",
    )
    weights: str = option(
        "",
        "Factors of the column weight by rule, such as ply=60..:2,tier=0:0.5; it comes with each batch then.",
        offered="python",
        shapes="nothing",
    )

    def __post_init__(self) -> None:
        fit_fields(self)
        object.__setattr__(self, "columns", tuple(self.columns))
        check_options(self)


class LoaderOptions(TypedDict, total=False):
    """The fields of LoaderSpec as keyword arguments, those that are given: for type checkers."""

    split: str
    batch_size: int
    shuffle: bool
    augment: Augment
    seed: int
    drop_last: bool
    num_workers: int
    on_error: OnError
    streams: int
    where: str
    positions: int | None
    window: str
    per_game: int | None
    sources: str
    shards: str
    policy: float | str
    mix_schedule: str
    columns: Sequence[str]
    weights: str


LOADER = LoaderSpec()
