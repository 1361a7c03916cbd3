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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.pickles.frames import Unframed
from hexshards.conversion.pickles.lookahead import Lookahead, lookahead_for
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
from hexshards.game.validation import Plain

MAX_TEMPLATES, MAX_LESSONS = 16, 64
"""Kinds held at once, and dicts looked at for one, so that a file of many kinds costs no more than the slow way."""

LESSON_DICTS = 24
"""A kind is learnt where so many more dicts of this size have room for each kind that is known then: reading them takes
as long as learning one, which takes 0.5 ms, and finding dicts of it."""

MIN_ANCHOR_BYTES = 4
"""By fewer bytes dicts can't be found."""


_NONE = np.zeros((0, 0), dtype=np.uint8)

_COUNTED = 1 << 20
"""Numbers within so few are counted and not sorted, which is faster."""


class DictsOfKind:
    """Dicts of one kind, all bytes of them."""

    def __init__(
        self, repeats: Repeats, template: Template, starts: Numbers, short: Bytes = _NONE, varies: Bytes = _NONE
    ) -> None:
        """short: what Template.extract takes of each. varies: zeros where all of them have the same there."""
        self.repeats, self.template, self.starts = repeats, template, starts
        self.short, self.varies = short, varies

    def __len__(self) -> int:
        return len(self.starts)

    def numbers(self, slot: Slot) -> Numbers:
        """Whole numbers, or numbers of memo entries, in a short slot."""
        dtype = "<i4" if signed(slot) else f"<u{slot.width}"
        return self.blobs(slot, slice(None)).view(dtype).reshape(-1).astype(np.int64)

    def distinct(self, slot: Slot) -> tuple[Numbers, Numbers | None]:
        """The different ones of ``numbers``, sorted; and all of them, or None where all are one."""
        if slot.width < LONG_BYTES and not self.varies[self.template.short(slot)].any():
            first = DictsOfKind(self.repeats, self.template, self.starts[:1], self.short[:1], self.varies)
            return first.numbers(slot), None
        numbers = self.numbers(slot)
        return distinct(numbers), numbers

    def floats(self, slot: Slot) -> NDArray[np.float64]:
        """Fractions in a slot."""
        return self.blobs(slot, slice(None)).view(">f8").reshape(-1).astype(np.float64)

    def blobs(self, slot: Slot, rows: slice) -> Bytes:
        """The bytes in a slot of some of the dicts: (rows, width) uint8."""
        if slot.width < LONG_BYTES:
            return np.ascontiguousarray(self.short[rows, self.template.short(slot)])
        return bytes_at(self.repeats.bytes, self.places(slot, rows), slot.width)

    def places(self, slot: Slot, rows: slice) -> Numbers:
        """Where in ``repeats.bytes`` a slot of some of the dicts lies."""
        return self.starts[rows] + slot.offset

    is_packed = False
    """Whether ``packed`` has boards and policies."""

    def packed(self, rows: slice) -> Plain | None:
        """Boards and policies of some of the dicts, where they were packed as they were found."""
        return None

    def meaning(self, entry: int) -> Any:
        """The memo entry of a number."""
        return self.repeats.memo[entry]

    def dict(self, row: int) -> Any:
        """One of the dicts, read by the machine."""
        return self.repeats.read(int(self.starts[row]), memo=dict(self.repeats.memo), memos=1 << 40)


def signed(slot: Slot) -> bool:
    """Whether a slot holds a number below 0 where its highest bit is set."""
    return slot.opcode == pickle.BININT


class SimilarDicts:
    """Dicts that were not read but found: where each begins, or which one it is, and of which kind."""

    def __init__(self, repeats: Repeats, starts: Numbers, kinds: Numbers) -> None:
        self.repeats, self.starts, self.kinds = repeats, starts, kinds

    def __len__(self) -> int:
        return len(self.starts)

    def kind(self, row: int) -> Template:
        """The kind of one of the dicts."""
        return self.repeats.templates[int(self.kinds[row])]

    def kinds_of(self, rows: slice) -> list[Template]:
        """The kinds of some of the dicts."""
        return [self.repeats.templates[kind] for kind in self.kinds[rows].tolist()]

    def by_kind(self) -> Iterator[tuple[DictsOfKind, Numbers]]:
        """The dicts of each kind, and which of these dicts they are."""
        for kind in range(len(self.repeats.templates)):
            mine = np.flatnonzero(self.kinds == kind)
            if len(mine):
                yield self.repeats.of_kind(kind, self.starts[mine]), mine


def joined(parts: Sequence[SimilarDicts]) -> SimilarDicts:
    """The dicts of several SimilarDicts of one pickle."""
    starts, kinds = (np.concatenate([getattr(part, name) for part in parts]) for name in ("starts", "kinds"))
    return SimilarDicts(parts[0].repeats, starts, kinds)


