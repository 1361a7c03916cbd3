"""Unpickle safely: a pickle becomes plain data, and nothing that it names is ever imported or called.

A small machine for the opcodes that hex_ai's files use, over bytes already in memory. It knows eleven globals by name
(``hex_ai`` enums and what NumPy's arrays are rebuilt with) and builds values of its own for them; every other name,
and every opcode that would reach for a class, an extension or a persistent object, refuses the file. A length is
compared with what is left before anything is made, keys of dicts are text, and containers, memo entries and copied
bytes are counted against budgets that follow the size of the input, so memory and time are linear in it.

Opcodes: https://docs.python.org/3/library/pickletools.html, protocols 0 to 5.
"""

from __future__ import annotations

import gc
import math
import mmap
import pickle
import re
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, NoReturn, Protocol

from hexshards.errors import DataError, printable
from hexshards.units import counted

CONTAINERS_FLOOR, BYTES_PER_CONTAINER = 1_000_000, 8
"""Containers and memo entries allowed: floor + bytes / 8. Real files have one in 14 bytes or more."""

NUMBER_CHARS = 64
"""Longest number accepted in text: parsing decimal digits takes quadratic time."""

ITEM_BYTES = {
    "b1": 1,
    "i1": 1,
    "u1": 1,
    "i2": 2,
    "u2": 2,
    "f2": 2,
    "i4": 4,
    "u4": 4,
    "f4": 4,
    "i8": 8,
    "u8": 8,
    "f8": 8,
}
"""Element types of arrays of numbers, and their sizes."""

_OTHER_TYPES = re.compile(r"O8|[USVMmc][0-9]{1,9}|f16")
"""Element types of which an array is known to exist, and nothing else."""

_HEAD_BYTES, _OPCODE_BYTES = 40, 2
_SENSE: dict[type[Exception], str] = {
    IndexError: "something is missing there",
    KeyError: "it refers to what it never stated",
    UnicodeError: "a text is malformed",
    ValueError: "a text or number is malformed",
    TypeError: "the parts do not fit together",
    OverflowError: "a number is too large",
    AttributeError: "the parts do not fit together",
    struct.error: "it ends too early",
}

