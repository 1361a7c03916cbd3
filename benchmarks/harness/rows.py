"""Positions as rows of plain bytes, and rows as batches: all that a peer builds on. NumPy alone, nothing of hexshards.

A row: W bytes of stones (bit ``plane * C + cell``, most significant first, BLUE then RED), one byte of the player to
move, two of the move's cell (int16, -1 none), four of the value (float32). At side 13 that is 50 bytes.
Legend of shapes: B rows, R bytes of a row, S side, C = S * S cells.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TAIL = 7
"""Bytes of a row after the stones."""

Floats = NDArray[np.float32]
Dense = tuple[Floats, Floats, Floats]
"""What every system delivers: board (B, 3, S, S), policy (B, C), value (B, 1)."""


class Source(NamedTuple):
    """The same positions as files and as rows."""

    folder: Path

    @property
    def pickles(self) -> list[Path]:
        """Processed files, each position once."""
        return sorted((self.folder / "pickles").glob("*.pkl.gz"))

    @property
    def many_pickles(self) -> list[Path]:
        """The same files several times, so that an epoch of them outlasts a measurement."""
        return sorted((self.folder / "many").glob("*.pkl.gz"))

    @property
    def rows(self) -> NDArray[np.uint8]:
        """The positions of ``pickles`` in their order, (P, R), mapped."""
        mapped: NDArray[np.uint8] = np.load(self.folder / "rows.npy", mmap_mode="r")
        return mapped


def row_side(rows: NDArray[np.uint8]) -> int:
    """S: ceil(S * S / 4) bytes hold the stones, so four times as many are S * S to S * S + 3."""
    return isqrt(4 * (rows.shape[1] - TAIL))


def from_examples(examples: Sequence[dict[str, Any]]) -> NDArray[np.uint8]:
    """The examples of a processed file as rows, in their order."""
    stones = np.stack([example["board"] for example in examples]).reshape(len(examples), -1) != 0
    players = np.array([example["player_to_move"].value for example in examples], np.uint8)
    moves = [-1 if example["policy"] is None else example["policy"].argmax() for example in examples]
    return _joined(
        np.packbits(stones, axis=1),
        players,
        np.array(moves, "<i2"),
        np.array([example["value"] for example in examples], "<f4"),
    )


def _joined(*columns: NDArray[Any]) -> NDArray[np.uint8]:
    return np.concatenate(
        [np.ascontiguousarray(each).view(np.uint8).reshape(len(each), -1) for each in columns], axis=1
    )


def from_bytes(rows: Sequence[bytes]) -> NDArray[np.uint8]:
    """Rows that were stored one by one, (B, R)."""
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)


class Shuffled:
    """A sampler: numbers of rows, a batch at a time, in a fresh random order every epoch."""

    def __init__(self, count: int, batch: int, epochs: int) -> None:
        self.count, self.batch, self.epochs = count, batch, epochs

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        for _ in range(self.epochs):
            order = _draw().permutation(self.count)
            yield from (order[start : start + self.batch] for start in range(0, self.count, self.batch))


def one_after_another(loader: Iterable[Any], epochs: int) -> Iterator[Any]:
    """The epochs of a loader that begins a new one each time it is iterated."""
    for _ in range(epochs):
        yield from loader


def expand(rows_BR: NDArray[np.uint8], symmetry: NDArray[np.uint8] | None = None) -> Dense:
    """Rows as a batch, each in one of the four symmetries; they keep their order, so that a batch may be cut in two.

    Rows are grouped by symmetry while they are packed, so that each symmetry is one strided copy, and go back as bytes.
    """
    side, count = row_side(rows_BR), len(rows_BR)
    symmetry = _draw().integers(4, size=count, dtype=np.uint8) if symmetry is None else symmetry
    swapped = symmetry >= 2
    board = np.empty((count, 3, side, side), np.float32)
    board[:, :2] = _shown(rows_BR[:, :-TAIL], symmetry, side)
    board[:, 2] = (rows_BR[:, -TAIL] ^ swapped)[:, None, None]
    move, value = tail(rows_BR)
    policy = np.zeros((count, side * side), np.float32)
    has = np.flatnonzero(move >= 0)
    policy[has, cells(side)[symmetry[has], move[has]]] = 1
    return board, policy, np.where(swapped, 1 - value, value)[:, None]


def plain(rows_BR: NDArray[np.uint8]) -> Dense:
    """Rows as a batch, as they are."""
    return expand(rows_BR, np.zeros(len(rows_BR), np.uint8))


def expand_one(row: NDArray[np.uint8], symmetry: int | None = None) -> Dense:
    """One row as a sample in one random symmetry: (3, S, S), (C,), (1,)."""
    symmetry = int(_draw().integers(4)) if symmetry is None else symmetry
    side, swapped = isqrt(4 * (len(row) - TAIL)), symmetry >= 2
    planes = np.unpackbits(row[:-TAIL], count=2 * side * side).reshape(2, side, side)
    if symmetry in (1, 3):
        planes = planes[:, ::-1, ::-1]
    if swapped:
        planes = planes[::-1].swapaxes(1, 2)
    board, policy = np.empty((3, side, side), np.float32), np.zeros(side * side, np.float32)
    board[:2], board[2] = planes, row[-TAIL] ^ swapped
    move, value = tail(row[None])
    if move[0] >= 0:
        policy[cells(side)[symmetry, move[0]]] = 1
    return board, policy, 1 - value if swapped else value


def show_one(
    stones: NDArray[Any], moves: NDArray[Any], player: Any, value: Any, symmetry: int
) -> tuple[NDArray[Any], NDArray[Any], Any, Any]:
    """A sample in a symmetry, as whoever has planes would write it: stones (2, S, S), moves (S, S), player, value."""
    if symmetry in (1, 3):
        stones, moves = stones[:, ::-1, ::-1], moves[::-1, ::-1]
    if symmetry >= 2:
        return stones[::-1].swapaxes(1, 2), moves.T, 1 - player, 1 - value
    return stones, moves, player, value


def _shown(stones: NDArray[np.uint8], symmetry: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    grouped = np.argsort(symmetry, kind="stable")
    bits = np.unpackbits(np.take(stones, grouped, axis=0), axis=1, count=2 * side * side).reshape(-1, 2, side, side)
    same, turned, transposed, anti = np.split(bits, np.cumsum(np.bincount(symmetry, minlength=4))[:3])
    shown = [
        same,
        turned[:, :, ::-1, ::-1],
        transposed[:, ::-1].swapaxes(2, 3),
        anti[:, ::-1, ::-1, ::-1].swapaxes(2, 3),
    ]
    place = np.empty_like(grouped)
    place[grouped] = np.arange(len(grouped))
    return np.take(np.concatenate(shown), place, axis=0)


def tail(rows_BR: NDArray[np.uint8]) -> tuple[NDArray[np.int16], Floats]:
    """The move's cell and the value of each row, both (B,)."""
    move = np.ascontiguousarray(rows_BR[:, 1 - TAIL : 3 - TAIL]).view("<i2")[:, 0]
    return move, np.ascontiguousarray(rows_BR[:, 3 - TAIL :]).view("<f4")[:, 0]


