"""Ray Data: packed rows in Parquet, shuffled in its buffer on the way to the trainer, expanded a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import ray
from harness.rows import Dense, Source, expand
from numpy.typing import NDArray

FILES, BUFFER = 16, 10_000
"""Files, which are read in another order each epoch, and rows that are mixed."""


def prepare(source: Source, folder: Path) -> int:
    """A binary column of one width."""
    rows = source.rows
    for number, part in enumerate(np.array_split(np.asarray(rows), FILES)):
        column = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(rows.shape[1]), len(part), [None, pa.py_buffer(part.tobytes())]
        )
        pyarrow.parquet.write_table(pa.table({"row": column}), folder / f"{number:02d}.parquet")
    return len(rows)


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[Dense]:
    """Read by a cluster of this machine's cores, by one at least."""
    if not ray.is_initialized():
        ray.init(num_cpus=max(workers, 1), include_dashboard=False, log_to_driver=False, configure_logging=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.read_parquet(str(folder), shuffle="files")
    for _ in range(epochs):
        for part in rows.iter_batches(batch_size=batch, batch_format="pyarrow", local_shuffle_buffer_size=BUFFER):
            yield expand(_rows(part))


def _rows(part: pa.Table) -> NDArray[np.uint8]:
    column = part.column("row").combine_chunks()
    width = column.type.byte_width
    data = np.frombuffer(column.buffers()[1], np.uint8)
    return data[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)
