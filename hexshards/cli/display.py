"""What a person sees: progress on stderr, results on stdout, boards as pictures. No numbers are made here."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from hexshards.conversion.inventory import SourceFolder, by_format
from hexshards.errors import escaped, printable, without_secrets
from hexshards.game.board import move_name
from hexshards.game.columns import VISITS
from hexshards.units import counted, show_bytes

if TYPE_CHECKING:
    from hexshards.conversion import convert, estimate
    from hexshards.dataset import leakage
    from hexshards.dataset.index import Index, InputFile, Split
    from hexshards.game.positions import Positions
    from hexshards.loading import shuffle_quality
    from hexshards.reports import throughput

SHOWN_FILES = 20
"""Files that the summary of a conversion lists, a line each."""

_GAMELESS = "does not say which game it is from/do not say which game they are from"

SHOWN_FOLDERS = 8
"""Folders in which files were found that get a line each."""

LEAKAGE_PLIES = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)
"""Numbers of stones at which a line of the table of leaked positions begins."""


class Enduring(Console):
    """A console whose reader may leave (``| head -1``, a closed terminal): what runs goes on, and says no more."""

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at it. Colours that are asked for (FORCE_COLOR) make no terminal of a file."""
        try:
            return self.file.isatty()
        except ValueError:  # it is closed
            return False

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, while no bars are drawn: rich draws them in a thread of its own, which may else wipe a line out.

        That thread holds a lock of rich's from where it reckons the place of the cursor until it has drawn, and rich
        has no public name for it. A lock of our own would be taken inside it by that thread, as it prints with this
        method too, and around it by others: each could wait for the other.
        """
        with ExitStack() as drawing:
            for bars in _moving:
                drawing.enter_context(getattr(bars.live, "_lock", nullcontext()))
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        """Send what is still to come nowhere; also what Python writes out as it ends."""
        del self._buffer[:]
        with suppress(OSError, ValueError):  # no file of the system's
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            self.on_broken_pipe()


out = Enduring(highlight=False, soft_wrap=True)
"""Results: stdout."""

err = Enduring(stderr=True, highlight=False, soft_wrap=True)
"""Progress, warnings and errors: stderr."""


_moving: list[Progress] = []
"""Bars that are on the screen."""

listeners: list[Callable[[str], None]] = []
"""Who hears every line that is said, shown or not: a run's log."""


class _Manner:
    """How much is said, by -q and -v."""

    quiet = verbose = False


_manner = _Manner()


def be(*, quiet: bool, verbose: bool) -> None:
    """Say less, or more, from now on."""
    _manner.quiet, _manner.verbose = quiet, verbose and not quiet


def verbose() -> bool:
    """Whether a person asked for more than usual."""
    return _manner.verbose


def say(text: str) -> None:
    """Print a result of one or more lines. A name in it that may hold line breaks is escaped where it is put in."""
    # bars that move on the same terminal would write over what comes to it from elsewhere
    _print(err if out.is_terminal and any(not bars.disable for bars in _moving) else out, text)


def notice(text: str) -> None:
    """Print what is good to know, unless a person asked for silence."""
    if _manner.quiet:
        _told(_safe(text))
    else:
        _print(err, text)


def progress(text: str) -> None:
    """Print a line of what is under way as a result is printed, unless a person asked for silence."""
    if _manner.quiet:
        _told(_safe(text))
    else:
        say(text)


def json_line(result: Any) -> str:
    """A result for programs: one line of printable ASCII."""
    # of ASCII's control characters, JSON leaves one as it is
    return json.dumps(result, default=str).replace("\x7f", "\\u007f")


def warn(text: str) -> None:
    """Print a warning, an error or a notice, as results are printed."""
    _print(err, text)


def _print(console: Console, text: str) -> None:
    # a terminal would break long lines anywhere; JSON, and what is no terminal, gets them whole
    whole = not console.is_terminal or text.startswith("{")
    safe = _safe(text)
    _told(safe)
    console.print(safe, markup=False, soft_wrap=whole)


def _told(safe: str) -> None:
    for listener in listeners:
        listener(safe)


