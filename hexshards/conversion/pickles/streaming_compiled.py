"""Take dicts out of a pickle in one pass of compiled code: each is found by its bytes, packed, and can be given back.

Of a dict are kept its kind, its numbers and references, and its board and policy, packed where they are plainly sound:
2,180 bytes become 150, and nothing of the pickle need stay in memory. References that are the same for all dicts of a
kind, such as keys, are compared as they pass: what an entry of the memo means is looked up once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from hexshards.conversion.pickles.lookahead_compiled import WORD_BYTES, kind_at, words_of
from hexshards.conversion.pickles.machine import Array
from hexshards.conversion.pickles.scanner import means_the_same
from hexshards.conversion.pickles.templates import GETS, Bytes, Numbers, Path, Slot, Template
from hexshards.game.board import MAX_SIDE
from hexshards.game.columns import NO_POLICY, stone_bytes
from hexshards.game.packing_compiled import pack_board, packed_move, unaligned_word

RUN_DICTS, RUNS_OF_ORDER = 1024, 64
"""Most dicts of a run; and after how many runs the most frequent kinds are reckoned anew, to be tried first."""

ENDED, UNSOUND, UNKNOWN_ENTRY, LATER_ENTRY = range(4)
"""Why a run ends: no dict of a known kind follows; one does, but can't be packed; it refers to an entry of the memo
that must be looked up first, or to one that is not there yet."""

_BOARD, _POLICY = ("board", "data"), ("policy", "data")
_NUMBERS = types.Array(types.int64, 1, "C")
_WORDS = types.Array(types.uint64, 1, "C")


class _Tables(NamedTuple):
    """What dicts of the known kinds look like: of each kind, or, behind ``first``, of the parts of each kind."""

    length: Numbers
    board: Numbers
    policy: Numbers
    memos: Numbers
    first_word: Numbers
    word: Numbers
    first_leaf: Numbers
    leaf: Numbers
    refers: Numbers
    first_fixed: Numbers
    fixed: Numbers
    means: Numbers


@njit(
    types.UniTuple(types.int64, 4)(
        *[types.int64] * 4,
        _NUMBERS,
        types.UniTuple(_NUMBERS, len(_Tables._fields)),
        types.UniTuple(_WORDS, 4),
        _NUMBERS,
        types.int64,
        types.UniTuple(_NUMBERS, 3),
        types.Array(types.uint64, 2, "C"),
        types.Array(types.uint8, 2, "C"),
        types.Array(types.int16, 1, "C"),
    ),
    nogil=True,
    cache=True,
)
def _take(address, at, end, memos, order, tables, masks, known, cells, placed, leaves_PL, stones_PW, moves_P):  # type: ignore[no-untyped-def]
    """Fill the last four with the dicts that lie one after another from ``at`` on.

    How many there are, why no more, and, where an entry is to be looked up, which one, and for which fixed reference.
    """
    (
        lengths, boards, policies, entries, first_words, words, first_leaves, leaves, refers, first_fixed, fixed, means
    ) = tables  # fmt: skip
    own, same, leaf_masks, fixed_masks = masks
    starts, kinds, bases = placed
    for number in range(len(starts)):
        kind = kind_at(address, at, end, order, lengths, first_words, words, own, same)
        if kind < 0:
            return number, ENDED, 0, 0
        place = address + at
        for slot in range(first_fixed[kind], first_fixed[kind + 1]):
            entry = np.int64(unaligned_word(place + fixed[slot]) & fixed_masks[slot])
            if entry >= len(known) or known[entry] != means[slot]:
                return number, UNKNOWN_ENTRY, entry, slot
        for slot in range(first_leaves[kind], first_leaves[kind + 1]):
            bits = unaligned_word(place + leaves[slot]) & leaf_masks[slot]
            if refers[slot] and np.int64(bits) >= memos:
                return number, LATER_ENTRY, 0, 0
            leaves_PL[number, slot - first_leaves[kind]] = bits
        move = np.int64(NO_POLICY)
        if not pack_board(place + boards[kind], cells, stones_PW, number):
            return number, UNSOUND, 0, 0
        if policies[kind] >= 0:
            move = packed_move(place + policies[kind], place + boards[kind], cells)
            if move < 0:
                return number, UNSOUND, 0, 0
        starts[number], kinds[number], bases[number], moves_P[number] = at, kind, memos, move
        memos += entries[kind]
        at += lengths[kind]
    return len(starts), ENDED, 0, 0


class Run(NamedTuple):
    """Dicts that lie one after another."""

    starts: Numbers
    """Where each began, as long as the pickle lies there."""
    kinds: Numbers
    bases: Numbers
    """Memo entries that were made before each."""
    leaves_PL: NDArray[np.uint64]
    """Bytes of the leaves of each, but for boards and policies, in the order of their kind's ``leaves_of``."""
    stones_PW: Bytes
    moves_P: NDArray[np.int16]


