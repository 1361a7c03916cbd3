"""One core copying float32 batches to others in turn: what expanded samples in memory cost at the least."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
from harness.rows import Dense

from systems.ceiling_write import buffers
from systems.ceiling_write import prepare as prepare


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[Dense]:
    """Batches that hold nothing of use."""
    ring = buffers(folder, batch=batch)
    half = len(ring) // 2
    return map(_copied, cycle(zip(ring[:half], ring[half:], strict=False)))


def _copied(pair: tuple[Dense, Dense]) -> Dense:
    batch, copy = pair
    for part, target in zip(batch, copy, strict=True):
        np.copyto(target, part)
    return copy
