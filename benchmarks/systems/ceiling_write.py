"""One core writing constants over float32 batches in turn: no loader in one thread that fills memory is faster."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from harness.rows import Dense, Source, row_side

BUFFERS_BYTES = 256 << 20
"""Written in turn: far more than the caches hold."""


def prepare(source: Source, folder: Path) -> int:
    """Keep the side."""
    (folder / "side").write_text(str(row_side(source.rows)))
    return len(source.rows)


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[Dense]:
    """Batches that hold nothing of use."""
    ring = buffers(folder, batch=batch)
    return map(_written, enumerate(cycle(ring)))


def buffers(folder: Path, *, batch: int) -> list[Dense]:
    """Batches in memory that has been touched."""
    side = int((folder / "side").read_text())
    shapes = ((batch, 3, side, side), (batch, side * side), (batch, 1))
    count = BUFFERS_BYTES // (4 * batch * (4 * side * side + 1)) + 2
    fresh = (tuple(np.ones(shape, np.float32) for shape in shapes) for _ in range(count))
    return [(board, policy, value) for board, policy, value in islice(fresh, count)]


def _written(numbered: tuple[int, Dense]) -> Dense:
    number, batch = numbered
    for part in batch:
        part.fill(number)
    return batch
