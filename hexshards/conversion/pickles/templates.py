"""Byte templates of pickled dicts: which bytes are which leaf, and which all dicts of a kind have in common.

Running one dict once more on the machine of pickles.machine, its leaves marked with the opcodes that they came from,
tells it. A dict that makes something for others to refer to, or has opcodes that change where a leaf lies, has none.
"""

from __future__ import annotations

import bisect
import pickle
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.pickles.machine import Array, LostError, Machine, Member, RefusedError

LONG_BYTES = 64
"""Leaves of so many bytes are taken from the pickle when they are needed, all else when a dict is found."""

GETS = {pickle.BINGET, pickle.LONG_BINGET}
"""Opcodes that refer to a memo entry."""

Path = tuple[str | int, ...]
"""Where a leaf stands: keys of dicts and places in tuples; an array's last step is ``data``."""

Numbers = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Slot:
    """Bytes of a dict that may differ: an opcode's operand."""

    opcode: bytes
    offset: int
    """Of the operand's first byte, from the dict's first."""
    width: int

    @property
    def end(self) -> int:
        """Of its last byte, and one more."""
        return self.offset + self.width


@dataclass(frozen=True, eq=False)
class Template:
    """One kind of dict: an example, which of its bytes are which leaf, and which refer to something fixed."""

    example: dict[str, Any]
    data: bytes
    """The example's own bytes."""
    tokens: tuple[int, ...]
    """Where each opcode begins."""
    leaves: dict[Path, Slot]
    fixed: dict[Slot, object]
    """References that are no leaves, such as keys, and what they must mean."""
    memos: int
    """Memo entries that reading one makes."""
    containers: int

    @cached_property
    def slots(self) -> list[Slot]:
        """Everything that may differ, in its order."""
        return sorted([*self.leaves.values(), *self.fixed], key=lambda slot: slot.offset)

    @cached_property
    def token_places(self) -> frozenset[int]:
        """Where each opcode begins, to be asked for one."""
        return frozenset(self.tokens)

    @cached_property
    def anchor(self) -> Anchor:
        """The longest run of bytes before the longest leaf that all dicts of the kind share."""
        longest = max(self.slots, key=lambda slot: slot.width)
        shared = bytearray(self.data[: longest.offset])
        for slot in self.slots:
            opcode = self.tokens[bisect.bisect_left(self.tokens, slot.offset) - 1]
            shared[opcode : slot.end] = bytes(len(shared[opcode : slot.end]))
        text = max(bytes(shared).split(b"\0"), key=len)
        rarest = min(range(len(text)), key=lambda place: self.data.count(text[place]), default=0)
        return Anchor(text, shared.index(text), rarest)

    @cached_property
    def parts(self) -> list[tuple[int, int]]:
        """Where the bytes between the long leaves begin and end."""
        long = [slot for slot in self.slots if slot.width >= LONG_BYTES]
        ends = [0, *(slot.end for slot in long)]
        return list(zip(ends, [*(slot.offset for slot in long), len(self.data)], strict=True))

    def short(self, slot: Slot) -> slice:
        """Where a short slot lies in what ``extract`` takes."""
        before = sum(min(end, slot.offset) - start for start, end in self.parts if start < slot.offset)
        return slice(before, before + slot.width)

    def extract(self, data: Bytes, starts: Numbers) -> Bytes:
        """The bytes between the long leaves of dicts: (dicts, bytes), with zeros to the next multiple of 8."""
        width = sum(end - start for start, end in self.parts)
        taken, at = np.zeros((len(starts), -(-width // 8) * 8), dtype=np.uint8), 0
        for start, end in self.parts:
            taken[:, at : (at := at + end - start)] = bytes_at(data, starts + start, end - start)
        return taken

    @cached_property
    def _own(self) -> tuple[Bytes, Bytes]:
        """What ``extract`` takes of the example, and ones where all others have the same."""
        own = self.extract(np.frombuffer(self.data, dtype=np.uint8), np.zeros(1, dtype=np.int64))[0]
        same = np.full(len(own), 0xFF, dtype=np.uint8)
        for slot in self.slots:
            if slot.width < LONG_BYTES:
                same[self.short(slot)] = 0
        return own, same

    def matching(self, data: Bytes, starts: Numbers) -> NDArray[np.bool_]:
        """At which of some places a dict of this kind begins."""
        fits = (starts >= 0) & (starts + len(self.data) <= len(data))
        own, same = self._own
        fits[fits] = ~(((self.extract(data, starts[fits]) ^ own) & same).view(np.uint64).any(axis=1))
        return fits


@dataclass(frozen=True, slots=True)
class Anchor:
    """Bytes by which dicts are found."""

    text: bytes
    offset: int
    """Of its first byte, from the dict's first."""
    rarest: int
    """Which of the bytes is looked for first."""


def bytes_at(data: Bytes, starts: Numbers, width: int) -> Bytes:
    """Bytes that follow some places: (places, width)."""
    if not len(starts):
        return np.zeros((0, width), dtype=np.uint8)
    # as items of so many bytes: each is copied at once
    items = np.ndarray((len(data) - width + 1,), dtype=f"V{width}", buffer=data.data, strides=(1,))
    return items[starts].view(np.uint8).reshape(-1, width)


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
_BLOBS = {pickle.SHORT_BINBYTES: 1, pickle.BINBYTES: 4, pickle.BINBYTES8: 8}
_LEAVES = {*_INTS, *GETS, *_BLOBS, pickle.BINFLOAT}


def learn(machine: Machine, start: int) -> Template | None:
    """The kind of a dict that the machine has just read, from its first byte; None when it has none."""
    return _Learner(machine, start, machine.at).learn()


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
            tokens=tuple(place for place, _ in self.tokens),
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
        if kind in GETS:
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
