"""Layout of a dataset and its shards, as the index describes them: no array is made here, and NumPy is not loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hexshards.dataset.options import SUFFIXES, Codec

if TYPE_CHECKING:
    from hexshards.game.columns import Column, Fields

END = bytes(2 * 512)
"""What follows the last block of a tar: two of its records, all zeros."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One tar file, as the index describes it: its blocks lie one after another from its first byte."""

    name: str
    positions: int
    size_bytes: int
    sha256: str
    block_bytes: tuple[int, ...]
    """Size of each block: the tar members of all its columns, headers and padding included."""
    block_crc32: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A shard that files were written to, and that is now a part of a merged one."""

    sha256: str
    positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the columns of all shards of a dataset look like."""

    side: int
    soft: bool
    codec: Codec
    block_positions: int
    counted: bool = False
    """Whether equal positions were merged, and a column says how many each stands for."""
    optional: tuple[Column, ...] = ()
    """The columns that it has besides; those of shards that were written before they came are unknown."""

    @property
    def declared(self) -> tuple[Column, ...]:
        """What each column is, in the order in which a block stores them."""
        from hexshards.game.columns import declared

        return (*declared(soft=self.soft, counted=self.counted), *self.optional)

    @property
    def kinds(self) -> dict[str, Column]:
        """What each column is that can be asked for, by its name; what is not there is unknown."""
        from hexshards.game.columns import OPTIONAL

        return {column.name: column for column in (*OPTIONAL, *self.declared)}

    def columns(self) -> Fields:
        """Name, dtype and shape per position of every column."""
        from hexshards.game.columns import fields_of

        return fields_of(self.declared, self.side)

    def member(self, number: int, column: str) -> str:
        """Name of the tar member that holds a column of block ``number``."""
        return f"{number:06d}.{column}{SUFFIXES[self.codec]}"
