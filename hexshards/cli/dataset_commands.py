"""Commands that make datasets and look at them: one command builds one spec, calls one function, prints one result.

Heavy modules are imported inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack, cast

import typer
from typer import Argument, Option

from hexshards.cli.console import FAILED, AsJson, CacheFolder, Dataset, Split, opened, options_of, shown, told
from hexshards.conversion.options import CONVERT, WORK, ConvertOptions, ConvertSpec, Engine, WorkSpec
from hexshards.cores import usable_cores
from hexshards.errors import escaped
from hexshards.game.options import SynthSpec
from hexshards.loading.options import LOADER, LoaderSpec
from hexshards.options import changed
from hexshards.signals import stops_as_ctrl_c
from hexshards.training.options import TRAIN, TrainSpec
from hexshards.units import counted

if TYPE_CHECKING:
    from hexshards.dataset.leakage import Leakage
    from hexshards.game.positions import Positions
    from hexshards.storage.files import Home

CHOOSING = ("where", "sources", "shards", "window", "per_game")
"""Options that choose which positions an epoch draws from."""


@options_of(ConvertSpec, after="out")
def convert(
    sources: Annotated[
        list[str], Argument(metavar="SOURCE...", help="Files, folders with all folders in them, or quoted globs.")
    ],
    out: Annotated[str, Option(help="Folder of the new dataset, or a URL to publish it to.")],
    workers: Annotated[int | None, shown(WorkSpec, "workers", unset="all cores")] = None,
    engine: Annotated[Engine, shown(WorkSpec, "engine")] = WORK.engine,
    max_rejects: Annotated[int, shown(WorkSpec, "max_rejects")] = WORK.max_rejects,
    memory: Annotated[str, shown(WorkSpec, "memory")] = str(WORK.memory),
    generation: Annotated[
        int | None, Option(min=0, help="Which network played, in files that do not say so: the column generation.")
    ] = None,
    shard_ranges: Annotated[
        str, Option(help="Only some files of each source, as in hex_ai: 221-250,all; counted from 0 by their names.")
    ] = "",
    append: Annotated[bool, Option("--append", help="Add the files to the dataset in DIR, with its options.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what it would take, and write nothing.")] = False,
    as_json: AsJson = False,
    **options: Unpack[ConvertOptions],
) -> None:
    """Convert hex_ai's processed files, or game records, into a dataset: checked, split by game, shuffled, compressed.

    Folders are searched to any depth; what was found where is said before it is read.

    The same files and options give the same bytes, whatever the number of workers. A conversion that was cut off goes
    on when the same command is given again; Ctrl-C, SIGTERM or SIGHUP ends it with 130.
    """
    from hexshards.cli import conversion_view, display

    with stops_as_ctrl_c(), told():
        if append:
            # what was not given is as the dataset was made
            options = cast(ConvertOptions, changed(CONVERT, options))
        workers = workers or usable_cores()
        if dry_run:
            from hexshards.conversion.estimate import estimate

            work: dict[str, Any] = {"workers": workers, "memory": memory, "shard_ranges": shard_ranges}
            expected = estimate(sources, out=out, append=append, **work, **options)
            display.say(display.json_line(asdict(expected)) if as_json else conversion_view.estimate_text(expected))
            if not expected.fits:
                raise typer.Exit(FAILED)
            return
        from hexshards.conversion.convert import convert as run

        # stdout is for the result; Ray would say there that a worker died
        with conversion_view.conversion_progress() as progress, redirect_stdout(sys.stderr):
            report = run(
                sources,
                out=out,
                append=append,
                max_rejects=max_rejects,
                workers=workers,
                memory=memory,
                engine=engine,
                generation=generation,
                shard_ranges=shard_ranges,
                progress=progress,
                announce=None
                if as_json
                else lambda folders, others: display.notice(conversion_view.folders_text(folders, others)),
                **options,
            )
        display.say(display.json_line(_report(report)) if as_json else conversion_view.conversion_summary(report))


@options_of(LoaderSpec, only=CHOOSING, after="dataset")
def info(dataset: Dataset, as_json: AsJson = False, **options: Any) -> None:
    """Show what is in a dataset: counts, games, plies, label balance, bytes per position, what it was made from.

    With options that choose, such as --window, it says which positions of train an epoch of training would draw.
    """
    from hexshards.cli import dataset_view, display

    with told():
        from hexshards.dataset.index import read_index

        index, drawn = read_index(dataset), _drawn(dataset, options)
        if as_json:
            display.say(display.json_line(_index(index) | ({"epoch": drawn} if drawn else {})))
        else:
            display.say(dataset_view.info_text(index, folder=str(dataset), drawn=drawn))


def _drawn(dataset: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What an epoch draws from, where options choose; it takes what opens shards."""
    spec = replace(LOADER, **options)
    if spec == LOADER:
        return {}
    from hexshards.loading.epoch_plan import Epochs

    epochs = Epochs(dataset, spec)
    return {"positions": epochs.positions, "chosen": epochs.describe()}