def _safe(text: str) -> str:
    """Text without secrets, and without control characters other than the breaks between its lines."""
    return "\n".join(map(escaped, without_secrets(text).split("\n")))


class Bars(Progress):
    """Bars, a line each with how much is done and the time left, and below them a line of other numbers.

    What is narrow cuts the bars, and never a number. Tasks: ``shown`` makes a text of an amount, ``left_s`` are the
    seconds left where that is known better than by how far the task came lately.
    """

    note = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        """What is on the screen."""
        yield self.make_tasks_table(self.tasks)
        if self.note:
            yield Text(self.note, no_wrap=False, overflow="fold")


class _Amount(ProgressColumn):
    def render(self, task: Task) -> Text:
        shown = task.fields.get("shown", "{:,.0f}".format)
        return Text(f"{shown(task.completed)}/{shown(task.total)}" if task.total is not None else "")


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        over = task.completed >= task.total
        left_s = 0.0 if over else task.fields.get("left_s", task.time_remaining)
        # rich takes a task that was at its end once to be there for ever
        return Text("-:--:--" if left_s is None or not (left_s or over) else clock(left_s))


def clock(seconds: float) -> str:
    """A time as h:mm:ss; 0:00:00 is nothing at all."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


@contextmanager
def bar(unit: str = "") -> Iterator[Bars]:
    """Progress bars of amounts in ``unit``, with the time left; nothing moves when stderr is no terminal."""
    whole = Column(no_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        _Amount(whole),
        *([TextColumn(unit)] if unit else []),
        _TimeLeft(whole),
    )
    still = _manner.quiet or not err.is_terminal
    with Bars(*columns, console=err, transient=True, disable=still, speed_estimate_period=120) as bars:
        _moving.append(bars)
        try:
            yield bars
        finally:
            _moving.remove(bars)


@contextmanager
def conversion_progress() -> Iterator[Callable[[convert.ConversionProgress], None]]:
    """Files read and shards written, positions per second and time left."""
    with bar() as bars:
        games = bars.add_task("comparing games", total=None, visible=False)
        # time left follows bytes, as files differ in size; files are what a person counts
        read = bars.add_task("reading", total=None, shown=show_bytes)
        write = bars.add_task("writing shards", total=None, visible=False)
        publish = bars.add_task("publishing files", total=None, visible=False)

        def show(now: convert.ConversionProgress) -> None:
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


@contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """How much of something is done: positions checked, samples measured."""
    with bar(unit) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


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


def conversion_summary(report: convert.Report) -> str:
    """What a conversion kept and where it is."""
    index = report.index
    lines = [_file_line(file) for file in report.added[:SHOWN_FILES]]
    if len(report.added) > SHOWN_FILES:
        lines.append(f"  and {counted(len(report.added) - SHOWN_FILES, 'more file')}: `hexshards info` lists them all")
    for name, split in index.splits.items():
        lines.append(f"{name:<6} {_split_counts(split)} {counted(len(split.shards), 'shard', width=5)}".rstrip())
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
            f"{report.shard_bytes / report.positions:.1f} bytes per position, "
            f"{report.shard_bytes / report.input_bytes:.2f} times the size of the source files"
        )
    lines += [printable(note, width=300) for note in report.notes]
    lines += game_warning(index)
    lines.append(f"dataset {escaped(report.out)}")
    return "\n".join(lines)


def estimate_text(expected: estimate.Estimate) -> str:
    """What a conversion would take."""
    samples = ", ".join(map(escaped, expected.samples))
    lines = [
        folders_text(expected.folders),
        f"would read {counted(expected.files, 'file')} of {show_bytes(expected.input_bytes)}, "
        f"about {counted(expected.positions, 'position')}",
        *_passed_over(expected),
        f"dataset {escaped(expected.out)}: about {counted(expected.shards, 'shard')} of "
        f"{show_bytes(expected.dataset_bytes)} together",
        f"disk: {show_bytes(expected.dataset_bytes)} and, until the end, {show_bytes(expected.scratch_bytes)} of "
        f"scratch; {show_bytes(expected.free_bytes)} are free" + ("" if expected.fits else ": NOT ENOUGH"),
        f"memory: about {show_bytes(expected.memory_bytes)}, {counted(expected.readers, 'file')} read and "
        f"{counted(expected.writers, 'shard')} written at once",
        f"time: about {duration(expected.seconds)}",
        *map(escaped, expected.notes),
    ]
    if samples:
        lines.append(f"taken from reading {samples}; the other files are taken to be like it, byte for byte")
    return "\n".join(lines)


def _file_line(file: InputFile) -> str:
    # what is rejected of game records are lines, each of many positions: the two make no sum
    counts = f"{counted(file.positions, 'position')} kept, {file.rejected:,} rejected"
    said = ", ".join(f"{fact} {text}" for fact, text in file.headers.items())
    besides = [printable(text, width=300) for text in (file.notes, said) if text]
    return " · ".join([f"  {printable(file.name)}", counts, *besides])


def _passed_over(report: convert.Report | estimate.Estimate) -> list[str]:
    lines = [f"passed over {escaped(path)}: same contents as another file" for path in report.repeated]
    return lines + [f"passed over {escaped(path)}: already in the dataset" for path in report.already]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, cells below each other at the right but for the first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def duration(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _split_counts(split: Split) -> str:
    return f"{counted(split.positions, 'position', width=12)} {counted(split.games, 'game', width=10)}"


def game_warning(index: Index) -> list[str]:
    """A warning when some positions do not say which game they are from."""
    lost = sum(file.without_game for file in index.inputs)
    if not lost:
        return []
    return [
        f"warning: {counted(lost, 'position', verb=_GAMELESS)}. "
        f"{'It was' if lost == 1 else 'They were'} split by source file, so where "
        "files share games, validation positions may come from games that are also in training"
    ]


def info_text(index: Index, *, folder: str) -> str:
    """A dataset at a glance."""
    shards = [shard for split in index.splits.values() for shard in split.shards]
    positions = sum(shard.positions for shard in shards)
    size = sum(shard.size_bytes for shard in shards)
    lines = [
        f"{escaped(folder)}: {counted(positions, 'position')}, side {index.side}, {counted(len(shards), 'shard')}, "
        f"{counted(size, 'byte')}, {size / positions:.1f} per position, codec {index.layout.codec}"
    ]
    for name, split in index.splits.items():
        played = [ply for ply, count in enumerate(split.plies) if count]
        mean = sum(ply * count for ply, count in enumerate(split.plies)) / split.positions
        lines.append(
            f"{name:<6} {_split_counts(split)} · BLUE wins "
            f"{split.blue_wins / split.positions:.1%}, RED {split.red_wins / split.positions:.1%} · plies "
            f"{played[0]} to {played[-1]}, mean {mean:.1f} · {split.without_policy:,} without policy"
        )
    lines += game_warning(index)
    lines.append(
        "options " + ", ".join(f"{printable(name)} {printable(value)}" for name, value in index.options.items())
    )
    lines.append(f"made from {counted(len(index.inputs), 'file')}:")
    lines += map(_file_line, index.inputs)
    lines.append(f"fingerprint {index.fingerprint}")
    return "\n".join(lines)


def mixing_text(mixing: shuffle_quality.Mixing) -> str:
    """What was measured, beside what a uniform shuffle gives, and a verdict."""
    lines = [f"{counted(mixing.batches, 'batch')} of {mixing.batch_size:,} of {counted(mixing.positions, 'position')}"]
    lines.append(f"{'':<44} {'found':>12} {'uniform':>12}")
    for measure in mixing.measures:
        judged = (
            "" if measure.deviations is None else f"{measure.deviations:>+8.1f} sd{('  BAD' if measure.bad else '')}"
        )
        lines.append(f"{measure.name:<44} {measure.measured:>12,.4f} {measure.uniform:>12,.4f} {judged}".rstrip())
    if mixing.without_game:
        lines.append(f"{counted(mixing.without_game, 'position', verb=_GAMELESS)}: no pairs of these")
    lines.append(
        "mixed: nothing tells these batches from those of a uniform shuffle"
        if mixing.sound
        else "NOT MIXED: this is no chance. Convert again, which shuffles all positions, and leave shuffling on"
    )
    return "\n".join(lines)


def mixing_json(mixing: shuffle_quality.Mixing) -> dict[str, Any]:
    """The same for a program."""
    measures = [
        {"name": each.name, "found": each.measured, "uniform": each.uniform, "deviations": each.deviations}
        for each in mixing.measures
    ]
    return {**asdict(mixing), "measures": measures, "sound": mixing.sound}


def throughput_text(measured: throughput.Throughput) -> str:
    """Where a sample's time goes, what the loader delivers, and what to do about it."""
    cores, threads = counted(measured.cores, "core"), counted(measured.threads, "thread")
    on = f"{measured.device}, side {measured.side}, {cores}, {threads}"
    lines = [f"batches of {measured.batch_size:,} on {on}"]
    lines.append(
        "one sample, in nanoseconds: " + ", ".join(f"{name} {ns:,.0f}" for name, ns in measured.stages.items())
    )
    for run in measured.runs:
        lines.append(
            f"{counted(run.workers, 'worker') + ':':<10} {run.samples_per_s:>12,.0f} samples/s, "
            f"waiting {run.wait_ns:,.0f} ns a sample for rows, first batch after {run.first_batch_s:.2f} s"
        )
    best = f"{measured.fastest.samples_per_s:,.0f} samples/s"
    if measured.model_samples_per_s is None:
        batch_ms = 1000 * measured.batch_size / measured.fastest.samples_per_s
        verdict = f"a step that takes {batch_ms:.2f} ms or more does not wait for the loader"
    elif measured.bound == "compute":
        verdict = (
            f"compute-bound: the model takes {measured.model_samples_per_s:,.0f} samples/s, the loader gives {best}"
        )
    else:
        verdict = (
            f"LOADER-BOUND: the model could take {measured.model_samples_per_s:,.0f} samples/s, the loader gives {best}"
        )
    return "\n".join([*lines, verdict, f"train with --num-workers {measured.workers}"])


