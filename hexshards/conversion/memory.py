"""Memory budget: what one task of each kind holds is a formula, and so is how many may run at once.

Reading holds one source file: READ_FACTOR times its decompressed size and READ_BYTES; and the packed rows of its group.
Writing holds one shard: its packed rows, their keys and one block. Every process adds PROCESS_BYTES of interpreter.
What one task needs is needed whatever ``--memory`` says: with less, one task runs at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.sources import Input
from hexshards.game.columns import Column, columns, stone_bytes
from hexshards.units import counted, show_bytes

PROCESS_BYTES = 64 << 20
"""A Python process with NumPy and hexshards, and what the allocator keeps."""

READ_FACTOR, READ_BYTES = 1.4, 40 << 20
"""Peak memory of reading a processed file: 1.4 times its decompressed size, and 40 MiB. Measured: 598 MiB for 468 MiB
(228,000 positions), 80 for 58. A file of the first generation, whose examples are no dicts, takes 145 for 51."""

PACKED_FACTOR, TEXT_FACTOR = 0.14, 130
"""Packed rows while they are sorted, 300 bytes each, over the decompressed size of a processed file and over the size
of a file of game records, where a position takes 2.3 bytes."""

MERGE_FACTOR = 6
"""Copies of a shard's rows, as their files have them, that are held while equal positions are merged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a conversion may use."""

    memory_bytes: int
    workers: int

    def at_once(self, task_bytes: int, *, tasks: int | None = None) -> int:
        """How many tasks of this size, of so many, run at the same time: at least one."""
        room = self.memory_bytes - PROCESS_BYTES
        workers = self.workers if tasks is None else min(self.workers, tasks)
        return max(1, min(workers, room // (PROCESS_BYTES + task_bytes)))

    def notice(self, task_bytes: int, what: str) -> str:
        """A sentence when memory holds workers back, else nothing."""
        needed = PROCESS_BYTES + task_bytes
        if needed > self.memory_bytes:
            return f"{what} takes about {show_bytes(needed)}, more than the {show_bytes(self.memory_bytes)} of --memory"
        if (count := self.at_once(task_bytes)) < self.workers:
            return (
                f"{what} takes about {show_bytes(task_bytes)}: --memory {show_bytes(self.memory_bytes)} lets {count} "
                f"of {counted(self.workers, 'worker')} run"
            )
        return ""


def taken_bytes(*steps: tuple[int, int]) -> int:
    """Most that all processes hold at once, in steps of so many tasks at a time of such a size."""
    return PROCESS_BYTES + max(count * (PROCESS_BYTES * (count > 1) + each) for count, each in steps)


def decompressed_bytes(path: Path) -> int:
    """Size of a file once decompressed, as its last four bytes state it: of a gzip file's last member, modulo 4 GiB."""
    size = path.stat().st_size
    if path.suffix != ".gz" or size < 18:
        return size
    with open(path, "rb") as file:
        file.seek(-4, 2)
        return max(size, int.from_bytes(file.read(4), "little"))


def reading_bytes(files: Sequence[Input], spec: ConvertSpec) -> int:
    """What the task that reads a group of files holds."""
    copies = 4 if spec.bake_symmetries else 1
    zipped = [decompressed_bytes(file.path) for file in files if file.path.suffix == ".gz"]
    text = [file.path.stat().st_size for file in files if file.path.suffix != ".gz"]
    packed = copies * (PACKED_FACTOR * sum(zipped) + TEXT_FACTOR * sum(text))
    return int(packed + (READ_BYTES + READ_FACTOR * max(zipped) if zipped else 0))


def row_bytes(side: int, *, soft: bool, optional: Sequence[Column] = ()) -> int:
    """One packed position."""
    cells = side * side
    scalars = sum(dtype.itemsize for name, (dtype, _) in columns(side, soft=False).items() if name != "stones")
    scalars += sum(each.dtype.itemsize * prod(each.shape(side)) for each in optional)
    return stone_bytes(side) + scalars + (2 * cells - 2 if soft else 0)


def writing_bytes(side: int, *, soft: bool, spec: ConvertSpec, optional: Sequence[Column] = ()) -> int:
    """What the task that writes a shard holds."""
    row = row_bytes(side, soft=soft, optional=optional)
    copies = MERGE_FACTOR if spec.merges else 1
    return spec.shard_positions * copies * (row + 24) + spec.block_positions * 4 * row_bytes(
        side, soft=True, optional=optional
    )
