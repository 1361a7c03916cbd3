"""The report on a dataset, and on runs: what is in it, how it stands, and what it looks like, from a bounded sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hexshards import __version__
from hexshards.arguments import checked
from hexshards.dataset.facts import facts_of, lead, splits
from hexshards.dataset.index import SPLITS, Index, InputFile, read_index
from hexshards.drawing.tables import Table
from hexshards.errors import printable, without_secrets
from hexshards.game.diagram import caption_of, diagram_of, last_moves
from hexshards.game.diagram_svg import draw, shared_board
from hexshards.loading.options import LOADER
from hexshards.loading.shuffle_quality import Mixing, mixing
from hexshards.reports.copies import Shared, shared
from hexshards.reports.figures import figures_of
from hexshards.reports.openings import Openings, opening_figures, openings_of
from hexshards.reports.options import REPORT, ReportSpec
from hexshards.reports.page import Board, Page, rendered
from hexshards.reports.run_figures import runs_part, validations_verdict
from hexshards.reports.runs import run_folders
from hexshards.reports.sample import Sample, read_sample
from hexshards.reports.source_files import source_files
from hexshards.reports.verdicts import Level, Verdict, verdicts_of
from hexshards.storage.files import Home
from hexshards.storage.remote import home_of
from hexshards.units import counted, show_bytes

BOARDS = 9
"""Random positions that are drawn."""

SHARED_BOARDS = 6
"""Positions of two splits that are drawn, those with the most stones."""

LISTED_FILES = 1000
"""Source files that get a row."""

LISTED_HEADERS = 20
"""Lines of a source file's head that are shown."""

MIXED_POSITIONS = 131_072
"""Positions whose batches are compared with a uniform shuffle: they are read five times."""

FIRST: tuple[Level, ...] = ("bad", "look", "unknown", "good")
"""In which order verdicts stand on the page."""

_BOARDS = 1
"""Step of the path of what is drawn at random."""

