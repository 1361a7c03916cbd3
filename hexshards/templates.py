"""Dicts that look alike are found by comparing bytes, all at once, and mean exactly what the machine would read.

In a file of 195,000 examples all but a few have the same opcodes in the same places and differ in a dozen numbers and
two arrays. The first of a kind is read by the machine of hexshards.pickles; running it once more with marked values
tells which bytes become which leaf of the dict. Every other dict of the kind has the same bytes everywhere else, but
for references into the memo, which must mean the same; NumPy compares them for the whole file. What differs in any
other way takes the machine's way. A real file is read so in a sixth of the time that the machine alone takes.
"""

from __future__ import annotations

import bisect
import pickle
import pickletools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.pickles import Array, DType, LostError, Machine, Member, RefusedError, loads

MAX_TEMPLATES, MAX_LESSONS = 16, 64
"""Kinds held at once, and dicts looked at for one, so that a file of many kinds costs no more than the slow way."""

COMPARED_ROWS = 4096
"""Dicts compared at a time: about 1 kB of places each."""

Path = tuple[str | int, ...]
"""Where a leaf stands: keys of dicts and places in tuples; an array's last step is ``data``."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Slot:
    """Bytes of a dict that may differ: an opcode's operand."""

    opcode: bytes
    offset: int
    """Of the operand's first byte, from the dict's first."""
    width: int


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """One kind of dict: an example, which of its bytes are which leaf, and which refer to something fixed."""

    example: dict[str, Any]
    data: bytes
    """The example's own bytes."""
    leaves: dict[Path, Slot]
    fixed: dict[Slot, object]
    """References that are no leaves, such as keys, and what they must mean."""
    memos: int
    """Memo entries that reading one makes."""
    containers: int

    @property
    def marker(self) -> tuple[bytes, int, int]:
        """The bytes before the longest leaf, which say how long it is, where they are, and how long the leaf is."""
        slot = max(self.leaves.values(), key=lambda slot: slot.width)
        start = slot.offset - 2 - _BLOBS.get(slot.opcode, 0)
        # bytes.find is slow for what ends like most of the data, in zeros
        return self.data[start : slot.offset].rstrip(b"\0"), start, slot.width

    def matching(self, data: NDArray[np.uint8], starts: Numbers) -> NDArray[np.bool_]:
        """At which of some places a dict of this kind begins."""
        like = np.frombuffer(self.data, dtype=np.uint8)
        same = np.ones(len(like), dtype=bool)
        for slot in (*self.leaves.values(), *self.fixed):
            same[slot.offset : slot.offset + slot.width] = False
        places = np.flatnonzero(same)
        fits = (starts >= 0) & (starts + len(like) <= len(data))
        for some in (places[:: len(places) // 8], places):  # a few first: most of what differs is out of step
            rows = np.flatnonzero(fits)
            for part in np.array_split(rows, len(rows) // COMPARED_ROWS + 1):
                fits[part] = (data[starts[part, None] + some] == like[some]).all(axis=1)
        return fits


class Rows:
    """Dicts that were not read but found: where each begins, and of which kind it is."""

    def __init__(self, repeats: _Repeats, starts: Numbers, kinds: Numbers) -> None:
        self._repeats, self.starts, self.kinds = repeats, starts, kinds

    def __len__(self) -> int:
        return len(self.starts)

    def kind(self, row: int) -> Template:
        """The kind of one of the dicts."""
        return self._repeats.templates[int(self.kinds[row])]

    def by_kind(self) -> Iterator[tuple[Template, Rows, Numbers]]:
        """The dicts of each kind, and which of these dicts they are."""
        for kind, template in enumerate(self._repeats.templates):
            mine = np.flatnonzero(self.kinds == kind)
            if len(mine):
                yield template, Rows(self._repeats, self.starts[mine], self.kinds[mine]), mine

    def numbers(self, slot: Slot) -> Numbers:
        """Whole numbers, or numbers of memo entries, in a slot of dicts of one kind."""
        dtype = "<i4" if slot.opcode == pickle.BININT else f"<u{slot.width}"
        return self.blobs(slot).view(dtype).reshape(-1).astype(np.int64)

    def floats(self, slot: Slot) -> NDArray[np.float64]:
        """Fractions in a slot of dicts of one kind."""
        return self.blobs(slot).view(">f8").reshape(-1).astype(np.float64)

    def blobs(self, slot: Slot) -> NDArray[np.uint8]:
        """The bytes in a slot of dicts of one kind: (rows, width) uint8."""
        view = np.lib.stride_tricks.sliding_window_view(self._repeats.bytes, slot.width)
        return view[self.starts + slot.offset]

    def meaning(self, entry: int) -> Any:
        """The memo entry of a number."""
        return self._repeats.memo[entry]

    def dict(self, row: int) -> Any:
        """One of the dicts, read by the machine."""
        return self._repeats.read(int(self.starts[row]), memo=dict(self._repeats.memo), memos=1 << 40)


def joined(parts: Sequence[Rows]) -> Rows:
    """The dicts of several Rows of one pickle."""
    starts, kinds = (np.concatenate([getattr(part, name) for part in parts]) for name in ("starts", "kinds"))
    return Rows(parts[0]._repeats, starts, kinds)


def load_records(data: bytes, *, where: str, key: str) -> object:
    """What hexshards.pickles.loads makes of a pickle, but with Rows in the place of dicts that have ``key``."""
    repeats = _Repeats(key, data)
    try:
        found = loads(data, where=where, shortcut=repeats)
        repeats.check()
        return found
    except (LostError, RefusedError, LookupError):
        return loads(data, where=where)


class _Repeats:
    """The kinds of one pickle, and where dicts of them are: a hexshards.pickles.Shortcut."""

    def __init__(self, key: str, data: bytes) -> None:
        self.key, self.data, self.lessons = key, data, 0
        self.bytes = np.frombuffer(data, dtype=np.uint8)
        self.templates: list[Template] = []
        self.marks: dict[bytes, Numbers] = {}  # where a dict may be that is of no known kind
        self.taken: list[Rows] = []
        self.bases: list[int] = []  # memo entries made before each of ``taken``
        self.memo: dict[int, object] = {}  # the machine's while it runs, then what dicts refer to
        self._index(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))

    def leap(self, machine: Machine) -> bool:
        first = bisect.bisect_left(self.begins, machine.at - 1, hi=len(self.begins) - 1)
        if self.begins[first] != machine.at - 1:
            return False
        last = self.run_ends[first]
        rows = Rows(self, self.starts[first:last], self.kinds[first:last])
        self.taken.append(rows)
        self.bases.append(machine.memos)
        self.memo = machine.memo
        machine.stack.append(rows)
        machine.at = self.ends[last - 1]
        machine.memos += self.memos[last] - self.memos[first]
        machine.containers_left -= self.containers[last] - self.containers[first]
        machine.leaps += last - first
        return True

    def landed(self, machine: Machine, start: int) -> None:
        if machine.apart > start or self.lessons >= MAX_LESSONS or self.key not in machine.stack[-1]:  # type: ignore[operator]
            return
        self.lessons += 1
        if len(self.templates) < MAX_TEMPLATES and (template := _Learner(machine, start, machine.at).learn()):
            self._find(template, machine.at)

    def recover(self, machine: Machine, key: int) -> bool:
        """Read the dict that holds a memo entry, for the entries it makes."""
        run = bisect.bisect_right(self.bases, key) - 1
        if run < 0:
            return False
        rows, memos = self.taken[run], self.bases[run]
        for row in range(len(rows)):
            after = memos + rows.kind(row).memos
            if memos <= key < after:
                self.read(int(rows.starts[row]), memo=machine.memo, memos=memos)
                return key in machine.memo
            memos = after
        return False

    def read(self, start: int, *, memo: dict[int, object], memos: int) -> object:
        """The dict that begins at a byte; the memo entries it makes go into ``memo``, from number ``memos`` on."""
        reader = Machine(self.data)
        reader.memo, reader.memos, reader.at = memo, memos, start
        reader.step()
        while len(reader.stack) > 1 or self.data[reader.at - 1 : reader.at] != pickle.SETITEMS:
            reader.step()
        return reader.stack[0]

    def check(self) -> None:
        """Look up all references, and keep only what they mean: memo and runs hold the whole file, in a cycle.

        Raises LookupError for one to what was not there yet, or means something else.
        """
        if not self.taken:
            return
        meanings: dict[int, object] = {}
        every = joined(self.taken)
        memos = np.array([template.memos for template in self.templates])[every.kinds]
        runs = np.array([len(rows) for rows in self.taken])
        first = np.repeat(np.cumsum(runs) - runs, runs)
        before = np.cumsum(memos) - memos
        bases = np.repeat(self.bases, runs) + before - before[first]
        for template, rows, mine in every.by_kind():
            for slot in (*template.leaves.values(), *template.fixed):
                if slot.opcode in _GETS:
                    meanings |= self._meanings(rows.numbers(slot), bases[mine], template.fixed.get(slot))
        self.memo, self.taken, self.bases = meanings, [], []

    def _meanings(self, entries: Numbers, bases: Numbers, meaning: object) -> dict[int, object]:
        """What memo entries stand for, each of which must mean ``meaning`` unless that is None."""
        if (entries >= bases).any():
            raise LookupError
        meanings: dict[int, object] = {}
        for entry in distinct(entries).tolist():
            found = meanings[entry] = self._recalled(entry)
            if meaning is not None and not _same(found, meaning):
                raise LookupError
        return meanings

    def _recalled(self, entry: int) -> object:
        reader = Machine(pickle.LONG_BINGET + entry.to_bytes(4, "little"), self)
        reader.memo = self.memo
        reader.step()
        return reader.stack[0]

    def _find(self, template: Template, after: int) -> None:
        """Add all dicts of a new kind."""
        marker, offset, width = template.marker
        if marker not in self.marks:
            self.marks[marker] = self._all(marker, after, width)
        starts = self.marks[marker] - offset
        fits = template.matching(self.bytes, starts)
        self.marks[marker] = self.marks[marker][~fits]
        starts = starts[fits]
        kind = np.full(len(starts), len(self.templates), dtype=np.int64)
        self.templates.append(template)
        self._index(np.concatenate([self.starts, starts]), np.concatenate([self.kinds, kind]))

    def _index(self, starts: Numbers, kinds: Numbers) -> None:
        order = np.argsort(starts, kind="stable")
        self.starts, self.kinds = starts[order], kinds[order]
        sizes = np.array([(len(t.data), t.memos, t.containers) for t in self.templates], dtype=np.int64).reshape(-1, 3)
        lengths, memos, containers = (column[self.kinds] for column in sizes.T)
        ends = self.starts + lengths
        # a run ends where the next dict does not begin
        breaks = np.flatnonzero(np.append(ends[:-1] != self.starts[1:], True)) if len(order) else order
        ends_of_runs = breaks[np.searchsorted(breaks, np.arange(len(order)))] + 1 if len(order) else order
        # lists, as they are asked for one by one; the last begins nowhere
        self.begins = [*self.starts.tolist(), -1]
        self.ends, self.run_ends = ends.tolist(), ends_of_runs.tolist()
        self.memos, self.containers = ([0, *np.cumsum(column).tolist()] for column in (memos, containers))

    def _all(self, marker: bytes, after: int, width: int) -> Numbers:
        """All places of a marker, each looked for behind the leaf that follows the one before."""
        found, find, at = [], self.data.find, self.data.find(marker, after)
        while at >= 0:
            found.append(at)
            at = find(marker, at + width)
        return np.array(found, dtype=np.int64)


def distinct(numbers: Numbers) -> Numbers:
    """The different ones of some numbers, sorted; small ones are counted, which is faster than np.unique."""
    if (numbers == numbers[0]).all():
        return numbers[:1]
    low, high = int(numbers.min()), int(numbers.max())
    if high - low >= 1 << 20:
        return np.unique(numbers)
    return np.flatnonzero(np.bincount(numbers - low)) + low


def _same(one: object, other: object) -> bool:
    if isinstance(one, DType) and isinstance(other, DType):
        return (one.code, one.order) == (other.code, other.order)
    return type(one) is type(other) and one == other


# learning -----------------------------------------------------------------------------------------------------------


class _Mark:
    """What a marked leaf carries: the number of the token it came from."""

    token: int


class _Bytes(bytes, _Mark): ...


class _Str(str, _Mark): ...


class _Int(int, _Mark): ...


class _Float(float, _Mark): ...


class _Member(Member, _Mark): ...


class _Tuple(tuple[Any, ...], _Mark): ...


_PLAIN = {
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.MARK, pickle.EMPTY_DICT, pickle.EMPTY_TUPLE),
    *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.MEMOIZE, pickle.REDUCE, pickle.BUILD),
}
_INTS = {pickle.BININT, pickle.BININT1, pickle.BININT2}
_GETS = {pickle.BINGET, pickle.LONG_BINGET}
_BLOBS = {pickle.SHORT_BINBYTES: 1, pickle.BINBYTES: 4, pickle.BINBYTES8: 8}
_LEAVES = {*_INTS, *_GETS, *_BLOBS, pickle.BINFLOAT}