@cache
def cells(side: int) -> NDArray[np.int64]:
    """Where each symmetry sends a cell, (4, C)."""
    cell = np.arange(side * side).reshape(side, side)
    return np.stack([cell, cell[::-1, ::-1], cell.T, cell.T[::-1, ::-1]]).reshape(4, -1)


def _draw() -> np.random.Generator:
    return _generator(os.getpid())


@cache
def _generator(_process: int) -> np.random.Generator:
    # a forked worker needs random numbers of its own
    return np.random.default_rng()


class Resumable(NamedTuple):
    """One epoch of a system, or the rest of it, as rows as they were stored: (B, R) batch by batch."""

    batches: Iterable[NDArray[np.uint8]]
    state: Callable[[], Any] = lambda: None
    """What it would go on from after the batch that was handed over last; None: it has no such thing."""


def steps(micro_batches: Iterable[NDArray[np.uint8]], *, count: int) -> Iterator[NDArray[np.uint8]]:
    """A rank's batches, so many micro-batches in each: what workers fill in turn that have rows of their own."""
    parts = iter(micro_batches)
    while step := list(islice(parts, count)):
        yield np.concatenate(step)


class Code:
    """Rows as numbers: equal rows have the same."""

    UNKNOWN = -1
    """A row that is none of those that were stored."""

    def __init__(self, rows: NDArray[np.uint8]) -> None:
        self._numbers = {row.tobytes(): number for number, row in reversed(list(enumerate(rows)))}

    def of(self, rows: NDArray[np.uint8]) -> NDArray[np.int64]:
        """A number for each row."""
        return np.array([self._numbers.get(row.tobytes(), self.UNKNOWN) for row in rows], np.int64)


def packed(batch: Iterable[Any]) -> NDArray[np.uint8]:
    """A batch in no symmetry but the first as rows again."""
    board, policy, value = (np.asarray(part) for part in batch)
    moves = np.where(policy.any(axis=1), policy.argmax(axis=1), -1).astype("<i2")
    stones = np.packbits(board[:, :2].reshape(len(board), -1) != 0, axis=1)
    return _joined(stones, board[:, 2, 0, 0].astype(np.uint8), moves, value[:, 0].astype("<f4"))
