"""SPDL: threads of a pipeline gather packed rows of a NumPy memmap, and expand them, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness.rows import Dense, Shuffled, expand
from numpy.typing import NDArray
from spdl.pipeline import PipelineBuilder

from systems.memmap_samples import prepare as prepare

SINK = 4
"""Batches that wait."""


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[Dense]:
    """One pipeline for all epochs; it has threads where others have workers, at least one."""
    rows, threads = np.load(folder / "rows.npy", mmap_mode="r"), max(workers, 1)

    def gathered(numbers: NDArray[np.int64]) -> Dense:
        return expand(rows[numbers])

    built = PipelineBuilder().add_source(Shuffled(len(rows), batch, epochs))
    pipeline = built.pipe(gathered, concurrency=threads, output_order="input").add_sink(SINK).build(num_threads=threads)
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()
