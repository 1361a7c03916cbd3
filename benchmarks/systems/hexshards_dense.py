"""hexshards.loader with its defaults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.rows import Source, one_after_another

import hexshards


def prepare(source: Source, folder: Path) -> int:
    """Convert the files, each as many times as the source has it."""
    return hexshards.convert(source.many_pickles, out=folder / "data", val_fraction=0.0).positions


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[hexshards.Batch]:
    """Float32 batches on the CPU."""
    return one_after_another(hexshards.loader(folder / "data", batch_size=batch, num_workers=workers), epochs)
