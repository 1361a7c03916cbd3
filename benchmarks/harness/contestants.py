"""A contestant is a system that is installed here, has stored the positions, and has proved what it delivers.

All of that is kept in a cache folder until the files, the system's code or its requirements change.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import hexshards
from harness.environments import SYSTEMS, python_of
from harness.recording import Trusting
from harness.rows import Source, from_examples
from harness.serving import ask_once

EPOCH_POSITIONS, MOST_COPIES = 12_000_000, 64
"""An epoch of ``Source.many_pickles`` has about so many positions, at 8 M samples/s 1.5 s, unless that takes more
copies of the files. A large dataset's epoch takes minutes: what it takes to begin one must not count once a second."""


class System(NamedTuple):
    """What is measured, and how it is called in the table."""

    name: str
    title: str
    workers: tuple[int, ...] = (0, 2)
    samples: bool = True
    """Whether it delivers the positions; a ceiling does not."""


ALL = [
    System("ceiling_write", "ceiling: one core writing float32 batches", (0,), samples=False),
    System("ceiling_copy", "ceiling: one core copying float32 batches", (0,), samples=False),
    System("ceiling_handover", "ceiling: DataLoader handing over ready-made batches", (2,), samples=False),
    System("hexshards_dense", "**hexshards**"),
    System("hexshards_numpy", "**hexshards**, without `hexshards[fast]`"),
    System("hexshards_packed", "**hexshards**, packed for a device to expand"),
    System("memmap_batches", "NumPy memmap, batched `__getitems__`"),
    System("ffcv", "FFCV, compiled, 1 / 2 threads"),
    System("tensors_in_ram", "float32 tensors in RAM, batched"),
    System("litdata", "LitData"),
    System("lancedb", "LanceDB, StreamingDataset"),
    System("torchdata", "torchdata StatefulDataLoader, NumPy memmap"),
    System("energon", "Megatron-Energon"),
    System("huggingface", "Hugging Face datasets, batched"),
    System("grain", "Grain, ArrayRecord"),
    System("spdl", "SPDL, 1 / 2 threads, NumPy memmap"),
    System("ray_data", "Ray Data, Parquet"),
    System("mosaicml", "MosaicML Streaming"),
    System("webdataset_packed", "webdataset, packed members"),
    System("webdataset_samples", "webdataset, a sample a member, expanded by batches"),
    System("webdataset_decoded", "webdataset, a sample a member, as documented"),
    System("memmap_samples", "NumPy memmap, a sample at a time"),
    System("pickles_vectorised", "pickles, vectorised"),
    System("hex_ai_pickles", "pickles, a sample at a time, as hex_ai"),
]
OURS = "hexshards_dense"


class Contestant(NamedTuple):
    """A system that is ready to be timed."""

    system: System
    python: Path
    folder: Path
    bytes_per_position: float


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where all that is prepared is kept."""
    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "hexshards-bench"
    parser.add_argument(
        "--cache", type=Path, default=home, help="environments and prepared files; default: %(default)s"
    )


def apart(system: System) -> bool:
    """Whether a system needs an environment of its own."""
    return (SYSTEMS / f"{system.name}.txt").exists()


def versions(systems: Sequence[System]) -> str:
    """What each environment of its own pins first."""
    pins = [
        next(line for line in (SYSTEMS / f"{each.name}.txt").read_text().splitlines() if line[:1].isalpha())
        for each in systems
        if apart(each)
    ]
    return f"In environments of their own: {', '.join(pins)}." if pins else ""


def source_of(files: Sequence[Path], *, cache: Path) -> Source:
    """The positions of some processed files, kept under the cache."""
    told = "\n".join(f"{file.resolve()} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)
    source = Source(cache / "positions" / hashlib.sha256(told.encode()).hexdigest()[:12])
    if not (source.folder / "rows.npy").exists():
        shutil.rmtree(source.folder, ignore_errors=True)
        for name in ("pickles", "many"):
            (source.folder / name).mkdir(parents=True)
        for file in files:
            os.symlink(file.resolve(), source.folder / "pickles" / file.name)
        rows = np.concatenate([_rows(file) for file in files])
        copies = max(1, min(MOST_COPIES, EPOCH_POSITIONS // len(rows))) if len(files) > 1 else 1
        for copy in range(copies):
            for file in files:
                # an empty member at the end: the same contents in other bytes, or convert would pass them over
                data = file.read_bytes() + gzip.compress(b"", mtime=copy)
                (source.folder / "many" / f"{copy:02d}-{file.name}").write_bytes(data)
        np.save(source.folder / "rows.npy", rows)
    return source


def _rows(file: Path) -> np.ndarray:
    with gzip.open(file) as opened:
        return from_examples(Trusting(opened).load()["examples"])


def contestant(system: System, source: Source, *, cache: Path) -> Contestant:
    """Make a system ready. Raises Unavailable with the reason when that cannot be."""
    python = python_of(system.name, cache=cache)
    home = cache / "systems" / f"{system.name}-{source.folder.name}-{_key(system.name)}"
    ready = home / "ready.json"
    if not ready.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        if system.samples:
            _prove(system, python, source, cache=cache)
        stored = _store(system, python, source, home)
        ready.write_text(json.dumps({"positions": stored, "bytes": _size(home / "data")}))
    prepared = json.loads(ready.read_text())
    return Contestant(system, python, home / "data", prepared["bytes"] / prepared["positions"])


def _store(system: System, python: Path, source: Source, home: Path) -> int:
    (home / "data").mkdir()
    told = ask_once(python, "prepare", system.name, source.folder, home / "data", log=home / "prepare.log")
    return int(told["positions"])


def _prove(system: System, python: Path, source: Source, *, cache: Path) -> None:
    """One epoch of the first file with each number of workers: an epoch of all would take the slowest minutes."""
    few = source_of([file.resolve() for file in source.pickles[:1]], cache=cache)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        stored = _store(system, python, few, Path(work))
        for workers in system.workers:
            arguments = (few.folder, Path(work) / "data", workers, stored // len(few.rows))
            ask_once(python, "prove", system.name, *arguments, log=Path(work) / "prove.log")


def _key(name: str) -> str:
    """What a system's files and its proof depend on."""
    here = Path(__file__).parent
    code, waiting = {here / "rows.py", here / "proof.py", here / "trial.py"}, [SYSTEMS / f"{name}.py"]
    while waiting:
        path = waiting.pop()
        code.add(path)
        imported = {
            SYSTEMS / f"{each}.py" for each in re.findall(r"^from systems\.(\w+)", path.read_text(), re.MULTILINE)
        }
        waiting += imported - code
    needs = SYSTEMS / f"{name}.txt"
    code |= {needs} if needs.exists() else set()
    code |= set(Path(hexshards.__file__).parent.rglob("*.py")) if name.startswith("hexshards") else set()
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(code))).hexdigest()[:12]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