def verify(
    dataset: Dataset,
    with_leakage: Annotated[
        bool,
        Option("--leakage", help="Also count held-out positions that training shows too, in any symmetry."),
    ] = False,
    cache: CacheFolder = None,
    as_json: AsJson = False,
) -> None:
    """Read a whole dataset again and check every checksum, count and column, and that no game is in two splits."""
    from hexshards.cli import dataset_view, display

    with told():
        from hexshards.dataset.verify import verify as run

        home = opened(dataset, cache)
        with display.counting("checking", "positions") as progress:
            verification = run(home, progress=progress)
        leaked = _leakage(home) if with_leakage and not verification.problems else {}
        if as_json:
            entry = {**asdict(verification), "problems": [str(problem) for problem in verification.problems]}
            display.say(display.json_line(entry | {name: asdict(each) for name, each in leaked.items()}))
        for problem in () if as_json else verification.problems:
            display.say(escaped(problem))
        if verification.problems:
            raise typer.Exit(FAILED)
        if not as_json:
            where = f"in {counted(verification.blocks, 'block')} of {counted(verification.shards, 'shard')}"
            display.say(
                f"sound: {counted(verification.positions, 'position')} {where}, {counted(verification.games, 'game')}"
            )
            for name, each in leaked.items():
                display.say(dataset_view.leakage_text(each, *LEAKAGES[name]))


LEAKAGES = {
    "leakage": ("val", "train"),
    "leakage_of_test": ("test", "train"),
    "leakage_of_test_in_validation": ("test", "val"),
}
"""What is compared with what, by its name in JSON."""


def _leakage(home: Home) -> dict[str, Leakage]:
    """What leaks between each two splits that there are."""
    from hexshards.cli import display
    from hexshards.dataset.index import read_index
    from hexshards.dataset.leakage import leakage

    there = read_index(home).splits.keys()
    pairs = {name: pair for name, pair in LEAKAGES.items() if {*pair} <= there} or {"leakage": LEAKAGES["leakage"]}
    leaked: dict[str, Leakage] = {}
    for name, (of, against) in pairs.items():
        with display.counting("comparing", "positions") as progress:
            leaked[name] = leakage(home, of=of, against=against, progress=progress)
    return leaked


