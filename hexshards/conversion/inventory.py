"""Inventory of the source files: each folder with its files by format, and the folder it lies in if that has some too.

Folders are searched to any depth, so a folder in another one is easily read without being meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hexshards.conversion.sources import Input


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