class Ended(NamedTuple):
    """Why a run ended, and the entry that is to be looked up."""

    why: int
    entry: int
    means: int
    """The number of what it must mean, in ``Packer.meanings``."""


class Packer:
    """The kinds of dicts that are found, and the tables of what they look like."""

    def __init__(self, data: Bytes) -> None:
        """Behind all dicts that are looked for there must be WORD_BYTES more of the data."""
        self._address, self._data = data.ctypes.data, data
        self.templates: list[Template] = []
        self.side = 0
        self._words = list[tuple[Numbers, NDArray[np.uint64], NDArray[np.uint64]]]()
        self.meanings: list[object] = [None]
        """What fixed references mean, from 1 on."""
        self._runs = 0
        self._known = np.zeros(0, dtype=np.int64)  # which of the meanings each entry of the memo has, 0 where unknown
        self._counts = np.zeros(0, dtype=np.int64)

    def add(self, template: Template) -> bool:
        """Take up a new kind; False where it has no board that can be packed, or anything large besides."""
        side = packed_side(template)
        if not side or side != (self.side or side):
            return False
        self.side = side
        self.templates.append(template)
        self._words.append(words_of(template))
        self._tabulate()
        return True

    def _tabulate(self) -> None:
        """Make the tables anew, for all kinds."""
        every = self.templates
        words = self._words
        leaves = [leaves_of(template) for template in every]
        fixed = [[*template.fixed] for template in every]
        self._slots = [slot for slots in fixed for slot in slots]
        meanings = [meaning for template in every for meaning in template.fixed.values()]
        tables = _Tables(
            length=_numbers(len(template.data) for template in every),
            board=_numbers(template.leaves[_BOARD].offset for template in every),
            policy=_numbers(
                template.leaves[_POLICY].offset if _POLICY in template.leaves else -1 for template in every
            ),
            memos=_numbers(template.memos for template in every),
            first_word=_firsts(offsets for offsets, _, _ in words),
            word=np.concatenate([offsets for offsets, _, _ in words]),
            first_leaf=_firsts(leaves),
            leaf=_numbers(slot.offset for slots in leaves for slot in slots),
            refers=_numbers(slot.opcode in GETS for slots in leaves for slot in slots),
            first_fixed=_firsts(fixed),
            fixed=_numbers(slot.offset for slot in self._slots),
            means=_numbers(map(self._number_of, meanings)),
        )
        own, same = (np.concatenate(parts) for parts in list(zip(*words, strict=True))[1:])
        self.lengths = tables.length
        self._means = tables.means
        self._tables = tuple(tables), (own, same, _masks(s for slots in leaves for s in slots), _masks(self._slots))
        placed = tuple(np.empty((3, RUN_DICTS), dtype=np.int64))
        kept = np.empty((RUN_DICTS, max(map(len, leaves))), dtype=np.uint64)
        stones = np.empty((RUN_DICTS, stone_bytes(self.side)), dtype=np.uint8)
        self._out = placed, kept, stones, np.empty(RUN_DICTS, dtype=np.int16)
        self._counts = np.append(self._counts, 0)
        self._order = np.argsort(-self._counts, kind="stable")

    def _number_of(self, meaning: object) -> int:
        for number, other in enumerate(self.meanings):
            if number and means_the_same(meaning, other):
                return number
        self.meanings.append(meaning)
        return len(self.meanings) - 1

    def learn(self, entry: int, means: int) -> None:
        """An entry of the memo means what it must."""
        if entry >= len(self._known):
            more = np.zeros(2 * entry + 1024 - len(self._known), dtype=np.int64)
            self._known = np.concatenate([self._known, more])
        self._known[entry] = means

    def take(self, at: int, end: int, memos: int) -> tuple[Run | None, Ended]:
        """The dicts that lie one after another from a place on, before an end, and why no more; None for none.

        memos: entries of the memo that are made before the first.
        """
        placed, leaves, stones, moves = self._out
        tables, masks = self._tables
        count, why, entry, slot = _take(
            self._address, at, end, memos, self._order, tables, masks, self._known, self.side**2, *self._out
        )
        ended = Ended(why, entry, int(self._means[slot]) if why == UNKNOWN_ENTRY else 0)
        if not count:
            return None, ended
        each: list[NDArray[Any]] = [*placed, leaves, stones, moves]
        run = Run(*(column[:count].copy() for column in each))
        self._counts += np.bincount(run.kinds, minlength=len(self._counts))
        self._runs += 1
        if self._runs.bit_count() == 1 or self._runs % RUNS_OF_ORDER == 0:
            self._order = np.argsort(-self._counts, kind="stable")
        return run, ended

    def written(self, run: Run, row: int) -> bytes:
        """One of the dicts as a pickle; what all of its kind refer to it refers to as the kind's example does."""
        template = self.templates[run.kinds[row]]
        data, cells = np.frombuffer(bytearray(template.data), dtype=np.uint8), self.side**2
        for slot, word in zip(leaves_of(template), run.leaves_PL[row], strict=False):
            data[slot.offset : slot.end] = word[None].view(np.uint8)[: slot.width]
        _put(data, template, _BOARD, np.unpackbits(run.stones_PW[row], count=2 * cells))
        if _POLICY in template.leaves:
            _put(data, template, _POLICY, np.arange(cells) == run.moves_P[row])
        return data.tobytes()