_NUMPY_HOMES = {"numpy.core.multiarray": "multiarray", "numpy._core.multiarray": "multiarray"}
_NUMPY_HOMES |= {"numpy.core.numeric": "numeric", "numpy._core.numeric": "numeric", "numpy": "numpy"}
_NUMPY_NAMES = {
    ("multiarray", "_reconstruct"),
    ("multiarray", "scalar"),
    ("numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
_ENUM_HOMES, _ENUM_NAMES = ("hex_ai.enums", "hex_ai.value_utils"), ("Player", "Winner")


Data = bytes | mmap.mmap


class Global(NamedTuple):
    """A name that the pickle mentioned and that the machine knows."""

    home: str
    name: str


class Member(NamedTuple):
    """A member of one of hex_ai's enums, e.g. ``Player`` with value 0 for BLUE."""

    enum: str
    value: object


class DType:
    """Element type of an array, a key of ITEM_BYTES or another one, and ``<`` or ``>`` for the order of its bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "<"


class Array:
    """A NumPy array as the pickle states it; sizes agree: ``len(data) == prod(shape) * item size``.

    Of an array of anything but numbers, of objects or text, the type is kept, and no contents.
    """

    __slots__ = ("data", "dtype", "fortran", "shape")

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.dtype, self.shape, self.fortran = "<f4", (), False

    def fill(self, shape: object, dtype: object, fortran: object, data: object) -> None:
        """Set the contents, once. Raises RefusedError when the parts do not fit together."""
        if self.data is not None or not isinstance(dtype, DType) or not isinstance(data, (bytes, list)):
            raise RefusedError("an array is stated in a way NumPy never writes")
        if dtype.code not in ITEM_BYTES:
            self.dtype, self.data = dtype.order + dtype.code, b""
            return
        if not isinstance(data, bytes):
            raise RefusedError("an array of numbers is stated by a list")
        if not isinstance(shape, tuple) or len(shape) > 4 or not all(_is_size(n) for n in shape):
            raise RefusedError(f"an array claims the shape {printable(type(shape).__name__)}")
        if math.prod(shape) * ITEM_BYTES[dtype.code] != len(data):
            raise RefusedError(f"an array claims the shape {printable(shape)} but holds {counted(len(data), 'byte')}")
        self.shape, self.dtype, self.fortran, self.data = shape, dtype.order + dtype.code, bool(fortran), data

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers."""
        return self.dtype[1:] in ITEM_BYTES


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class RefusedError(Exception):
    """The pickle asks for something no file of hex_ai asks for."""

    fix = "No training file of hex_ai has that: leave it out"


class _CutError(RefusedError):
    """The pickle ends before what it announces, as one does that was cut."""

    fix = "The file was cut or changed after it was written: fetch or make it again"


class Shortcut(Protocol):
    """Something that knows a faster way through dicts that look alike."""

    def leap(self, machine: Machine) -> bool:
        """Asked before each dict, ``machine.at`` being after its first byte: put something on the stack for it and
        move on to its end, or return False and change nothing.
        """

    def landed(self, machine: Machine, start: int) -> None:
        """Told after a dict was filled the slow way; its first byte is at ``start``."""

    def recover(self, machine: Machine, key: int) -> bool:
        """Asked for a memo entry that is not there: put it there if it lies in what was passed over."""


class LostError(Exception):
    """A pickle does what no pickler does around what a shortcut passed over: it must be read without."""


def loads(data: Data, *, where: str, shortcut: Shortcut | None = None, cuts: Sequence[int] = ()) -> object:
    """The object that a pickle describes, in dicts, lists, tuples, text, bytes, numbers, Array and Member.

    ``cuts``, ascending, are places that must lie between two opcodes; LostError is raised where one does not.

    Raises DataError naming the byte at which the pickle is damaged, or asks for what no training file needs, and
    LostError when ``shortcut`` must not be used for it.
    """
    machine = Machine(data, shortcut, cuts)
    try:
        with garbage_kept():
            return machine.run()
    except RefusedError as error:
        problem, fix = f"{error} (byte {machine.at:,} of the pickle)", error.fix
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, AttributeError, struct.error) as error:
        problem = f"the pickle makes no sense at byte {machine.at:,} of {len(data):,} ({_sense(error)})"
        fix = _CutError.fix
    if machine.at <= _OPCODE_BYTES and _is_prose(data):
        head = bytes(data[:_HEAD_BYTES])
        problem = f"holds text that begins with {printable(head.decode())}, not a pickle"
        fix = "Find out what the file is, or leave it out"
    raise DataError(problem, where=where, fix=fix)


def _sense(error: Exception) -> str:
    """What an error of the machine means to who wrote or fetched the file."""
    return next(words for kind, words in _SENSE.items() if isinstance(error, kind))


def _is_prose(data: Data) -> bool:
    """Whether a file is text: a pickle in letters, of protocol 0, has no blank so early and ends with a full stop."""
    head = bytes(data[:_HEAD_BYTES])
    in_letters = all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head)
    return in_letters and bool(head) and (b" " in head or bytes(data[-1:]) != pickle.STOP)


