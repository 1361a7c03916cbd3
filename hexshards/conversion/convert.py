"""Convert source files into shards; the result is a function of their contents and the options alone.

Two steps, each run by an engine: every file is read, checked and spilled (spill_sources); then every shard gathers
its rows from all spills (write_shards). The dataset exists once its index is written, which comes last.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Unpack

from hexshards.arguments import checked
from hexshards.conversion.discovery import discover
from hexshards.conversion.disk import check_space
from hexshards.conversion.duplicates.dedupe_games import (
    HeldGames,
    LeftOut,
    held_games,
    held_path,
    note_held,
    without_copies,
)
from hexshards.conversion.duplicates.overlap_notes import overlap_notes
from hexshards.conversion.duplicates.repeated_games import holds_games, without_repeats
from hexshards.conversion.executors import engines
from hexshards.conversion.executors.runner import Runner
from hexshards.conversion.memory import Budget, reading_bytes, writing_bytes
from hexshards.conversion.options import WORK, ConvertOptions, ConvertSpec, Engine, WorkSpec
from hexshards.conversion.pickles.frames import let_go
from hexshards.conversion.report import (
    ConversionProgress,
    ProgressTotals,
    Report,
    SourceFolder,
    report_again,
    report_of,
    shards_of,
    source_folders,
)
from hexshards.conversion.sorted_runs import Spill, find_spill
from hexshards.conversion.sources import Input
from hexshards.conversion.spill_sources import Group, Refusal, Survey, judge, read_group, stem_of, survey
from hexshards.conversion.workdir import clear, finished, held, rejects_name
from hexshards.conversion.write_shards import assemble, plan_of
from hexshards.dataset.index import NAME, Index, read_index
from hexshards.dataset.upload import published, upload, written_in
from hexshards.errors import DataError, escaped, printable
from hexshards.main_guard import check_main_guard
from hexshards.options import as_recorded, takes
from hexshards.storage.remote import is_url, shown
from hexshards.units import counted, parse_bytes

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@checked
@takes(ConvertSpec)
def convert(
    sources: Sequence[str | Path] | str | Path,
    *,
    out: str | Path,
    append: bool = False,
    max_rejects: int = WORK.max_rejects,
    workers: int = WORK.workers,
    memory: int | str = WORK.memory,
    engine: Engine = WORK.engine,
    progress: Callable[[ConversionProgress], None] | None = None,
    announce: Callable[[Sequence[SourceFolder], Sequence[str]], None] | None = None,
    generation: int | None = None,
    shard_ranges: str = "",
    **options: Unpack[ConvertOptions],
) -> Report:
    """Convert files, folders and globs into a dataset in the folder ``out``; the options are those of ConvertSpec.

    Shards are the same bytes for any number of workers and any order of sources. More than one worker means spawned
    processes, so a script that asks for them needs the usual ``if __name__ == "__main__":``. The engine ``ray`` runs
    the same work on a Ray cluster whose machines share the folders, ``workers`` tasks at a time. A conversion that was
    cut off goes on when it is called again with the same arguments. ``memory``, in bytes or as ``512MiB``, bounds how
    many workers run at once (hexshards.conversion.memory).

    ``out`` may be an s3, gs or hf URL: the dataset is made in this user's cache folder and then published, its index
    last; a publication that was cut off goes on when it is called again.

    With ``append`` the files become new shards of the dataset at ``out``, made with the dataset's own options.

    ``generation``, from 0 on, says which network played, in positions of these files that do not say so themselves.
    ``shard_ranges`` takes some files of each source, as hex_ai does: ``"221-250,all"``, counted from 0 by their names.

    Folders are searched to any depth. ``announce`` is told before anything is read where files were found, and, in
    sentences, what was passed over.

    Raises ValueError or FileNotFoundError for arguments that make no sense, FileExistsError when ``out`` holds
    something else, OSError when the disk is or becomes full, InputRejected when a file is refused or more than
    ``max_rejects`` examples or lines are rejected. Then nothing is published but ``rejects.jsonl``, and what was read
    is kept for the next try.
    """
    check_main_guard()
    WorkSpec(workers=workers, engine=engine, max_rejects=max_rejects, memory=memory)  # refuses what is beyond bounds
    budget = Budget(memory_bytes=parse_bytes(memory), workers=workers)
    url, out = (str(out) if is_url(out) else ""), written_in(out)
    if url and append:
        raise ValueError(
            f"{shown(url)}: files are added to a dataset in a folder. Add to a copy of it, and publish that"
        )
    spec, base = settled(options, out=out, append=append)
    discovery = discover(sources, shard_ranges=shard_ranges)
    inputs, folders = _of_generation(discovery.inputs, generation), source_folders(discovery.inputs)
    if announce:
        announce(folders, discovery.passed_over)
    engines.start(engine, workers=1, folder=out)  # refuses an engine that is not there, and starts nothing yet
    if url and (waiting := _on_its_way(url, out, spec, inputs)):
        return _published(url, report_again(out, waiting, folders), ProgressTotals(inputs, progress))
    if not append and (done := finished(out, spec)) and _made_from(done, inputs):
        return _tidied(out, done, spec, folders)
    with disk_named(out), held(out, spec, base=base) as scratch:
        work = _Work(out=out, scratch=scratch, spec=spec, base=base, budget=budget, engine=engine)
        tell = ProgressTotals(inputs, progress)
        report = _converted(work, inputs, max_rejects=max_rejects, tell=tell)
        report = replace(report, notes=(*discovery.passed_over, *report.notes), folders=folders)
        clear(scratch)
    return _published(url, report, tell) if url else report


def _of_generation(inputs: Sequence[Input], generation: int | None) -> list[Input]:
    if generation is None:
        return list(inputs)
    if not 0 <= generation < 1 << 31:
        raise ValueError(f"generation must be a number from 0 on, below 2 to the 31st, got {generation}")
    return [replace(file, generation=generation) for file in inputs]


def _on_its_way(url: str, folder: Path, spec: ConvertSpec, inputs: Sequence[Input]) -> Index | None:
    """The dataset that was made for a URL and is not published yet. Raises FileExistsError where another one is."""
    waiting = read_index(folder) if (folder / NAME).exists() else None
    if waiting and (waiting.options != as_recorded(spec) or not _made_from(waiting, inputs)):
        raise FileExistsError(
            f"{escaped(folder)} holds a dataset on its way to {shown(url)}, of other options or files. Give that "
            "command again, or remove the folder"
        )
    if not waiting and published(url):
        raise FileExistsError(f"{shown(url)} holds a finished dataset. Choose another --out")
    return waiting


def _published(url: str, report: Report, tell: ProgressTotals) -> Report:
    upload(Path(report.out), url, tell=tell.published)
    return replace(report, out=shown(url))


def settled(options: ConvertOptions, *, out: Path, append: bool) -> tuple[ConvertSpec, Index | None]:
    """The options that hold, and the dataset that is added to: its own options then, which no other may contradict."""
    if not append:
        return ConvertSpec(**options), None
    base = read_index(out)
    if unknown := base.options.keys() - {field.name for field in fields(ConvertSpec)}:
        problem = f"was made with options that this release does not know ({printable(', '.join(sorted(unknown)))})"
        raise DataError(
            problem, where=str(out), fix="Use the release that wrote it, or convert again into another folder"
        )
    defaults = {field.name: field.default for field in fields(ConvertSpec)}
    for name, value in options.items():
        if (made := base.options.get(name, defaults.get(name))) != value:
            raise ValueError(
                f"{escaped(out)} was made with {escaped(name)} {printable(made)}, so files can't be added with "
                f"{escaped(name)} {escaped(value)}. "
                "Leave the option out, or convert everything again into another folder"
            )
    try:
        spec = ConvertSpec(**{**options, **base.options})  # type: ignore[arg-type]  # it checks them
    except ValueError as error:
        problem = f"says that it was made with options that make no sense ({printable(error, width=200)})"
        raise DataError(problem, where=str(out / NAME), fix="Fetch the dataset from where you trust it") from None
    return spec, base


# the two steps ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What both steps share."""

    out: Path
    scratch: Path
    spec: ConvertSpec
    base: Index | None
    budget: Budget
    engine: Engine


