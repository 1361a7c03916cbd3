"""hexshards.loader with its defaults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.rows import Resumable, Source, one_after_another, packed

import hexshards


def prepare(source: Source, folder: Path) -> int:
    """Convert the files, each as many times as the source has it."""
    return hexshards.convert(source.many_pickles, out=folder / "data", val_fraction=0.0).positions


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[hexshards.Batch]:
    """Float32 batches on the CPU."""
    return one_after_another(hexshards.loader(folder / "data", batch_size=batch, num_workers=workers), epochs)


def resumable(
    folder: Path, *, batch: int, workers: int, rank: int, world_size: int, states: Any, streams: int = 1
) -> Resumable:
    """The state of any rank is that of all."""
    loader = hexshards.loader(
        folder / "data",
        batch_size=batch,
        num_workers=workers,
        augment="none",
        streams=streams,
        rank=rank,
        world_size=world_size,
    )
    if states:
        loader.load_state_dict(states[0])
    return Resumable((packed(each) for each in loader), loader.state_dict)
