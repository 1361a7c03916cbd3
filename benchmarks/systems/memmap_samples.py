"""A NumPy memmap of packed rows behind a DataLoader, a sample at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from harness.rows import Dense, Shuffled, Source, expand_one
from torch.utils.data import DataLoader, Dataset


def prepare(source: Source, folder: Path) -> int:
    """The rows as a file."""
    np.save(folder / "rows.npy", source.rows)
    return len(source.rows)


class Samples(Dataset):
    """Samples by number."""

    def __init__(self, folder: Path) -> None:
        self.rows = np.load(folder / "rows.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Dense:
        return expand_one(self.rows[number])


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> DataLoader:
    """Samples that the DataLoader collates."""
    samples = Samples(folder)
    return DataLoader(samples, batch_sampler=Shuffled(len(samples), batch, epochs), num_workers=workers)
