"""The command that publishes a dataset.

Heavy modules are imported inside the command, so that ``--help`` is instant.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from hexshards.cli.console import AsJson, options_of, told
from hexshards.errors import escaped
from hexshards.publishing.options import LICENSES, PublishSpec, license_of
from hexshards.units import counted, show_bytes

if TYPE_CHECKING:
    from hexshards.publishing.publish import Publication


@options_of(PublishSpec, after="target")
def publish(
    dataset: Annotated[str, Argument(metavar="DIR", help="Folder of the dataset, made by `hexshards convert`.")],
    target: Annotated[
        str, Argument(metavar="TARGET", help="hf://datasets/OWNER/NAME, s3://BUCKET/DIR, gs://BUCKET/DIR or a folder.")
    ],
    dry_run: Annotated[
        bool, Option("--dry-run", help="Say what would be written and how much, and write nothing.")
    ] = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Publish a dataset for others: its shards, a card, a preview that viewers show, and metadata; the index last.

    What was cut off goes on when the same command is given again, and a card that somebody edited there stays.
    """
    from hexshards.cli import display

    with told():
        from hexshards.publishing.publish import publish as run

        options["license"] = options["license"] or ("" if dry_run else _asked())
        with display.counting("publishing", "files") as progress:
            made = run(dataset, target, dry_run=dry_run, progress=progress, **options)
        if as_json:
            display.say(display.json_line(_entry(made, dry_run=dry_run)))
            return
        for note in made.notes:
            display.notice(f"note: {escaped(note)}")
        for line in _said(made, dry_run=dry_run):
            display.say(line)


def _asked() -> str:
    """The license that a person at a terminal names; nothing where nobody is there."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return ""
    known = ", ".join(LICENSES[:10])
    question = f"License that others may use the data under ({known}, ...)"
    return str(typer.prompt(question, err=True, value_proc=_license))


def _license(answer: str) -> str:
    """The license of an answer; where there is none, it is asked again."""
    try:
        return license_of(answer.strip())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _said(made: Publication, *, dry_run: bool) -> list[str]:
    target, done = escaped(made.target), len(made.files) - len(made.sent)
    whole = counted(len(made.files), "file")
    if not made.sent:
        return [f"{target} has all of it already: {whole}, {show_bytes(sum(made.files.values()))}"]
    there = f"; {counted(done, 'file', verb='was/were')} there already" if done else ""
    verb = "would be sent" if dry_run else "sent"
    lines = [f"{verb} to {target}: {counted(len(made.sent), 'file')}, {show_bytes(made.sent_bytes)}{there}"]
    if dry_run:
        lines += [f"  {escaped(name):<24} {show_bytes(made.files[name])}" for name in made.sent[:_LISTED]]
        lines += [f"  and {counted(len(made.sent) - _LISTED, 'more file')}"] if len(made.sent) > _LISTED else []
    shown = ", ".join(f"{count:,} of {split}" for split, count in made.previewed.items())
    return [*lines, f"preview: {shown}", *([] if dry_run else [_next(made.target)])]


def _next(target: str) -> str:
    quoted = escaped(shlex.quote(target))
    hub = "" if "://" in target else f", or hf upload-large-folder OWNER/NAME {quoted} --repo-type dataset"
    return f"next: hexshards info {quoted}{hub}"


_LISTED = 40
"""Files that a dry run names."""


def _entry(made: Publication, *, dry_run: bool) -> dict[str, Any]:
    return {
        "target": made.target,
        "fingerprint": made.fingerprint,
        "dry_run": dry_run,
        "files": dict(made.files),
        "sent": list(made.sent),
        "sent_bytes": made.sent_bytes,
        "preview": dict(made.previewed),
        "notes": list(made.notes),
    }