Progress = Callable[[int, int], None]
"""Told positions read, and how many will be."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DatasetReport:
    """A page, and for programs what it says."""

    html: str
    fingerprint: str
    verdicts: tuple[Verdict, ...]
    positions: dict[str, int]
    """Positions of each split."""
    read: dict[str, int]
    """How many of them were read."""

    def entry(self) -> dict[str, Any]:
        """All but the page, as plain values."""
        return {
            "fingerprint": self.fingerprint,
            "positions": self.positions,
            "read": self.read,
            "verdicts": [asdict(each) for each in self.verdicts],
        }


@checked
def dataset_report(
    dataset: str | Path | Home,
    runs: Sequence[str | Path] = (),
    *,
    spec: ReportSpec = REPORT,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetReport:
    """Look at a dataset, and at the runs in folders, the best first.

    ``progress`` is told positions read and in all. Memory: a sample of each split, 70 bytes a position, or with soft
    policies 450 at side 13. Raises FileNotFoundError where there is no dataset or no run, DataError where one is
    damaged, and ValueError where Jinja2 is missing.
    """
    home, index = home_of(dataset), read_index(dataset)
    folders, left_out = run_folders(*runs) if runs else ([], [])
    told = runs_part(home, index, folders, most=spec.sample, left_out=left_out) if runs else None
    samples = _samples(home, index, spec, progress or (lambda *_: None))
    files = source_files(samples[0])
    compared = {each.split: shared(samples[0], each) for each in samples[1:]}
    mixed = _mixed(home, index, spec)
    verdicts = verdicts_of(index, samples, files=files, compared=compared, mixing=mixed)
    if of_runs := validations_verdict(index, folders):
        verdicts.append(of_runs)
    openings = openings_of(samples[0])
    page = Page(
        title=_title(home),
        lead=lead(index),
        read=_read(samples, mixed, spec),
        made=_made(index),
        version=__version__,
        verdicts=sorted(verdicts, key=lambda each: FIRST.index(each.level)),
        splits=splits(index),
        facts=[*facts_of(index)],
        shared_board=shared_board(index.side),
        boards=[*_random_boards(samples[0], spec)],
        boards_note=f"Positions of {samples[0].split}, drawn at random. The ring is the move to learn, in the colour "
        "of who is to move; a white dot the last stone, where it is known; a white line the chain that won.",
        opening_figures=[*opening_figures(samples[0], openings)] if openings else [],
        opening_table=_opening_table(openings, index.side),
        figures=figures_of(index, samples, files),
        shared_boards=[*_shared_boards(samples, compared)],
        shared_note=_shared_note(compared),
        runs=told,
        files=_files(index),
        files_note="What the dataset was made from, and what the converter read in each file's head.",
        files_summary=counted(len(index.inputs), "file"),
    )
    return DatasetReport(
        html=rendered(page),
        fingerprint=index.fingerprint,
        verdicts=tuple(verdicts),
        positions={name: split.positions for name, split in index.splits.items()},
        read={each.split: len(each.positions) for each in samples},
    )


def _samples(home: Home, index: Index, spec: ReportSpec, progress: Progress) -> list[Sample]:
    names = [name for name in SPLITS if name in index.splits]
    total = sum(min(index.splits[name].positions, spec.sample) for name in names)
    samples = list[Sample]()
    for name in names:
        before = sum(len(each.positions) for each in samples)
        samples.append(read_sample(home, index, name, spec, progress=lambda done, b=before: progress(b + done, total)))  # type: ignore[misc]
    return samples


def _mixed(home: Home, index: Index, spec: ReportSpec) -> Mixing | None:
    """How train's batches are mixed; None where there are not two of them."""
    split = next(iter(index.splits))
    loader = replace(LOADER, split=split, seed=spec.seed, positions=min(MIXED_POSITIONS, spec.sample))
    most = min(index.splits[split].positions, loader.positions or 0)
    if most < 4:
        return None
    return mixing(home, replace(loader, batch_size=min(loader.batch_size, most // 2)))


# words --------------------------------------------------------------------------------------------------------------


def _title(home: Home) -> str:
    return printable(without_secrets(str(home)), width=200)


def _read(samples: Sequence[Sample], mixed: Mixing | None, spec: ReportSpec) -> str:
    if all(each.whole for each in samples):
        said = "Every position was read."
    else:
        parts = [f"{len(each.positions):,} of {counted(each.total, 'position')} of {each.split}" for each in samples]
        said = f"{' and '.join(parts)} were read, whole blocks drawn with seed {spec.seed}; shares and averages are "
        said += "estimates for all of them, and what is counted by ply, split and file is exact."
    if mixed:
        said += f" Mixing was measured on {counted(mixed.positions, 'position')}."
    return said


def _made(index: Index) -> str:
    return f"Made by hexshards {__version__} from the dataset with the fingerprint {index.fingerprint[:16]}…"


def _files(index: Index) -> Table:
    rows = [
        [
            printable(file.name, width=120),
            printable(file.format),
            f"{file.positions:,}",
            f"{file.rejected:,}",
            show_bytes(file.size_bytes),
            _head_says(file),
            file.sha256[:12],
        ]
        for file in index.inputs[:LISTED_FILES]
    ]
    if (more := len(index.inputs) - LISTED_FILES) > 0:
        rows.append([f"and {counted(more, 'more file')}: `hexshards info` lists them all", *[""] * 6])
    heads = ["File", "Format", "Positions", "Rejected", "Size", "What its head says", "SHA-256"]
    return Table(heads=heads, rows=rows, numbers=[2, 3, 4])


def _head_says(file: InputFile) -> str:
    """What a converter says of a file, and what stands in the file's head."""
    headers = (f"{printable(name)}: {printable(said)}" for name, said in islice(file.headers.items(), LISTED_HEADERS))
    return "; ".join(filter(None, [printable(file.notes, width=300), *headers]))


def _opening_table(openings: Openings | None, side: int) -> Table:
    rows = openings.rows(side) if openings else []
    return Table(heads=["First move", "Games", "BLUE won"], rows=rows, numbers=[1, 2])


# boards -------------------------------------------------------------------------------------------------------------


def _random_boards(sample: Sample, spec: ReportSpec) -> Iterator[Board]:
    last = last_moves(sample.positions)
    for row in sample.drawn(BOARDS, spec.seed, _BOARDS).tolist():
        yield _board(sample, row, last=int(last[row]))


def _board(sample: Sample, row: int, *, last: int = -1, besides: str = "") -> Board:
    positions = sample.positions
    picture = draw(diagram_of(positions, row, last=last), shared=True)
    said = [where(sample, row), *_optional(sample, row), *([besides] if besides else [])]
    return Board(heading=caption_of(positions, row), caption=", ".join(said), picture=picture)


def where(sample: Sample, row: int) -> str:
    """The file and the line that a position came from."""
    positions = sample.positions
    line = f" line {positions.game[row]}" if positions.game[row] >= 0 else ""
    return f"{printable(sample.index.sources[positions.source[row]], width=60)}{line}"


def _optional(sample: Sample, row: int) -> Iterator[str]:
    for kind, column in sample.positions.optional.items():
        if not kind.size:
            yield f"{kind.name} {column[row]:.4g}"


def _shared_boards(samples: Sequence[Sample], compared: Mapping[str, Shared]) -> Iterator[Board]:
    if not compared:
        return
    train, other = samples[:2]
    both = compared[other.split]
    latest = np.argsort(-other.positions.ply[both.rows], kind="stable")[:SHARED_BOARDS]
    for at in latest.tolist():
        yield _board(other, int(both.rows[at]), besides=f"and in train {where(train, int(both.twins[at]))}")


def _shared_note(compared: Mapping[str, Shared]) -> str:
    if not compared:
        return ""
    met = " and ".join(f"{counted(len(both.rows), 'position')} of {split}" for split, both in compared.items())
    return (
        f"Met in train too, in whatever symmetry: {met}. Those of {next(iter(compared))} with the most stones stand "
        "here. Early positions are in every game; late ones in two splits mean games that are there twice."
    )
