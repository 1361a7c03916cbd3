"""hexshards as a GPU gets it: what is left for the host when the device expands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import hexshards
from hexshards.expand import Packed, expand
from systems.hexshards_dense import prepare as prepare
from systems.hexshards_dense import through


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[Packed]:
    """Packed batches."""
    return through(hexshards.loader(folder / "data", batch_size=batch, num_workers=workers).packed(), epochs)


def dense(packed: Packed, *, side: int) -> hexshards.Batch:
    """What the device makes of a batch."""
    return expand(Packed(*(np.asarray(column) for column in packed)), side=side)
