"""hexshards with canonical streams: a rank reads only its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harness.rows import one_after_another

import hexshards
from systems.hexshards_dense import prepare as prepare
from systems.hexshards_dense import resumable as of_one_stream

STREAMS = 8

resumable = partial(of_one_stream, streams=STREAMS)


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[hexshards.Batch]:
    """Float32 batches on the CPU."""
    loader = hexshards.loader(folder / "data", batch_size=batch, num_workers=workers, streams=STREAMS)
    return one_after_another(loader, epochs)
