"""A pickle becomes plain data, and nothing that it names is ever imported or called.

A small machine for the opcodes that hex_ai's files use, over bytes already in memory. It knows eleven globals by name
(``hex_ai`` enums and what NumPy's arrays are rebuilt with) and builds values of its own for them; every other name,
and every opcode that would reach for a class, an extension or a persistent object, refuses the file. A length is
compared with what is left before anything is made, keys of dicts are text, and containers, memo entries and copied
bytes are counted against budgets that follow the size of the input, so memory and time are linear in it.

Opcodes: https://docs.python.org/3/library/pickletools.html, protocols 0 to 5.
"""

from __future__ import annotations

import math
import pickle
import struct
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from hexshards.errors import DataError, printable

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
"""Element types that an array may have, and their sizes."""

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


class Global(NamedTuple):
    """A name that the pickle mentioned and that the machine knows."""

    home: str
    name: str


class Member(NamedTuple):
    """A member of one of hex_ai's enums, e.g. ``Player`` with value 0 for BLUE."""

    enum: str
    value: object


class DType:
    """Element type of an array: a key of ITEM_BYTES, and ``<`` or ``>`` for the order of its bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "<"


class Array:
    """A NumPy array as the pickle states it; sizes agree: ``len(data) == prod(shape) * item size``."""

    __slots__ = ("data", "dtype", "fortran", "shape")

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.dtype, self.shape, self.fortran = "<f4", (), False

    def fill(self, shape: object, dtype: object, fortran: object, data: object) -> None:
        """Set the contents, once. Raises _Refused when the parts do not fit together."""
        if self.data is not None or not isinstance(dtype, DType) or not isinstance(data, (bytes, bytearray)):
            raise _Refused("an array is stated in a way NumPy never writes")
        if not isinstance(shape, tuple) or len(shape) > 4 or not all(type(n) is int and n >= 0 for n in shape):
            raise _Refused(f"an array claims the shape {printable(type(shape).__name__)}")
        if math.prod(shape) * ITEM_BYTES[dtype.code] != len(data):
            raise _Refused(f"an array claims the shape {printable(shape)} but holds {len(data):,} bytes")
        self.shape, self.dtype, self.fortran, self.data = shape, dtype.order + dtype.code, bool(fortran), bytes(data)


class _Refused(Exception):
    """The pickle asks for something no file of hex_ai asks for."""


def loads(data: bytes, *, where: str) -> object:
    """The object that a pickle describes, in dicts, lists, tuples, text, bytes, numbers, Array and Member.

    Raises DataError naming the byte at which the pickle is damaged, or asks for what no training file needs.
    """
    machine = _Machine(data)
    try:
        return machine.run()
    except _Refused as error:
        problem, fix = (
            f"{error} (byte {machine.at:,} of the pickle)",
            "No training file of hex_ai has that: leave it out",
        )
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, AttributeError, struct.error) as error:
        problem = f"the pickle is damaged at byte {machine.at:,} of {len(data):,} ({type(error).__name__})"
        fix = "The file was cut or changed after it was written: make it again"
    raise DataError(problem, where=where, fix=fix)


_MARK = object()
_NOT_SHARED = frozenset((list, dict, tuple, Array))
_U2, _U4, _I4, _U8 = (struct.Struct(f).unpack_from for f in ("<H", "<I", "<i", "<Q"))
_F8 = struct.Struct(">d").unpack_from


class _Machine:
    """One run over one pickle: a position, a stack and a memo."""

    __slots__ = ("at", "containers_left", "copies_left", "data", "memo", "stack", "table")

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.containers_left = CONTAINERS_FLOOR + len(data) // BYTES_PER_CONTAINER
        self.copies_left = len(data)
        self.table: list[Callable[[], None]] = [self._unknown] * 256
        for opcode, name in _OPCODES.items():
            self.table[opcode[0]] = getattr(self, name)

    def run(self) -> object:
        data, table = self.data, self.table
        stop = pickle.STOP[0]
        while (opcode := data[self.at]) != stop:
            self.at += 1
            table[opcode]()
        (result,) = self.stack
        return result

    def _unknown(self) -> NoReturn:
        raise _Refused(f"opcode {self.data[self.at - 1 : self.at]!r} reaches for more than data")

    # what follows an opcode ------------------------------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        start, self.at = self.at, self.at + count
        if self.at > len(self.data):
            self.at = start
            raise _Refused(f"{count:,} bytes are claimed where {len(self.data) - start:,} are left")
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
            raise _Refused(f"a line of text is longer than {limit} characters")
        line, self.at = self.data[self.at : end], end + 1
        return line.decode("ascii")

    def _count_container(self) -> None:
        self.containers_left -= 1
        if self.containers_left < 0:
            raise _Refused("far more containers than data")

    # numbers and text ------------------------------------------------------------------------------------------------

    def proto(self) -> None:
        if self._byte() > 5:
            raise _Refused("a pickle protocol above 5")

    def frame(self) -> None:
        size = self._u8()
        if size > len(self.data) - self.at:
            raise _Refused(f"a frame claims {size:,} bytes where {len(self.data) - self.at:,} are left")

    def none(self) -> None:
        self.stack.append(None)

    def true(self) -> None:
        self.stack.append(True)

    def false(self) -> None:
        self.stack.append(False)

    def binint(self) -> None:
        self.at += 4
        self.stack.append(_I4(self.data, self.at - 4)[0])

    def binint1(self) -> None:
        self.stack.append(self.data[self.at])
        self.at += 1

    def binint2(self) -> None:
        self.stack.append(self._u2())

    def long1(self) -> None:
        self.stack.append(int.from_bytes(self._take(self._byte()), "little", signed=True))

    def int_text(self) -> None:
        text = self._line(NUMBER_CHARS)
        self.stack.append({"00": False, "01": True}[text] if text in ("00", "01") else int(text))

    def long_text(self) -> None:
        self.stack.append(int(self._line(NUMBER_CHARS).rstrip("L")))

    def float_text(self) -> None:
        self.stack.append(float(self._line(NUMBER_CHARS)))

    def binfloat(self) -> None:
        self.at += 8
        self.stack.append(_F8(self.data, self.at - 8)[0])

    def short_text(self) -> None:
        self.stack.append(self._take(self._byte()).decode("utf-8", "surrogatepass"))

    def text(self) -> None:
        self.stack.append(self._take(self._u4()).decode("utf-8", "surrogatepass"))

    def long_unicode(self) -> None:
        self.stack.append(self._take(self._u8()).decode("utf-8", "surrogatepass"))

    def unicode_line(self) -> None:
        end = self.data.index(b"\n", self.at)
        line, self.at = self.data[self.at : end], end + 1
        self.stack.append(line.decode("raw-unicode-escape"))

    def short_bytes(self) -> None:
        self.stack.append(self._take(self._byte()))

    def bytes4(self) -> None:
        self.stack.append(self._take(self._u4()))

    def bytes8(self) -> None:
        self.stack.append(self._take(self._u8()))

    # containers ------------------------------------------------------------------------------------------------------

    def mark(self) -> None:
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

    def pop(self) -> None:
        self.stack.pop()

    def pop_mark(self) -> None:
        self._above_mark()

    def empty_list(self) -> None:
        self._count_container()
        self.stack.append([])

    def list_of_mark(self) -> None:
        self._count_container()
        self.stack.append(self._above_mark())

    def append(self) -> None:
        item = self.stack.pop()
        self._list().append(item)

    def appends(self) -> None:
        items = self._above_mark()
        self._list().extend(items)

    def _list(self) -> list[object]:
        top = self.stack[-1]
        if type(top) is not list:
            raise TypeError
        return top

    def empty_tuple(self) -> None:
        self.stack.append(())

    def tuple_of_mark(self) -> None:
        self._count_container()
        self.stack.append(tuple(self._above_mark()))

    def tuple1(self) -> None:
        self._last(1)

    def tuple2(self) -> None:
        self._last(2)

    def tuple3(self) -> None:
        self._last(3)

    def _last(self, count: int) -> None:
        self._count_container()
        stack = self.stack
        items = tuple(stack[-count:])
        if len(items) != count:
            raise IndexError
        del stack[-count:]
        stack.append(items)

    def empty_dict(self) -> None:
        self._count_container()
        self.stack.append({})

    def dict_of_mark(self) -> None:
        self._count_container()
        items = self._above_mark()
        self.stack.append({})
        self._set(items)

    def setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def setitems(self) -> None:
        self._set(self._above_mark())

    def _set(self, items: list[object]) -> None:
        top = self.stack[-1]
        if type(top) is not dict or len(items) % 2:
            raise TypeError
        keys = items[::2]
        # text hashes with a secret; numbers could be chosen to collide, and a dict of them takes quadratic time
        if not all(type(key) is str for key in keys):
            raise _Refused("a dict has keys that are not text")
        top.update(zip(keys, items[1::2], strict=True))

    # the memo --------------------------------------------------------------------------------------------------------

    def memoize(self) -> None:
        self._remember(len(self.memo))

    def put_text(self) -> None:
        self._remember(int(self._line(NUMBER_CHARS)))

    def put1(self) -> None:
        self._remember(self._byte())

    def put4(self) -> None:
        self._remember(self._u4())

    def _remember(self, key: int) -> None:
        self.containers_left -= 1
        if self.containers_left < 0:
            raise _Refused("far more memo entries than data")
        self.memo[key] = self.stack[-1]

    def get_text(self) -> None:
        self._recall(int(self._line(NUMBER_CHARS)))

    def get1(self) -> None:
        self._recall(self.data[self.at])
        self.at += 1

    def get4(self) -> None:
        self._recall(self._u4())

    def _recall(self, key: int) -> None:
        value = self.memo[key]
        kind = type(value)
        # no container twice: a few bytes of references could stand for millions of examples
        if kind is list or kind is dict or (kind is tuple and any(type(v) in _NOT_SHARED for v in value)):  # type: ignore[attr-defined]
            raise _Refused(f"the same {kind.__name__} stands in two places")
        self.stack.append(value)

    # the eleven names ------------------------------------------------------------------------------------------------

    def global_text(self) -> None:
        home = self._line(200)
        self.stack.append(_known(home, self._line(200)))

    def stack_global(self) -> None:
        name, home = self.stack.pop(), self.stack.pop()
        self.stack.append(_known(home, name))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Global or type(arguments) is not tuple:
            raise _Refused("a call of something that is no known name")
        self._count_container()
        self.stack.append(self._make(function, arguments))

    def _make(self, function: Global, arguments: tuple[object, ...]) -> object:
        match function.name, arguments:
            case "_reconstruct", (Global(home="numpy", name="ndarray"), (0,), b"b"):
                return Array()
            case "dtype", (str(code), bool() | 0 | 1, bool() | 0 | 1) if code in ITEM_BYTES:
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
                    raise _Refused("far more copies than data")
                return text.encode("latin-1")
            case ("Player" | "Winner") as name, (value,):
                return Member(name, value)
        raise _Refused(f"{function.home}.{function.name} is given arguments that no training file gives")

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        match target, state:
            case Array(), (_, shape, dtype, fortran, data):
                target.fill(shape, dtype, fortran, data)
            case DType(), (int(), "<" | ">" | "|" | "=" as order, *_):
                target.order = ">" if order == ">" else "<"
            case _:
                raise _Refused("a state is set on something that has none")


def _known(home: object, name: object) -> Global:
    if isinstance(home, str) and isinstance(name, str):
        if (_NUMPY_HOMES.get(home), name) in _NUMPY_NAMES or (home, name) == ("_codecs", "encode"):
            return Global(home, name)
        if home in _ENUM_HOMES and name in _ENUM_NAMES:
            return Global(home, name)
    raise _Refused(f"it names {printable(home)}.{printable(name)}")


_OPCODES = {
    pickle.PROTO: "proto",
    pickle.FRAME: "frame",
    pickle.NONE: "none",
    pickle.NEWTRUE: "true",
    pickle.NEWFALSE: "false",
    pickle.BININT: "binint",
    pickle.BININT1: "binint1",
    pickle.BININT2: "binint2",
    pickle.LONG1: "long1",
    pickle.INT: "int_text",
    pickle.LONG: "long_text",
    pickle.FLOAT: "float_text",
    pickle.BINFLOAT: "binfloat",
    pickle.SHORT_BINUNICODE: "short_text",
    pickle.BINUNICODE: "text",
    pickle.BINUNICODE8: "long_unicode",
    pickle.UNICODE: "unicode_line",
    pickle.SHORT_BINBYTES: "short_bytes",
    pickle.BINBYTES: "bytes4",
    pickle.BINBYTES8: "bytes8",
    pickle.BYTEARRAY8: "bytes8",
    pickle.MARK: "mark",
    pickle.POP: "pop",
    pickle.POP_MARK: "pop_mark",
    pickle.EMPTY_LIST: "empty_list",
    pickle.LIST: "list_of_mark",
    pickle.APPEND: "append",
    pickle.APPENDS: "appends",
    pickle.EMPTY_TUPLE: "empty_tuple",
    pickle.TUPLE: "tuple_of_mark",
    pickle.TUPLE1: "tuple1",
    pickle.TUPLE2: "tuple2",
    pickle.TUPLE3: "tuple3",
    pickle.EMPTY_DICT: "empty_dict",
    pickle.DICT: "dict_of_mark",
    pickle.SETITEM: "setitem",
    pickle.SETITEMS: "setitems",
    pickle.MEMOIZE: "memoize",
    pickle.PUT: "put_text",
    pickle.BINPUT: "put1",
    pickle.LONG_BINPUT: "put4",
    pickle.GET: "get_text",
    pickle.BINGET: "get1",
    pickle.LONG_BINGET: "get4",
    pickle.GLOBAL: "global_text",
    pickle.STACK_GLOBAL: "stack_global",
    pickle.REDUCE: "reduce",
    pickle.BUILD: "build",
}
