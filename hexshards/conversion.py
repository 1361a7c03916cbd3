"""Source files become shards; the result is a function of their contents and the options alone.

Two steps, each a pool of processes: every file is read, checked and spilled (hexshards.spill); then every shard gathers
its rows from all spills. The dataset exists once its index is written, which comes last.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hexshards.errors import DataError, InputRejected, printable
from hexshards.index import NAME, SPLITS, Index, Split
from hexshards.positions import Positions, concat
from hexshards.shard import Layout, Shard, write_shard
from hexshards.sources import Input, collect, formats
from hexshards.specs import CONVERT, ConvertSpec, plain
from hexshards.spill import Spill, cuts, find_spill, read_rows, write_spill
from hexshards.storage import publish

SCRATCH = ".partial"
"""Folder inside an unfinished dataset that holds spills."""

REJECTS = "rejects.jsonl"
"""File beside the shards with a line for everything that was not kept."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A whole file that was not read: why, and what to do."""

    path: str
    problem: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a conversion is; sent after every file read and every shard written."""

    files: int
    files_done: int
    bytes: int
    bytes_done: int
    positions: int
    shards: int = 0
    shards_done: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a conversion kept, and what it did not."""

    out: Path
    index: Index
    rejects: dict[str, int]
    """Rejected positions by reason."""
    repeated: tuple[str, ...]
    """Files passed over because another has the same contents."""
    shard_bytes: int
    input_bytes: int

    @property
    def positions(self) -> int:
        """Positions kept, over all splits."""
        return sum(split.positions for split in self.index.splits.values())