def leakage_text(measured: leakage.Leakage) -> str:
    """How many validation positions training shows too, in all and by the stones on the board."""
    lines = [f"validation positions that training shows too: {_share(sum(measured.leaked), sum(measured.validation))}"]
    edges = [*(edge for edge in LEAKAGE_PLIES if edge < len(measured.validation)), len(measured.validation)]
    for first, end in pairwise(edges):
        if count := sum(measured.validation[first:end]):
            stones = f"{first}" if end == first + 1 else f"{first} to {end - 1}"
            lines.append(f"  {stones:>9} stones: {_share(sum(measured.leaked[first:end]), count)}")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.1%})"


def optional_text(positions: Positions, row: int) -> str:
    """What the optional columns say of one position; nothing where there are none."""
    said = []
    for kind, column in positions.optional.items():
        value = column[row]
        if kind == VISITS:
            moves = [move_name(cell, side=positions.side) for cell in value[0].tolist()]
            visited = zip(moves, value[1].tolist(), strict=True)
            text = " ".join(f"{move}:{count}" for move, count in visited if count) or "none"
        else:
            text = f"{value:.6g}" if value.ndim == 0 else f"{value.tolist()}"
        said.append(f"{kind.name} {text}")
    return ", ".join(said)


def board_picture(positions: Positions, row: int) -> str:
    """One position as text: B and R stones, * the policy's move, each row shifted as the hexagons are."""
    side = positions.side
    blue, red = positions.planes()[row]
    policy = positions.policy[row]
    target = int(policy.argmax()) if positions.soft and policy.any() else -1 if positions.soft else int(policy)
    lines = ["   " + " ".join(chr(ord("a") + col) for col in range(side))]
    for r in range(side):
        marks = [
            "*" if r * side + c == target else "B" if blue[r, c] else "R" if red[r, c] else "·" for c in range(side)
        ]
        lines.append(" " * r + f"{r + 1:>2} " + " ".join(marks))
    return "\n".join(lines)
