"""Random numbers keyed by a seed and a path: streams, permutations and a hash, the same for good. No state, no I/O.

They are the raw output of Philox and never of a ``Generator`` method: NumPy promises the streams of its bit generators
forever, those of Generator methods only within a release. Seeds are derived along a path and never added, so seed 1
epoch 1 is not seed 2 epoch 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CONVERT, SHARDS, BLOCKS, ROWS, SYMMETRY, BLEND, TRAINING, GAMES, TORN, SAME, PREVIEW, MERGED = range(12)
REPORTS = 9
"""First steps of the paths: what a stream of random numbers is for. SAME and REPORTS share a number; their paths are of
different lengths."""

MOST = (1 << 24) - 1
"""Most numbers that are permuted."""

Words = NDArray[np.uint64]


class Compiled(NamedTuple):
    """Compiled twins of what NumPy does here: the same bits (hexshards.rng_compiled)."""

    permute: Callable[[Words], None]
    """Puts the numbers of random words in their place, sorted by the words."""
    quarter: Callable[[NDArray[np.int64], np.uint64, NDArray[np.uint8]], None]
    """Writes what ``quarter`` says of each number, contiguous ones, under a key."""


_compiled = list[Compiled]()


def compute_by(compiled: Compiled) -> None:
    """From now on compiled code permutes and draws."""
    _compiled[:] = [compiled]


def raw(count: int, seed: int, *path: int) -> Words:
    """``count`` uniform 64-bit numbers of the stream that a seed and a path name."""
    words = np.random.Philox(np.random.SeedSequence(seed, spawn_key=path)).random_raw(count)
    return np.asarray(words, dtype=np.uint64)


def sha256_words(sha256: str) -> list[int]:
    """A checksum as steps of a path."""
    return [int(sha256[start : start + 8], 16) for start in range(0, 64, 8)]


def permutation(count: int, seed: int, *path: int) -> NDArray[np.int64]:
    """The numbers 0 to count - 1 in the order that a seed and a path name, every order equally likely."""
    if count > MOST:
        raise ValueError(f"permutation is for at most {MOST:,} numbers, got {count}")
    if _compiled:
        words = raw(count, seed, *path)
        _compiled[0].permute(words)
        return words.view(np.int64)
    # sorting words whose low bits are the number itself is twice as fast as argsort, and needs no stable sort; the 40
    # random bits above tie, and so fall back to the order of numbers, less than once in 100 windows of 131,072
    mask = np.uint64(MOST)
    words = (raw(count, seed, *path) & ~mask) | np.arange(count, dtype=np.uint64)
    # by their first 16 bits, where NumPy counts instead of comparing, and then the little that is left: 18 ns a number,
    # where sorting at once takes 45
    words = np.take(words, np.argsort((words >> np.uint64(48)).astype(np.uint16), kind="stable"))
    words.sort(kind="stable")
    words &= mask
    return words.view(np.int64)


def mix(words: Words) -> Words:
    """A bijective hash of 64-bit words: the finalizer of SplitMix64 (Steele, Lea, Flood: OOPSLA 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def quarter(numbers: NDArray[np.int64], key: np.uint64) -> NDArray[np.uint8]:
    """0 to 3 for each number, as a key and the number draw it, all four equally likely."""
    if _compiled:
        drawn = np.empty(len(numbers), dtype=np.uint8)
        _compiled[0].quarter(np.ascontiguousarray(numbers), key, drawn)
        return drawn
    return (mix(numbers.astype(np.uint64) ^ key) >> np.uint64(62)).astype(np.uint8)
