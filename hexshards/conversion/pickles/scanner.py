"""Vectorised scan for dicts of one kind: found by comparing bytes, they mean exactly what the machine would read.

In a file of 195,000 examples all but a few have the same opcodes in the same places and differ in a dozen numbers and
two arrays. The first of a kind is read by the machine of pickles.machine; pickles.templates tells which of its
bytes become which leaf of the dict. Every other dict of the kind has the same bytes everywhere else, but for references
into the memo, which must mean the same; pickles.lookahead compares them, ahead of the machine. What differs in any
other way takes the machine's way. A real file is read so in a tenth of the time that the machine alone takes.
"""

from __future__ import annotations

import bisect
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.pickles.frames import Unframed
from hexshards.conversion.pickles.lookahead import lookahead_for
from hexshards.conversion.pickles.machine import Data, DType, LostError, Machine, RefusedError, loads
from hexshards.conversion.pickles.templates import (
    GETS,
    LONG_BYTES,
    Bytes,
    Numbers,
    Slot,
    Template,
    bytes_at,
    learn,
)
from hexshards.errors import DataError

MAX_TEMPLATES, MAX_LESSONS = 16, 64
"""Kinds held at once, and dicts looked at for one, so that a file of many kinds costs no more than the slow way."""

LESSON_DICTS = 24
"""A kind is learnt where so many more dicts of this size have room for each kind that is known then: reading them takes
as long as learning one, which takes 0.5 ms, and finding dicts of it."""

MIN_ANCHOR_BYTES = 4
"""By fewer bytes dicts can't be found."""


@dataclass(frozen=True, slots=True, eq=False)
class DictsOfKind:
    """Dicts of one kind, all bytes of them."""

    repeats: _Repeats
    template: Template
    starts: Numbers
    short: Bytes
    """What Template.extract takes of each."""
    varies: Bytes
    """Zeros where all of them have the same there."""

    def __len__(self) -> int:
        return len(self.starts)

    def numbers(self, slot: Slot) -> Numbers:
        """Whole numbers, or numbers of memo entries, in a short slot."""
        dtype = "<i4" if slot.opcode == pickle.BININT else f"<u{slot.width}"
        return self._bytes(slot).view(dtype).reshape(-1).astype(np.int64)

    def distinct(self, slot: Slot) -> tuple[Numbers, Numbers | None]:
        """The different ones of ``numbers``, sorted; and all of them, or None where all are one."""
        if slot.width < LONG_BYTES and not self.varies[self.template.short(slot)].any():
            first = DictsOfKind(self.repeats, self.template, self.starts[:1], self.short[:1], self.varies)
            return first.numbers(slot), None
        numbers = self.numbers(slot)
        return distinct(numbers), numbers

    def floats(self, slot: Slot) -> NDArray[np.float64]:
        """Fractions in a slot."""
        return self._bytes(slot).view(">f8").reshape(-1).astype(np.float64)

    def blobs(self, slot: Slot, rows: slice) -> Bytes:
        """The bytes in a slot of some of the dicts: (rows, width) uint8."""
        return bytes_at(self.repeats.bytes, self.places(slot, rows), slot.width)

    def places(self, slot: Slot, rows: slice) -> Numbers:
        """Where in ``repeats.bytes`` a slot of some of the dicts lies."""
        return self.starts[rows] + slot.offset

    def meaning(self, entry: int) -> Any:
        """The memo entry of a number."""
        return self.repeats.memo[entry]

    def dict(self, row: int) -> Any:
        """One of the dicts, read by the machine."""
        return self.repeats.read(int(self.starts[row]), memo=dict(self.repeats.memo), memos=1 << 40)

    def _bytes(self, slot: Slot) -> Bytes:
        if slot.width >= LONG_BYTES:
            return self.blobs(slot, slice(None))
        return np.ascontiguousarray(self.short[:, self.template.short(slot)])


