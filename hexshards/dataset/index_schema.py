"""Schema of index.json: the type and the bounds of each field, and what one field says of another.

A list of shards may be long, so each is decoded for itself: no more of the file lies in memory as objects than what the
index keeps of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from hexshards.dataset.layout import END, Shard
from hexshards.dataset.options import MAX_BLOCK_POSITIONS
from hexshards.errors import escaped
from hexshards.game.options import MAX_OPTIONAL, MAX_SIDE, MIN_SIDE
from hexshards.units import counted

T = TypeVar("T")

SHARD_NAME = r"(?:train|val|test)-[0-9]{6}\.tar"
"""Pattern of the names that shards have, as ``shard_name`` makes them."""

LAST_NUMBER = 999_999
"""Names of shards are in the order of their numbers, so all have as many digits."""

NAMES_BYTES = 16 << 20
"""Size above which names that are no Unicode, as those of files may be, are not looked at by Python's own reader."""

Count = Annotated[int, Meta(ge=0, le=1 << 48)]
Positive = Annotated[int, Meta(ge=1, le=1 << 48)]
Checksum = Annotated[int, Meta(ge=0, lt=1 << 32)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _Strict(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Base of strict schemas: a field more, or less, is as wrong as one of another type."""


class Head(msgspec.Struct, frozen=True):
    """What tells whether the rest can be read."""

    version: int
    fingerprint: str


class ColumnEntry(_Strict, frozen=True):
    """As in columns.Column; what it may be is looked at there."""

    name: Annotated[str, Meta(max_length=42)]
    dtype: Annotated[str, Meta(pattern=r"^[<|][uif][1248]\Z")]
    size: Annotated[list[Annotated[int, Meta(ge=1, le=1024)] | Literal["cells"]], Meta(max_length=2)]
    unknown: int | float | None
    symmetry: Literal["unchanged", "cells move", "visited cells move", "colours swap"]
    merge: Literal["must agree", "first", "mean", "sum"]
    filterable: bool
    low: float | None
    high: float | None
    doc: Annotated[str, Meta(max_length=200)]


class LayoutEntry(_Strict, frozen=True):
    """As in shard.Layout."""

    side: Annotated[int, Meta(ge=MIN_SIDE, le=MAX_SIDE)]
    soft: bool
    codec: Literal["zstd", "none"]
    block_positions: Annotated[int, Meta(ge=1, le=MAX_BLOCK_POSITIONS)]
    counted: bool | UnsetType = UNSET
    optional: Annotated[list[ColumnEntry], Meta(min_length=1, max_length=MAX_OPTIONAL)] | UnsetType = UNSET


class ShardEntry(_Strict, frozen=True):
    """As in layout.Shard."""

    name: Annotated[str, Meta(pattern=rf"^{SHARD_NAME}\Z")]
    positions: Positive
    size_bytes: Positive
    sha256: Digest  # becomes a file's name
    block_bytes: list[Positive]
    block_crc32: list[Checksum]

    def __post_init__(self) -> None:
        if len(self.block_bytes) != len(self.block_crc32):
            raise ValueError("as many block_crc32 as block_bytes are needed")
        if sum(self.block_bytes) + len(END) != self.size_bytes:
            raise ValueError("block_bytes do not add up to size_bytes")


class SplitEntry(_Strict, frozen=True):
    """As in index.Split."""

    shards: Annotated[list[Raw], Meta(min_length=1)]
    games: Count
    blue_wins: Count
    red_wins: Count
    without_policy: Count
    plies: Annotated[list[Count], Meta(max_length=MAX_SIDE**2 + 1)]


class InputEntry(_Strict, frozen=True):
    """As in index.InputFile."""

    name: str
    format: str
    size_bytes: Count
    sha256: Digest
    positions: Count
    rejected: Count
    without_game: Count
    notes: str
    headers: (
        Annotated[dict[Annotated[str, Meta(max_length=40)], Annotated[str, Meta(max_length=1000)]], Meta(min_length=1)]
        | UnsetType
    ) = UNSET


class PartEntry(_Strict, frozen=True):
    """As in layout.Part."""

    sha256: Digest
    positions: Annotated[int, Meta(ge=1)]


class Entry(_Strict, frozen=True):
    """The whole file."""

    format: Literal["hexshards"]
    version: int
    fingerprint: str
    layout: LayoutEntry
    splits: Annotated[dict[Literal["train", "val", "test"], SplitEntry], Meta(min_length=1)]
    sources: Raw
    inputs: Raw
    options: Raw
    merged: Annotated[dict[str, Annotated[list[PartEntry], Meta(min_length=2)]], Meta(min_length=1)] | UnsetType = UNSET


_NAMED: dict[str, Any] = {
    "sources": list[str],
    "inputs": list[InputEntry],
    "options": dict[str, int | float | str | bool],
}
"""Parts with names of files."""


def shard_name(split: str, number: int) -> str:
    """Name of a split's shard: 0 of train is ``train-000000.tar``. Raises ValueError behind LAST_NUMBER."""
    if number > LAST_NUMBER:
        raise ValueError(
            f"shards of {escaped(split)} have numbers up to {LAST_NUMBER:,}, and this one would be {number:,}. Merge "
            "those of a dataset that has grown, which numbers them anew (`hexshards compact`), or make larger ones "
            "(--shard-positions)"
        )
    return f"{split}-{number:06d}.tar"


def next_number(shards: Sequence[Shard]) -> int:
    """Number of the shard that comes after those of a split. Where shards were merged, numbers have gaps."""
    return 1 + int(shards[-1].name.partition("-")[2].removesuffix(".tar")) if shards else 0


def shards_of(name: str, split: SplitEntry, layout: LayoutEntry) -> Iterator[ShardEntry]:
    """The shards of a split, one at a time. Raises ValueError where one is wrong, or contradicts split or layout."""
    before, positions = "", 0
    for number, raw in enumerate(split.shards):
        path = f"$.splits.{name}.shards[{number}]"
        shard = _at(path, raw, ShardEntry)
        blocks = -(-shard.positions // layout.block_positions)
        if len(shard.block_bytes) != blocks:
            held = f"{counted(shard.positions, 'position', verb='is/are')} {counted(blocks, 'block')}"
            raise ValueError(f"{held} - at `{escaped(path)}.block_bytes`")
        if not shard.name.startswith(f"{name}-"):
            raise ValueError(f"a shard of another split - at `{escaped(path)}.name`")
        if shard.name <= before:
            raise ValueError(f"shards are not in the order of their names, each once - at `{escaped(path)}.name`")
        before, positions = shard.name, positions + shard.positions
        yield shard
    most = max(split.blue_wins + split.red_wins, split.without_policy)
    if sum(split.plies) != positions or most > positions or len(split.plies) != layout.side**2 + 1:
        raise ValueError(
            f"its counts are not those of {counted(positions, 'position')} - at `$.splits.{escaped(name)}`"
        )


def with_names_apart(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """A file with names that are no Unicode, without them; and the parts that hold names, as Python's reader has them.

    Python writes a byte of a file's name that is no Unicode as half of a surrogate pair, which msgspec refuses.
    """
    if len(data) > NAMES_BYTES:
        raise ValueError("names that are no Unicode in an index of this size")
    entry = json.loads(data)
    parts = {name: entry.get(name) for name in _NAMED} if isinstance(entry, dict) else {}
    return json.dumps(entry | {name: [] for name in parts} if parts else entry).encode(), parts


def named(entry: Entry, part: str, apart: dict[str, Any]) -> Any:
    """One of ``sources``, ``inputs`` and ``options``, where it is not among the parts that were read apart."""
    if part in apart:
        return msgspec.convert(apart[part], _NAMED[part])
    return _at(f"$.{part}", getattr(entry, part), _NAMED[part])


def _at(path: str, raw: Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        said, dollar, rest = str(error).partition("`$")
        raise msgspec.ValidationError(f"{said}`{path}{rest}" if dollar else f"{said} - at `{path}`") from None
