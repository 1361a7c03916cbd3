"""Write shards by merging sorted runs: a shard is its range of every spill; what was written is noted, once.

Equal keys, which hardly occur unless equal positions are to be merged, fall back to what the rows hold: no order of
files or spills can show in a shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.duplicates.count_games import distinct_games, note_games, note_games_of_shard
from hexshards.conversion.duplicates.dedupe_positions import merged
from hexshards.conversion.executors.runner import Runner
from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.pickles.frames import let_go
from hexshards.conversion.sorted_runs import Spill, cuts, read_rows, row_dtype
from hexshards.conversion.workdir import HALVES, remove_stale
from hexshards.dataset.index import SPLITS, Counts, Index, Split
from hexshards.dataset.index_schema import next_number, shard_name
from hexshards.dataset.layout import Layout, Shard
from hexshards.dataset.shard import write_shard
from hexshards.dataset.split import game_keys
from hexshards.errors import InputRejected
from hexshards.game.columns import entry_of, in_order
from hexshards.game.positions import Positions
from hexshards.options import as_recorded
from hexshards.rng import Words
from hexshards.storage.files import remove_halves, write_whole


@dataclass(frozen=True, slots=True)
class RowRange:
    """Consecutive rows of one spill."""

    spill: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One shard to write."""

    name: str
    split: str
    runs: tuple[RowRange, ...]

    @property
    def rows(self) -> int:
        """Rows of all runs together."""
        return sum(run.stop - run.start for run in self.runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """What every job of an assembly shares."""

    out: Path
    scratch: Path
    spills: tuple[Spill, ...]
    sources: tuple[str, ...]
    """Names of all sources of the dataset, those it had before first."""
    layout: Layout
    merges: bool

    def numbers(self, spill: Spill) -> NDArray[np.uint32]:
        """The number in the dataset of each source of a spill."""
        places = {name: number for number, name in enumerate(self.sources)}
        return np.array([places[name] for name in spill.sources], dtype=np.uint32)


def plan_of(spills: Sequence[Spill], *, out: Path, scratch: Path, base: Index | None, spec: ConvertSpec) -> ShardPlan:
    """How the spills become shards. Raises InputRejected when they do not fit the dataset they are added to."""
    soft = [spill for spill in spills if spill.soft]
    if base and soft and not base.layout.soft:
        raise InputRejected(
            "has distributions as policies, while the dataset holds single moves",
            where=soft[0].inputs[0].name,
            fix="Convert everything again into another folder",
        )
    known = base.sources if base else ()
    fresh = sorted({name for spill in spills for name in spill.sources} - set(known))
    layout = base.layout if base else None
    listed = [(column, spill.inputs[0].name) for spill in spills for column in spill.optional]
    optional = layout.optional if layout else ()
    for column, name in listed:
        try:
            optional = in_order((*optional, column))
        except ValueError as error:
            fix = "Convert these files into another folder, or let their converter declare it alike"
            raise InputRejected(str(error), where=name, fix=fix) from None
    return ShardPlan(
        out=out,
        scratch=scratch,
        spills=tuple(sorted(spills, key=lambda spill: spill.inputs[0].sha256)),
        sources=(*known, *fresh),
        # a mean of moves is a distribution, so merged positions are soft whatever their files hold
        layout=replace(layout, optional=optional)
        if layout
        else Layout(
            side=next((spill.side for spill in spills if any(spill.rows.values())), spills[0].side),
            soft=bool(soft) or spec.merges,
            codec=spec.codec,
            block_positions=spec.block_positions,
            counted=spec.merges,
            optional=optional,
        ),
        merges=spec.merges,
    )


def assemble(
    plan: ShardPlan,
    *,
    base: Index | None,
    spec: ConvertSpec,
    runner: Runner,
    at_once: int,
    tell: Callable[..., None],
) -> Index:
    """Write all shards that are not there yet, and describe the dataset; ``tell`` is told of shards and shards_done."""
    jobs = [job for split in SPLITS for job in _jobs(plan, split, base, spec.shard_positions)]
    stamp = _stamp(plan, jobs)
    remove_stale(plan.out, base, written={job.name for job in jobs if _written(job, plan, stamp)})
    waiting = [job for job in jobs if not _written(job, plan, stamp)]
    tell(shards=len(jobs), shards_done=len(jobs) - len(waiting))
    write = partial(write_one, plan=_slim(plan), stamp=stamp)
    for _ in runner.each(write, list(zip(waiting, _threads(waiting, at_once), strict=True)), at_once=at_once):
        tell(shards_done=1)
    remove_halves(plan.out, HALVES)  # of a worker that was killed; its task was run again
    if base:
        shards = [(shard,) for split in base.splits.values() for shard in split.shards]
        sketched = len(shards) if spec.dedupe == "none" else 0
        task = partial(note_games_of_shard, folder=plan.out, scratch=plan.scratch, index=base, sketched=sketched)
        for _ in runner.each(task, shards, at_once=at_once):
            pass
    splits = {split: _split(split, [job for job in jobs if job.split == split], plan, base, stamp) for split in SPLITS}
    added = sorted((file for spill in plan.spills for file in spill.inputs), key=lambda file: (file.name, file.sha256))
    return Index(
        layout=plan.layout,
        splits={name: split for name, split in splits.items() if split},
        sources=plan.sources,
        inputs=(*(base.inputs if base else ()), *added),
        options=as_recorded(spec),
        merged=base.merged if base else {},
    )


def _jobs(plan: ShardPlan, split: str, base: Index | None, shard_positions: int) -> Iterator[Job]:
    first = next_number(base.splits[split].shards) if base and split in base.splits else 0
    places = cuts(plan.spills, split, shard_positions)
    number = first
    for column in range(places.shape[1] - 1):
        ends = places[:, column : column + 2].tolist()
        runs = tuple(RowRange(spill, start, stop) for spill, (start, stop) in enumerate(ends) if start < stop)
        if runs:  # many equal keys may leave the next shard nothing
            yield Job(name=shard_name(split, number), split=split, runs=runs)
            number += 1


def _stamp(plan: ShardPlan, jobs: Sequence[Job]) -> str:
    """Names everything that the shards follow from, but for the options, which the scratch folder notes."""
    files = [(spill.rows, [file.sha256 for file in spill.inputs]) for spill in plan.spills]
    layout = {**asdict(plan.layout), "optional": [entry_of(each) for each in plan.layout.optional]}
    entry = [files, plan.sources, layout, [(job.name, job.rows) for job in jobs]]
    return hashlib.sha256(json.dumps(entry).encode()).hexdigest()


def _threads(jobs: Sequence[Job], at_once: int) -> list[int]:
    """How many threads each job takes: with fewer shards than workers, those that would idle are shared out."""
    rows = sum(job.rows for job in jobs)
    return [max(1, round(at_once * job.rows / rows)) for job in jobs]


def _slim(plan: ShardPlan) -> ShardPlan:
    """The plan without what a job has no use for: it travels with every job."""
    return replace(plan, spills=tuple(replace(s, inputs=(), rejects={}, first_reject="") for s in plan.spills))


# one shard ----------------------------------------------------------------------------------------------------------


def write_one(job: Job, threads: int, *, plan: ShardPlan, stamp: str) -> None:
    """Write a shard, the keys of its games, and last a note of what is in it."""
    let_go()  # of what this process read before: the budget has room for the shard alone
    counts = list[Counts]()
    games = list[Words]()

    def counted(blocks: Iterator[Positions]) -> Iterator[Positions]:
        for block in blocks:
            counts.append(Counts.of(block))
            words = np.sort(game_keys(plan.sources, block.source, block.game))  # np.unique takes 14 times as long
            games.append(words[np.append(True, words[1:] != words[:-1])])
            yield block

    blocks = _merged_blocks(job, plan) if plan.merges else _blocks(job, plan)
    shard = write_shard(plan.out / job.name, counted(blocks), layout=plan.layout, threads=threads)
    note_games(plan.scratch, job.name, games)
    note = {"stamp": stamp, "shard": asdict(shard), "counts": asdict(Counts.sum(counts))}
    write_whole(_note(plan.scratch, job.name), json.dumps(note).encode())


def _parts(job: Job, plan: ShardPlan) -> Iterator[tuple[Positions, Words]]:
    for run in job.runs:
        spill = plan.spills[run.spill]
        positions, keys = read_rows(spill, job.split, slice(run.start, run.stop), numbers=plan.numbers(spill))
        yield positions.having(plan.layout.optional), keys


def _blocks(job: Job, plan: ShardPlan) -> Iterator[Positions]:
    """The rows of a shard in the order of their keys; one copy of them is held, and one block."""
    rows = np.empty(job.rows, dtype=row_dtype(plan.layout.side, soft=plan.layout.soft, optional=plan.layout.optional))
    keys = np.empty(job.rows, dtype=np.uint64)
    at = 0
    for positions, words in _parts(job, plan):
        place = slice(at, at := at + len(words))
        keys[place] = words
        for name, column in (positions.softened() if plan.layout.soft else positions).columns().items():
            rows[name][place] = column
    order = _by_key(keys, rows)
    size = plan.layout.block_positions
    for start in range(0, len(rows), size):
        block = rows[order[start : start + size]]
        columns = {name: np.ascontiguousarray(block[name]) for name in rows.dtype.names or ()}
        yield Positions.of(plan.layout.side, columns, plan.layout.optional)


def _by_key(keys: Words, rows: NDArray[Any]) -> NDArray[np.int64]:
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    if not (ordered[1:] == ordered[:-1]).any():
        return order
    # rows are compared as bytes: any order does that the contents alone decide
    return np.lexsort([np.unique(rows.view(f"V{rows.itemsize}"), return_inverse=True)[1], keys])


def _merged_blocks(job: Job, plan: ShardPlan) -> Iterator[Positions]:
    held = plan.layout.block_positions * 32
    groups = merged(_parts(job, plan), side=plan.layout.side, optional=plan.layout.optional, held=held)
    for start in range(0, len(groups), plan.layout.block_positions):
        yield groups.positions(slice(start, min(len(groups), start + plan.layout.block_positions)))


# all of them --------------------------------------------------------------------------------------------------------


def _note(scratch: Path, name: str) -> Path:
    return scratch / f"{name}.json"


def _written(job: Job, plan: ShardPlan, stamp: str) -> bool:
    """Whether a shard is there, whole and up to date."""
    note, path = _note(plan.scratch, job.name), plan.out / job.name
    if not note.exists() or not path.exists():
        return False
    entry = json.loads(note.read_bytes())
    return bool(entry["stamp"] == stamp and path.stat().st_size == entry["shard"]["size_bytes"])


def _split(name: str, jobs: Sequence[Job], plan: ShardPlan, base: Index | None, stamp: str) -> Split | None:
    old = base.splits.get(name) if base else None
    notes = [json.loads(_note(plan.scratch, job.name).read_bytes()) for job in jobs]
    if not notes and not old:
        return None
    shards = [*(old.shards if old else ()), *(_shard(note["shard"]) for note in notes)]
    counts = Counts.sum([*([old] if old else []), *(_counts(note["counts"]) for note in notes)])
    games = distinct_games(plan.scratch, [shard.name for shard in shards])
    return Split(shards=tuple(shards), games=games, **asdict(counts))


def _shard(entry: dict[str, Any]) -> Shard:
    tables = {name: tuple(entry[name]) for name in ("block_bytes", "block_crc32")}
    return Shard(**{**entry, **tables})


def _counts(entry: dict[str, Any]) -> Counts:
    return Counts(**{**entry, "plies": tuple(entry["plies"])})