def joined_runs(runs: list[Run], leaves: int) -> Run:
    """The dicts of some runs, in their order, with room for so many leaves each."""
    wide = [run._replace(leaves_PL=_widened(run.leaves_PL, leaves)) for run in runs]
    return Run(*(np.concatenate(columns) for columns in zip(*wide, strict=True)))


def _widened(leaves_PL: NDArray[np.uint64], leaves: int) -> NDArray[np.uint64]:
    missing = leaves - leaves_PL.shape[1]
    return np.pad(leaves_PL, ((0, 0), (0, missing))) if missing else leaves_PL


def leaves_of(template: Template) -> list[Slot]:
    """The leaves of a kind that are kept as they are."""
    return [slot for path, slot in template.leaves.items() if path not in (_BOARD, _POLICY)]


def packed_side(template: Template) -> int:
    """The side of a kind's boards; 0 where these or policies are no floats, or a leaf is larger than a number."""
    board, policy = template.example.get("board"), template.example.get("policy")
    if _BOARD not in template.leaves or not isinstance(board, Array) or len(board.shape) != 3:
        return 0
    side = board.shape[1]
    plain = _is_plain(board, (2, side, side)) and (_POLICY not in template.leaves or _is_plain(policy, (side * side,)))
    small = all(0 < slot.width <= WORD_BYTES for slot in [*leaves_of(template), *template.fixed])
    return side if plain and small and 0 < side <= MAX_SIDE and len(template.data) >= WORD_BYTES else 0


def _is_plain(array: object, shape: tuple[int, ...]) -> bool:
    return isinstance(array, Array) and array.dtype == "<f4" and not array.fortran and array.shape == shape


def _put(data: Bytes, template: Template, path: Path, ones: NDArray[np.generic]) -> None:
    slot = template.leaves[path]
    data[slot.offset : slot.end] = ones.astype("<f4").view(np.uint8)


def _numbers(numbers: Iterable[int]) -> Numbers:
    return np.array(list(numbers), dtype=np.int64)


def _firsts(parts: Iterable[Sized]) -> Numbers:
    """Where the parts of each kind begin, and the end of the last."""
    return np.cumsum([0, *map(len, parts)])


def _masks(slots: Iterable[Slot]) -> NDArray[np.uint64]:
    """Words with all bits set that are a slot's."""
    return np.array([(1 << 8 * slot.width) - 1 for slot in slots], dtype=np.uint64)