def load_records(pickled: Unframed, *, where: str, key: str) -> object:
    """What pickles.machine.loads makes of a pickle, but with SimilarDicts in the place of dicts that have ``key``."""
    if pickled.sound:
        cuts = [cut.place for cut in pickled.cuts]
        repeats = Repeats(key, pickled.data, lookahead_for(np.frombuffer(pickled.data, dtype=np.uint8)))
        try:
            value = loads(pickled.data, where=where, shortcut=repeats, cuts=cuts)
            repeats.check(cuts)
            return value
        except (LostError, RefusedError, LookupError, DataError):
            del repeats
    return loads(pickled.whole(), where=where)


class Repeats:
    """The kinds of one pickle, and where dicts of them are: a hexshards.conversion.pickles.machine.Shortcut."""

    def __init__(self, key: str, data: Data, lookahead: Lookahead) -> None:
        self.key, self.data, self.lessons = key, data, 0
        self.bytes = np.frombuffer(data, dtype=np.uint8)
        self.templates: list[Template] = []
        self.lookahead = lookahead
        self.extracted: dict[int, tuple[Numbers, Bytes, Bytes]] = {}  # of each kind, where it was asked for last
        self.taken: list[SimilarDicts] = []
        self.bases: list[Numbers] = []  # memo entries made before each dict of ``taken``
        self.memo: dict[int, object] = {}  # the machine's while it runs, then what dicts refer to

    def leap(self, machine: Machine) -> bool:
        """See Shortcut."""
        at = machine.at - 1
        if not self.templates:
            return False
        starts, kinds = self.lookahead.run(at)
        if not len(starts):
            return False
        rows = SimilarDicts(self, starts, kinds)
        memos, containers = self.makes[kinds].T
        self.taken.append(rows)
        self.bases.append(machine.memos + np.cumsum(memos) - memos)
        self.memo = machine.memo
        machine.stack.append(rows)
        machine.memos += int(memos.sum())
        machine.containers_left -= int(containers.sum())
        machine.leap_to(int(starts[-1]) + len(self.templates[kinds[-1]].data), count=len(rows))
        return True

    def landed(self, machine: Machine, start: int) -> None:
        """See Shortcut."""
        if machine.apart > start or self.lessons >= MAX_LESSONS or self.key not in machine.stack[-1]:  # type: ignore[operator]
            return
        worth = LESSON_DICTS * (1 + len(self.templates)) * (machine.at - start)
        if self.bytes_ahead(machine) < worth:
            return
        self.lessons += 1
        template = learn(machine, start) if len(self.templates) < MAX_TEMPLATES else None
        if template and len(template.anchor.text) >= MIN_ANCHOR_BYTES:
            self.templates.append(template)
            self.makes = np.array([(each.memos, each.containers) for each in self.templates])
            self.lookahead.add(template, machine.at)

    def bytes_ahead(self, machine: Machine) -> int:
        """How much of the pickle is still to be read, about."""
        return len(self.data) - machine.at

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
        reader = self.reader(start)
        reader.memo, reader.memos = memo, memos
        reader.step()
        while len(reader.stack) > 1 or reader.data[reader.at - 1 : reader.at] != pickle.SETITEMS:
            reader.step()
        return reader.stack[0]

    def reader(self, start: int) -> Machine:
        """A machine before the first opcode of a dict."""
        reader = Machine(self.data)
        reader.at = start
        return reader

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
                    self.look_up(entries.tolist(), meanings, dicts.template.fixed.get(slot))
        self.memo, self.taken, self.bases = meanings, [], []

    def look_up(self, entries: Sequence[int], meanings: dict[int, object], meaning: object) -> None:
        """Add what memo entries stand for to ``meanings``; each must mean ``meaning`` unless that is None."""
        for entry in entries:
            if entry not in meanings:
                meanings[entry] = self.recalled(entry)
            if meaning is not None and not means_the_same(meanings[entry], meaning):
                raise LookupError

    def recalled(self, entry: int) -> object:
        """What a memo entry stands for. Raises KeyError where it stands for nothing yet, and what the machine does."""
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
    if high - low >= _COUNTED:
        return np.unique(numbers)
    return np.flatnonzero(np.bincount(numbers - low)) + low


def places_of(numbers: Numbers, among: Numbers) -> Numbers:
    """Where each number is among the different ones, sorted."""
    low, high = int(among[0]), int(among[-1])
    if high - low >= _COUNTED:
        return np.searchsorted(among, numbers)
    places = np.zeros(high - low + 1, dtype=np.int64)
    places[among - low] = np.arange(len(among))
    return places[numbers - low]


def means_the_same(one: object, other: object) -> bool:
    """Whether two things that a pickle states are equal, in their types too."""
    if isinstance(one, DType) and isinstance(other, DType):
        return (one.code, one.order) == (other.code, other.order)
    return type(one) is type(other) and one == other