def _converted(work: _Work, inputs: Sequence[Input], *, max_rejects: int, tell: ProgressTotals) -> Report:
    surveyed = survey(inputs, scratch=work.scratch, base=work.base)
    if not surveyed.groups and work.base:
        tell.passed_over(surveyed)
        return report_of(work.base, out=work.out, base=work.base, surveyed=surveyed)
    with engines.start(work.engine, workers=work.budget.workers, folder=work.scratch) as runner:
        return _carried_out(work, surveyed, runner, max_rejects=max_rejects, tell=tell)


def _carried_out(work: _Work, surveyed: Survey, runner: Runner, *, max_rejects: int, tell: ProgressTotals) -> Report:
    surveyed, repeats = _without_repeats(work, surveyed, runner, tell)
    spills, refusals, notes = _read_all(work, surveyed, runner, tell)
    notes += [_repeated_games(repeats, work.spec), _without_policy(sum(spill.without_policy for spill in spills))]
    rejects = judge(
        spills,
        refusals,
        rejects=work.out / rejects_name(work.base),
        max_rejects=max_rejects,
        side=work.base.side if work.base else work.spec.side,
    )
    if work.spec.dedupe == "games":
        spills, told = _once(work, spills, runner)
        notes += told
        if work.base and not any(sum(spill.rows.values()) for spill in spills):
            return report_of(work.base, out=work.out, base=work.base, surveyed=surveyed, rejects=rejects, notes=notes)
    plan = plan_of(spills, out=work.out, scratch=work.scratch, base=work.base, spec=work.spec)
    # merged positions become soft block by block: what is held of them is as their files have it
    soft = any(spill.soft for spill in spills) if plan.merges else plan.layout.soft
    shard_bytes = writing_bytes(plan.layout.side, soft=soft, spec=work.spec, optional=plan.layout.optional)
    notes.append(
        work.budget.notice(shard_bytes, f"writing a shard of {counted(work.spec.shard_positions, 'position')}")
    )
    at_once = work.budget.at_once(shard_bytes)
    index = assemble(plan, base=work.base, spec=work.spec, runner=runner, at_once=at_once, tell=tell.add)
    if work.spec.dedupe == "none":
        sketches = [each for spill in spills if (each := spill.sketch()) is not None]
        notes += overlap_notes(sketches, folder=work.out, scratch=work.scratch, base=work.base, index=index)
    index.write(work.out)
    rows = sum(sum(spill.rows.values()) for spill in spills)
    return report_of(index, out=work.out, base=work.base, surveyed=surveyed, rejects=rejects, rows=rows, notes=notes)


