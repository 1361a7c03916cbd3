"""What benchmarks share: their files, today's way of reading them, and a results file that says how it was made."""

from __future__ import annotations

import argparse
import os
import pickle
import platform
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from hexshards.conversion.random_files import Player, Winner, write

RESULTS = Path(__file__).parents[1] / "results"


class Trusting(pickle.Unpickler):
    """What a user does today with own files; the enums are found here instead of in hex_ai."""

    def find_class(self, module: str, name: str) -> object:
        """The class or function that a pickle names."""
        return {"Player": Player, "Winner": Winner}.get(name) or super().find_class(module, name)


def machine(*versions: str) -> str:
    """The machine, versions and the day, in a line."""
    python = f"Python {platform.python_version()}"
    cores = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    return ", ".join([cores, python, *versions, f"NumPy {np.__version__}", f"{datetime.now(UTC):%Y-%m-%d}"]) + "."


def arguments_of(doc: str | None, *, games: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help=f"default: {games:,} random games of side 13")
    parser.add_argument("--write", action="store_true", help="write the results file too")
    return parser


def files_of(given: argparse.Namespace, made: Path, *, games: int) -> list[Path]:
    """The files of the folder that was named, or of so many random games, made where they are not there yet."""
    if given.folder:
        return sorted(given.folder.glob("*.pkl.gz"))
    return sorted(made.glob("*.pkl.gz")) or write(made, games=games, games_per_file=100)


def write_results(title: str, table: str) -> Path:
    """Write the results file of the program that runs, and say where."""
    name = Path(sys.argv[0]).name
    path = (RESULTS / name).with_suffix(".md")
    path.write_text(f"# {title}\n\n`{' '.join(['python', f'benchmarks/{name}', *sys.argv[1:]])}`\n\n{table}")
    return path


def record(title: str, measure: Callable[[list[Path], Path], str], *, doc: str | None, games: int) -> None:
    """Measure on the folder that was named, or on so many random games; print the table, and write it if asked."""
    given = arguments_of(doc, games=games).parse_args()
    with tempfile.TemporaryDirectory() as work:
        table = measure(files_of(given, Path(work) / "files", games=games), Path(work))
    print(table)
    if given.write:
        write_results(title, table)
