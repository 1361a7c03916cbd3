"""The command that makes a page of a dataset and of runs on it.

Heavy modules are imported inside the command, so that ``--help`` is instant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from hexshards.cli.console import AsJson, CacheFolder, Dataset, opened, options_of, told
from hexshards.errors import escaped
from hexshards.reports.options import ReportSpec
from hexshards.units import counted


@options_of(ReportSpec, after="out")
def report(
    dataset: Dataset,
    runs: Annotated[
        list[Path] | None,
        Argument(metavar="[RUN...]", help="Runs on it, or folders of runs; the best comes first.", show_default=False),
    ] = None,
    out: Annotated[Path, Option(help="The page, one HTML file.")] = Path("report.html"),
    cache: CacheFolder = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Make one HTML page of a dataset, and of runs on it: boards, openings, curves, and verdicts with what to do.

    The page needs no network and no server: open it in a browser. Of a large dataset a sample is read, and the page
    says so.
    """
    from hexshards.cli import display

    with told():
        if out.suffix not in (".html", ".htm"):
            raise ValueError(f"--out is a page, so its name ends in .html, got {escaped(out)}")
        from hexshards.reports.dataset_report import dataset_report
        from hexshards.storage.files import check_parent, write_whole

        check_parent(out)

        with display.counting("reading", "positions") as progress:
            made = dataset_report(opened(dataset, cache), runs or (), spec=ReportSpec(**options), progress=progress)
        write_whole(out, made.html.encode())
        if as_json:
            display.say(display.json_line({"out": str(out), **made.entry()}))
            return
        for each in made.verdicts:
            if each.level in ("look", "bad"):
                display.say(f"{each.name}: {escaped(each.says)} {each.do}")
        read = ", ".join(f"{made.read[name]:,} of {total:,} of {name}" for name, total in made.positions.items())
        fine = counted(sum(each.level == "good" for each in made.verdicts), "verdict", verb="is/are")
        display.say(f"read {read}; {fine} fine")
        display.say(f"page {escaped(out)}")
