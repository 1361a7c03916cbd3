"""Megatron-Energon: webdataset shards of a packed row a member, mixed in a buffer, expanded a batch at a time."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import megatron.energon as energon
import numpy as np
import torch
import webdataset
from harness.rows import Dense, Resumable, Source, expand, from_bytes, steps
from numpy.typing import NDArray

SHARDS, BUFFER, SEQUENCE = 16, 1000, 100
"""Shards, samples that are mixed, and samples of a shard that are read in one go: as its documentation has them."""

MICRO_BATCH = 16
"""Of a run that is to go on: a batch of 64 is one of each of four workers."""

COMMAND = [sys.executable, "-c", "from megatron.energon.cli.main import main; main()"]


def prepare(source: Source, folder: Path) -> int:
    """Shards, and what its own command adds to them."""
    rows = source.rows
    with webdataset.ShardWriter(
        str(folder / "train-%06d.tar"), maxcount=-(-len(rows) // SHARDS), mtime=0, encoder=False, verbose=0
    ) as shards:
        for number, row in enumerate(rows):
            shards.write({"__key__": f"{number:08d}", "row": row.tobytes()})
    command = [*COMMAND, "prepare", str(folder)]
    options = ["--non-interactive", "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset", "--num-workers", "1"]
    subprocess.run([*command, *options], check=True)
    return len(rows)


@energon.edataclass
class Row(energon.Sample):
    """A packed row."""

    row: bytes


@energon.stateless
def _cooked(sample: dict[str, Any]) -> Row:
    return Row(**energon.basic_sample_keys(sample), row=sample["row"])


class Joined(energon.TaskEncoder[Any, Any, Any, Any]):
    """Batches of rows."""

    cookers: ClassVar = [energon.Cooker(_cooked)]
    decoder = None

    @energon.stateless
    def batch(self, samples: list[Row]) -> NDArray[np.uint8]:
        """Join."""
        return from_bytes([sample.row for sample in samples])

    @energon.stateless
    def encode_batch(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As it is."""
        return batch


class Expanded(Joined):
    """Dense batches."""

    @energon.stateless
    def encode_batch(self, batch: NDArray[np.uint8]) -> Dense:  # type: ignore[override]
        """Expand."""
        return expand(batch)


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[Dense]:
    """Batches epoch after epoch."""
    for epoch in range(epochs):
        config = energon.WorkerConfig(rank=0, world_size=1, num_workers=workers, seed_offset=epoch)
        yield from energon.get_loader(_dataset(folder, config, batch, Expanded()))


def resumable(folder: Path, *, batch: int, workers: int, rank: int, world_size: int, states: Any) -> Resumable:
    """A state is a rank's; its command ``checkpoint redist`` deals them to another number of ranks.

    As its page on reproducible scaling asks for, micro-batches are of one size in all runs, and each worker has as many
    of them in a step.
    """
    config = energon.WorkerConfig(rank=rank, world_size=world_size, num_workers=workers)
    loader = energon.get_savable_loader(_dataset(folder, config, MICRO_BATCH, Joined()))
    if states:
        loader.restore_state_rank((states if len(states) == world_size else _dealt(states, world_size))[rank])
    return Resumable(steps(loader, count=batch // MICRO_BATCH), loader.save_state_rank)


def _dataset(folder: Path, config: energon.WorkerConfig, batch: int, encoder: Any) -> Any:
    return energon.get_train_dataset(
        folder,
        worker_config=config,
        batch_size=batch,
        shuffle_buffer_size=BUFFER,
        max_samples_per_sequence=SEQUENCE,
        task_encoder=encoder,
        repeat=False,
    )


def _dealt(states: list[Any], world_size: int) -> list[Any]:
    with tempfile.TemporaryDirectory() as work:
        for rank, state in enumerate(states):
            torch.save(state, f"{work}/rank{rank}.pt")
        files = [f"{work}/rank{rank}.pt" for rank in range(len(states))]
        Path(work, "dealt").mkdir()  # where it is not there, the command fails
        command = [*COMMAND, "checkpoint", "redist", *files, f"{work}/dealt"]
        subprocess.run([*command, "--new-world-size", str(world_size)], check=True)
        return [torch.load(f"{work}/dealt/rank{rank}.pt", weights_only=False) for rank in range(world_size)]
