"""Settings of a run that most leave as they are: how mini-epochs are counted, when a run ends, what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hexshards.arguments import fit_fields
from hexshards.training.checkpointing.checkpoint_file import Reader
from hexshards.training.checkpointing.retention import Retention
from hexshards.training.distributed import ProcessGroup
from hexshards.training.early_stopping import EarlyStopping, Limits
from hexshards.training.growing_data import GrowingData
from hexshards.training.mini_epochs import MiniEpochPlan
from hexshards.training.options import TRAIN, Grow


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Settings of MiniEpochOrchestrator, beside what everybody gives it."""

    mini_epoch_batches: int | None = TRAIN.mini_epoch_batches
    """A mini-epoch counts so many batches instead of samples."""
    cross_epochs: bool = TRAIN.cross_epochs
    """A mini-epoch may begin in one epoch and end in the next."""
    max_samples: int | None = TRAIN.max_samples
    """The run ends after so many samples, over all its starts."""
    samples_per_position: float | None = TRAIN.samples_per_position
    """A mini-epoch waits until it can end with no more samples for each position; see training.train_bucket."""
    max_time_s: float | None = None
    """The run ends in so many seconds, over all its starts; the last mini-epoch is cut short for it."""
    val_every: int = TRAIN.val_every
    """Each so many-th mini-epoch of an epoch is validated, and its last."""
    early: EarlyStopping = field(default_factory=EarlyStopping)
    retention: Retention = field(default_factory=Retention)
    computes: str = ""
    """How the run computes and why, for a person; see training.computing."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Plain values that a checkpoint records. They must be the same when a run goes on, but for names of TrainSpec's
    options that may change then."""
    resume: str | Path = TRAIN.resume
    """``auto``: from the newest good checkpoint; ``never``; or the path of a checkpoint."""
    process_group: ProcessGroup = field(default_factory=ProcessGroup)
    growing_data: GrowingData | None = None
    """Finds the dataset again when it has grown."""
    grow: Grow = TRAIN.grow
    """When it is looked for: before an epoch, or also before a mini-epoch, which then begins one."""
    reader: Reader = field(default_factory=Reader)
    """Reads the checkpoint to go on from; whoever looked into it before the run gives the one that did."""

    def __post_init__(self) -> None:
        fit_fields(self)

    def plan(self, mini_epoch_samples: int | None, *, epochs: int) -> MiniEpochPlan:
        """Where mini-epochs and the run end."""
        return MiniEpochPlan(
            limits=Limits(epochs=epochs, samples=self.max_samples, time_s=self.max_time_s),
            mini_epoch_samples=mini_epoch_samples,
            mini_epoch_batches=self.mini_epoch_batches,
            cross_epochs=self.cross_epochs,
            val_every=self.val_every,
        )