class SimilarDicts:
    """Dicts that were not read but found: where each begins, and of which kind it is."""

    def __init__(self, repeats: _Repeats, starts: Numbers, kinds: Numbers) -> None:
        self._repeats, self.starts, self.kinds = repeats, starts, kinds

    def __len__(self) -> int:
        return len(self.starts)

    def kind(self, row: int) -> Template:
        """The kind of one of the dicts."""
        return self._repeats.templates[int(self.kinds[row])]

    def by_kind(self) -> Iterator[tuple[DictsOfKind, Numbers]]:
        """The dicts of each kind, and which of these dicts they are."""
        for kind in range(len(self._repeats.templates)):
            mine = np.flatnonzero(self.kinds == kind)
            if len(mine):
                yield self._repeats.of_kind(kind, self.starts[mine]), mine


def joined(parts: Sequence[SimilarDicts]) -> SimilarDicts:
    """The dicts of several SimilarDicts of one pickle."""
    starts, kinds = (np.concatenate([getattr(part, name) for part in parts]) for name in ("starts", "kinds"))
    return SimilarDicts(parts[0]._repeats, starts, kinds)


def load_records(pickled: Unframed, *, where: str, key: str) -> object:
    """What pickles.machine.loads makes of a pickle, but with SimilarDicts in the place of dicts that have ``key``."""
    if pickled.sound:
        cuts = [cut.place for cut in pickled.cuts]
        repeats = _Repeats(key, pickled.data)
        try:
            value = loads(pickled.data, where=where, shortcut=repeats, cuts=cuts)
            repeats.check(cuts)
            return value
        except (LostError, RefusedError, LookupError, DataError):
            del repeats
    return loads(pickled.whole(), where=where)