def convert(
    sources: Sequence[str | Path] | str | Path,
    *,
    out: str | Path,
    val_fraction: float = CONVERT.val_fraction,
    seed: int = CONVERT.seed,
    shard_positions: int = CONVERT.shard_positions,
    block_positions: int = CONVERT.block_positions,
    codec: str = CONVERT.codec,
    max_rejects: int = 0,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Convert files, folders and globs into a new dataset in the folder ``out``.

    Shards are the same bytes for any number of workers and any order of sources. More than one worker means spawned
    processes, so a script that asks for them needs the usual ``if __name__ == "__main__":``. A conversion that was cut
    off goes on when it is called again with the same options.

    Raises ValueError or FileNotFoundError for arguments that make no sense, FileExistsError when ``out`` holds
    something else, InputRejected when a file is refused or more than ``max_rejects`` positions are rejected. Then
    nothing is published but ``rejects.jsonl``, and what was read is kept for the next try.
    """
    spec = ConvertSpec(
        val_fraction=val_fraction,
        seed=seed,
        shard_positions=shard_positions,
        block_positions=block_positions,
        codec=codec,  # type: ignore[arg-type]  # checked by the spec
    )
    if max_rejects < 0 or workers < 1:
        raise ValueError(f"max_rejects must be at least 0 and workers at least 1, got {max_rejects} and {workers}")
    inputs = collect([sources] if isinstance(sources, (str, Path)) else sources)
    out = Path(out)
    _prepare(out, spec)
    with _locked(out), _pool(workers) as pool:
        tell = _Teller(inputs, progress or (lambda _: None))
        spills, refusals, repeated = _read_all(inputs, out=out, spec=spec, pool=pool, tell=tell)
        rejects = _judge(spills, refusals, out=out, max_rejects=max_rejects)
        index = _write_all(spills, out=out, spec=spec, pool=pool, tell=tell)
        index.write(out)
    shutil.rmtree(out / SCRATCH)
    return Report(
        out=out,
        index=index,
        rejects=rejects,
        repeated=tuple(repeated),
        shard_bytes=sum(shard.size_bytes for split in index.splits.values() for shard in split.shards),
        input_bytes=sum(file.size_bytes for file in index.inputs),
    )


# the folder ---------------------------------------------------------------------------------------------------------


def _prepare(out: Path, spec: ConvertSpec) -> None:
    """Make the scratch folder, keeping what an unfinished conversion with the same options left there."""
    if (out / NAME).exists():
        raise FileExistsError(f"{out} holds a finished dataset. Choose another --out, or delete that folder first")
    scratch = out / SCRATCH
    if out.exists() and not scratch.exists() and any(path.name != REJECTS for path in out.iterdir()):
        raise FileExistsError(f"{out} is not empty and holds no unfinished conversion. Choose another --out")
    scratch.mkdir(parents=True, exist_ok=True)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder, so that a second conversion into it is refused; the lock leaves with the process."""
    with open(out / SCRATCH / "lock", "w") as file:
        try:
            import fcntl
        except ImportError:  # Windows has no flock; there two conversions into one folder are the user's to avoid
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FileExistsError(
                f"{out}: another conversion into this folder is running. Wait for it to end"
            ) from None
        yield


def _claim_scratch(out: Path, spec: ConvertSpec) -> None:
    """Empty the scratch folder of what other options left."""
    note, mine = out / SCRATCH / "options.json", json.dumps(plain(spec), sort_keys=True).encode()
    if note.exists() and note.read_bytes() != mine:
        for path in (out / SCRATCH).glob("*.npy"):
            path.unlink()
        for path in (out / SCRATCH).glob("*.json"):
            path.unlink()
    publish(note, mine)


# the pool -----------------------------------------------------------------------------------------------------------


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Worker processes, or None for a single one: then the work is done in this process."""
    if workers == 1:
        yield None
        return
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    # Ctrl-C reaches the whole group; the parent decides. A killed parent must not leave workers behind.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _each(pool: ProcessPoolExecutor | None, task: Callable[..., T], jobs: Sequence[tuple[Any, ...]]) -> Iterator[T]:
    """Results of ``task(*job)`` as they come."""
    if pool is None:
        yield from starmap(task, jobs)
        return
    futures: list[Future[T]] = [pool.submit(task, *job) for job in jobs]
    try:
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise DataError(
            "a worker process was killed, most likely for want of memory",
            where="convert",
            fix="Run the same command again, with fewer --workers; finished files are not read again",
        ) from None


class _Teller:
    """Adds up what is done and passes it on."""

    def __init__(self, inputs: Sequence[Input], tell: Callable[[Progress], None]) -> None:
        self.tell = tell
        self.counts = Counter(files=len(inputs), bytes=sum(file.path.stat().st_size for file in inputs))
        self.add()

    def add(self, **counts: int) -> None:
        self.counts.update(counts)
        names = ("files", "files_done", "bytes", "bytes_done", "positions", "shards", "shards_done")
        self.tell(Progress(**{name: self.counts[name] for name in names}))


# reading ------------------------------------------------------------------------------------------------------------


def _read_all(
    inputs: Sequence[Input], *, out: Path, spec: ConvertSpec, pool: ProcessPoolExecutor | None, tell: _Teller
) -> tuple[list[Spill], list[Refusal], list[str]]:
    """Spills in the order of their files' contents, refusals, and files whose contents another file already gave."""
    _claim_scratch(out, spec)
    done: dict[Path, Spill | Refusal] = {}
    task = partial(_read_one, scratch=out / SCRATCH, spec=spec)
    for file, result in _each(pool, task, [(file,) for file in inputs]):
        done[file.path] = result
        kept = result.input.positions if isinstance(result, Spill) else 0
        tell.add(files_done=1, bytes_done=file.path.stat().st_size, positions=kept)
    spills: dict[str, Spill] = {}
    refusals, repeated = [], []
    for file in inputs:
        result = done[file.path]
        if isinstance(result, Refusal):
            refusals.append(result)
        elif result.stem in spills:
            repeated.append(str(file.path))
        else:
            spills[result.stem] = result
    return [spills[stem] for stem in sorted(spills)], refusals, repeated


def _read_one(file: Input, *, scratch: Path, spec: ConvertSpec) -> tuple[Input, Spill | Refusal]:
    data = file.path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    stem = scratch / sha256
    if (found := find_spill(stem)) is not None:
        return file, found
    try:
        chunks = list(formats()[file.format].read(data, name=file.path.name, where=str(file.path)))
    except DataError as error:
        return file, Refusal(str(file.path), error.problem, error.fix)
    spill = write_spill(
        stem,
        [chunk.positions for chunk in chunks],
        sources=chunks[-1].sources,
        rejects=[reject for chunk in chunks for reject in chunk.rejects],
        name=file.path.name,
        form=file.format,
        size_bytes=len(data),
        sha256=sha256,
        spec=spec,
    )
    return file, spill


def _judge(spills: Sequence[Spill], refusals: Sequence[Refusal], *, out: Path, max_rejects: int) -> dict[str, int]:
    """Rejects by reason, after they were written down. Raises InputRejected when there are too many."""
    lines = [
        {"file": refusal.path, "place": "file", "reason": "refused", "found": refusal.problem} for refusal in refusals
    ]
    lines += [{"file": spill.input.name, **reject._asdict()} for spill in spills for reject in spill.rejects]
    (out / REJECTS).unlink(missing_ok=True)
    if lines:
        publish(out / REJECTS, "".join(json.dumps(line) + "\n" for line in lines).encode())
    if refusals:
        refusal, more = refusals[0], ""
        if len(refusals) > 1:
            more = f", and {len(refusals) - 1} other files are refused (see {out / REJECTS})"
        raise InputRejected(f"{printable(refusal.problem, width=300)}{more}", where=refusal.path, fix=refusal.fix)
    reasons = Counter(reject.reason for spill in spills for reject in spill.rejects)
    if reasons.total() > max_rejects:
        listed = ", ".join(f"{printable(reason)} {count:,}" for reason, count in reasons.most_common(5))
        first = next(spill for spill in spills if spill.rejects)
        place = f"{first.input.name}, {first.rejects[0].place}"
        raise InputRejected(
            f"{reasons.total():,} positions were rejected ({listed}), the first at {place}",
            where=str(out / REJECTS),
            fix=f"Look at that file; --max-rejects {reasons.total()} keeps the others",
        )
    if not any(spill.input.positions for spill in spills):
        raise InputRejected("no position was kept", where=str(out), fix="Name files that hold some")
    _check_sides(spills)
    return dict(reasons.most_common())


def _check_sides(spills: Sequence[Spill]) -> None:
    sides = Counter(spill.side for spill in spills)
    common = sides.most_common(1)[0][0]
    for spill in spills:
        if spill.side != common:
            fix = "A dataset has one side: convert this file into another folder"
            raise InputRejected(
                f"holds boards of side {spill.side}, others of {common}", where=spill.input.name, fix=fix
            )


# writing ------------------------------------------------------------------------------------------------------------


def _write_all(
    spills: Sequence[Spill], *, out: Path, spec: ConvertSpec, pool: ProcessPoolExecutor | None, tell: _Teller
) -> Index:
    for pattern in (*(f"{split}-*.tar" for split in SPLITS), "*.*.partial"):
        for stale in out.glob(pattern):
            stale.unlink()
    layout = Layout(
        side=spills[0].side,
        soft=any(spill.soft for spill in spills),
        codec=spec.codec,
        block_positions=spec.block_positions,
    )
    sources = sorted({name for spill in spills for name in spill.sources})
    numbers = {name: number for number, name in enumerate(sources)}
    jobs = []
    for split in SPLITS:
        places = cuts(spills, split, spec.shard_positions)
        for number in range(places.shape[1] - 1 if places.any() else 0):
            runs = [slice(*map(int, place[number : number + 2])) for place in places]
            jobs.append((out / f"{split}-{number:06d}.tar", split, runs))
    tell.add(shards=len(jobs))
    shards: dict[str, Shard] = {}
    task = partial(_write_one, spills=spills, numbers=numbers, layout=layout)
    for shard in _each(pool, task, jobs):
        shards[shard.name] = shard
        tell.add(shards_done=1)
    splits = {split: _split(split, shards, spills) for split in SPLITS}
    return Index(
        layout=layout,
        splits={split: entry for split, entry in splits.items() if entry.shards},
        sources=tuple(sources),
        inputs=tuple(sorted((spill.input for spill in spills), key=lambda file: (file.name, file.sha256))),
        options=plain(spec),
    )


def _write_one(
    path: Path, split: str, runs: Sequence[slice], *, spills: Sequence[Spill], numbers: dict[str, int], layout: Layout
) -> Shard:
    """One shard: its run of each spill, merged by key. Equal keys, which hardly occur, keep the order of the files."""
    parts = [
        read_rows(spill, split, run, numbers=numbers, soft=layout.soft)
        for spill, run in zip(spills, runs, strict=True)
        if run.start < run.stop
    ]
    positions = concat([rows for rows, _ in parts])
    merged = positions.take(np.argsort(np.concatenate([keys for _, keys in parts]), kind="stable"))
    return write_shard(path, _blocks(merged, layout.block_positions), layout=layout)


def _blocks(positions: Positions, size: int) -> Iterator[Positions]:
    for start in range(0, len(positions), size):
        yield positions.take(slice(start, start + size))


def _split(split: str, shards: dict[str, Shard], spills: Sequence[Spill]) -> Split:
    parts = [spill.parts[split] for spill in spills]
    games = np.zeros(0, dtype=np.uint64)
    for spill in spills:
        games = np.union1d(games, spill.array(split, "games"))
    return Split(
        shards=tuple(shards[name] for name in sorted(shards) if name.startswith(f"{split}-")),
        games=len(games),
        blue_wins=sum(part.blue_wins for part in parts),
        red_wins=sum(part.red_wins for part in parts),
        without_policy=sum(part.without_policy for part in parts),
        plies=tuple(int(count) for count in np.sum([part.plies for part in parts], axis=0)),
    )
