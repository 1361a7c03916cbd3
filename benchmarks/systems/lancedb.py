"""LanceDB's StreamingDataset: a table of packed rows, read in batches of a split, expanded a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
from harness.rows import Dense, Resumable, Source, expand, from_bytes, steps
from lancedb.streaming import StreamingDataLoader, StreamingDataset

SPLITS = 8
"""Of the order; ranks times workers must divide it."""


def prepare(source: Source, folder: Path) -> int:
    """A table with a binary column."""
    rows = pa.table({"row": pa.array([row.tobytes() for row in source.rows], pa.binary())})
    lancedb.connect(str(folder / "lance")).create_table("rows", rows)
    return len(source.rows)


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[Dense]:
    """Batches epoch after epoch; one split, for what is left over when rows are dealt to several is dropped."""
    splits = max(workers, 1)
    for epoch in range(epochs):
        dataset = StreamingDataset(
            _table(folder), num_splits=splits, epoch=epoch, read_batch_size=batch, transform=_rows
        )
        yield from StreamingDataLoader(dataset, collate_fn=_expanded, **_options(batch, workers))


def resumable(folder: Path, *, batch: int, workers: int, rank: int, world_size: int, states: Any) -> Resumable:
    """Its own loader counts what was handed over; the states of all ranks are merged.

    A step has a micro-batch of each worker: each has splits of its own, and all splits have a share of a global batch.
    """
    dataset = StreamingDataset(
        _table(folder), num_splits=SPLITS, shuffle_seed=1, rank=rank, world_size=world_size, transform=_rows
    )
    if states:
        dataset.load_state_dict(StreamingDataset.merge_state_dicts(states))
    count = max(workers, 1)
    loader = StreamingDataLoader(dataset, collate_fn=from_bytes, **_options(batch // count, workers))
    return Resumable(steps(loader, count=count), dataset.state_dict)


def _table(folder: Path) -> Any:
    return lancedb.connect(str(folder / "lance")).open_table("rows")


def _options(batch: int, workers: int) -> dict[str, Any]:
    # its threads do not outlive a fork
    return {"batch_size": batch, "num_workers": workers, "multiprocessing_context": "spawn" if workers else None}


def _rows(batch: pa.RecordBatch) -> list[bytes]:
    rows: list[bytes] = batch.column("row").to_pylist()
    return rows


def _expanded(rows: list[bytes]) -> Dense:
    return expand(from_bytes(rows))
