"""Orders in which a network can be shown the same positions, and what each holds back to validate on.

Old ways split by file, with each game spread over all files, as hex_ai's shuffler leaves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import hexshards
from hexshards.loading.expansion.expand import Batch, Packed, expand

BATCH, FILES, VAL_SHARE, POOL_SHARE, PER_GAME = 256, 20, 0.2, 0.5, 8
OPENING = "ply=..9:0.25"
"""Who wins is hardly settled in the first ten positions, a fifth of a game: they count a quarter."""
Pieces = Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]
"""Rows and their symmetries, without end."""


class Rows(NamedTuple):
    """All positions of some files, packed, and which split of hexshards each is in."""

    packed: Packed
    game: NDArray[np.int64]
    is_val: NDArray[np.bool_]
    side: int
    folder: Path

    def batch(self, rows: NDArray[np.int64], symmetry: NDArray[np.uint8]) -> Batch:
        """Rows as a network takes them."""
        taken = [column[rows] for column in self.packed[:4]]
        return expand(Packed(*taken, symmetry), side=self.side)

    def evenly(self, chosen: NDArray[np.int64], *, most: int) -> list[Batch]:
        """About so many of the chosen positions, evenly taken, as they are."""
        taken = chosen[:: max(1, len(chosen) // most)]
        parts = np.array_split(taken, max(1, len(taken) // 1024))
        return [self.batch(part, np.zeros(len(part), np.uint8)) for part in parts]


class Way(NamedTuple):
    """An order, and what it holds back to validate on."""

    title: str
    order: Callable[[Rows, np.random.Generator], Iterator[Batch]]
    by_game: bool

    @property
    def loading(self) -> str:
        """How its samples are loaded."""
        return "hexshards" if self.by_game else "pickles"


def loaded(files: Iterable[Path], out: Path, *, val_fraction: float) -> Rows:
    """The positions of game records, converted, split by game and read back."""
    hexshards.convert([str(file) for file in files], out=out, val_fraction=val_fraction)
    parts, games, is_val = list[Packed](), list[NDArray[np.int64]](), list[NDArray[np.bool_]]()
    index = hexshards.read_index(out)
    for split in index.splits:
        loader = hexshards.loader(out, split=split, shuffle=False, augment="none", columns=("source", "game"))
        for packed in loader.packed():
            parts.append(Packed(*(np.array(column) for column in packed[:5])))
            named = packed.columns
            games.append(named["source"].astype(np.int64) << 32 | named["game"].astype(np.int64))
            is_val.append(np.full(len(games[-1]), split == "val"))
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Rows(Packed(*columns), np.concatenate(games), np.concatenate(is_val), index.side, out)


def held_back(rows: Rows, way: Way) -> NDArray[np.int64]:
    """The positions that a way validates on: of games that it never trains on, or the last of its files."""
    return np.flatnonzero(rows.is_val) if way.by_game else np.concatenate(_files(rows)[-_HELD_BACK:])


def trained(rows: Rows) -> list[NDArray[np.int64]]:
    """The files that a split by file trains on."""
    return _files(rows)[:-_HELD_BACK]


_HELD_BACK = round(VAL_SHARE * FILES)


def _files(rows: Rows) -> list[NDArray[np.int64]]:
    """Shuffled files: every game is spread over all of them."""
    return np.array_split(np.random.default_rng(0).permutation(len(rows.game)), FILES)


def _in_batches(all_rows: Rows, stream: Pieces) -> Iterator[Batch]:
    rows, symmetry = np.empty(0, np.int64), np.empty(0, np.uint8)
    for more, shown in stream:
        rows, symmetry = np.concatenate([rows, more]), np.concatenate([symmetry, shown])
        whole = len(rows) // BATCH * BATCH
        for start in range(0, whole, BATCH):
            yield all_rows.batch(rows[start : start + BATCH], symmetry[start : start + BATCH])
        rows, symmetry = rows[whole:], symmetry[whole:]


def _at_random(rows: NDArray[np.int64], draw: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    return draw.permutation(rows), draw.integers(4, size=len(rows), dtype=np.uint8)


def sequential(rows: Rows, draw: np.random.Generator) -> Iterator[Batch]:
    """Files one after another, as they are stored, each position in its four symmetries one after another."""

    def stream() -> Pieces:
        while True:
            for file in trained(rows):
                yield file.repeat(4), np.tile(np.arange(4, dtype=np.uint8), len(file))

    return _in_batches(rows, stream())


def pool(rows: Rows, draw: np.random.Generator) -> Iterator[Batch]:
    """A pool over the files that drops what does not fit: the rest of a file is never seen."""

    def stream() -> Pieces:
        while True:
            kept = [file[: int(POOL_SHARE * len(file))] for file in trained(rows)]
            yield _at_random(np.concatenate(kept), draw)

    return _in_batches(rows, stream())


def in_memory(rows: Rows, draw: np.random.Generator) -> Iterator[Batch]:
    """A file at a time, shuffled in memory."""

    def stream() -> Pieces:
        while True:
            for number in draw.permutation(len(trained(rows))):
                yield _at_random(trained(rows)[number], draw)

    return _in_batches(rows, stream())


def of_loader(augment: str, **options: Any) -> Callable[[Rows, np.random.Generator], Iterator[Batch]]:
    """What hexshards' loader delivers of the training games, epoch after epoch."""

    def order(rows: Rows, draw: np.random.Generator) -> Iterator[Batch]:
        seed = int(draw.integers(1 << 32))
        loader = hexshards.loader(
            rows.folder, split="train", batch_size=BATCH, augment=augment, seed=seed, drop_last=True, **options
        )
        while True:
            yield from loader

    return order


WAYS = {
    "in-turn": Way("files in turn, four symmetries in a row", sequential, by_game=False),
    "pool": Way("pool that drops the rest of a file", pool, by_game=False),
    "in-memory": Way("a file at a time, shuffled in memory", in_memory, by_game=False),
    "random": Way("**hexshards**, `random`", of_loader("random"), by_game=True),
    "all": Way("**hexshards**, `all`", of_loader("all"), by_game=True),
    "per-game": Way("**hexshards**, at most 8 positions a game", of_loader("random", per_game=PER_GAME), by_game=True),
    "weights": Way("**hexshards**, openings count a quarter", of_loader("random", weights=OPENING), by_game=True),
}
