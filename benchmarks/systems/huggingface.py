"""Hugging Face datasets: an Arrow table of packed rows, mapped, a batch gathered and expanded at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.distributed import split_dataset_by_node
from harness.rows import Dense, Resumable, Shuffled, Source, expand, from_bytes
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

SHARDS, BUFFER = 16, 1000
"""Of the stream that can be stopped: shards that workers share, and the buffer it is mixed in, the default."""


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


def resumable(folder: Path, *, batch: int, workers: int, rank: int, world_size: int, states: Any) -> Resumable:
    """A stream of 16 shards, mixed in a buffer, dealt to ranks; torchdata's loader has its state, a rank's each.

    The buffer is filled from a shard at a time: from several, the default, its state cannot be loaded in workers.
    """
    rows = datasets.load_from_disk(str(folder / "arrow")).to_iterable_dataset(num_shards=SHARDS)
    rows = rows.shuffle(seed=1, buffer_size=BUFFER, max_buffer_input_shards=1)
    rows = split_dataset_by_node(rows, rank=rank, world_size=world_size)
    loader = StatefulDataLoader(rows, batch_size=batch, num_workers=workers, collate_fn=_rows)
    if states:
        loader.load_state_dict(states[rank % len(states)])
    return Resumable(loader, loader.state_dict)


def _rows(samples: list[dict[str, bytes]]) -> NDArray[np.uint8]:
    return from_bytes([sample["row"] for sample in samples])
