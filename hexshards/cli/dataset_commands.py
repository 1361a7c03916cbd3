"""Commands that make datasets and look at them: one command builds one spec, calls one function, prints one result.

Heavy modules are imported inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from hexshards.cli.console import FAILED, AsJson, CacheFolder, Dataset, opened, told
from hexshards.conversion.options import (
    CONVERT,
    MEMORY,
    ConvertOptions,
    Dedupe,
    Engine,
    Selector,
    Unfinished,
    V1Value,
    changed,
)
from hexshards.dataset.options import Codec
from hexshards.errors import escaped
from hexshards.game.options import SYNTH, Format
from hexshards.loading.options import LOADER, LoaderSpec
from hexshards.signals import stops_as_ctrl_c
from hexshards.training.options import MOST_THREADS, TRAIN
from hexshards.units import counted


def convert(
    sources: Annotated[
        list[str], Argument(metavar="SOURCE...", help="Files, folders with all folders in them, or quoted globs.")
    ],
    out: Annotated[str, Option(help="Folder of the new dataset, or a URL to publish it to.")],
    val_fraction: Annotated[
        float, Option(min=0, max=1, help="Share of the games kept for validation.")
    ] = CONVERT.val_fraction,
    seed: Annotated[int, Option(min=0, help="Seed of the global shuffle.")] = CONVERT.seed,
    workers: Annotated[int | None, Option(min=1, help="Processes.", show_default="all cores")] = None,
    engine: Annotated[Engine, Option(help="Where they run; ray: see docs/ray.md.")] = "local",
    shard_positions: Annotated[int, Option(min=1, help="Positions in a shard.")] = CONVERT.shard_positions,
    block_positions: Annotated[int, Option(min=1, help="Positions in a block.")] = CONVERT.block_positions,
    codec: Annotated[Codec, Option(help="none: stock WebDataset decodes without a handler.")] = CONVERT.codec,
    bake_symmetries: Annotated[
        bool, Option("--bake-symmetries", help="Write all four symmetries, for readers that cannot augment.")
    ] = CONVERT.bake_symmetries,
    dedupe: Annotated[
        Dedupe,
        Option(
            help="games: keep each once, though it comes by several files or formats. positions: merge equal ones; "
            "symmetric: also those that are equal when turned by 180 degrees."
        ),
    ] = CONVERT.dedupe,
    positions: Annotated[
        Selector, Option(help="Game records: all positions, the final one, or the one before it.")
    ] = CONVERT.positions,
    unfinished: Annotated[
        Unfinished, Option(help="Game records in which nobody connected: reject, or keep and trust the result.")
    ] = CONVERT.unfinished,
    keep_duplicates: Annotated[
        bool, Option("--keep-duplicates", help="Game records: keep exact repeats of a game.")
    ] = CONVERT.keep_duplicates,
    v1_value: Annotated[
        V1Value, Option(help="First-generation files: compare values with the boards, or trust them.")
    ] = CONVERT.v1_value,
    max_rejects: Annotated[int, Option(min=0, help="Examples, or lines of games, that may be left out as faulty.")] = 0,
    memory: Annotated[str, Option(help="What all processes together may hold, like 512MiB.")] = MEMORY,
    append: Annotated[bool, Option("--append", help="Add the files to the dataset in DIR, with its options.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what it would take, and write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert hex_ai's processed files, or game records, into a dataset: checked, split by game, shuffled, compressed.

    Folders are searched to any depth; what was found where is said before it is read.

    The same files and options give the same bytes, whatever the number of workers. A conversion that was cut off goes
    on when the same command is given again; Ctrl-C, SIGTERM or SIGHUP ends it with 130.
    """
    from hexshards.cli import display

    given: ConvertOptions = {
        "val_fraction": val_fraction,
        "seed": seed,
        "shard_positions": shard_positions,
        "block_positions": block_positions,
        "codec": codec,
        "bake_symmetries": bake_symmetries,
        "dedupe": dedupe,
        "positions": positions,
        "unfinished": unfinished,
        "keep_duplicates": keep_duplicates,
        "v1_value": v1_value,
    }
    with stops_as_ctrl_c(), told():
        options = changed(given) if append else given
        workers = workers or _cores()
        if dry_run:
            from hexshards.conversion.estimate import estimate

            found = estimate(sources, out=out, append=append, workers=workers, memory=memory, **options)
            display.say(display.json_line(asdict(found)) if as_json else display.estimate_text(found))
            if not found.fits:
                raise typer.Exit(FAILED)
            return
        from hexshards.conversion.convert import convert as run

        # stdout is for the result; Ray would say there that a worker died
        with display.conversion_progress() as progress, redirect_stdout(sys.stderr):
            report = run(
                sources,
                out=out,
                append=append,
                max_rejects=max_rejects,
                workers=workers,
                memory=memory,
                engine=engine,
                progress=progress,
                announce=None if as_json else lambda folders, others: display.warn(display.found_text(folders, others)),
                **options,
            )
        display.say(display.json_line(_report(report)) if as_json else display.conversion_summary(report))


def info(dataset: Dataset, as_json: AsJson = False) -> None:
    """Show what is in a dataset: counts, games, plies, label balance, bytes per position, what it was made from."""
    from hexshards.cli import display

    with told():
        from hexshards.dataset.index import read_index

        index = read_index(dataset)
        display.say(display.json_line(_index(index)) if as_json else display.info_text(index, folder=str(dataset)))


