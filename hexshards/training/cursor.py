"""Where a run stands is a few numbers: the epoch and mini-epoch at work, and how much of them is done."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Cursor:
    """Epochs and mini-epochs count from 1, the latter anew in each epoch unless they may cross its end."""

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
