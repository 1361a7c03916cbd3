"""What a loader delivers, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hexshards.arguments import fit_fields
from hexshards.options import require

Augment = Literal["none", "random", "cycle", "all"]
"""Which symmetry a sample shows: none of them; one of four drawn per position and epoch; four taken in turn, one an
epoch; all four in one epoch."""

OnError = Literal["raise", "skip"]
"""What a loader does where it finds a damaged block: stop with an error, or deliver other rows of the window instead,
so that the number of batches stays what the index says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSpec:
    """What a loader delivers and in which order; with the dataset and the epoch it determines every batch."""

    split: str = "train"
    batch_size: int = 1024
    """Samples in a batch of one rank. The global batch is batch_size * world_size."""
    shuffle: bool = True
    """Off: the dataset's own order, which conversion made random once."""
    augment: Augment = "random"
    seed: int = 0
    drop_last: bool = False
    """Leave out an epoch's last global batch when it is not full."""
    num_workers: int = 0
    """Processes that read and permute windows. The order of the samples never depends on it."""
    on_error: OnError = "raise"
    window_blocks: int = 16
    """Blocks mixed together: 131,072 positions, 6.6 MB packed."""
    group_shards: int = 8
    """Shards walked at a time, so that few remote shards need to be at hand."""
    where: str = ""
    """Conditions that a position must meet to be used, such as ``"ply=10..60, tier=1..2, source=games_0*"``."""
    positions: int | None = None
    """At most so many positions are used in an epoch, evenly taken from all shards, the same in every epoch."""

    def __post_init__(self) -> None:
        fit_fields(self)
        require(self.positions is None or self.positions >= 1, "positions must be at least 1", self.positions)
        require(self.batch_size >= 1, "batch_size must be at least 1", self.batch_size)
        require(self.seed >= 0, "seed must not be negative", self.seed)
        require(self.num_workers >= 0, "num_workers must not be negative", self.num_workers)
        require(self.window_blocks >= 1, "window_blocks must be at least 1", self.window_blocks)
        require(self.group_shards >= 1, "group_shards must be at least 1", self.group_shards)


LOADER = LoaderSpec()
