"""Dry run of a conversion: one file of each format is read, nothing written; the rest is taken to be like it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from hexshards import rng
from hexshards.conversion.convert import settled
from hexshards.conversion.discovery import discover
from hexshards.conversion.disk import dataset_bytes, images, scratch_bytes
from hexshards.conversion.memory import Budget, reading_bytes, taken_bytes, writing_bytes
from hexshards.conversion.options import WORK, ConvertOptions, ConvertSpec
from hexshards.conversion.pickles.frames import let_go
from hexshards.conversion.read_sources import read_file
from hexshards.conversion.report import SourceFolder, source_folders
from hexshards.conversion.sources import Input
from hexshards.conversion.spill_sources import survey
from hexshards.conversion.workdir import SCRATCH
from hexshards.dataset import codec
from hexshards.dataset.upload import written_in
from hexshards.game.columns import Column
from hexshards.game.positions import Positions
from hexshards.storage.files import free_bytes
from hexshards.units import parse_bytes

GATHERING = 2.0
"""Time to write a shard over the time to compress its columns: gathering, sorting and writing come to the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a conversion would read, hold and make."""

    out: Path
    files: int
    """Files to read; none of those that are passed over."""
    repeated: tuple[str, ...]
    already: tuple[str, ...]
    input_bytes: int
    positions: int
    shards: int
    dataset_bytes: int
    """Size of the new shards."""
    scratch_bytes: int
    """Most that the scratch folder holds, besides the new shards; it is removed at the end."""
    free_bytes: int
    readers: int
    """Files read at once, as their number and memory allow."""
    writers: int
    memory_bytes: int
    """Most that all processes are taken to hold at once."""
    seconds: float
    samples: tuple[str, ...]
    """The files that were read for this."""
    notes: tuple[str, ...]
    folders: tuple[SourceFolder, ...]
    """Where the files were found."""

    @property
    def fits(self) -> bool:
        """Whether the disk has room."""
        return self.scratch_bytes + self.dataset_bytes <= self.free_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """One file read, and one block of it compressed."""

    name: str
    side: int
    soft: bool
    optional: tuple[Column, ...]
    positions_per_byte: float
    read_s_per_byte: float
    bytes_per_position: float
    write_s_per_position: float


def estimate(
    sources: Sequence[str | Path] | str | Path,
    *,
    out: str | Path,
    append: bool = False,
    shard_ranges: str = "",
    workers: int = WORK.workers,
    memory: int | str = WORK.memory,
    **options: Unpack[ConvertOptions],
) -> Estimate:
    """What ``hexshards.convert`` with these arguments would do. Raises what it would raise before it starts.

    Raises DataError when the file that is read, of middle size among its kind, would be refused.
    """
    out = written_in(out)
    budget = Budget(memory_bytes=parse_bytes(memory), workers=workers)
    spec, base = settled(options, out=out, append=append)
    discovery = discover(sources, shard_ranges=shard_ranges)
    surveyed = survey(discovery.inputs, scratch=out / SCRATCH, base=base)
    sizes = {
        form: sum(_size(file) for file in surveyed.files if file.format == form) for form in _formats(surveyed.files)
    }
    samples = {form: _sample([file for file in surveyed.files if file.format == form], spec) for form in sizes}
    positions = sum(size * samples[form].positions_per_byte for form, size in sizes.items())
    side = max((sample.side for sample in samples.values()), default=13)
    soft = any(sample.soft for sample in samples.values())
    reading = max((reading_bytes(group, spec) for group in surveyed.groups), default=0)
    optional = tuple({column.name: column for sample in samples.values() for column in sample.optional}.values())
    writing = writing_bytes(side, soft=soft, spec=spec, optional=optional)
    shards = _shards(positions * images(spec), spec)
    readers = budget.at_once(reading, tasks=len(surveyed.groups))
    writers = budget.at_once(writing, tasks=shards)
    per_form = {form: size * samples[form].positions_per_byte * images(spec) for form, size in sizes.items()}
    written = sum(rows * samples[form].bytes_per_position for form, rows in per_form.items())
    read_s = sum(size * samples[form].read_s_per_byte for form, size in sizes.items())
    write_s = sum(rows * samples[form].write_s_per_position for form, rows in per_form.items())
    return Estimate(
        out=out,
        files=len(surveyed.files),
        repeated=surveyed.repeated,
        already=surveyed.already,
        input_bytes=sum(sizes.values()),
        positions=round(positions),
        shards=shards,
        dataset_bytes=min(round(written), dataset_bytes(positions, side=side, soft=soft, spec=spec, optional=optional)),
        scratch_bytes=scratch_bytes(positions, side=side, soft=soft, spec=spec, optional=optional),
        free_bytes=free_bytes(out),
        readers=readers,
        writers=writers,
        memory_bytes=taken_bytes((readers, reading), (writers, writing)),
        seconds=read_s / readers + write_s / writers,
        samples=tuple(sample.name for sample in samples.values()),
        notes=tuple(filter(None, (*discovery.passed_over, budget.notice(reading, "reading the largest source file")))),
        folders=source_folders(discovery.inputs),
    )


def _shards(positions: float, spec: ConvertSpec) -> int:
    """Shards of all splits, each of which has its own."""
    train = 1 - spec.val_fraction - spec.test_fraction
    held = [round(positions * share) for share in (train, spec.val_fraction, spec.test_fraction)]
    return sum(-(-count // spec.shard_positions) for count in held)


def _formats(files: Sequence[Input]) -> list[str]:
    return sorted({file.format for file in files})


def _size(file: Input) -> int:
    return file.path.stat().st_size


def _sample(files: Sequence[Input], spec: ConvertSpec) -> _Sample:
    by_size = sorted(files, key=_size)
    for file in by_size[len(files) // 2 :]:
        started = time.perf_counter()
        positions = read_file(file, spec=spec).positions
        read_s = time.perf_counter() - started
        let_go()
        if len(positions):  # a file may hold no examples
            break
    rows = rng.permutation(len(positions), 0)[: spec.block_positions]
    started = time.perf_counter()
    size = _compressed(positions.take(rows), spec)
    write_s = (time.perf_counter() - started) * GATHERING
    return _Sample(
        name=str(file.path),
        side=positions.side,
        soft=positions.soft,
        optional=tuple(positions.optional),
        positions_per_byte=len(positions) / max(1, _size(file)),
        read_s_per_byte=read_s / max(1, _size(file)),
        bytes_per_position=size / max(1, len(rows)),
        write_s_per_position=write_s / max(1, len(rows)),
    )


def _compressed(block: Positions, spec: ConvertSpec) -> int:
    # a tar member is its data, rounded up, and a header
    return sum(1024 + len(codec.encode(column, codec=spec.codec)) for column in block.columns().values())
