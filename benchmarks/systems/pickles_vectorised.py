"""Processed files read whole, and expanded and augmented a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness.rows import Dense, expand, from_examples
from torch.utils.data import DataLoader, IterableDataset

from systems.hex_ai_pickles import examples
from systems.hex_ai_pickles import prepare as prepare


class Batches(IterableDataset):
    """The rows of a file in random order; what does not fill a batch waits for the next file."""

    def __init__(self, folder: Path, batch: int, epochs: int) -> None:
        self.folder, self.batch, self.epochs = folder, batch, epochs

    def __iter__(self) -> Iterator[Dense]:
        rest = None
        for loaded in examples(self.folder, self.epochs):
            rows = np.random.default_rng().permutation(from_examples(loaded))
            rows = rows if rest is None else np.concatenate([rest, rows])
            full = len(rows) - len(rows) % self.batch
            for start in range(0, full, self.batch):
                yield expand(rows[start : start + self.batch])
            rest = rows[full:]
        if rest is not None and len(rest):
            yield expand(rest)


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> DataLoader:
    """Batches that workers made."""
    return DataLoader(Batches(folder, batch, epochs), batch_size=None, num_workers=workers)
