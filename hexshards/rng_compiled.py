"""Sort random words, and hash numbers, in compiled code that holds no lock of Python's: the same bits as NumPy's.

A permutation of 131,072 numbers takes 7.5 ns a number, 3.3 of them for the words; with NumPy's sorts 15. It needs
numba, which takes longer to load than it saves for few numbers: who loads it anyway says so with
``rng.compute_by``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from hexshards.rng import MOST, Words

_DIGIT = 11
"""Bits that a pass of the radix sort looks at: 2,048 places to write to are as many as a core has near it."""

_NUMBER = np.uint64(MOST)
"""The bits of a word that a number takes the place of."""

_WORDS = types.Array(types.uint64, 1, "C")
_NUMBERS = types.Array(types.int64, 1, "C", readonly=True)


def permute(words: Words) -> None:
    """Put in the place of random words their numbers, sorted by the words: what ``rng.permutation`` says.

    Others are sorted too, but where their highest 22 bits are alike it takes long.
    """
    # memory of its own would take a kernel longer to compile than all that it does
    counts: NDArray[np.uint32] = np.zeros((2, 1 << _DIGIT), dtype=np.uint32)
    _permute(words, np.empty_like(words), *counts)


_COUNTS = types.Array(types.uint32, 1, "C")


@njit(types.void(_WORDS, _WORDS, _COUNTS, _COUNTS), nogil=True, cache=True)
def _permute(words, spare, second, first):  # type: ignore[no-untyped-def]
    count, places = len(words), len(first)
    low, high = np.uint64(64 - 2 * _DIGIT), np.uint64(64 - _DIGIT)
    digit = np.uint64(places - 1)
    for at in range(count):
        word = words[at]
        second[(word >> low) & digit] += np.uint32(1)
        first[word >> high] += np.uint32(1)
        words[at] = (word & ~_NUMBER) | np.uint64(at)
    seconds, firsts = np.uint32(0), np.uint32(0)
    for place in range(places):
        held = second[place]
        second[place] = seconds
        seconds += held
        held = first[place]
        first[place] = firsts
        firsts += held
    for at in range(count):
        place = (words[at] >> low) & digit
        spare[second[place]] = words[at]
        second[place] += np.uint32(1)
    for at in range(count):
        place = spare[at] >> high
        words[first[place]] = spare[at]
        first[place] += np.uint32(1)
    # what is left to sort are the few words that agree in the bits looked at
    for at in range(1, count):
        word, to = words[at], at
        while to > 0 and words[to - 1] > word:
            words[to] = words[to - 1]
            to -= 1
        words[to] = word
    for at in range(count):
        words[at] &= _NUMBER


@njit(types.void(_NUMBERS, types.uint64, types.Array(types.uint8, 1, "C")), nogil=True, cache=True)
def quarter(numbers, key, drawn):  # type: ignore[no-untyped-def]
    """Write what ``rng.quarter`` says of each number."""
    for place in range(len(numbers)):
        word = (np.uint64(numbers[place]) ^ key) + np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        drawn[place] = (word ^ (word >> np.uint64(31))) >> np.uint64(62)
