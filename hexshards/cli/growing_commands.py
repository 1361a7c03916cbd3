"""Commands that keep a dataset growing: watch an inbox, and merge the small shards of what came."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Unpack, cast

import typer
from typer import Argument, Option

from hexshards.cli.console import REJECTED, AsJson, options_of, shown, told
from hexshards.conversion.options import CONVERT, WORK, ConvertOptions, ConvertSpec, WorkSpec
from hexshards.cores import usable_cores
from hexshards.options import changed
from hexshards.signals import stops_as_ctrl_c
from hexshards.units import duration_s

if TYPE_CHECKING:
    from hexshards.conversion.report import ConversionProgress


@options_of(ConvertSpec, after="once")
def watch(
    inbox: Annotated[Path, Argument(metavar="INBOX", help="The folder into which files come, searched to any depth.")],
    dataset: Annotated[str, Option(help="The dataset that they are added to; made of the first files if not there.")],
    every: Annotated[str, Option(help="Time between two looks; what is ready then is one addition.")] = "30s",
    once: Annotated[
        bool, Option("--once", help="End after two looks; with 3 where a file was refused. For cron and tests.")
    ] = False,
    workers: Annotated[int | None, shown(WorkSpec, "workers", unset="all cores")] = None,
    max_rejects: Annotated[int, shown(WorkSpec, "max_rejects")] = WORK.max_rejects,
    memory: Annotated[str, shown(WorkSpec, "memory")] = str(WORK.memory),
    as_json: Annotated[bool, Option("--json", help="Print what happens as JSON objects, a line each.")] = False,
    **options: Unpack[ConvertOptions],
) -> None:
    """Convert files as they come into INBOX, and append them to a dataset that training may be reading.

    A file is taken when two looks find it the same: rename files into the inbox when they are whole, and write names
    that begin with a dot until then. One that is refused is moved to INBOX/refused with a report, and stops no other;
    those taken stay where they are, and may be removed. A dataset that is there keeps its own options.

    Ctrl-C, SIGTERM or SIGHUP ends it with 130; after any end the same command goes on.
    """
    from hexshards.cli import growing_view
    from hexshards.conversion.watch import watch as run

    with stops_as_ctrl_c(), told():
        given = cast(ConvertOptions, changed(CONVERT, options))
        ended = run(
            inbox,
            dataset=dataset,
            every_s=duration_s(every),
            once=once,
            workers=workers or usable_cores(),
            max_rejects=max_rejects,
            memory=memory,
            tell=growing_view.tell_json if as_json else growing_view.tell,
            bars=_bars,
            **given,
        )
        if ended.set_aside or ended.not_added:
            raise typer.Exit(REJECTED)


def compact(
    dataset: Annotated[Path, Argument(metavar="DIR", help="Folder of the dataset.")],
    keep: Annotated[
        int, Option(min=0, help="Earlier states whose shards stay: one for each compaction that an epoch may outlast.")
    ] = 1,
    held_out: Annotated[
        bool,
        Option("--held-out", help="Validation and test too, which runs that began before lose then."),
    ] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what it would do, and write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Merge the small shards that files added little by little have left, each with its neighbours in time.

    No position is changed, and splits and the order of additions stay. The dataset is another one for epochs that begin
    later; an epoch at work, and a run that is resumed in its middle, goes on with the old shards, which the next
    compaction removes. Killed at any moment the dataset is what it was, or what it is to be.
    """
    from hexshards.cli import display, growing_view
    from hexshards.conversion.compact import compact as run

    with stops_as_ctrl_c(), told():
        with display.counting("merging", "positions") as progress:
            done = run(dataset, keep=keep, held_out=held_out, dry_run=dry_run, progress=progress)
        display.say(display.json_line(asdict(done)) if as_json else growing_view.compaction_text(done, dry_run=dry_run))


def _bars() -> AbstractContextManager[Callable[[ConversionProgress], None]]:
    from hexshards.cli.conversion_view import conversion_progress

    return conversion_progress()