def _once(work: _Work, spills: Sequence[Spill], runner: Runner) -> tuple[list[Spill], list[str]]:
    """The spills without what is there more than once, or in the dataset, and sentences on that."""
    held, games = shards_of(work.base), None
    if work.base:
        task = partial(note_held, folder=work.out, scratch=work.scratch, index=work.base, spec=work.spec)
        at_once = work.budget.at_once(writing_bytes(work.base.side, soft=work.base.layout.soft, spec=work.spec))
        for _ in runner.each(task, [(shard,) for shard in held], at_once=at_once):
            pass
        games = held_games(work.scratch, held, baked=work.base.baked)
    kept, left = without_copies(spills, held=[held_path(work.scratch, shard) for shard in held], games=games)
    added = sum(sum(spill.rows.values()) for spill in kept)
    return kept, [_left_out(left), *(_unseen(left, games) if games and added else [])]


def _left_out(left: LeftOut) -> str:
    if not left.rows:
        return ""
    games = f", {counted(left.games, 'whole game')} among them under other names" if left.games else ""
    out = f"left out {counted(left.rows, 'position')} of games that are there by other files"
    return f"{out}{games} (--dedupe games)"


def _unseen(left: LeftOut, held: HeldGames) -> list[str]:
    """What may be in the dataset under another name, and could not be known."""
    notes = []
    if left.in_part:
        came = counted(left.in_part, "position", verb="is of a game that/are of games that")
        notes.append(
            f"{came} did not come whole: added, unless the dataset holds them by the same file and line; under another "
            "name they would not be known"
        )
    if held.in_part:
        there = counted(held.in_part, "game", verb="is/are")
        notes.append(f"{there} in the dataset in part: the same game under another name would be added once more")
    return notes


