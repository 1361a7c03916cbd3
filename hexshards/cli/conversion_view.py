"""What a person sees of a conversion: bars while it runs, what it would take, and what it kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hexshards.cli.dataset_view import file_lines, game_warning, split_counts
from hexshards.cli.display import bar
from hexshards.conversion.report import ConversionProgress, Report, SourceFolder, by_format
from hexshards.errors import escaped, printable
from hexshards.units import counted, show_bytes, show_duration

if TYPE_CHECKING:
    from hexshards.conversion import estimate

SHOWN_FILES = 20
"""Files that the summary of a conversion lists, a line each."""

SHOWN_FOLDERS = 8
"""Folders in which files were found that get a line each."""


@contextmanager
def conversion_progress() -> Iterator[Callable[[ConversionProgress], None]]:
    """Files read and shards written, positions per second and time left."""
    with bar() as bars:
        games = bars.add_task("comparing games", total=None, visible=False)
        # time left follows bytes, as files differ in size; files are what a person counts
        read = bars.add_task("reading", total=None, shown=show_bytes)
        write = bars.add_task("writing shards", total=None, visible=False)
        publish = bars.add_task("publishing files", total=None, visible=False)

        def show(now: ConversionProgress) -> None:
            bars.update(read, total=now.bytes, completed=now.bytes_done)
            for task, done, total in (
                (games, now.lists_done, now.lists),
                (write, now.shards_done, now.shards),
                (publish, now.uploads_done, now.uploads),
            ):
                if total:
                    bars.update(task, total=total, completed=done, visible=True)
            bars.note = f"{now.files_done:,}/{counted(now.files, 'file')} · {counted(now.positions, 'position')}"

        yield show


def folders_text(folders: Sequence[SourceFolder], passed_over: Sequence[str] = ()) -> str:
    """What was found where; of many folders those with the most files."""
    shown = list(folders)
    if len(folders) > SHOWN_FOLDERS:
        shown = sorted(folders, key=lambda each: -each.count)[: SHOWN_FOLDERS - 1]
    where = f" in {counted(len(folders), 'folder')}" if len(folders) > 1 else ""
    lines = [f"found {_files(by_format(folders))}{where}:", *map(_folder_line, shown)]
    if rest := len(folders) - len(shown):
        nested = sum(bool(each.inside) for each in folders)
        lines.append(
            f"  and {counted(rest, 'more folder')}" + (f"; {nested:,} of all lie inside another" if nested else "")
        )
    return "\n".join([*lines, *passed_over])


def _folder_line(source: SourceFolder) -> str:
    inside = f", inside {_near(source.inside)}" if source.inside else ""
    return f"  {_near(source.folder)}: {_files(source.files)}{inside}"


def _files(counts: dict[str, int]) -> str:
    listed = ", ".join(f"{count:,} {printable(form)}" for form, count in counts.items())
    return listed + (" file" if sum(counts.values()) == 1 else " files")


def _near(folder: str) -> str:
    """A folder as a person names it who stands in the current one."""
    here = Path.cwd()
    return escaped(Path(folder).relative_to(here) if Path(folder).is_relative_to(here) else folder)


def conversion_summary(report: Report) -> str:
    """What a conversion kept and where it is."""
    index = report.index
    lines = file_lines(report.added, most=SHOWN_FILES)
    appended = len(report.added) < len(index.inputs)
    if appended:
        lines.append("the whole dataset has now:")
    for name, split in index.splits.items():
        lines.append(f"{name:<6} {split_counts(split)} {counted(len(split.shards), 'shard', width=5)}".rstrip())
    rejected = ", ".join(f"{printable(reason)}: {count:,}" for reason, count in report.rejects.items())
    lines.append(
        f"kept {report.positions:,} · rejected {sum(report.rejects.values()):,}"
        + (f" ({rejected})" if rejected else "")
    )
    lines += _passed_over(report)
    if report.merged:
        lines.append(f"merged {counted(report.merged, 'position')} into equal ones")
    if report.positions:
        lines.append(
            f"{show_bytes(report.shard_bytes)} of {'new ' if appended else ''}shards, "
            f"{report.shard_bytes / report.positions:.1f} bytes per position, from {show_bytes(report.input_bytes)} of "
            "source files"
        )
    lines += [printable(note, width=300) for note in report.notes]
    lines += game_warning(index)
    lines.append(f"dataset: {escaped(report.out)}")
    return "\n".join(lines)


def estimate_text(expected: estimate.Estimate) -> str:
    """What a conversion would take."""
    samples = ", ".join(map(escaped, expected.samples))
    lines = [
        folders_text(expected.folders),
        f"would read {counted(expected.files, 'file')} of {show_bytes(expected.input_bytes)}, "
        f"about {counted(expected.positions, 'position')}",
        *_passed_over(expected),
        f"dataset: {escaped(expected.out)}, about {counted(expected.shards, 'shard')} of "
        f"{show_bytes(expected.dataset_bytes)} together",
        f"disk: {show_bytes(expected.dataset_bytes)} and, until the end, {show_bytes(expected.scratch_bytes)} of "
        f"scratch; {show_bytes(expected.free_bytes)} are free" + ("" if expected.fits else ": NOT ENOUGH"),
        f"memory: about {show_bytes(expected.memory_bytes)}, {counted(expected.readers, 'file')} read and "
        f"{counted(expected.writers, 'shard')} written at once",
        f"time: about {show_duration(expected.seconds)}",
        *map(escaped, expected.notes),
    ]
    if samples:
        others = expected.files - len(expected.samples)
        rest = f"; {counted(others, 'other file', verb='is/are')} taken to hold as much in each byte" if others else ""
        lines.append(f"by reading {samples}{rest}")
    return "\n".join(lines)


def _passed_over(report: Report | estimate.Estimate) -> list[str]:
    lines = [f"passed over {escaped(path)}: same contents as another file" for path in report.repeated]
    return lines + [f"passed over {escaped(path)}: already in the dataset" for path in report.already]