@options_of(LoaderSpec, only=("split", "seed", "shuffle", "streams", *CHOOSING), after="batch_size")
def mixing(
    dataset: Dataset,
    batch_size: Annotated[int, shown(LoaderSpec, "batch_size", least=2)] = LOADER.batch_size,
    cache: CacheFolder = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Measure how well the loader's batches are mixed, against what a uniform shuffle would give.

    Reads the split five times. Exit code 1: they are mixed so badly that training may notice.
    """
    from hexshards.cli import dataset_view, display

    with told():
        from hexshards.loading.shuffle_quality import mixing as run

        spec = LoaderSpec(batch_size=batch_size, **options)
        with display.counting("measuring", "samples") as progress:
            measured = run(opened(dataset, cache), spec, progress=progress)
        display.say(
            display.json_line(dataset_view.mixing_json(measured)) if as_json else dataset_view.mixing_text(measured)
        )
        if not measured.sound:
            raise typer.Exit(FAILED)


@options_of(TrainSpec, only=("batch_size", "device"), after="dataset")
def bench(
    dataset: Dataset,
    channels: Annotated[int | None, Option(min=1, help="Also measure the network: its width.")] = None,
    blocks: Annotated[int | None, Option(min=1, help="Also measure the network: its residual blocks.")] = None,
    threads: Annotated[int | None, shown(TrainSpec, "threads", unset="as train takes")] = None,
    cache: CacheFolder = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Measure in a few seconds where a sample's time goes on this machine, and how many workers to train with.

    With --channels or --blocks it also times training steps of that network, and says which of the two would wait.
    """
    from hexshards.cli import dataset_view, display

    with told():
        from hexshards.reports.throughput import measure_throughput

        given = replace(TRAIN, **options)
        size = replace(given, device=TRAIN.device, channels=channels or TRAIN.channels, blocks=blocks or TRAIN.blocks)
        model = size if channels or blocks else None
        with display.counting("measuring", "steps") as progress:
            home = opened(dataset, cache)
            spec = replace(LOADER, batch_size=given.batch_size)
            measured = measure_throughput(
                home, spec, model=model, device=given.device, threads=threads, progress=progress
            )
        verdict = {"bound": measured.bound, "workers": measured.workers}
        display.say(
            display.json_line(asdict(measured) | verdict) if as_json else dataset_view.throughput_text(measured)
        )


def show(
    dataset: Dataset,
    number: Annotated[int, Option("-n", min=1, help="How many positions.")] = 3,
    split: Split = LOADER.split,
    svg: Annotated[
        Path | None, Option(help="Also draw them as one picture, in this file.", show_default="only here")
    ] = None,
    cache: CacheFolder = None,
) -> None:
    """Draw the first positions of a dataset: B and R stones, * the move to learn."""
    from hexshards.cli import dataset_view, display

    with told():
        from hexshards.dataset.blocks import first_positions
        from hexshards.dataset.index import read_index

        if svg:
            _check_picture(svg)
        home = opened(dataset, cache)
        index = read_index(home)
        positions = first_positions(home, index, split=split, count=number)
        for row in range(len(positions)):
            mover = "BLUE" if positions.player[row] == 0 else "RED"
            source = escaped(index.sources[positions.source[row]])
            display.say(
                f"{source} line {positions.game[row]}, ply {positions.ply[row]}, {mover} to move, "
                f"value {positions.value[row]:g} ({'BLUE' if positions.value[row] < 0.5 else 'RED'} wins)"
            )
            if besides := dataset_view.optional_text(positions, row):
                display.say(besides)
            display.say(dataset_view.board_picture(positions, row) + "\n")
        if svg:
            _draw(positions, svg)


def _check_picture(out: Path) -> None:
    from hexshards.storage.files import check_parent

    if out.suffix != ".svg":
        raise ValueError(f"--svg writes a picture, so its name ends in .svg, got {escaped(out)}")
    check_parent(out)


def _draw(positions: Positions, out: Path) -> None:
    from hexshards.cli import display
    from hexshards.drawing.svg import markup
    from hexshards.game.diagram_svg import sheet_of
    from hexshards.storage.files import write_whole

    write_whole(out, markup(sheet_of(positions, most=len(positions))).encode())
    display.say(f"picture {escaped(out)}")


@options_of(SynthSpec)
def synth(out: Annotated[Path, Option(help="Folder for the files.")], **options: Any) -> None:
    """Make legal random games as hex_ai's processed files or as trmph game records, to try things on."""
    from hexshards.cli import display

    with told():
        from hexshards.conversion.random_files import write

        files = write(out, **options)
        display.say(f"{counted(options['games'], 'game')} in {counted(len(files), 'file')} in {escaped(out)}")


def _index(index: Any) -> dict[str, Any]:
    """An index for programs: all but the tables of blocks."""
    entry = asdict(index)
    for split in entry["splits"].values():
        split["positions"] = sum(shard["positions"] for shard in split["shards"])
        for shard in split["shards"]:
            del shard["block_bytes"], shard["block_crc32"]
    return {**entry, "fingerprint": index.fingerprint}


def _report(report: Any) -> dict[str, Any]:
    counts = {name: {"positions": split.positions, "games": split.games} for name, split in report.index.splits.items()}
    return {
        "out": str(report.out),
        "positions": report.positions,
        "rejects": report.rejects,
        "repeated": list(report.repeated),
        "already": list(report.already),
        "merged": report.merged,
        "notes": list(report.notes),
        "folders": [asdict(folder) for folder in report.folders],
        "files": [asdict(file) for file in report.added],
        "splits": counts,
        "shard_bytes": report.shard_bytes,
        "input_bytes": report.input_bytes,
        "fingerprint": report.index.fingerprint,
    }
