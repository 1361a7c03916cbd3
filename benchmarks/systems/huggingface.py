"""Hugging Face datasets: an Arrow table of packed rows, mapped, a batch gathered and expanded at once."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
from harness.rows import Dense, Shuffled, Source, expand
from numpy.typing import NDArray
from torch.utils.data import DataLoader


def prepare(source: Source, folder: Path) -> int:
    """A binary column."""
    rows = datasets.Dataset.from_dict({"row": [row.tobytes() for row in source.rows]})
    rows.save_to_disk(str(folder / "arrow"))
    return len(rows)


class Batches:
    """Batches by the numbers of their samples."""

    def __init__(self, folder: Path) -> None:
        self.rows = datasets.load_from_disk(str(folder / "arrow")).with_format("arrow")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, numbers: NDArray[np.int64]) -> Dense:
        """Gather and expand."""
        column = self.rows[numbers]["row"].combine_chunks()
        _, offsets, data = column.buffers()
        ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
        return expand(np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].reshape(len(column), -1))


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> DataLoader:
    """Batches that need no collating."""
    dataset = Batches(folder)
    sampler = Shuffled(len(dataset), batch, epochs)
    return DataLoader(dataset, batch_sampler=sampler, num_workers=workers, collate_fn=_as_it_is)


def _as_it_is(batch: Dense) -> Dense:
    return batch
