"""Mini-epoch plan: where mini-epochs and a run end follows from the cursor and the epoch's size, by arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hexshards.arguments import fit_fields
from hexshards.errors import escaped
from hexshards.training.early_stopping import Limits
from hexshards.training.protocols import TrainLoader
from hexshards.training.tracking.records import Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniEpochPlan:
    """Plan of mini-epochs: each ends with the first batch that reaches its samples or batches, or with the epoch."""

    limits: Limits
    mini_epoch_samples: int | None
    """Of all ranks; None where batches are counted."""
    mini_epoch_batches: int | None
    cross_epochs: bool
    """A mini-epoch goes on over the end of an epoch, but for the last."""
    val_every: int
    """Each so many-th mini-epoch of an epoch is validated, and each that ends short."""

    def __post_init__(self) -> None:
        fit_fields(self)
        if self.mini_epoch_samples is not None and self.mini_epoch_batches is not None:
            raise ValueError("give mini_epoch_samples or mini_epoch_batches, not both")
        for name in ("mini_epoch_samples", "mini_epoch_batches", "val_every"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{escaped(name)} must be at least 1, got {count!r}")

    def epoch_over(self, at: Cursor, loader: TrainLoader) -> bool:
        """Whether an epoch's last batch is done."""
        return at.epoch_batches >= len(loader)

    def mini_epoch_over(self, at: Cursor, loader: TrainLoader) -> bool:
        """Whether a mini-epoch's last batch is done."""
        if self.mini_epoch_batches is not None:
            full = at.mini_batches >= self.mini_epoch_batches
        else:
            full = at.mini_samples >= (self.mini_epoch_samples or 0)
        goes_on = self.cross_epochs and at.epoch < self.limits.epochs
        return full or self.samples_over(at) or (self.epoch_over(at, loader) and not goes_on)

    def samples_over(self, at: Cursor) -> bool:
        """Whether the run has had all the samples that it may have."""
        return self.limits.samples is not None and at.samples_seen >= self.limits.samples

    def validates(self, at: Cursor, loader: TrainLoader) -> bool:
        """Whether a mini-epoch that ends here is to be validated."""
        return self.epoch_over(at, loader) or self.samples_over(at) or at.mini_epoch % self.val_every == 0

    def after_mini_epoch(self, at: Cursor, loader: TrainLoader) -> Cursor:
        """At the start of the next mini-epoch, or epoch."""
        if not self.epoch_over(at, loader):
            return at.after_mini_epoch()
        after = at.after_epoch(crossing=self.cross_epochs)
        return after.after_mini_epoch() if self.cross_epochs else after

    def samples_left(self, at: Cursor, loader: TrainLoader) -> int:
        """Samples that the run still will have, as far as epochs and samples limit it."""
        left = (self.limits.epochs - at.epoch + 1) * loader.samples - at.epoch_samples
        most = self.limits.samples
        return left if most is None else max(0, min(left, most - at.samples_seen))

    def mini_epoch_of(self, at: Cursor, loader: TrainLoader) -> int:
        """Samples that the mini-epoch at work will have; with batches that do not divide it, up to a batch more."""
        batches_samples = (self.mini_epoch_batches or 0) * loader.batch_size * loader.world_size
        left = self.samples_left(at, loader)
        if not self.cross_epochs:
            left = min(left, loader.samples - at.epoch_samples)
        return min(self.mini_epoch_samples or batches_samples, at.mini_samples + left)

    def most_samples(self, at: Cursor, loader: TrainLoader) -> int:
        """Samples that the mini-epoch that begins here can have at most, also where the dataset grows meanwhile."""
        batch = max(1, loader.batch_size * loader.world_size)
        most = self.mini_epoch_samples or (self.mini_epoch_batches or 0) * batch
        if self.limits.samples is not None:
            most = min(most, self.limits.samples - at.samples_seen)
        if self.cross_epochs and at.epoch < self.limits.epochs:
            return most + batch - 1  # a batch at an epoch's end may be short
        return min(-(-most // batch) * batch, loader.samples - at.epoch_samples)

    def batches_left(self, at: Cursor, loader: TrainLoader) -> int:
        """Batches that the mini-epoch at work still will have; of two epochs, one more where the first ends short."""
        left = self.mini_epoch_of(at, loader) - at.mini_samples
        return -(-left // max(1, loader.batch_size * loader.world_size))

    def totals(self, loader: TrainLoader, at: Cursor) -> Totals:
        """What the run counts from a cursor on, as far as epochs and samples limit it, of the dataset as it is."""
        samples = max(0, self.samples_left(at, loader))
        batch = max(1, loader.batch_size * loader.world_size)
        full = self.mini_epoch_batches or -(-(self.mini_epoch_samples or 1) // batch)
        begun = max(0, min(samples, loader.samples - at.epoch_samples))
        epochs, rest = divmod(samples - begun, max(1, loader.samples))
        steps = [-(-begun // batch), *[len(loader)] * epochs, -(-rest // batch)]
        if self.cross_epochs:
            steps = [sum(steps)]
        minis = [-(-(at.mini_batches + steps[0]) // full), *(-(-each // full) for each in steps[1:])]
        before = at.mini_epoch - 1  # of the epoch at work
        validations = [-(-(before + minis[0]) // self.val_every) - before // self.val_every if minis[0] else 0]
        validations += [-(-each // self.val_every) for each in minis[1:]]
        return Totals(
            epochs=self.limits.epochs,
            samples=samples,
            steps=sum(steps),
            mini_epochs=sum(minis),
            validations=sum(validations),
        )


@dataclass(frozen=True, slots=True)
class Cursor:
    """Cursor of a run. Epochs and mini-epochs count from 1, the latter anew in each epoch unless they cross its end."""

    epoch: int = 1
    mini_epoch: int = 1
    epoch_batches: int = 0
    epoch_samples: int = 0
    mini_batches: int = 0
    mini_samples: int = 0
    samples_seen: int = 0

    def after_batch(self, samples: int) -> Cursor:
        """One batch further."""
        return replace(
            self,
            epoch_batches=self.epoch_batches + 1,
            epoch_samples=self.epoch_samples + samples,
            mini_batches=self.mini_batches + 1,
            mini_samples=self.mini_samples + samples,
            samples_seen=self.samples_seen + samples,
        )

    def after_mini_epoch(self) -> Cursor:
        """At the start of the next mini-epoch of the same epoch."""
        return replace(self, mini_epoch=self.mini_epoch + 1, mini_batches=0, mini_samples=0)

    def after_epoch(self, *, crossing: bool) -> Cursor:
        """At the start of the next epoch: in the same mini-epoch where they may cross the end of one."""
        if crossing:
            return replace(self, epoch=self.epoch + 1, epoch_batches=0, epoch_samples=0)
        return Cursor(epoch=self.epoch + 1, samples_seen=self.samples_seen)
