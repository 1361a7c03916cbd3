"""torchdata's StatefulDataLoader over a NumPy memmap of packed rows, gathered and expanded a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness.rows import Dense, Resumable, expand, one_after_another
from numpy.typing import NDArray
from torch.utils.data import Dataset, RandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

from systems.memmap_samples import prepare as prepare


class Rows(Dataset):
    """Rows by their numbers, many at once."""

    def __init__(self, folder: Path) -> None:
        self.rows = np.load(folder / "rows.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """The rows of a batch."""
        gathered: NDArray[np.uint8] = self.rows[np.asarray(numbers)]
        return gathered


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[Dense]:
    """Batches epoch after epoch."""
    rows = Rows(folder)
    loader = StatefulDataLoader(
        rows, batch_size=batch, sampler=RandomSampler(rows), num_workers=workers, collate_fn=expand
    )
    return one_after_another(loader, epochs)


def resumable(folder: Path, *, batch: int, workers: int, rank: int, world_size: int, states: Any) -> Resumable:
    """The sampler deals rows to ranks and has a state, a rank's each."""
    rows = Rows(folder)
    sampler = StatefulDistributedSampler(rows, num_replicas=world_size, rank=rank, shuffle=True, seed=1)
    loader = StatefulDataLoader(rows, batch_size=batch, sampler=sampler, num_workers=workers, collate_fn=_as_it_is)
    if states:
        loader.load_state_dict(states[rank % len(states)])
    return Resumable(loader, loader.state_dict)


def _as_it_is(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return rows
