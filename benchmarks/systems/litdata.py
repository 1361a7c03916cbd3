"""LitData: packed bytes per position in chunks, collated and expanded a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import litdata
from harness.rows import Dense, Source, expand, from_bytes, one_after_another


def prepare(source: Source, folder: Path) -> int:
    """Chunks of 64 MiB, the size its documentation proposes."""
    litdata.optimize(
        fn=partial(_rows, source.folder),
        inputs=[0],
        output_dir=str(folder / "chunks"),
        chunk_bytes="64MB",
        num_workers=1,
    )
    return len(source.rows)


def _rows(source: Path, _part: int) -> Iterator[bytes]:
    for row in Source(source).rows:
        yield row.tobytes()


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[Dense]:
    """Batches epoch after epoch."""
    dataset = litdata.StreamingDataset(str(folder / "chunks"), shuffle=True, drop_last=False)
    loader = litdata.StreamingDataLoader(dataset, batch_size=batch, num_workers=workers, collate_fn=_joined)
    return one_after_another(loader, epochs)


def _joined(rows: list[bytes]) -> Dense:
    return expand(from_bytes(rows))
