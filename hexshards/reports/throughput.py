"""Throughput of the loader, stage by stage, and of a model's steps, measured on the user's machine.

Every figure is a median or a count over a few tenths of a second, of this process alone: what else the machine does
slows it down. What was read before comes out of the system's memory; the first epoch also waits for the disk.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from hexshards.cores import usable_cores
from hexshards.dataset.blocks import Blocks
from hexshards.dataset.shard import open_shard
from hexshards.loading.batching import chosen_device
from hexshards.loading.buffers import Slots
from hexshards.loading.loader import Loader
from hexshards.loading.options import LoaderSpec
from hexshards.loading.order import EpochPlan, Window
from hexshards.loading.window import COLUMNS, Windows
from hexshards.loading.window_reader import Landing, read_windows
from hexshards.storage.files import Home
from hexshards.training.computing import computing, fastest_layout, usual_threads
from hexshards.training.options import TRAIN, TrainSpec
from hexshards.training.steps.model_factory import network
from hexshards.training.steps.trainer import Trainer

STAGE_S, RUN_S = 0.3, 1.0
"""How long a stage, and a run of the loader or of the model, is measured."""

ROOM = 1.2
"""How much faster than the model a loader must be so that a step never waits for it."""

MOST_WORKERS = 8

SETTLED, CROSSINGS, EXPANDED = 6, 12, 32
"""Windows that a worker writes to memory which is new, windows that cross after them, and batches that are expanded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderTiming:
    """The whole loader with so many workers."""

    workers: int
    samples_per_s: float
    first_batch_s: float
    wait_ns: float
    """Of a sample's time, what this process does not expand: it waits for packed rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Throughput as measured; stages are in nanoseconds per sample."""

    positions: int
    side: int
    batch_size: int
    device: str
    cores: int
    threads: int
    """That torch computes with."""
    stages: dict[str, float]
    """read, checksum, decompress and permute, by whoever makes windows; cross, from a worker; expand."""
    runs: tuple[LoaderTiming, ...]
    model_samples_per_s: float | None
    """Training steps of the model on a batch that is there already."""

    @property
    def fastest(self) -> LoaderTiming:
        """The run that delivers most."""
        return max(self.runs, key=lambda run: run.samples_per_s)

    @property
    def bound(self) -> str | None:
        """What training would wait for: ``loader`` or ``compute``; None without a model."""
        if self.model_samples_per_s is None:
            return None
        return "compute" if self.fastest.samples_per_s >= ROOM * self.model_samples_per_s else "loader"

    @property
    def workers(self) -> int:
        """The fewest workers that are enough for the model; without one, or where none are enough, the fastest."""
        needed = ROOM * self.model_samples_per_s if self.bound == "compute" and self.model_samples_per_s else None
        enough = [run for run in self.runs if needed is not None and run.samples_per_s >= needed]
        return (enough or [self.fastest])[0].workers


