"""Grain over ArrayRecord: a record of packed bytes per position, batched and expanded a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grain as grain_library
from array_record.python.array_record_module import ArrayRecordWriter
from harness.rows import Dense, Source, expand, from_bytes


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
