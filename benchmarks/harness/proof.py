"""A system is timed only if it delivers every position equally often, in the right format, shuffled and augmented."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from harness.rows import Dense, cells, plain

CHUNK = 4096


class Unsound(Exception):
    """What a system delivers is not what was asked for."""


def prove(batches: Iterable[Dense], rows: NDArray[np.uint8], *, times: int) -> None:
    """Compare an epoch with the rows, each of which it must hold so many times. Raises Unsound."""
    expected = [_images(plain(rows[start : start + CHUNK])) for start in range(0, len(rows), CHUNK)]
    known, wanted = np.concatenate([images[0] for images in expected]), np.concatenate([_orbit(i) for i in expected])
    by_batch = [_images(_checked(batch, rows)) for batch in batches]
    if not by_batch:
        raise Unsound("delivers nothing")
    delivered = np.concatenate([_orbit(images) for images in by_batch])
    if len(delivered) != times * len(rows):
        raise Unsound(f"delivers {len(delivered):,} samples an epoch for {len(rows):,} positions, {times} times each")
    if not np.array_equal(np.sort(delivered), np.sort(np.repeat(wanted, times))):
        raise Unsound("delivers some positions too often and others not")
    _check_symmetries(np.concatenate(by_batch, axis=1), known)
    _check_order(delivered, wanted)


def _checked(batch: Dense, rows: NDArray[np.uint8]) -> Dense:
    board, policy, value = (np.asarray(part) for part in batch)
    want = plain(rows[:1])
    shapes = tuple((part.dtype, part.shape[1:]) for part in (board, policy, value))
    if shapes != tuple((part.dtype, part.shape[1:]) for part in want):
        raise Unsound(f"delivers {', '.join(f'{dtype} {shape}' for dtype, shape in shapes)}")
    for part in (board, policy, value):
        if not (part.flags.c_contiguous and np.isin(part, (0, 1)).all()):
            raise Unsound("delivers numbers other than 0 and 1, or scattered memory")
    return board, policy, value


def _images(batch: Dense) -> NDArray[np.uint64]:
    """A number for each sample in each symmetry, (4, B)."""
    board, policy, value = batch
    count, side = len(board), board.shape[-1]
    stones = board[:, :2].reshape(count, 2, -1)
    if (board[:, 2] != board[:, 2, :1, :1]).any():
        raise Unsound("delivers planes of the player to move that are not of one number")
    player = board[:, 2, 0, :1]
    images = []
    for symmetry, table in enumerate(cells(side)):
        swaps = symmetry >= 2
        shown = (stones[:, ::-1] if swaps else stones)[:, :, table].reshape(count, -1)
        ends = (1 - player, 1 - value) if swaps else (player, value)
        images.append(_number(np.concatenate([shown, policy[:, table], *ends], axis=1)))
    return np.stack(images)


def _number(bits: NDArray[np.float32]) -> NDArray[np.uint64]:
    """64 bits that follow from all bits of a sample."""
    packed = np.packbits(bits != 0, axis=1).astype(np.uint64)
    mixed = (packed * _odd(packed.shape[1])).sum(axis=1, dtype=np.uint64)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    return mixed ^ (mixed >> np.uint64(29))


@cache
def _odd(count: int) -> NDArray[np.uint64]:
    return np.random.Generator(np.random.Philox(1)).integers(1 << 63, size=count, dtype=np.uint64) * 2 + 1


def _orbit(images: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The same number for a sample and its images."""
    return images.sum(axis=0, dtype=np.uint64)


def _check_symmetries(images: NDArray[np.uint64], known: NDArray[np.uint64]) -> None:
    """About a quarter of the samples in each symmetry, and no two neighbours oftener alike than by chance."""
    shown = np.isin(images, known)
    alone = shown.sum(axis=0) == 1  # the others are their own images, or have an image among the positions
    which = shown[:, alone].argmax(axis=0)
    share = np.bincount(which, minlength=4) / max(len(which), 1)
    off = 0.02 + 3 / max(len(which), 1) ** 0.5
    if np.abs(share - 0.25).max() > off:
        raise Unsound(f"shows the symmetries in shares of {', '.join(f'{part:.2f}' for part in share)}")
    if abs((which[1:] == which[:-1]).mean() - 0.25) > off:
        raise Unsound("groups the samples of a batch by symmetry")


def _check_order(delivered: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> None:
    """Neighbours in the dataset are rarely neighbours in the stream."""
    order = np.argsort(wanted, kind="stable")
    place = order[np.searchsorted(wanted, delivered, sorter=order)]
    kept = (np.diff(place) == 1).mean()
    if kept > 0.01 + 20 / len(wanted):
        raise Unsound(f"keeps {kept:.0%} of the samples in the order of the dataset")