def measure_throughput(
    dataset: str | Path | Home,
    spec: LoaderSpec,
    *,
    model: TrainSpec | None = None,
    device: str = TRAIN.device,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Throughput:
    """Throughput of a dataset's loader with several numbers of workers, and of the network that ``model`` names.

    ``device`` auto is cuda where there is one, else cpu. ``threads`` compute on the CPU; None: as many as a new run
    would take. It takes a few seconds. Errors are those of the loader and of training.
    """
    cores, device = usable_cores(), chosen_device(device)
    numbers = sorted({0, *(2**power for power in range(4) if 2**power <= min(cores, MOST_WORKERS))})
    total = 2 + len(numbers)
    threads = threads or usual_threads()
    with computing(threads):
        loader = Loader(dataset, spec, device=device)
        stages = _stages(loader)
        progress(1, total)
        runs = []
        for done, workers in enumerate(numbers, start=2):
            runs.append(_run(Loader(dataset, replace(spec, num_workers=workers), device=device), stages["expand"]))
            progress(done, total)
        steps = None if model is None else _steps(loader, model, device)
        progress(total, total)
    return Throughput(
        positions=loader.positions,
        side=loader.index.side,
        batch_size=spec.batch_size,
        device=device,
        cores=cores,
        threads=threads,
        stages=stages,
        runs=tuple(runs),
        model_samples_per_s=steps,
    )


def _stages(loader: Loader) -> dict[str, float]:
    """Each stage on an epoch's first window; where one can't be had without another, the other's time is taken off."""
    windows = loader.epochs.windows(0)
    (selection,) = loader.epochs.selections
    first, count = windows.plan.windows[0], int(windows.plan.starts[1])
    assert isinstance(first, Window)  # of one dataset
    wanted = first.blocks
    data = list(_as_on_disk(selection.blocks, wanted))
    read = _ns(lambda: list(_as_on_disk(selection.blocks, wanted)), count)
    checksum = _ns(lambda: [isal_zlib.crc32(each) for each in data], count)
    blocks = _ns(lambda: selection.blocks.read(wanted, COLUMNS), count)
    landing = Landing(windows, Slots(windows.columns, count, count=1, shared=False))
    window = _ns(lambda: landing[0, 0], count)
    return {
        "read": read,
        "checksum": checksum,
        "decompress": max(blocks - read - checksum, 0.0),
        "permute": max(window - blocks, 0.0),
        "cross": max(_from_a_worker(windows, count) - window, 0.0),
        "expand": _expand_ns(loader),
    }


def _as_on_disk(blocks: Blocks, wanted: NDArray[np.int64]) -> Iterator[bytes]:
    for number, shard in enumerate(blocks.shards):
        first, end = blocks.first[number : number + 2].tolist()
        members = [block - first for block in wanted.tolist() if first <= block < end]
        if members:
            with open_shard(blocks.home, shard) as file:
                yield from map(file.unchecked, members)


def _from_a_worker(windows: Windows, count: int) -> float:
    """Nanoseconds per sample until a window that one worker made over and over has been seen by this process."""
    numbers = range(SETTLED + CROSSINGS)
    again = EpochPlan((windows.plan.windows[0],) * len(numbers), count * np.arange(len(numbers) + 1))
    with closing(read_windows(Windows(windows.selections, again, windows.spec), numbers, num_workers=1)) as received:
        for number, window in enumerate(received, start=1):
            for column in window.rows:
                column.max()  # every page is looked at
            if number == SETTLED:
                start = time.perf_counter()
    return (time.perf_counter() - start) * 1e9 / (CROSSINGS * count)


def _expand_ns(loader: Loader) -> float:
    """From packed rows to batches on the loader's device."""
    with closing(loader.packed()) as packed:
        rows = [part for part, _ in zip(packed, range(EXPANDED), strict=False)]

    def expand() -> None:
        for batch in loader.batches_of(part for part in rows):
            last = batch
        last.value.cpu()  # a device is done when it answers

    return _ns(expand, sum(len(part.value) for part in rows))


def _ns(work: Callable[[], object], samples: int) -> float:
    """Median time of some work in nanoseconds per sample, after a first time that warms it up."""
    work()
    times = list[float]()
    end = time.perf_counter() + STAGE_S
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e9 / samples


def _run(loader: Loader, expand_ns: float) -> LoaderTiming:
    """Epoch after epoch until the time is over, the start of every epoch included but not that of the first."""
    start = time.perf_counter()
    samples, first_s, took_s = 0, 0.0, 0.0
    while took_s < RUN_S:
        for batch in loader:
            took_s = time.perf_counter() - start
            samples += len(batch.value) if first_s else 0
            first_s = first_s or took_s
            if took_s - first_s >= RUN_S:
                break
    batch.value.cpu()
    took_s = time.perf_counter() - start - first_s
    return LoaderTiming(
        workers=loader.spec.num_workers,
        samples_per_s=samples / took_s,
        first_batch_s=first_s,
        wait_ns=max(took_s * 1e9 / max(samples, 1) - expand_ns, 0.0),
    )


def _steps(loader: Loader, spec: TrainSpec, device: str) -> float:
    """Samples per second of a new run's training steps on one batch, over and over."""
    if spec.channels_last is None:
        spec = replace(spec, channels_last=fastest_layout(spec, device)[0])
    trainer = Trainer(network(spec, side=loader.index.side), spec, device=device)
    batch = next(iter(loader))
    seconds = _ns(lambda: trainer.train_on_batches([batch]), len(batch.value)) / 1e9
    return 1 / seconds