class _Learner(Machine):
    """Runs one dict again, its leaves marked with the tokens they came from."""

    __slots__ = ("end", "first", "fixed", "tokens")

    def __init__(self, machine: Machine, start: int, end: int) -> None:
        super().__init__(machine.data, machine.shortcut)
        self.memo, self.at, self.first, self.end = machine.memo, start, start, end
        self.containers_left = 0
        self.tokens: list[tuple[int, bytes]] = []
        self.fixed: dict[int, object] = {}

    def learn(self) -> Template | None:
        """A template; None when the dict holds what no other can share."""
        try:
            self.tokens = list(self._split())
            for number in range(len(self.tokens)):
                self._execute(number)
        except (_Unlike, RefusedError, LostError, ValueError, TypeError, LookupError):
            return None
        (example,) = self.stack
        marks = dict(_marks(example, ()))
        if not isinstance(example, dict) or not marks:
            return None
        return Template(
            example=_unmarked(example),
            data=self.data[self.first : self.end],
            leaves={path: self._slot(number) for path, number in marks.items()},
            fixed={self._slot(n): meaning for n, meaning in self.fixed.items() if n not in set(marks.values())},
            memos=self.memos,
            containers=-self.containers_left,
        )

    def _slot(self, number: int) -> Slot:
        place, token = self.tokens[number]
        head = 1 + _BLOBS.get(token[:1], 0)
        return Slot(token[:1], place + head, len(token) - head)

    def _split(self) -> Iterator[tuple[int, bytes]]:
        """The dict's opcodes with their operands, each with its place."""
        body = self.data[self.first : self.end] + pickle.STOP
        places = [place for _, _, place in pickletools.genops(body) if place is not None]
        for place, after in pairwise(places):
            if body[place : place + 1] not in _PLAIN and body[place : place + 1] not in _LEAVES:
                raise _Unlike
            yield place, body[place:after]

    def _execute(self, number: int) -> None:
        kind = self.tokens[number][1][:1]
        if kind == pickle.MEMOIZE:  # what is remembered inside is not for others
            self.at += 1
            self.memos += 1
            self._count_container()
            return
        if kind == pickle.EMPTY_DICT:
            self.at += 1
            self._count_container()
            self.stack.append({})
            return
        self.step()
        if kind in _GETS:
            self.fixed[number] = self.stack[-1]
        if kind in _LEAVES:
            self.stack[-1] = _marked(self.stack[-1], number)

    def _count_container(self) -> None:
        self.containers_left -= 1

    def _set(self, items: list[object]) -> None:
        items[::2] = [str(key) if isinstance(key, _Str) else key for key in items[::2]]
        super()._set(items)


