"""A spill is what is kept of a source file between reading and writing: its rows, sorted by their place in the shuffle.

Every position draws a 64-bit key from a stream that the seed and the contents of its file name. The dataset's order is
the order of the keys, so each position is equally likely anywhere, whatever else is converted, and a shard is the rows
of all spills between two keys. Spills are named by the contents of their file: a conversion that was cut off finds
those it finished.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards import order
from hexshards.index import SPLITS, InputFile
from hexshards.positions import UNKNOWN, Positions, Reject, columns, concat
from hexshards.specs import ConvertSpec
from hexshards.storage import publish, publishing

_BIN_BITS = 16
_BIN_SHIFT = np.uint64(64 - _BIN_BITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Counts of what one spill adds to one split; as in hexshards.index.Split."""

    positions: int
    blue_wins: int
    red_wins: int
    without_policy: int
    plies: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spill:
    """One source file, read: where its rows are and what was found."""

    stem: str
    """Path of its files without their endings ``.train.rows.npy``, ``.train.keys.npy``, ``.train.games.npy``, ..."""
    side: int
    soft: bool
    input: InputFile
    sources: tuple[str, ...]
    parts: dict[str, Part]
    rejects: tuple[Reject, ...]

    def array(self, split: str, what: str) -> NDArray[Any]:
        """``rows``, ``keys`` or ``games`` of one split, read from disk as it is used."""
        if self.parts[split].positions == 0:
            return np.zeros(0, dtype=np.uint64)
        array: NDArray[Any] = np.load(f"{self.stem}.{split}.{what}.npy", mmap_mode="r", allow_pickle=False)
        return array


def row_dtype(side: int, *, soft: bool) -> np.dtype[Any]:
    """One position as one record."""
    return np.dtype([(name, dtype, shape) for name, (dtype, shape) in columns(side, soft=soft).items()])


def write_spill(
    stem: Path,
    parts: Sequence[Positions],
    *,
    sources: Sequence[str],
    rejects: Sequence[Reject],
    name: str,
    form: str,
    size_bytes: int,
    sha256: str,
    spec: ConvertSpec,
) -> Spill:
    """Sort, split and store the positions of one file; the note that makes it count is written last."""
    positions = concat(parts)
    keys = order.raw(len(positions), spec.seed, order.CONVERT, *_words(sha256))
    games = order.game_keys(sources, positions.source, positions.game)
    val = order.in_val(games, val_fraction=spec.val_fraction)
    counts = {}
    for split, member in zip(SPLITS, (~val, val), strict=True):
        rows = np.flatnonzero(member)
        rows = rows[np.argsort(keys[rows], kind="stable")]
        counts[split] = _store(stem, split, positions.take(rows), keys[rows], games[rows])
    spill = Spill(
        stem=str(stem),
        side=positions.side,
        soft=positions.soft,
        input=InputFile(
            name=name,
            format=form,
            size_bytes=size_bytes,
            sha256=sha256,
            positions=len(positions),
            rejected=len(rejects),
            without_game=int((positions.game == UNKNOWN).sum()),
        ),
        sources=tuple(sources),
        parts=counts,
        rejects=tuple(rejects),
    )
    publish(_note(stem), json.dumps(asdict(spill)).encode())
    return spill


def find_spill(stem: Path) -> Spill | None:
    """The finished spill at ``stem``, if there is one."""
    if not _note(stem).exists():
        return None
    entry = json.loads(_note(stem).read_bytes())
    return Spill(
        stem=str(stem),
        side=entry["side"],
        soft=entry["soft"],
        input=InputFile(**entry["input"]),
        sources=tuple(entry["sources"]),
        parts={split: Part(**{**part, "plies": tuple(part["plies"])}) for split, part in entry["parts"].items()},
        rejects=tuple(Reject(*reject) for reject in entry["rejects"]),
    )


def cuts(spills: Sequence[Spill], split: str, shard_positions: int) -> NDArray[np.int64]:
    """Where each shard begins in each spill: (spills, shards + 1), so that shards hold exactly so many rows, in order.

    The key at which a shard begins is an order statistic of all keys. Counting keys by their first 16 bits finds the
    bin that holds it; only that bin's keys are then looked at.
    """
    keys = [spill.array(split, "keys") for spill in spills]
    total = sum(len(each) for each in keys)
    edges = np.arange(1 << _BIN_BITS, dtype=np.uint64) << _BIN_SHIFT
    below = np.zeros(len(edges), dtype=np.int64)
    for each in keys:
        below += np.searchsorted(each, edges)
    firsts = [_key_at(keys, rank, edges, below) for rank in range(shard_positions, total, shard_positions)]
    inner = [np.searchsorted(each, np.array(firsts, dtype=np.uint64)) for each in keys]
    return np.array([[0, *place, len(each)] for place, each in zip(inner, keys, strict=True)], dtype=np.int64)


def read_rows(
    spill: Spill, split: str, rows: slice, *, numbers: dict[str, int], soft: bool
) -> tuple[Positions, NDArray[np.uint64]]:
    """A run of a spill's rows and their keys; ``numbers`` gives each source its number in the dataset."""
    records = np.array(spill.array(split, "rows")[rows])
    found = {name: np.ascontiguousarray(records[name]) for name in records.dtype.names or ()}
    found["source"] = np.array([numbers[name] for name in spill.sources], dtype=np.uint32)[found["source"]]
    positions = Positions(side=spill.side, **found)
    return positions.softened() if soft else positions, np.array(spill.array(split, "keys")[rows])


def _key_at(keys: Sequence[NDArray[Any]], rank: int, edges: NDArray[np.uint64], below: NDArray[np.int64]) -> np.uint64:
    """The key with ``rank`` keys before it."""
    bin_ = int(np.searchsorted(below, rank, side="right")) - 1
    last = bin_ + 1 == len(edges)
    inside = [
        each[np.searchsorted(each, edges[bin_]) : None if last else np.searchsorted(each, edges[bin_ + 1])]
        for each in keys
    ]
    found: np.uint64 = np.sort(np.concatenate(inside))[rank - below[bin_]]
    return found


def _store(stem: Path, split: str, positions: Positions, keys: order.Words, games: order.Words) -> Part:
    rows = np.zeros(len(positions), dtype=row_dtype(positions.side, soft=positions.soft))
    for name, column in positions.columns().items():
        rows[name] = column
    for what, array in (("rows", rows), ("keys", keys), ("games", np.unique(games))):
        if len(positions):
            with publishing(Path(f"{stem}.{split}.{what}.npy")) as file:
                np.save(file, array, allow_pickle=False)
    policy = positions.policy
    return Part(
        positions=len(positions),
        blue_wins=int((positions.value == 0).sum()),
        red_wins=int((positions.value == 1).sum()),
        without_policy=int((~policy.any(axis=1) if positions.soft else policy < 0).sum()),
        plies=tuple(np.bincount(positions.ply, minlength=positions.side**2 + 1).tolist()),
    )


def _words(sha256: str) -> list[int]:
    return [int(sha256[start : start + 8], 16) for start in range(0, 64, 8)]


def _note(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.json")