def _without_repeats(work: _Work, surveyed: Survey, runner: Runner, tell: ProgressTotals) -> tuple[Survey, int]:
    """The same groups of files, told which of their games are repeats, and how many of these there are."""
    groups = [tuple(file for file in group if holds_games(file)) for group in surveyed.groups]
    # what is kept once of games is found after reading, in files of every format
    if not any(groups) or (work.spec.dedupe == "games" and work.spec.positions == "all"):
        return surveyed, 0
    jobs = [(group, stem_of(group, work.scratch)) for group in groups if group]
    at_once = work.budget.at_once(max(reading_bytes(group, work.spec) for group, _ in jobs))
    tell.add(lists=len(jobs))
    told, repeats = without_repeats(
        jobs, spec=work.spec, runner=runner, at_once=at_once, tell=lambda: tell.add(lists_done=1)
    )
    return replace(
        surveyed, groups=tuple(tuple(told.get(file, file) for file in group) for group in surveyed.groups)
    ), repeats


def _repeated_games(count: int, spec: ConvertSpec) -> str:
    if not count:
        return ""
    done = "kept, in the split of the first" if spec.keep_duplicates else "left out (--keep-duplicates keeps them)"
    repeats = "is an exact repeat of another, as it is/are exact repeats of others, as they are"
    return f"{counted(count, 'game', verb=repeats)} or turned by 180 degrees: {done}"


def _without_policy(count: int) -> str:
    if not count:
        return ""
    have = counted(count, "position", verb="has/have")
    return f"{have} no policy although the game goes on: kept, for the value alone"


def _read_all(
    work: _Work, surveyed: Survey, runner: Runner, tell: ProgressTotals
) -> tuple[list[Spill], list[Refusal], list[str]]:
    """All spills, those of an earlier try among them; what was refused; and what held the reading back."""
    tell.passed_over(surveyed)
    stems = {group: stem_of(group, work.scratch) for group in surveyed.groups}
    known = {group: find_spill(stem) for group, stem in stems.items()}
    spills = {group: spill for group, spill in known.items() if spill}
    for group, spill in spills.items():
        tell.read(group, spill)
    _check_space(work, surveyed, spills)
    waiting = [group for group in surveyed.groups if group not in spills]
    task_bytes = max((reading_bytes(group, work.spec) for group in waiting), default=0)
    read = partial(read_group, spec=work.spec)
    results = runner.each(read, [(group, stems[group]) for group in waiting], at_once=work.budget.at_once(task_bytes))
    try:
        refusals = list(_read_rest(work, surveyed, results, spills, tell))
    finally:
        let_go()
    places = {str(file.path): place for place, file in enumerate(surveyed.files)}
    refusals.sort(key=lambda refusal: places[refusal.path])
    notice = work.budget.notice(task_bytes, "reading the largest source file")
    return [spills[group] for group in surveyed.groups if group in spills], refusals, [notice]


def _read_rest(
    work: _Work,
    surveyed: Survey,
    results: Iterable[tuple[Group, Spill | tuple[Refusal, ...]]],
    spills: dict[Group, Spill],
    tell: ProgressTotals,
) -> Iterator[Refusal]:
    """Take what is read into ``spills``; what is refused is yielded."""
    for count, (group, result) in enumerate(results, start=1):
        tell.read(group, result if isinstance(result, Spill) else None)
        if isinstance(result, Spill):
            spills[group] = result
        else:
            yield from result
        if count.bit_count() == 1:  # after 1, 2, 4, ... the guess has become better
            _check_space(work, surveyed, spills)


def _check_space(work: _Work, surveyed: Survey, spills: Mapping[Group, Spill]) -> None:
    waiting = [file for group in surveyed.groups if group not in spills for file in group]
    check_space(work.out, waiting=waiting, spills=spills.values(), spec=work.spec)


# the end ------------------------------------------------------------------------------------------------------------


def _made_from(index: Index, inputs: Sequence[Input]) -> bool:
    """Whether a dataset seems to be the one that was asked for."""
    made = {(file.name, file.size_bytes) for file in index.inputs}
    return made <= {(file.path.name, file.path.stat().st_size) for file in inputs}


def _tidied(out: Path, index: Index, spec: ConvertSpec, folders: tuple[SourceFolder, ...]) -> Report:
    """The report of a conversion that was cut off after its dataset was whole."""
    with held(out, spec, base=None, tidying=True) as scratch:
        clear(scratch)
    return report_again(out, index, folders)


@contextmanager
def disk_named(out: Path) -> Iterator[None]:
    """A full disk, wherever it is noticed, told with what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            error.errno,
            f"the disk is full ({error.strerror}). Make room and run the same command again: finished files are not "
            "read again",
            str(out),
        ) from None
