"""How a run computes: threads of the CPU and the layout of planes in memory, settled before it begins.

Another choice adds up sums in another order, so a run goes on as it began, wherever it does, unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from hexshards.cores import usable_cores
from hexshards.errors import DataError
from hexshards.training.checkpointing.checkpoint_file import Reader, newest_first
from hexshards.training.checkpointing.run_folder import RESUMES, RunFolder
from hexshards.training.distributed import ProcessGroup
from hexshards.training.options import MOST_THREADS, TrainSpec
from hexshards.units import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Computing:
    """What was settled, and why."""

    threads: int
    threads_because: str
    channels_last: bool
    layout_because: str

    def settled(self, spec: TrainSpec) -> TrainSpec:
        """A spec that leaves nothing of it open, as a run records it."""
        return replace(spec, threads=self.threads, channels_last=self.channels_last)

    def __str__(self) -> str:
        planes = "planes channels last" if self.channels_last else "planes one after another"
        return f"{counted(self.threads, 'thread')} ({self.threads_because}); {planes} ({self.layout_because})"


def settle(spec: TrainSpec, process_group: ProcessGroup, reader: Reader, *, device: str) -> Computing:
    """As a spec asks; else as the run began; else what is fastest and safe here."""
    # looked up by rank 0 alone, so that all compute alike
    begun = process_group.same(_begun(spec, reader) if process_group.rank == 0 else None)
    threads, threads_because = _threads(spec, begun)
    channels_last, layout_because = _layout(spec, begun, device)
    return Computing(
        threads=threads,
        threads_because=threads_because,
        channels_last=channels_last,
        layout_because=layout_because,
    )


def _threads(spec: TrainSpec, begun: dict[str, Any] | None) -> tuple[int, str]:
    if spec.threads:
        return spec.threads, "as asked for"
    if begun and begun["threads"]:
        return int(begun["threads"]), "as the run began"
    return usual_threads(), "as the machine gives"


def _layout(spec: TrainSpec, begun: dict[str, Any] | None, device: str) -> tuple[bool, str]:
    if spec.channels_last is not None:
        return spec.channels_last, "as asked for"
    if begun:
        return bool(begun["channels_last"]), "as the run began"
    return fastest_layout(spec, device)


def fastest_layout(spec: TrainSpec, device: str) -> tuple[bool, str]:
    """Whether a new run keeps planes channels last, and why.

    oneDNN's convolutions, and torch's batch norm, are faster so on a CPU: a step of 16 channels takes 0.72 of its time,
    of 32 channels 0.81, of 64 channels 0.85 (benchmarks/results/training.md).
    """
    if spec.model:
        return False, "a network of your own may count on that; --channels-last is often faster"
    if device != "cpu":
        return False, "the usual layout"
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False, "torch was built without oneDNN here"
    return True, "a CPU's convolutions are faster so"


def _begun(spec: TrainSpec, reader: Reader) -> dict[str, Any] | None:
    """How the run began that a spec goes on with, as JSON keeps it; None where there is none that can be read."""
    present = newest_first(RunFolder(spec.absolute(spec.run)).checkpoints)
    for path in present if spec.resume in RESUMES else [spec.absolute(spec.resume)]:
        try:
            options = reader.look(path)["options"]
        except (DataError, OSError):  # told where the run goes on
            continue
        threads = options.get("threads")
        fits = isinstance(threads, int) and 1 <= threads <= MOST_THREADS
        return {"threads": threads if fits else None, "channels_last": options.get("channels_last") is True}
    return None


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Torch computes with so many threads on the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usual_threads() -> int:
    """As many as torch would take, and the machine or its container gives."""
    return min(torch.get_num_threads(), usable_cores())
