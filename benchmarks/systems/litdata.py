"""LitData: packed bytes per position in chunks, collated and expanded a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import litdata
from harness.rows import Dense, Resumable, Source, expand, from_bytes, one_after_another
from torch import distributed


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


def resumable(folder: Path, *, batch: int, workers: int, rank: int, world_size: int, states: Any) -> Resumable:
    """Its own loader has a state, a rank's each; it learns of ranks from torch.distributed."""
    if world_size > 1:
        distributed.init_process_group("gloo")
    dataset = litdata.StreamingDataset(str(folder / "chunks"), shuffle=True, drop_last=False, seed=1)
    loader = litdata.StreamingDataLoader(dataset, batch_size=batch, num_workers=workers, collate_fn=from_bytes)
    if states:
        loader.load_state_dict(states[rank % len(states)])
    return Resumable(loader, loader.state_dict)
