"""Everything that needs a GPU: the tests marked so, what crosses to the card, what it expands, what it trains.

    python benchmarks/gpu.py [FOLDER_OF_PROCESSED_FILES] [--device cpu] [--quick] [--write]

One command, under eight minutes. Each figure is a median of three runs and stands beside what the card itself
can do in the same minute: its copies from pinned memory, its copies within its own memory, its steps on a batch that is
already there. ``--device cpu`` runs the same through on the CPU with smaller batches and networks: to see that it
does, for its figures say nothing of a card.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import torch
from harness.recording import arguments_of, files_of, machine, write_results

import hexshards
from hexshards.loading.expansion.expand import Packed, expand_on_device
from hexshards.training.options import StepSpec

ROOT = Path(__file__).parents[1]
RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured."""

    games: int = 2_000
    batches: tuple[int, ...] = (1_024, 4_096, 16_384)
    expanded: tuple[int, ...] = (1_024, 16_384, 65_536)
    """Rows that are expanded at once."""
    networks: tuple[tuple[str, int, int, int], ...] = (
        ("small", 32, 4, 1_024),
        ("medium", 128, 8, 1_024),
        ("large", 256, 16, 1_024),
    )
    """Name, channels, residual blocks, batch size."""
    precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    most_s: float = 4.0
    """Seconds of a run at most."""
    workers: int = 4
    """Processes that read, where several do."""

    def quick(self) -> Scale:
        """One of each."""
        first = {name: getattr(self, name)[:1] for name in ("batches", "networks", "precisions")}
        return replace(self, games=200, **first)


CARD = Scale()
CPU = Scale(
    games=500,
    expanded=(1_024, 16_384),
    networks=(("small", 8, 1, 256), ("medium", 16, 2, 256), ("large", 32, 4, 256)),
    most_s=2.0,
    workers=2,
)
"""A step of the card's large network takes minutes here."""

PACKED_BYTES, DENSE_BYTES = 51, 2_708
"""A sample of side 13 on its way: packed; as float32 board, policy and value."""
COPY_BYTES = 256 << 20


class Clock:
    """Seconds of work on a device, waited for."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def seconds(self, work: Callable[[], object]) -> float:
        """How long the work takes, until the device has done it."""
        self._settle()
        start = time.perf_counter()
        work()
        self._settle()
        return time.perf_counter() - start

    def median(self, work: Callable[[], object], *, runs: int = RUNS) -> float:
        """Median of several runs, after one that does not count."""
        work()
        return statistics.median(self.seconds(work) for _ in range(runs))

    def _settle(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


def tests(device: torch.device) -> str:
    """The tests marked ``gpu``, as pytest sums them up."""
    environment = {**os.environ, "HEXSHARDS_TEST_DEVICE": device.type}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/laws/test_gpu.py"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = ended.stdout.splitlines() or ["pytest did not start"]
    print("\n".join(lines[-40:]), file=sys.stderr, flush=True)
    return lines[-1].strip("= ")


def copies(device: torch.device, clock: Clock) -> tuple[float, float]:
    """Bytes a second: from pinned memory to the device; within the device's memory, read and written."""
    here = torch.empty(COPY_BYTES, dtype=torch.uint8, pin_memory=device.type == "cuda")
    there, other = torch.empty_like(here, device=device), torch.empty_like(here, device=device)
    across = clock.median(lambda: there.copy_(here, non_blocking=True), runs=9)
    within = clock.median(lambda: [other.copy_(there) for _ in range(8)], runs=9) / 8
    return COPY_BYTES / across, 2 * COPY_BYTES / within


def samples_per_s(loader: Iterable[Any], clock: Clock, *, most_s: float, to: torch.device | None = None) -> float:
    """Samples a second of a loader, its first batch excepted; ``to`` moves dense batches out of pinned memory."""

    def once() -> float:
        count, start = 0, None
        for batch in loader:
            if to is not None:
                parts = [part.pin_memory() if to.type == "cuda" else part for part in batch]
                batch = [part.to(to, non_blocking=True) for part in parts]
            if start is None:
                clock.seconds(lambda: None)
                start = time.perf_counter()
                continue
            count += len(batch[2])
            if time.perf_counter() - start > most_s:
                break
        clock.seconds(lambda: None)
        return count / (time.perf_counter() - (start or 0))

    return statistics.median(once() for _ in range(RUNS))


def loading(data: Path, device: torch.device, clock: Clock, across: float, scale: Scale) -> Iterator[str]:
    """Table of samples a second on their way to the device, beside what its copies allow."""
    ceiling = "of the copy's ceiling"
    yield from heading(
        "batch",
        "packed, 0 workers",
        f"packed, {scale.workers} workers",
        ceiling,
        f"dense, {scale.workers} workers",
        ceiling,
        "resident",
    )
    for batch in scale.batches:

        def measured(batch: int = batch, *, to: torch.device | None = None, **options: Any) -> float:
            loader = hexshards.loader(data, batch_size=batch, **options)
            return samples_per_s(loader, clock, to=to, most_s=scale.most_s)

        alone = measured(device=device)
        packed = measured(device=device, num_workers=scale.workers)
        dense = measured(num_workers=scale.workers, to=device)
        resident = measured(device=device, resident=True)
        of_packed, of_dense = max(alone, packed) * PACKED_BYTES / across, dense * DENSE_BYTES / across
        yield row(batch, alone, packed, f"{of_packed:.3f}", dense, f"{of_dense:.3f}", resident)


