"""index.json is the dataset: what is not in it does not exist, and what is in it is checked by its own fingerprint."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.arguments import checked
from hexshards.board import MAX_SIDE, MIN_SIDE
from hexshards.codec import SUFFIXES
from hexshards.errors import DataError, printable
from hexshards.positions import Positions
from hexshards.remote import home_of
from hexshards.shard import Layout, Shard
from hexshards.storage import Folder, Home, publish

NAME = "index.json"
VERSION = 1
"""Version of the format and of the order. Readers refuse others."""

SPLITS = ("train", "val")

_SHARD_NAME = re.compile(r"(train|val)-\d{6}\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REDO = "Fetch the dataset again, or convert again into a new folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What some positions are like."""

    blue_wins: int
    """Positions of value 0."""
    red_wins: int
    """Positions of value 1."""
    without_policy: int
    plies: tuple[int, ...]
    """How many positions have 0, 1, 2, ... stones."""

    @classmethod
    def of(cls, positions: Positions) -> Counts:
        """Count some positions."""
        policy = positions.policy
        return cls(
            blue_wins=int((positions.value == 0).sum()),
            red_wins=int((positions.value == 1).sum()),
            without_policy=int((~policy.any(axis=1) if positions.soft else policy < 0).sum()),
            plies=tuple(np.bincount(positions.ply, minlength=positions.side**2 + 1).tolist()),
        )

    @classmethod
    def sum(cls, parts: Sequence[Counts]) -> Counts:
        """Counts of all the parts together; there must be one."""
        return cls(
            blue_wins=sum(part.blue_wins for part in parts),
            red_wins=sum(part.red_wins for part in parts),
            without_policy=sum(part.without_policy for part in parts),
            plies=tuple(int(count) for count in np.sum([part.plies for part in parts], axis=0)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Split(Counts):
    """The shards of a split, and what is in them."""

    shards: tuple[Shard, ...]
    games: int
    """Distinct games."""

    @property
    def positions(self) -> int:
        """Positions in all shards."""
        return sum(shard.positions for shard in self.shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """A file that the dataset was made from."""

    name: str
    format: str
    size_bytes: int
    sha256: str
    positions: int
    rejected: int
    without_game: int
    """Positions that do not say which game they are from: split by file, so their games may straddle the splits."""
    notes: str
    """What its converter says of it: its generation, and what was read otherwise than it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A whole dataset, but for the positions themselves."""

    layout: Layout
    splits: Mapping[str, Split]
    """Only those that hold positions."""
    sources: tuple[str, ...]
    """Names of the files the games came from; the column ``source`` counts along them."""
    inputs: tuple[InputFile, ...]
    options: Mapping[str, int | float | str | bool]
    """The options of the conversion."""

    @property
    def baked(self) -> bool:
        """Whether every position is there in all four symmetries, so that a loader must not augment."""
        return bool(self.options.get("bake_symmetries", False))

    @property
    def side(self) -> int:
        """Side of the boards."""
        return self.layout.side

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything the index says, 64 hexadecimal digits: two datasets with the same one are the same."""
        return _fingerprint(self._plain())

    def block_rows(self, split: str) -> NDArray[np.int64]:
        """Positions in each block of a split, over all its shards in their order."""
        full = self.layout.block_positions
        rows = [
            min(full, shard.positions - number * full)
            for shard in self.splits[split].shards
            for number in range(len(shard.block_bytes))
        ]
        return np.array(rows, dtype=np.int64)

    def write(self, folder: Path) -> None:
        """Publish the index: from now on the folder is a dataset."""
        entry = self._plain()
        entry = {**entry, "fingerprint": _fingerprint(entry)}
        publish(folder / NAME, json.dumps(entry, indent=1, sort_keys=True).encode())

    def _plain(self) -> dict[str, Any]:
        # through JSON and back, so that tuples and lists, written and read, are the same
        # dataclasses.asdict copies every leaf first: with thousands of files that takes 2.5 times as long
        entry = json.loads(json.dumps(self, default=_by_name))
        return {"format": "hexshards", "version": VERSION, **entry}


def _by_name(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by their names."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _instead(home: Home) -> str:
    """What stands where a dataset was looked for, and what to give."""
    path = home.path if isinstance(home, Folder) else None
    if path is not None and path.is_file():
        what = {NAME: "the index of a dataset", ".tar": "a shard"}
        kind = what.get(path.name) or what.get(path.suffix) or "a file"
        return f"this is {kind}, not a dataset. Give the folder that holds it, {path.parent}"
    if path is not None and any((path / name).exists() for name in ("metrics.jsonl", "checkpoints")):
        return "this is the folder of a run, not a dataset. Give the dataset that it was trained on"
    return f"no dataset here (no {NAME}). Make one with `hexshards convert`"


@checked
def read_index(dataset: str | Path | Home) -> Index:
    """The index of a dataset. Raises FileNotFoundError where there is none, DataError where it is damaged."""
    home = home_of(dataset)
    path = home.where(NAME)
    try:
        data = home.read(NAME)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise FileNotFoundError(f"{home}: {_instead(home)}") from None
    try:
        entry = json.loads(data)
        stated = entry.pop("fingerprint")
        version, found = entry["version"], _fingerprint(entry)
        if type(version) is not int or type(stated) is not str:
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"is not the index of a dataset ({type(error).__name__})", where=path, fix=_REDO) from None
    if version != VERSION:
        fix = "Use the release of hexshards that wrote it, or convert again"
        raise DataError(f"has format version {version}, this release reads {VERSION}", where=path, fix=fix)
    if found != stated:
        problem = f"was edited: its contents have the fingerprint {found[:12]}, it states {printable(stated, width=12)}"
        raise DataError(problem, where=path, fix=_REDO)
    try:
        return _checked(entry)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"is not well formed ({error!r})", where=path, fix=_REDO) from None


def _fingerprint(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _checked(entry: dict[str, Any]) -> Index:
    layout = Layout(**entry["layout"])
    if not MIN_SIDE <= layout.side <= MAX_SIDE or layout.codec not in SUFFIXES or layout.block_positions < 1:
        raise ValueError(f"layout {layout}")
    splits = {name: _split(name, entry["splits"][name], layout) for name in SPLITS if name in entry["splits"]}
    return Index(
        layout=layout,
        splits=splits,
        sources=tuple(entry["sources"]),
        inputs=tuple(InputFile(**item) for item in entry["inputs"]),
        options=entry["options"],
    )


def _split(name: str, entry: dict[str, Any], layout: Layout) -> Split:
    shards = tuple(_shard(item, layout) for item in entry.pop("shards"))
    if any(not shard.name.startswith(f"{name}-") for shard in shards):
        raise ValueError(f"a shard of another split in {name}")
    return Split(shards=shards, plies=tuple(entry.pop("plies")), **entry)


def _shard(item: dict[str, Any], layout: Layout) -> Shard:
    sizes, sums = tuple(item.pop("block_bytes")), tuple(item.pop("block_crc32"))
    shard = Shard(block_bytes=sizes, block_crc32=sums, **item)
    blocks = -(-shard.positions // layout.block_positions)
    whole = (
        all(type(size) is int and size > 0 for size in (*sizes, shard.size_bytes)) and len(sizes) == len(sums) == blocks
    )
    # the checksum becomes a file's name
    if not _SHARD_NAME.fullmatch(shard.name) or not _SHA256.fullmatch(shard.sha256) or not whole:
        raise ValueError(f"shard {shard.name!r}")
    return shard
