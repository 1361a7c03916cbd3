"""Go from dict to dict of known kinds in compiled code: from each, its length tells where the next may begin.

A dict takes 0.05 us, where NumPy's way through the pickle takes 1 to 2. It needs numba, which takes time to load: see
lookahead. All words that are compared lie within the dict, and that within the pickle.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from hexshards.conversion.pickles.templates import Bytes, Numbers, Template, bytes_at
from hexshards.game.packing_compiled import unaligned_word

RUN_DICTS = 4096
"""Most dicts of a run."""

WORD_BYTES, _NEVER = 8, 1 << 62
_NUMBERS = types.Array(types.int64, 1, "C")
_WORDS = types.Array(types.uint64, 1, "C")


@njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def kind_at(address, at, end, order, lengths, firsts, offsets, own, same):  # type: ignore[no-untyped-def]
    """The first kind, in this order, that the bytes at a place are of; -1 where they are of none."""
    for candidate in order:
        if at + lengths[candidate] > end:
            continue
        differs = np.uint64(0)
        for word in range(firsts[candidate], firsts[candidate + 1]):
            differs = (unaligned_word(address + at + offsets[word]) ^ own[word]) & same[word]
            if differs != 0:
                break
        if differs == 0:
            return candidate
    return -1


@njit(
    types.int64(types.int64, types.int64, types.int64, *[_NUMBERS] * 4, *[_WORDS] * 2, *[_NUMBERS] * 2),
    nogil=True,
    cache=True,
)
def walk(address, at, end, order, lengths, firsts, offsets, own, same, starts, kinds):  # type: ignore[no-untyped-def]
    """Fill ``starts`` and ``kinds`` with the dicts that lie one after another from ``at`` on; how many."""
    for number in range(len(starts)):
        kind = kind_at(address, at, end, order, lengths, firsts, offsets, own, same)
        if kind < 0:
            return number
        starts[number] = at
        kinds[number] = kind
        at += lengths[kind]
    return len(starts)


class CompiledLookahead:
    """Compares each dict with the kinds, the most frequent first, where the one before it ends."""

    def __init__(self, data: Bytes) -> None:
        self.bytes = data
        self.out = np.empty((2, RUN_DICTS), dtype=np.int64)
        self.lengths = np.zeros(0, dtype=np.int64)
        self.counts = np.zeros(0, dtype=np.int64)
        self.firsts = np.zeros(1, dtype=np.int64)  # where the words of each kind begin
        self.offsets, self.own, self.same = self._none

    _none = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64)

    def add(self, template: Template, at: int) -> None:
        """Take up a new kind."""
        length = len(template.data)
        offsets, own, same = words_of(template) if length >= WORD_BYTES else self._none
        # one shorter than a word is never found
        self.lengths = np.append(self.lengths, length if length >= WORD_BYTES else _NEVER)
        self.counts = np.append(self.counts, 0)
        self.offsets = np.append(self.offsets, offsets)
        self.own, self.same = np.append(self.own, own), np.append(self.same, same)
        self.firsts = np.append(self.firsts, len(self.offsets))

    def run(self, at: int) -> tuple[Numbers, Numbers]:
        """The dicts that lie one after another from a place on, at most RUN_DICTS."""
        starts, kinds = self.out
        tables = self.lengths, self.firsts, self.offsets, self.own, self.same
        order = np.argsort(-self.counts, kind="stable")
        count = walk(self.bytes.ctypes.data, at, len(self.bytes), order, *tables, starts, kinds)
        self.counts += np.bincount(kinds[:count], minlength=len(self.counts))
        return starts[:count].copy(), kinds[:count].copy()


def words_of(template: Template) -> tuple[Numbers, NDArray[np.uint64], NDArray[np.uint64]]:
    """Offsets of the words of a dict in which all of its kind have something in common, these words, and what it is."""
    length = len(template.data)
    same = np.full(length, 0xFF, dtype=np.uint8)
    for slot in template.slots:
        same[slot.offset : slot.end] = 0
    # the last word ends where the dict does: nothing behind it is read
    offsets = np.minimum(np.arange(0, length, WORD_BYTES), length - WORD_BYTES)
    common = _words_at(same, offsets)
    shared = np.flatnonzero(common)
    return offsets[shared], _words_at(np.frombuffer(template.data, dtype=np.uint8), offsets)[shared], common[shared]


def _words_at(data: Bytes, offsets: Numbers) -> NDArray[np.uint64]:
    return bytes_at(data, offsets, WORD_BYTES).view(np.uint64)[:, 0]
