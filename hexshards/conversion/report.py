"""Report of a conversion: where its files lie, how far it is (progress), and what it kept.

Folders are searched to any depth, so a folder in another one is easily read without being meant.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from hexshards.conversion.sorted_runs import Spill
from hexshards.conversion.sources import Input
from hexshards.conversion.spill_sources import Group, Survey
from hexshards.conversion.workdir import REJECTS
from hexshards.dataset.index import Index, InputFile
from hexshards.dataset.layout import Shard
from hexshards.storage.remote import shown
from hexshards.units import counted

# where the files lie ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """A folder in which files to convert were found."""

    folder: str
    files: dict[str, int]
    """How many of each format lie in it, those of folders in it not counted."""
    inside: str
    """The nearest folder around it that has files to convert as well, or nothing."""

    @property
    def count(self) -> int:
        """Files of all formats."""
        return sum(self.files.values())


def source_folders(inputs: Iterable[Input]) -> tuple[SourceFolder, ...]:
    """Where files lie, sorted by folder."""
    counts = dict[Path, Counter[str]]()
    for file in inputs:
        counts.setdefault(file.path.parent, Counter())[file.format] += 1
    return tuple(
        SourceFolder(str(each), dict(sorted(counts[each].items())), _around(each, counts)) for each in sorted(counts)
    )


def _around(folder: Path, others: Iterable[Path]) -> str:
    return next((str(parent) for parent in folder.parents if parent in others), "")


def by_format(folders: Sequence[SourceFolder]) -> dict[str, int]:
    """Files of all folders by format."""
    total = Counter[str]()
    for each in folders:
        total.update(each.files)
    return dict(sorted(total.items()))


# progress ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionProgress:
    """Progress of a conversion; sent after every group of files of games compared, file read and shard written."""

    files: int
    files_done: int
    bytes: int
    bytes_done: int
    positions: int
    lists: int = 0
    """Groups of files whose games are compared, to find repeats."""
    lists_done: int = 0
    shards: int = 0
    shards_done: int = 0
    uploads: int = 0
    uploads_done: int = 0


class ProgressTotals:
    """Adds up what is done and passes it on."""

    def __init__(self, inputs: Sequence[Input], tell: Callable[[ConversionProgress], None] | None) -> None:
        self.tell = tell or (lambda _: None)
        self.counts = Counter(files=len(inputs), bytes=sum(file.path.stat().st_size for file in inputs))
        self.add()

    def add(self, **counts: int) -> None:
        """Add to fields of ConversionProgress, and pass all on."""
        self.counts.update(counts)
        self.tell(ConversionProgress(**{each.name: self.counts[each.name] for each in fields(ConversionProgress)}))

    def read(self, group: Group, spill: Spill | None) -> None:
        """Some files were read; no spill: they were refused."""
        kept = sum(file.positions for file in spill.inputs) if spill else 0
        self.add(files_done=len(group), bytes_done=sum(file.path.stat().st_size for file in group), positions=kept)

    def published(self, done: int, total: int) -> None:
        """Files of the dataset that are at their URL, and how many there are."""
        self.counts.update(uploads=total - self.counts["uploads"], uploads_done=done - self.counts["uploads_done"])
        self.add()

    def passed_over(self, surveyed: Survey) -> None:
        """Files that need not be read."""
        paths = [*surveyed.repeated, *surveyed.already]
        self.add(files_done=len(paths), bytes_done=sum(Path(path).stat().st_size for path in paths))


# the report ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Report of a conversion: what it kept, and what it did not."""

    out: str | Path
    index: Index
    """The whole dataset, with what it held before files were added."""
    rejects: dict[str, int]
    """How many examples, or lines of game records, were rejected, by reason."""
    repeated: tuple[str, ...]
    """Files passed over because another has the same contents."""
    already: tuple[str, ...] = ()
    """Files passed over because the dataset was made from them before."""
    merged: int = 0
    """Positions that went into an equal one."""
    positions: int
    """Positions that this conversion wrote, over all splits."""
    shard_bytes: int
    added: tuple[InputFile, ...]
    """The files that were read, each with its counts, its generation and what was corrected."""
    notes: tuple[str, ...] = ()
    """Sentences on repeats of games, and on what held the conversion back."""
    folders: tuple[SourceFolder, ...] = ()
    """Where the files to convert were found."""

    @property
    def input_bytes(self) -> int:
        """Size of the files that were read."""
        return sum(file.size_bytes for file in self.added)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from hexshards.dataset.facts import splits
        from hexshards.drawing.tables import facts, summary, table

        counts = {"kept": self.positions, **self.rejects, "merged into equal ones": self.merged}
        rows = [(name, f"{count:,}") for name, count in counts.items() if count or name == "kept"]
        title = f"{counted(self.positions, 'position')} converted into {shown(str(self.out))}"
        notes = [("note", note) for note in self.notes]
        return summary(title, facts([*rows, *notes]), table(splits(self.index)))


def report_of(
    index: Index,
    *,
    out: Path,
    base: Index | None,
    surveyed: Survey,
    rejects: dict[str, int] | None = None,
    rows: int = 0,
    notes: Sequence[str] = (),
) -> Report:
    """The report of a conversion that made ``index``, adding to ``base`` where there was one."""
    before = {shard.name for shard in shards_of(base)}
    added = [shard for shard in shards_of(index) if shard.name not in before]
    positions = sum(shard.positions for shard in added)
    known = len(base.inputs) if base else 0
    return Report(
        out=out,
        index=index,
        rejects=rejects or {},
        repeated=surveyed.repeated,
        already=surveyed.already,
        merged=rows - positions,
        positions=positions,
        shard_bytes=sum(shard.size_bytes for shard in added),
        added=index.inputs[known:],
        notes=tuple(note for note in notes if note),
    )


def report_again(out: Path, index: Index, folders: tuple[SourceFolder, ...]) -> Report:
    """The report of a conversion whose dataset was whole when it was given again."""
    path = out / REJECTS
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return Report(
        out=out,
        index=index,
        rejects=dict(Counter(line["reason"] for line in lines)),
        repeated=(),
        positions=sum(shard.positions for shard in shards_of(index)),
        shard_bytes=sum(shard.size_bytes for shard in shards_of(index)),
        added=index.inputs,
        notes=("it was whole already: nothing was converted again",),
        folders=folders,
    )


def shards_of(index: Index | None) -> list[Shard]:
    """The shards of all splits; none of no dataset."""
    return [shard for split in index.splits.values() for shard in split.shards] if index else []