@contextmanager
def garbage_kept() -> Iterator[None]:
    """No garbage collection inside: among millions of new objects, all in use, it takes most of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


_MARK = object()
_NOT_SHARED = frozenset((list, dict, tuple, Array))
_SHARED_ITEMS = 16
"""Widest tuple that may stand in two places: looking through it each time takes time."""
_U2, _U4, _I4, _U8 = (struct.Struct(f).unpack_from for f in ("<H", "<I", "<i", "<Q"))
_F8 = struct.Struct(">d").unpack_from


class Machine:
    """One run over one pickle: a position, a stack and a memo."""

    __slots__ = (
        "apart",
        "at",
        "containers_left",
        "copies_left",
        "cut",
        "cuts",
        "data",
        "leaps",
        "memo",
        "memos",
        "shortcut",
        "stack",
        "starts",
    )

    def __init__(self, data: Data, shortcut: Shortcut | None = None, cuts: Sequence[int] = ()) -> None:
        self.data, self.at = data, 0
        self.cuts = [sys.maxsize, *reversed(cuts)]  # those still ahead, the next one last
        self.cut = self.cuts.pop()
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.memos = 0  # entries made, those inside a leap included
        self.shortcut, self.leaps = shortcut, 0
        self.starts: dict[int, int] = {}  # where the dict at a height of the stack began
        self.apart = 0  # behind the last opcode that few dicts hold
        self.containers_left = CONTAINERS_FLOOR + len(data) // BYTES_PER_CONTAINER
        self.copies_left = len(data)

    def run(self) -> object:
        """Execute everything and hand over what is left on the stack."""
        data, table = self.data, _TABLE
        stop = pickle.STOP[0]
        while (opcode := data[self.at]) != stop:
            if self.at >= self.cut:
                self.pass_cuts(self.at)
            self.at += 1
            table[opcode](self)
        self.pass_cuts(self.at)
        (result,) = self.stack
        if result is _MARK:
            raise IndexError
        return result

    def pass_cuts(self, at: int) -> None:
        """Leave behind a cut that is here. Raises LostError for one that lies further back, inside an opcode."""
        while self.cut <= at:
            if self.cut < at:
                raise LostError
            self.cut = self.cuts.pop()

    def leap_to(self, at: int, *, count: int) -> None:
        """Move on behind ``count`` dicts; who leaps looks at the cuts in between."""
        self.at = at
        self.leaps += count
        while self.cut < at:
            self.cut = self.cuts.pop()

    def step(self) -> None:
        """Execute one opcode."""
        self.at += 1
        _TABLE[self.data[self.at - 1]](self)

    def unknown(self) -> NoReturn:
        """Refuse an opcode that no training file has."""
        raise RefusedError(f"opcode {self.data[self.at - 1 : self.at]!r} reaches for more than data")

    # what follows an opcode ------------------------------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        start, self.at = self.at, self.at + count
        if self.at > len(self.data):
            self.at = start
            raise _CutError(
                f"{counted(count, 'byte', verb='is/are')} claimed where {len(self.data) - start:,} are left"
            )
        return self.data[start : self.at]

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _u2(self) -> int:
        self.at += 2
        return int(_U2(self.data, self.at - 2)[0])

    def _u4(self) -> int:
        self.at += 4
        return int(_U4(self.data, self.at - 4)[0])

    def _u8(self) -> int:
        self.at += 8
        return int(_U8(self.data, self.at - 8)[0])

    def _line(self, limit: int) -> str:
        end = self.data.find(b"\n", self.at, self.at + limit + 1)
        if end < 0:
            raise RefusedError(f"a line of text is longer than {counted(limit, 'character')}")
        line, self.at = self.data[self.at : end], end + 1
        return line.decode("ascii")

    def _count_container(self) -> None:
        self.containers_left -= 1
        if self.containers_left < 0:
            raise RefusedError("far more containers than data")

    # numbers and text ------------------------------------------------------------------------------------------------

    def _proto(self) -> None:
        if self._byte() > 5:
            raise RefusedError("a pickle protocol above 5")

    def _frame(self) -> None:
        size = self._u8()
        self.apart = self.at
        if size > len(self.data) - self.at:
            raise _CutError(f"a frame claims {counted(size, 'byte')} where {len(self.data) - self.at:,} are left")

    def _none(self) -> None:
        self.stack.append(None)

    def _true(self) -> None:
        self.stack.append(True)

    def _false(self) -> None:
        self.stack.append(False)

    def _binint(self) -> None:
        self.at += 4
        self.stack.append(_I4(self.data, self.at - 4)[0])

    def _binint1(self) -> None:
        self.stack.append(self.data[self.at])
        self.at += 1

    def _binint2(self) -> None:
        self.stack.append(self._u2())

    def _long1(self) -> None:
        self.stack.append(int.from_bytes(self._take(self._byte()), "little", signed=True))

    def _int_text(self) -> None:
        text = self._line(NUMBER_CHARS)
        self.stack.append({"00": False, "01": True}[text] if text in ("00", "01") else int(text))

    def _long_text(self) -> None:
        self.stack.append(int(self._line(NUMBER_CHARS).rstrip("L")))

    def _float_text(self) -> None:
        self.stack.append(float(self._line(NUMBER_CHARS)))

    def _binfloat(self) -> None:
        self.at += 8
        self.stack.append(_F8(self.data, self.at - 8)[0])

    def _short_text(self) -> None:
        self.apart = self.at
        self.stack.append(self._take(self._byte()).decode("utf-8", "surrogatepass"))

    def _text(self) -> None:
        self.stack.append(self._take(self._u4()).decode("utf-8", "surrogatepass"))

    def _long_unicode(self) -> None:
        self.stack.append(self._take(self._u8()).decode("utf-8", "surrogatepass"))

    def _unicode_line(self) -> None:
        if (end := self.data.find(b"\n", self.at)) < 0:
            raise IndexError
        line, self.at = self.data[self.at : end], end + 1
        self.stack.append(line.decode("raw-unicode-escape"))

    def _short_bytes(self) -> None:
        self.stack.append(self._take(self._byte()))

    def _bytes4(self) -> None:
        self.stack.append(self._take(self._u4()))

    def _bytes8(self) -> None:
        self.stack.append(self._take(self._u8()))

    # containers ------------------------------------------------------------------------------------------------------

    def _mark(self) -> None:
        self.stack.append(_MARK)

    def _above_mark(self) -> list[object]:
        stack, start = self.stack, len(self.stack) - 1
        while stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise IndexError
        items = stack[start + 1 :]
        del stack[start:]
        return items

    def _pop(self) -> None:
        self.stack.pop()

    def _pop_mark(self) -> None:
        self._above_mark()

    def _empty_list(self) -> None:
        self._count_container()
        self.stack.append([])

    def _list_of_mark(self) -> None:
        self._count_container()
        self.stack.append(self._above_mark())

    def _append(self) -> None:
        item = self.stack.pop()
        self._list().append(item)

    def _appends(self) -> None:
        items = self._above_mark()
        self._list().extend(items)

    def _list(self) -> list[object]:
        top = self.stack[-1]
        if type(top) is not list:
            raise TypeError
        return top

    def _empty_tuple(self) -> None:
        self.stack.append(())

    def _tuple_of_mark(self) -> None:
        self._count_container()
        self.stack.append(tuple(self._above_mark()))

    def _tuple1(self) -> None:
        self._last(1)

    def _tuple2(self) -> None:
        self._last(2)

    def _tuple3(self) -> None:
        self._last(3)

    def _last(self, count: int) -> None:
        self._count_container()
        stack = self.stack
        items = tuple(stack[-count:])
        if len(items) != count:
            raise IndexError
        del stack[-count:]
        stack.append(items)

    def _empty_dict(self) -> None:
        if self.shortcut is not None:
            if self.shortcut.leap(self):
                return
            self.starts[len(self.stack)] = self.at - 1
        self._count_container()
        self.stack.append({})

    def _dict_of_mark(self) -> None:
        self._count_container()
        items = self._above_mark()
        self.stack.append({})
        self._set(items)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self) -> None:
        self._set(self._above_mark())
        if self.shortcut is not None and (start := self.starts.pop(len(self.stack) - 1, None)) is not None:
            self.shortcut.landed(self, start)

    def _set(self, items: list[object]) -> None:
        top = self.stack[-1]
        if type(top) is not dict or len(items) % 2:
            raise LostError if self.leaps else TypeError
        keys = items[::2]
        # text hashes with a secret; numbers could be chosen to collide, and a dict of them takes quadratic time
        if not all(type(key) is str for key in keys):
            raise RefusedError("a dict has keys that are not text")
        top.update(zip(keys, items[1::2], strict=True))

    # the memo --------------------------------------------------------------------------------------------------------

    def _memoize(self) -> None:
        self._remember(self.memos)

    def _put_text(self) -> None:
        self._leave_shortcut()
        self._remember(int(self._line(NUMBER_CHARS)))

    def _leave_shortcut(self) -> None:
        # entries with numbers of their own choice could replace those that a leap relied on
        if self.leaps:
            raise LostError
        self.shortcut = None

    def _put1(self) -> None:
        self._leave_shortcut()
        self._remember(self._byte())

    def _put4(self) -> None:
        self._leave_shortcut()
        self._remember(self._u4())

    def _remember(self, key: int) -> None:
        self.containers_left -= 1
        if self.containers_left < 0:
            raise RefusedError("far more memo entries than data")
        self.memo[key] = self.stack[-1]
        self.memos += 1

    def _get_text(self) -> None:
        self._recall(int(self._line(NUMBER_CHARS)))

    def _get1(self) -> None:
        self._recall(self.data[self.at])
        self.at += 1

    def _get4(self) -> None:
        self._recall(self._u4())

    def _recall(self, key: int) -> None:
        if key not in self.memo and self.shortcut is not None and key < self.memos:
            self.shortcut.recover(self, key)
        value = self.memo[key]
        kind = type(value)
        # no container twice: a few bytes of references could stand for millions of examples
        if kind is list or kind is dict or (kind is tuple and not _may_be_shared(value)):  # type: ignore[arg-type]
            raise RefusedError(f"the same {kind.__name__} stands in two places")
        self.stack.append(value)

    # the eleven names ------------------------------------------------------------------------------------------------

    def _global_text(self) -> None:
        home = self._line(200)
        self.stack.append(_known(home, self._line(200)))

    def _stack_global(self) -> None:
        name, home = self.stack.pop(), self.stack.pop()
        self.stack.append(_known(home, name))

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Global or type(arguments) is not tuple:
            raise RefusedError("a call of something that is no known name")
        self._count_container()
        self.stack.append(self._make(function, arguments))

    def _make(self, function: Global, arguments: tuple[object, ...]) -> object:
        match function.name, arguments:
            case "_reconstruct", (Global(home="numpy", name="ndarray"), (0,), b"b"):
                return Array()
            case "dtype", (str(code), bool() | 0 | 1, bool() | 0 | 1) if code in ITEM_BYTES or _OTHER_TYPES.fullmatch(
                code
            ):
                return DType(code)
            case "_frombuffer", (data, dtype, shape, "C" | "F" as order):
                array = Array()
                array.fill(shape, dtype, order == "F", data)
                return array
            case "scalar", (DType() as dtype, bytes(data)):
                array = Array()
                array.fill((), dtype, False, data)
                return array
            case "encode", (str(text), "latin1" | "latin-1"):
                self.copies_left -= len(text)
                if self.copies_left < 0:
                    raise RefusedError("far more copies than data")
                return text.encode("latin-1")
            case ("Player" | "Winner") as name, (value,):
                return Member(name, value)
        raise RefusedError(f"{function.home}.{function.name} is given arguments that no training file gives")

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        match target, state:
            case Array(), (_, shape, dtype, fortran, data):
                target.fill(shape, dtype, fortran, data)
            case DType(), (int(), "<" | ">" | "|" | "=" as order, *_):
                target.order = ">" if order == ">" else "<"
            case _:
                raise RefusedError("a state is set on something that has none")


def _may_be_shared(items: tuple[object, ...]) -> bool:
    return len(items) <= _SHARED_ITEMS and not any(type(item) in _NOT_SHARED for item in items)


def _known(home: object, name: object) -> Global:
    if isinstance(home, str) and isinstance(name, str):
        if (_NUMPY_HOMES.get(home), name) in _NUMPY_NAMES or (home, name) == ("_codecs", "encode"):
            return Global(home, name)
        if home in _ENUM_HOMES and name in _ENUM_NAMES:
            return Global(home, name)
        raise RefusedError(f"it names {printable(home)}.{printable(name)}")
    raise RefusedError("it names something with what is no text")


_OPCODES = {
    pickle.PROTO: "_proto",
    pickle.FRAME: "_frame",
    pickle.NONE: "_none",
    pickle.NEWTRUE: "_true",
    pickle.NEWFALSE: "_false",
    pickle.BININT: "_binint",
    pickle.BININT1: "_binint1",
    pickle.BININT2: "_binint2",
    pickle.LONG1: "_long1",
    pickle.INT: "_int_text",
    pickle.LONG: "_long_text",
    pickle.FLOAT: "_float_text",
    pickle.BINFLOAT: "_binfloat",
    pickle.SHORT_BINUNICODE: "_short_text",
    pickle.BINUNICODE: "_text",
    pickle.BINUNICODE8: "_long_unicode",
    pickle.UNICODE: "_unicode_line",
    pickle.SHORT_BINBYTES: "_short_bytes",
    pickle.BINBYTES: "_bytes4",
    pickle.BINBYTES8: "_bytes8",
    pickle.BYTEARRAY8: "_bytes8",
    pickle.MARK: "_mark",
    pickle.POP: "_pop",
    pickle.POP_MARK: "_pop_mark",
    pickle.EMPTY_LIST: "_empty_list",
    pickle.LIST: "_list_of_mark",
    pickle.APPEND: "_append",
    pickle.APPENDS: "_appends",
    pickle.EMPTY_TUPLE: "_empty_tuple",
    pickle.TUPLE: "_tuple_of_mark",
    pickle.TUPLE1: "_tuple1",
    pickle.TUPLE2: "_tuple2",
    pickle.TUPLE3: "_tuple3",
    pickle.EMPTY_DICT: "_empty_dict",
    pickle.DICT: "_dict_of_mark",
    pickle.SETITEM: "_setitem",
    pickle.SETITEMS: "_setitems",
    pickle.MEMOIZE: "_memoize",
    pickle.PUT: "_put_text",
    pickle.BINPUT: "_put1",
    pickle.LONG_BINPUT: "_put4",
    pickle.GET: "_get_text",
    pickle.BINGET: "_get1",
    pickle.LONG_BINGET: "_get4",
    pickle.GLOBAL: "_global_text",
    pickle.STACK_GLOBAL: "_stack_global",
    pickle.REDUCE: "_reduce",
    pickle.BUILD: "_build",
}

_TABLE: list[Callable[[Machine], None]] = [Machine.unknown] * 256
for _opcode, _name in _OPCODES.items():
    _TABLE[_opcode[0]] = getattr(Machine, _name)