def expansion(data: Path, device: torch.device, clock: Clock, within: float, scale: Scale) -> Iterator[str]:
    """Table of expansion alone, of rows that are on the device, beside its memory bandwidth."""
    yield from heading("rows", "samples/s", "GB/s written", "of the memory's bandwidth")
    for count in scale.expanded:
        rows = next(iter(hexshards.loader(data, batch_size=count).packed()))
        there = Packed(*(torch.from_numpy(column.copy()).to(device) for column in rows))
        taken = clock.median(lambda there=there: [expand_on_device(there, side=13) for _ in range(10)], runs=5) / 10
        written = len(rows.stones) * DENSE_BYTES / taken
        yield row(len(rows.stones), len(rows.stones) / taken, f"{written / 1e9:,.1f}", f"{written / within:.3f}")


def training(data: Path, device: torch.device, clock: Clock, scale: Scale) -> Iterator[str]:
    """Table of training steps on a batch that is there, and with loading; the share of time that waits for data."""
    there_already = "a batch that is there"
    yield from heading("network", "precision", there_already, "loaded packed", "waiting", "loaded dense", "waiting")
    for name, channels, blocks, batch in scale.networks:
        for precision in scale.precisions:
            network = hexshards.TwoHeadedResNet(channels=channels, blocks=blocks)
            spec = StepSpec(precision=precision, channels_last=precision == "bfloat16", warmup_samples=0)
            trainer = hexshards.Trainer(network, spec, device=device)
            packed_there = hexshards.loader(data, batch_size=batch, device=device, num_workers=min(2, scale.workers))
            dense_here = hexshards.loader(data, batch_size=batch, num_workers=min(2, scale.workers))
            bare, _ = steps(trainer, repeat(next(iter(packed_there))), clock, most_s=scale.most_s)
            packed, waiting = steps(trainer, endless(packed_there), clock, most_s=scale.most_s)
            dense, waiting_dense = steps(trainer, endless(dense_here), clock, most_s=scale.most_s)
            yield row(
                f"{name}: {channels} channels, {blocks} blocks, batch {batch:,}",
                precision,
                bare,
                f"{packed:,.0f} ({packed / bare:.2f})",
                f"{waiting:.1%}",
                f"{dense:,.0f} ({dense / bare:.2f})",
                f"{waiting_dense:.1%}",
            )


def heading(*titles: str) -> Iterator[str]:
    """The first two lines of a table, numbers to the right."""
    yield row(*titles)
    yield "|" + "---:|" * len(titles)


def row(*cells: object) -> str:
    """A line of a table; numbers as whole ones."""
    return "| " + " | ".join(cell if isinstance(cell, str) else f"{cell:,.0f}" for cell in cells) + " |"


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from loader


def steps(trainer: Any, batches: Iterator[Any], clock: Clock, *, most_s: float) -> tuple[float, float]:
    """Samples a second of training on these batches, a few first ones excepted; the share of time that waits."""
    seen, waited, start = 0, 0.0, 0.0

    def fed(count: int | None) -> Iterator[Any]:
        nonlocal seen, waited
        while count is None or count > 0:
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            seen += len(batch.value)
            yield batch
            if count is not None:
                count -= 1
            elif time.perf_counter() - start > most_s:
                return

    trainer.train_on_batches(fed(10))
    clock.seconds(lambda: None)
    seen, waited, start = 0, 0.0, time.perf_counter()
    trainer.train_on_batches(fed(None))
    clock.seconds(lambda: None)
    took_s = time.perf_counter() - start
    return seen / took_s, waited / took_s


def main() -> None:
    """Measure all, print it, and write it if asked."""
    parser = arguments_of(__doc__, games=CARD.games)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to see that it runs through")
    parser.add_argument("--quick", action="store_true", help="one batch size, one network")
    given = parser.parse_args()
    device, began = torch.device(given.device), time.perf_counter()
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu runs through without one")
    if device.type != "cuda" and given.write:
        parser.error("results are those of a card; leave --write out")
    scale = CARD if device.type == "cuda" else CPU
    scale = scale.quick() if given.quick else scale
    summed_up = tests(device)
    clock = Clock(device)
    with tempfile.TemporaryDirectory() as work:
        files = files_of(given, Path(work) / "files", games=scale.games)
        data = Path(work) / "data"
        hexshards.convert(files, out=data, workers=min(8, os.cpu_count() or 1), val_fraction=0.02)
        across, within = copies(device, clock)
        card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no card: the CPU"
        lines = [
            f"{card}, PyTorch {torch.__version__}. {machine()}",
            f"\n{hexshards.read_index(data).splits['train'].positions:,} positions of side 13.\n",
            f"Tests marked `gpu`: {summed_up}.\n",
            f"Copies: {across / 1e9:.1f} GB/s from pinned memory, {within / 1e9:,.0f} GB/s within the device's memory "
            "(bytes read and written).\n",
            "## To the device, samples/s\n",
            *loading(data, device, clock, across, scale),
            f"\nA sample is {PACKED_BYTES} bytes packed and {DENSE_BYTES:,} dense.\n",
            "## Expansion on the device\n",
            *expansion(data, device, clock, within, scale),
            "\n## Training steps\n",
            *training(data, device, clock, scale),
            f"\nAll of it took {time.perf_counter() - began:.0f} s.\n",
        ]
    table = "\n".join(lines)
    print(table)
    if given.write:
        write_results("On a GPU", table)


if __name__ == "__main__":
    main()