class _Repeats:
    """The kinds of one pickle, and where dicts of them are: a hexshards.conversion.pickles.machine.Shortcut."""

    def __init__(self, key: str, data: Data) -> None:
        self.key, self.data, self.lessons = key, data, 0
        self.bytes = np.frombuffer(data, dtype=np.uint8)
        self.templates: list[Template] = []
        self.lookahead = lookahead_for(self.bytes)
        self.extracted: dict[int, tuple[Numbers, Bytes, Bytes]] = {}  # of each kind, where it was asked for last
        self.taken: list[SimilarDicts] = []
        self.bases: list[Numbers] = []  # memo entries made before each dict of ``taken``
        self.memo: dict[int, object] = {}  # the machine's while it runs, then what dicts refer to

    def leap(self, machine: Machine) -> bool:
        at = machine.at - 1
        if not self.templates:
            return False
        starts, kinds = self.lookahead.run(at)
        if not len(starts):
            return False
        rows = SimilarDicts(self, starts, kinds)
        sizes = np.array([(len(t.data), t.memos, t.containers) for t in self.templates])[rows.kinds]
        length, memos, containers = sizes.sum(axis=0).tolist()
        self.taken.append(rows)
        self.bases.append(machine.memos + np.cumsum(sizes[:, 1]) - sizes[:, 1])
        self.memo = machine.memo
        machine.stack.append(rows)
        machine.memos += memos
        machine.containers_left -= containers
        machine.leap_to(at + length, count=len(rows))
        return True

    def landed(self, machine: Machine, start: int) -> None:
        if machine.apart > start or self.lessons >= MAX_LESSONS or self.key not in machine.stack[-1]:  # type: ignore[operator]
            return
        worth = LESSON_DICTS * (1 + len(self.templates)) * (machine.at - start)
        if len(self.data) - machine.at < worth:
            return
        self.lessons += 1
        template = learn(machine, start) if len(self.templates) < MAX_TEMPLATES else None
        if template and len(template.anchor.text) >= MIN_ANCHOR_BYTES:
            self.templates.append(template)
            self.lookahead.add(template, machine.at)

    def recover(self, machine: Machine, key: int) -> bool:
        """Read the dict that holds a memo entry, for the entries it makes."""
        run = bisect.bisect_right(self.bases, key, key=lambda bases: int(bases[0])) - 1
        if run < 0:
            return False
        row = int(np.searchsorted(self.bases[run], key, side="right")) - 1
        memos = int(self.bases[run][row])
        if key >= memos + self.taken[run].kind(row).memos:
            return False
        self.read(int(self.taken[run].starts[row]), memo=machine.memo, memos=memos)
        return key in machine.memo

    def read(self, start: int, *, memo: dict[int, object], memos: int) -> object:
        """The dict that begins at a byte; the memo entries it makes go into ``memo``, from number ``memos`` on."""
        reader = Machine(self.data)
        reader.memo, reader.memos, reader.at = memo, memos, start
        reader.step()
        while len(reader.stack) > 1 or self.data[reader.at - 1 : reader.at] != pickle.SETITEMS:
            reader.step()
        return reader.stack[0]

    def of_kind(self, kind: int, starts: Numbers) -> DictsOfKind:
        """Dicts of a kind that begin at some places, in their order."""
        template = self.templates[kind]
        held = self.extracted.get(kind)
        if held is None or not np.array_equal(held[0], starts):
            words = template.extract(self.bytes, starts).view(np.uint64)
            varies = np.bitwise_or.reduce(words ^ words[0], axis=0)
            held = starts, words.view(np.uint8), varies.view(np.uint8)
            self.extracted[kind] = held
        return DictsOfKind(self, template, *held)

    # at the end: looking back -----------------------------------------------------------------------------------------

    def check(self, cuts: Sequence[int]) -> None:
        """Look up all references, and keep only what they mean: memo and runs hold the whole file, in a cycle.

        Raises LookupError for one to what was not there yet, or means something else, and for a cut in an opcode.
        """
        if not self.taken:
            return
        meanings: dict[int, object] = {}
        every, bases = joined(self.taken), np.concatenate(self.bases)
        for dicts, mine in every.by_kind():
            _check_cuts(dicts, np.array(cuts, dtype=np.int64))
            earliest = bases[mine]
            for slot in dicts.template.slots:
                if slot.opcode in GETS:
                    entries, each = dicts.distinct(slot)
                    if (entries >= earliest.min() if each is None else each >= earliest).any():
                        raise LookupError
                    self._look_up(entries.tolist(), meanings, dicts.template.fixed.get(slot))
        self.memo, self.taken, self.bases = meanings, [], []

    def _look_up(self, entries: Sequence[int], meanings: dict[int, object], meaning: object) -> None:
        """Add what memo entries stand for to ``meanings``; each must mean ``meaning`` unless that is None."""
        for entry in entries:
            if entry not in meanings:
                meanings[entry] = self._recalled(entry)
            if meaning is not None and not _same(meanings[entry], meaning):
                raise LookupError

    def _recalled(self, entry: int) -> object:
        reader = Machine(pickle.LONG_BINGET + entry.to_bytes(4, "little"), self)
        reader.memo, reader.memos = self.memo, entry + 1
        reader.step()
        return reader.stack[0]


def _check_cuts(dicts: DictsOfKind, cuts: Numbers) -> None:
    """Raise LookupError where a cut lies in an opcode of one of some dicts."""
    row = np.searchsorted(dicts.starts, cuts, side="right") - 1
    offset = (cuts - dicts.starts[row])[row >= 0]
    if not np.isin(offset[offset < len(dicts.template.data)], dicts.template.tokens).all():
        raise LookupError


def distinct(numbers: Numbers) -> Numbers:
    """The different ones of some numbers, sorted; small ones are counted, which is faster than np.unique."""
    low, high = int(numbers.min()), int(numbers.max())
    if high - low >= 1 << 20:
        return np.unique(numbers)
    return np.flatnonzero(np.bincount(numbers - low)) + low


def _same(one: object, other: object) -> bool:
    if isinstance(one, DType) and isinstance(other, DType):
        return (one.code, one.order) == (other.code, other.order)
    return type(one) is type(other) and one == other
