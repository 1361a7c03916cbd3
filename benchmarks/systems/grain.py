"""Grain over ArrayRecord: a record of packed bytes per position, batched and expanded a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain as grain_library
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from grain.experimental import ElasticIterator
from harness.rows import Dense, Resumable, Source, expand, from_bytes
from numpy.typing import NDArray


def prepare(source: Source, folder: Path) -> int:
    """Records in groups of one, as Grain asks for where reading is random; uncompressed, as they are small."""
    writer = ArrayRecordWriter(str(folder / "rows.array_record"), "group_size:1,uncompressed")
    for row in source.rows:
        writer.write(row.tobytes())
    writer.close()
    return len(source.rows)


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> grain_library.IterDataset:
    """Numbers of records shuffled and batched, then read many at once: one at a time costs each 40 times as much."""
    read = Read(grain_library.sources.ArrayRecordDataSource(str(folder / "rows.array_record")))
    numbers = grain_library.MapDataset.range(len(read.records)).seed(0).shuffle().repeat(epochs)
    read_batches = numbers.batch(batch, batch_fn=list).map(read)
    stream = read_batches.to_iter_dataset(grain_library.ReadOptions(num_threads=1, prefetch_buffer_size=4))
    if workers:
        stream = stream.mp_prefetch(grain_library.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=4))
    return stream


class Read:
    """Records by their numbers, as a batch."""

    def __init__(self, records: grain_library.sources.ArrayRecordDataSource) -> None:
        self.records = records

    def __call__(self, numbers: Sequence[int]) -> Dense:
        """Read and expand."""
        return expand(from_bytes(self.records.__getitems__(numbers)))


def resumable(folder: Path, *, batch: int, workers: int, rank: int, world_size: int, states: Any) -> Resumable:
    """Its experimental elastic iterator deals shuffled records to ranks; the state of any rank is that of all."""
    records = grain_library.sources.ArrayRecordDataSource(str(folder / "rows.array_record"))
    rows = grain_library.MapDataset.source(records).seed(1).shuffle().map(_row)
    iterator = iter(
        ElasticIterator(
            rows,
            batch * world_size,
            grain_library.sharding.ShardOptions(shard_index=rank, shard_count=world_size),
            multiprocessing_options=grain_library.MultiprocessingOptions(num_workers=workers) if workers else None,
        )
    )
    if states:
        iterator.set_state(states[0])
    return Resumable(iterator, iterator.get_state)


def _row(record: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(record, np.uint8)
