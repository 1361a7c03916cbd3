"""Terminal output: results on stdout; progress bars, warnings and errors on stderr. No numbers are made here."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.control import Control
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.segment import ControlType
from rich.table import Column
from rich.text import Text

from hexshards.errors import escaped, without_secrets
from hexshards.signals import ctrl_c_at_the_end, ctrl_c_times


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
    ctrl_c = 0
    """How many ``^C`` are off the screen."""


_manner = _Manner()


@contextmanager
def manner(*, quiet: bool, verbose: bool) -> Iterator[None]:
    """Say less, or more."""
    before = _manner.quiet, _manner.verbose
    _manner.quiet, _manner.verbose = quiet, verbose and not quiet
    try:
        yield
    finally:
        _manner.quiet, _manner.verbose = before


def width() -> int | None:
    """Columns of the terminal that results go to; None for a file or a program, which take any line."""
    return out.width if out.is_terminal else None


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
    if not whole:
        safe = broken(safe, console.width)
    # interrupted between writing and forgetting what it wrote, rich would write it once more
    with ctrl_c_at_the_end():
        _wipe_ctrl_c(console)
        console.print(safe, markup=False, soft_wrap=whole)


def _wipe_ctrl_c(console: Console) -> None:
    """Take off the ``^C`` that a terminal shows where it is typed, and after which the next line would begin."""
    if console.is_terminal and (times := ctrl_c_times()) > _manner.ctrl_c:
        _manner.ctrl_c = times
        if not any(not bars.disable for bars in _moving):  # bars wipe their own lines
            console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 0)))


def broken(text: str, columns: int) -> str:
    """Text whose lines fit so many columns: broken at its ``·`` if they have any, else between words, and indented."""
    return "\n".join(each for line in text.split("\n") for each in _broken(line, columns))


def _broken(line: str, columns: int) -> Iterator[str]:
    """A line, and indented lines that go on with it. Spaces inside it stay, for they may be those of a table."""
    if cell_len(line) <= columns:
        yield line
        return
    indent = " " * min(len(line) - len(line.lstrip()) + INDENT, columns // 2)
    now = ""
    for part in _SEPARATED.split(line):
        if now.strip() and cell_len(now + part) > columns >= cell_len(indent + part.lstrip()):
            yield now.rstrip()
            now = indent + part.lstrip()
            continue
        for word in _WORDS.findall(part):
            if now.strip() and cell_len(now + word) > columns:
                yield now.rstrip()
                now = indent + word.lstrip()
            else:
                now += word
    yield now.rstrip()


INDENT = 2
"""Columns by which a line stands in that goes on with the one before."""

_SEPARATED = re.compile(r"(?<= ·)(?= )")
_WORDS = re.compile(r"\s*\S+(?:(?<=\d) (?:sd|s|min|h|ns|[KMGT]?i?B|samples/s)\b)?|\s+$")
"""A word, with the space before it; a number stays with its unit."""


def _told(safe: str) -> None:
    for listener in listeners:
        listener(safe)


def _safe(text: str) -> str:
    """Text without secrets, and without control characters other than the breaks between its lines."""
    return "\n".join(map(escaped, without_secrets(text).split("\n")))


CTRL_C = 4
"""Columns left free behind bars: two ``^C`` that went on in a line of their own would leave the bars standing."""


class Bars(Progress):
    """Bars, a line each with how much is done and the time left, and below them a line of other numbers.

    What is narrow cuts the bars, and never a number. Tasks: ``shown`` makes a text of an amount, ``left_s`` are the
    seconds left where that is known better than by how far the task came lately.
    """

    note = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        """What is on the screen."""
        columns = max(1, err.width - CTRL_C)  # the console that bars are on
        yield Constrain(self.make_tasks_table(self.tasks), columns)
        if self.note:
            yield Constrain(Text(broken(self.note, columns), no_wrap=False, overflow="fold"), columns)


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
def counting(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """How much of something is done: positions checked, samples measured."""
    with bar(unit) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, cells below each other at the right but for the first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
