"""hexshards as a GPU gets it: what is left for the host when the device expands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.rows import Dense

import hexshards
from hexshards.loading.expansion.expand import Packed, expand
from systems.hexshards_dense import prepare as prepare


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[Packed]:
    """Packed batches."""
    loader = hexshards.loader(folder / "data", batch_size=batch, num_workers=workers)
    return (packed for _ in range(epochs) for packed in loader.packed())


def dense(packed: Packed, *, side: int) -> Dense:
    """What the device makes of a batch."""
    board, policy, value = expand(packed, side=side)
    return board.numpy(), policy.numpy(), value.numpy()
