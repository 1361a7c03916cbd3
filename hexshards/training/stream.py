"""The stream of batches: those of one mini-epoch at a time, epoch after epoch, of a dataset that may grow.

The cursor moves when a batch is done, so between two batches it says where the run stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hexshards.errors import DataError
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.distributed import ProcessGroup
from hexshards.training.growing_data import GrowingData, Growth, has_grown
from hexshards.training.mini_epochs import Cursor, MiniEpochPlan
from hexshards.training.options import Grow
from hexshards.training.protocols import BatchLike, CountsSkipped, TrainLoader
from hexshards.training.recent_batches import RecentBatches
from hexshards.training.tracking.stopwatch import Stopwatch
from hexshards.training.train_bucket import Level, TrainBucket
from hexshards.units import counted


class BatchStream:
    """Batches of a loader, cut into mini-epochs as ``plan`` says; ``cursor`` is where the stream stands."""

    def __init__(
        self,
        loader: TrainLoader,
        plan: MiniEpochPlan,
        *,
        watch: Stopwatch,
        process_group: ProcessGroup,
        growing_data: GrowingData | None = None,
        grow: Grow = "epoch",
        on_growth: Callable[[Growth], None],
        samples_per_position: float | None = None,
        on_wait: Callable[[Level], None] = lambda level: None,
    ) -> None:
        self.loader, self.plan = loader, plan
        self.bucket = TrainBucket(
            samples_per_position, growing_data=growing_data, process_group=process_group, on_wait=on_wait
        )
        self._watch, self._process_group = watch, process_group
        self._growing_data, self._grows_at, self._on_growth = growing_data, grow, on_growth
        self._went_back = False
        self.begin(Cursor())

    def begin(self, cursor: Cursor, *, resumed_from: Path | None = None) -> None:
        """Stand at a cursor, nothing read yet; of a checkpoint, if there is one."""
        self.cursor, self._resumed_from = cursor, resumed_from
        self._open: Iterator[BatchLike] | None = None
        self._recent = RecentBatches()
        self._skipped_before = self._skipped()

    def batches(self, leave: Callable[[], bool], done: Callable[[], None]) -> Iterator[BatchLike]:
        """The rest of the mini-epoch, one batch at a time.

        ``leave`` is asked before each batch whether to leave the mini-epoch there; ``done`` is called after each.
        """
        while not self.mini_epoch_over:
            if leave():
                return
            if self.epoch_over:
                self._close_epoch()
                self.cursor = self.cursor.after_epoch(crossing=True)
                self._grow()
            batch = self._next()
            if batch is None:
                raise self._miscounted(
                    f"the loader ended after {self.cursor.epoch_batches} of {counted(len(self.loader), 'batch')}"
                )
            yield batch
            self.cursor = self.cursor.after_batch(self._global_rows(batch))
            done()
        self.end_epoch()

    def end_epoch(self) -> None:
        """Close the epoch where its last batch is done, so that the loader stands at the next."""
        if self.epoch_over:
            self._close_epoch()

    @property
    def mini_epoch_over(self) -> bool:
        """Whether the mini-epoch's last batch is done."""
        return self.plan.mini_epoch_over(self.cursor, self.loader)

    @property
    def epoch_over(self) -> bool:
        """Whether the epoch's last batch is done."""
        return self.plan.epoch_over(self.cursor, self.loader)

    def begin_mini_epoch(self, leave: Callable[[], bool] = lambda: False) -> bool:
        """A mini-epoch begins, or goes on; where an epoch begins, with the dataset as it is now.

        It waits until the train bucket admits it. False where ``leave``, asked meanwhile, said to leave before.
        """
        self._take_up()
        while self.cursor.mini_batches == 0:
            most = self.plan.most_samples(self.cursor, self.loader)
            admitted = self.bucket.admits(self.loader, self.cursor.samples_seen, most, leave)
            if admitted is None:
                return False
            if admitted:
                break
            self._take_up()  # what it waited for, with which a mini-epoch may be larger
            self._watch.begin_lap(self.cursor.samples_seen)
        self._skipped_before = self._skipped()
        return True

    def _take_up(self) -> None:
        if self.cursor.epoch_batches == 0 < self.cursor.samples_seen:
            self._grow()
        elif self._grows_at == "mini-epoch" and self.cursor.mini_batches == 0 < self.cursor.epoch_batches:
            self._grow(within=True)

    def skipped(self) -> dict[str, int] | None:
        """Damaged blocks and positions lost with them since the mini-epoch began; None where nobody counts."""
        return {name: count - self._skipped_before[name] for name, count in self._skipped().items()} or None

    def back_to(self, fingerprint: str, *, where: Path) -> None:
        """Stand on the dataset as a checkpoint knows it: one that grew is gone on with, to the end of the epoch."""
        if self._growing_data is not None and fingerprint != self.loader.index.fingerprint:
            self.loader = self._growing_data.as_it_was(fingerprint, where=where)
            self._went_back = True

    @property
    def ends_on_earlier_data(self) -> bool:
        """Whether the epoch at work goes on with another state of the dataset than there is now; ranks agree."""
        cursor = self.cursor
        if not self._went_back or not cursor.epoch_batches:
            return False
        looks = self._grows_at == "mini-epoch" and not cursor.mini_batches and cursor.epoch < self.plan.limits.epochs
        return not (looks and self.more_to_come())

    def recent(self, ago: int) -> Any | None:
        """A batch by how many came after it, read again; the stream is at an end then."""
        self.close()
        return self._recent.batch(ago)

    def close(self) -> None:
        """Let go what is read ahead."""
        self._open = None

    def more_to_come(self) -> bool:
        """Whether the dataset has training positions that the stream has not taken up yet; ranks agree."""
        if self._growing_data is None:
            return False
        looks = self._process_group.rank == 0  # so that all see the same
        return self._process_group.any(looks and has_grown(self._growing_data, self.loader.index.fingerprint))

    def _grow(self, *, within: bool = False) -> None:
        """Reload a growing dataset as it is now, at the beginning of an epoch; tell what became of it.

        within: where it is larger, the epoch at work ends here, unless it is the last.
        """
        if self._growing_data is None or (within and self.cursor.epoch >= self.plan.limits.epochs):
            return
        before, known = self.loader, self.loader.index.fingerprint
        # rank 0 looks, so that all see the same
        newest = self._growing_data.newest(known, larger=within) if self._process_group.rank == 0 else None
        newest = self._process_group.same(newest)
        if newest == known:
            return
        if within:
            self.cursor = self.cursor.after_epoch(crossing=self.plan.cross_epochs)
            self._open = self._resumed_from = None
        self.loader, self._went_back = self._growing_data.grown(newest, before, later=int(within)), False
        self._on_growth(Growth.between(before, self.loader, epoch=self.cursor.epoch))

    def _close_epoch(self) -> None:
        if self._next() is not None:  # where there is none, the loader moves on to its next epoch
            raise self._miscounted(f"the loader goes on after {counted(len(self.loader), 'batch')}")
        self._open = self._resumed_from = None

    def _miscounted(self, problem: str) -> Exception:
        if self._resumed_from is None:
            return RuntimeError(problem)
        fix = "Use another checkpoint, or another run folder"
        return DataError(
            f"counts other batches than its loader's state: {problem}", where=str(self._resumed_from), fix=fix
        )

    def _next(self) -> BatchLike | None:
        self._recent.before_batch(self.loader, anew=self._open is None)
        with self._watch.waited():
            if self._open is not None:
                batch = next(self._open, None)
            else:
                # a restarted run opens its loader once more often
                with checkpoint_file.random_state_kept():
                    self._open = iter(self.loader)
                    batch = next(self._open, None)
        if batch is not None:
            self._recent.after_batch()
        return batch

    def _global_rows(self, batch: BatchLike) -> int:
        loader = self.loader
        if loader.world_size == 1:
            return len(batch.value)
        # the ranks' shares of an epoch's last batch may differ by a row
        return min(loader.batch_size * loader.world_size, loader.samples - self.cursor.epoch_samples)

    def _skipped(self) -> Mapping[str, int]:
        counts = self.loader.skipped if isinstance(self.loader, CountsSkipped) else None
        return {"blocks": counts.blocks, "positions": counts.positions} if counts is not None else {}