class _Unlike(Exception):
    """A dict that is like no other: it makes something that others refer to."""


def _marked(value: object, token: int) -> object:
    marked: Any
    match value:
        case Member():
            marked = _Member(*value)
        case tuple() if type(value) is tuple:
            marked = _Tuple(value)
        case bytes():
            marked = _Bytes(value)
        case str():
            marked = _Str(value)
        case float():
            marked = _Float(value)
        case int():
            marked = _Int(value)
        case _:
            return value
    marked.token = token
    return marked


def _marks(value: object, path: Path) -> Iterator[tuple[Path, int]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _marks(part, (*path, name))
    elif type(value) is tuple:
        for place, part in enumerate(value):
            yield from _marks(part, (*path, place))
    elif isinstance(value, Array):
        yield from _marks(value.data, (*path, "data"))
    elif isinstance(value, _Mark):
        yield path, value.token


def _unmarked(value: Any) -> Any:
    if isinstance(value, _Member):
        return Member(*value)
    if isinstance(value, dict):
        return {name: _unmarked(part) for name, part in value.items()}
    if type(value) is tuple:
        return tuple(_unmarked(part) for part in value)
    if isinstance(value, Array):
        value.shape, value.data = _unmarked(value.shape), _unmarked(value.data)
        return value
    for plain in (bytes, str, float, int, tuple):
        if isinstance(value, _Mark) and isinstance(value, plain):
            return plain(value)
    return value
