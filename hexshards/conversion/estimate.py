"""Dry run of a conversion: one file of each format is read, nothing written; the rest is taken to be like it."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Unpack

from hexshards import rng
from hexshards.conversion.convert import settled
from hexshards.conversion.discovery import discover
from hexshards.conversion.disk import dataset_bytes, images, scratch_bytes
from hexshards.conversion.duplicates.overlap_notes import REMEDY, held_already_text, held_of_file
from hexshards.conversion.memory import Budget, reading_bytes, taken_bytes, writing_bytes
from hexshards.conversion.options import WORK, ConvertOptions, ConvertSpec
from hexshards.conversion.pickles.frames import let_go
from hexshards.conversion.read_sources import read_file
from hexshards.conversion.report import SourceFolder, source_folders
from hexshards.conversion.sources import Input, source_apart, source_name
from hexshards.conversion.spill_sources import survey
from hexshards.conversion.workdir import SCRATCH
from hexshards.dataset import codec
from hexshards.dataset.index import Index
from hexshards.dataset.upload import written_in
from hexshards.game.columns import Column
from hexshards.game.positions import Positions
from hexshards.storage.files import free_bytes
from hexshards.units import counted, parse_bytes

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
    held: str
    """What of it the dataset that is added to holds by other files, in a sentence; or nothing."""


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
    look = partial(_sample, spec=spec, folder=out, base=base)
    samples = {form: look([file for file in surveyed.files if file.format == form]) for form in sizes}
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
        notes=(
            *discovery.passed_over,
            *filter(None, [budget.notice(reading, "reading the largest source file")]),
            *(sample.held for sample in samples.values() if sample.held),
            *_same_names(surveyed.files, {sample.name for sample in samples.values()}, base, spec),
        ),
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


def _sample(files: Sequence[Input], *, spec: ConvertSpec, folder: Path, base: Index | None) -> _Sample:
    by_size = sorted(files, key=_size)
    for file in by_size[len(files) // 2 :]:
        started = time.perf_counter()
        names, positions = (read := read_file(file, spec=spec)).names, read.positions
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
        held=_held(file, names, positions, folder=folder, base=base, spec=spec) if base else "",
    )


def _held(
    file: Input, names: Sequence[str], positions: Positions, *, folder: Path, base: Index, spec: ConvertSpec
) -> str:
    if spec.merges or not (again := held_of_file(names, positions, folder=folder, base=base)).positions:
        return ""
    then = "left out (--dedupe games)" if spec.dedupe == "games" else f"added once more. {REMEDY}"
    return f"of {file.path}, {held_already_text(again, 'is/are')}, and would be {then}"


def _same_names(files: Sequence[Input], read: Collection[str], base: Index | None, spec: ConvertSpec) -> list[str]:
    """Files that were not read, and are named like sources of the dataset: a game is known by its file's name."""
    if base is None or spec.merges:
        return []
    sources = {*base.sources}
    named = [
        str(file.path)
        for file in files
        if str(file.path) not in read and source_apart(source_name(file.path.name), file) in sources
    ]
    if not named:
        return []
    are = counted(len(named), "other file", verb="has the name of a source/have names of sources")
    return [f"{are} of the dataset, such as {named[0]}: their games may be there already"]


def _compressed(block: Positions, spec: ConvertSpec) -> int:
    # a tar member is its data, rounded up, and a header
    return sum(1024 + len(codec.encode(column, codec=spec.codec)) for column in block.columns().values())