def verify(
    dataset: Dataset,
    with_leakage: Annotated[
        bool, Option("--leakage", help="Also count validation positions that training shows too, in any symmetry.")
    ] = False,
    cache: CacheFolder = None,
    as_json: AsJson = False,
) -> None:
    """Read a whole dataset again and check every checksum, count and column, and that no game is in two splits."""
    from hexshards.cli import display

    with told():
        from hexshards.dataset.verify import verify as run

        home = opened(dataset, cache)
        with display.counting("checking", "positions") as progress:
            found = run(home, progress=progress)
        leaked = None
        if with_leakage and not found.problems:
            from hexshards.dataset.leakage import leakage

            with display.counting("comparing", "positions") as progress:
                leaked = leakage(home, progress=progress)
        if as_json:
            entry = {**asdict(found), "problems": [str(problem) for problem in found.problems]}
            display.say(display.json_line({**entry, "leakage": asdict(leaked)} if leaked else entry))
        for problem in () if as_json else found.problems:
            display.say(escaped(problem))
        if found.problems:
            raise typer.Exit(FAILED)
        if not as_json:
            where = f"in {counted(found.blocks, 'block')} of {counted(found.shards, 'shard')}"
            display.say(f"sound: {counted(found.positions, 'position')} {where}, {counted(found.games, 'game')}")
            if leaked:
                display.say(display.leakage_text(leaked))


def mixing(
    dataset: Dataset,
    batch_size: Annotated[int, Option(min=2, help="Samples in a batch.")] = LOADER.batch_size,
    split: Annotated[str, Option(help="train or val.")] = LOADER.split,
    seed: Annotated[int, Option(min=0, help="Seed of the order.")] = LOADER.seed,
    shuffle: Annotated[bool, Option(help="No: the order in which the dataset was written.")] = LOADER.shuffle,
    cache: CacheFolder = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well the loader's batches are mixed, against what a uniform shuffle would give.

    Reads the split five times. Exit code 1: chance does not explain what was found.
    """
    from hexshards.cli import display

    with told():
        from hexshards.loading.shuffle_quality import mixing as run

        spec = LoaderSpec(split=split, batch_size=batch_size, shuffle=shuffle, seed=seed)
        with display.counting("measuring", "samples") as progress:
            found = run(opened(dataset, cache), spec, progress=progress)
        display.say(
            display.json_line({**asdict(found), "sound": found.sound}) if as_json else display.mixing_text(found)
        )
        if not found.sound:
            raise typer.Exit(FAILED)


def bench(
    dataset: Dataset,
    batch_size: Annotated[int, Option(min=1, help="Samples in a batch.")] = TRAIN.batch_size,
    channels: Annotated[int | None, Option(min=1, help="Also measure the network: its width.")] = None,
    blocks: Annotated[int | None, Option(min=1, help="Also measure the network: its residual blocks.")] = None,
    device: Annotated[str, Option(help="auto, cpu, cuda, cuda:1, mps.")] = TRAIN.device,
    threads: Annotated[
        int | None,
        Option(min=1, max=MOST_THREADS, help="Threads to compute with on the CPU.", show_default="as train takes"),
    ] = None,
    cache: CacheFolder = None,
    as_json: AsJson = False,
) -> None:
    """Measure in a few seconds where a sample's time goes on this machine, and how many workers to train with.

    With --channels or --blocks it also times training steps of that network, and says which of the two would wait.
    """
    from hexshards.cli import display

    with told():
        from hexshards.reports.throughput import pace

        size = replace(TRAIN, batch_size=batch_size, channels=channels or TRAIN.channels, blocks=blocks or TRAIN.blocks)
        model = size if channels or blocks else None
        with display.counting("measuring", "steps") as progress:
            home = opened(dataset, cache)
            spec = replace(LOADER, batch_size=batch_size)
            found = pace(home, spec, model=model, device=device, threads=threads, progress=progress)
        verdict = {"bound": found.bound, "workers": found.workers}
        display.say(display.json_line(asdict(found) | verdict) if as_json else display.pace_text(found))


def show(
    dataset: Dataset,
    number: Annotated[int, Option("-n", min=1, help="How many positions.")] = 3,
    split: Annotated[str, Option(help="train or val.")] = "train",
    cache: CacheFolder = None,
) -> None:
    """Draw the first positions of a dataset: B and R stones, * the move to learn."""
    from hexshards.cli import display

    with told():
        from hexshards.dataset.index import read_index
        from hexshards.loading.window import first_positions

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
            display.say(display.board_picture(positions, row) + "\n")


def synth(
    out: Annotated[Path, Option(help="Folder for the files.")],
    games: Annotated[int, Option(min=1)] = SYNTH.games,
    form: Annotated[Format, Option("--format", help="hex_ai's processed files, or game records.")] = SYNTH.format,
    side: Annotated[int, Option(min=3, max=19)] = SYNTH.side,
    seed: Annotated[int, Option(min=0)] = SYNTH.seed,
) -> None:
    """Make legal random games as hex_ai's processed files or as trmph game records, to try things on."""
    from hexshards.cli import display

    with told():
        from hexshards.conversion.random_files import write

        files = write(out, games=games, format=form, side=side, seed=seed)
        display.say(f"{counted(games, 'game')} in {counted(len(files), 'file')} in {escaped(out)}")


def _cores() -> int:
    from hexshards.cores import usable_cores

    return usable_cores()


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
