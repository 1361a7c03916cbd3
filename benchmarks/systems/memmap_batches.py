"""A NumPy memmap of packed rows behind a DataLoader, a batch gathered and expanded at once by ``__getitems__``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from harness.rows import Dense, Shuffled, expand
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from systems.memmap_samples import Samples
from systems.memmap_samples import prepare as prepare


class Batches(Samples):
    """Batches by the numbers of their samples."""

    def __getitems__(self, numbers: NDArray[np.int64]) -> Dense:
        """Gather and expand."""
        return expand(np.take(self.rows, numbers, axis=0))


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> DataLoader:
    """Batches that need no collating."""
    dataset = Batches(folder)
    sampler = Shuffled(len(dataset), batch, epochs)
    return DataLoader(dataset, batch_sampler=sampler, num_workers=workers, collate_fn=_as_it_is)


def _as_it_is(batch: Dense) -> Dense:
    return batch
