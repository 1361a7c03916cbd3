from __future__ import annotations

import gzip
import os
import pickle
import struct
import sys
from enum import Enum
from types import ModuleType

import numpy as np
import pytest

from hexshards.conversion import random_files
from hexshards.conversion.pickles.machine import Array, Member, loads
from hexshards.errors import DataError
from hexshards.game import random_games

PROTOCOLS = range(6)

PLAIN = [
    None,
    True,
    False,
    *(0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63, -(2**63), 2**100),
    *(0.0, -0.0, 1.5, 1e300, float("inf"), float("-inf")),
    *("", "a", "naïve ⬡ 🂡 \ud800 \n\r\0\\ \x1a", "x" * 255, "x" * 256, "x" * 70_000),
    *(b"\x00\xff", b"y" * 255, b"y" * 256, b"y" * 70_000),
    *((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((), ((),))),
    *([], [[]], list(range(3000)), [["deep", [1, (2, [])]]]),
    *({}, {"a": 1}, {"a": {"b": [1, {"c": ()}]}}, {f"key {n}": n for n in range(2000)}),
]

ARRAYS = [
    np.zeros((2, 3, 3), dtype=np.float32),
    np.arange(6, dtype=np.int64).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    np.arange(5, dtype=">f8"),
    np.arange(5, dtype=">i2"),
    np.array([True, False]),
    np.arange(4, dtype=np.float16),
    np.array(7, dtype=np.uint32),
    np.float32(0.5),
    np.float64(-1.0),
    np.int16(-3),
]


def standard(data):
    return pickle.loads(data)  # noqa: TID251 - the twin, on bytes made in this file


def as_numpy(array):
    """What NumPy would have made of an Array."""
    flat = np.frombuffer(array.data, dtype=array.dtype.replace("b1", "?"))
    return flat.reshape(array.shape, order="F" if array.fortran else "C")


def assert_same(loaded, expected):
    """Equal in structure, type and value, an Array standing for NumPy's arrays and a Member for an Enum."""
    if isinstance(expected, (np.ndarray, np.generic)):
        assert isinstance(loaded, Array)
        # NumPy may turn the bytes of an array round as it loads it
        one, other = (a.astype(a.dtype.newbyteorder("=")) for a in (as_numpy(loaded), np.asarray(expected)))
        np.testing.assert_array_equal(one, other, strict=True)
    elif isinstance(expected, Enum):
        assert loaded == Member(type(expected).__name__, expected.value)
    elif isinstance(expected, dict):
        assert list(loaded) == list(expected)
        for key, value in expected.items():
            assert_same(loaded[key], value)
    elif isinstance(expected, (list, tuple)):
        assert type(loaded) is type(expected) and len(loaded) == len(expected)
        for one, other in zip(loaded, expected, strict=True):
            assert_same(one, other)
    else:
        assert type(loaded) is type(expected) and repr(loaded) == repr(expected)


@pytest.fixture
def hex_ai(monkeypatch):
    """What the standard pickle module needs in order to read and write hex_ai's enums."""
    for home in ("hex_ai.enums", "hex_ai.value_utils"):
        module = ModuleType(home)
        vars(module).update(Player=random_files.Player, Winner=random_files.Winner)
        monkeypatch.setitem(sys.modules, home, module)
    monkeypatch.setitem(sys.modules, "hex_ai", ModuleType("hex_ai"))


def one_game(side=5):
    return random_files.examples_of(random_games.play(1, side=side, seed=3)[0], game_id=(2, 7))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", PLAIN, ids=lambda value: f"{type(value).__name__}-{str(value)[:12]!a}")
def test_plain_data_is_what_the_standard_library_reads(value, protocol):
    data = pickle.dumps(value, protocol)
    assert_same(loads(data, where="here"), standard(data))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str}-{array.shape}")
def test_an_array_is_what_the_standard_library_reads_element_by_element(array, protocol):
    data = pickle.dumps({"one": array, "more": [array, array]}, protocol)
    assert_same(loads(data, where="here"), standard(data))


@pytest.mark.parametrize("value", [b"", np.zeros((0, 3), dtype=np.int8)], ids=["bytes", "array"])
def test_no_bytes_at_all_are_read_from_protocol_3_on_and_before_it_name_a_builtin(value):
    for protocol in (3, 4, 5):
        assert_same(loads(pickle.dumps(value, protocol), where="here"), value)
    for protocol in (0, 1, 2):
        with pytest.raises(DataError, match=r"it names __builtin__\.bytes"):
            loads(pickle.dumps(value, protocol), where="here")


@pytest.mark.parametrize("numpy_core", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_arrays_of_numpy_1_and_2_are_read_alike(protocol, numpy_core):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    data = pickle.dumps(array, protocol)
    assert data.count(b"numpy._core") + data.count(b"numpy.core") == 1
    for name in (b"numpy._core", b"numpy.core"):
        if name in data and name != numpy_core:
            tail = data[data.index(name) + len(name) :].split(b"\x94")[0].split(b"\n")[0]
            # a length stands before the name from protocol 4 on
            before = len(name + tail).to_bytes(1, "little") if protocol >= 4 else b""
            after = len(numpy_core + tail).to_bytes(1, "little") if protocol >= 4 else b""
            data = data.replace(before + name + tail, after + numpy_core + tail)
            if protocol >= 4:
                size = struct.unpack("<Q", data[3:11])[0] + len(numpy_core) - len(name)
                data = data[:3] + struct.pack("<Q", size) + data[11:]
    assert numpy_core in data
    assert_same(loads(data, where="here"), array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_examples_are_what_the_standard_library_reads(protocol, hex_ai):
    data = pickle.dumps({"examples": one_game(), "processed_at": "now"}, protocol)
    assert_same(loads(data, where="here"), standard(data))


def test_a_file_of_many_games_is_what_the_standard_library_reads(tmp_path, hex_ai):
    (path,) = random_files.write(tmp_path, games=20, side=7)
    data = gzip.decompress(path.read_bytes())
    assert_same(loads(data, where="here"), standard(data))


ENUM_NAMES = [(home, name) for home in ("hex_ai.enums", "hex_ai.value_utils") for name in ("Player", "Winner")]

FOREIGN_NAMES = [
    *(("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"), ("builtins", "eval")),
    *(("builtins", "getattr"), ("builtins", "print"), ("__main__", "x"), ("operator", "attrgetter")),
    *(("numpy", "memmap"), ("numpy", "load"), ("numpy", "fromfile"), ("numpy", "void"), ("numpy", "core")),
    *(("numpy.testing._private.utils", "runstring"), ("numpy", "ndarray.tofile"), ("numpy", "_reconstruct")),
    *(("numpy._core.multiarray", "fromfile"), ("numpy._core.multiarray", "ndarray"), ("numpy._core", "ndarray")),
    *(("numpy._core.numeric", "_reconstruct"), ("numpy._core.multiarray", "_frombuffer"), ("_codecs", "decode")),
    *(("codecs", "encode"), ("hex_ai.enums", "Piecee"), ("hex_ai.enums", "Player.__class__"), ("hex_ai", "Player")),
    *(("hex_ai.enums ", "Player"), ("", ""), ("copyreg", "_reconstructor"), ("torch", "load")),
]


def by_line(home, name):
    return b"c" + home.encode() + b"\n" + name.encode() + b"\n"


def by_stack(home, name):
    return b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (home, name)) + b"\x93"


@pytest.mark.parametrize("spell", [by_line, by_stack])
@pytest.mark.parametrize(("home", "name"), FOREIGN_NAMES)
def test_every_other_name_is_refused(home, name, spell):
    with pytest.raises(DataError, match="it names ") as refusal:
        loads(spell(home, name) + b".", where="file.pkl.gz")
    assert refusal.value.where == "file.pkl.gz"
    assert f"{home}.{name}" in refusal.value.problem


@pytest.mark.parametrize("spell", [by_line, by_stack])
@pytest.mark.parametrize(("home", "name"), ENUM_NAMES)
def test_an_enum_of_any_generation_becomes_a_member_of_our_own(home, name, spell):
    assert loads(spell(home, name) + b"K\x01\x85R.", where="here") == Member(name, 1)


def test_a_foreign_name_reaches_a_message_without_its_control_characters():
    with pytest.raises(DataError) as refusal:
        loads(by_stack("os\x1b[31m\n", "\x07" * 50) + b".", where="here")
    assert str(refusal.value).isprintable()


REACHING = {
    "INST": b"(ios\nsystem\n.",
    "OBJ": b"(" + by_line("numpy", "ndarray") + b"o.",
    "NEWOBJ": by_line("hex_ai.enums", "Player") + b")\x81.",
    "NEWOBJ_EX": by_line("hex_ai.enums", "Player") + b")}\x92.",
    "PERSID": b"Psome_id\n.",
    "BINPERSID": b"NQ.",
    "EXT1": b"\x82\x01.",
    "EXT2": b"\x83\x01\x00.",
    "EXT4": b"\x84\x01\x00\x00\x00.",
    "NEXT_BUFFER": b"\x97.",
    "READONLY_BUFFER": b"N\x98.",
    "DUP": b"]2\x86.",
    "EMPTY_SET": b"\x8f.",
    "FROZENSET": b"(\x91.",
    "STRING": b"S'text'\n.",
    "BINSTRING": b"T\x01\x00\x00\x00x.",
    "SHORT_BINSTRING": b"U\x01x.",
    "LONG4": b"\x8b\x01\x00\x00\x00\x01.",
    "unknown": b"\xff.",
}


@pytest.mark.parametrize("data", REACHING.values(), ids=REACHING)
def test_opcodes_that_reach_for_more_than_data_are_refused(data):
    with pytest.raises(DataError, match="reaches for more than data"):
        loads(data, where="here")


def test_calling_what_is_no_known_name_is_refused():
    for data in (b"N)R.", b"\x8c\x06system)R.", by_line("numpy", "dtype") + b"]R.", b"}}b.", b"K\x01}b."):
        with pytest.raises(DataError):
            loads(data, where="here")


RECONSTRUCT = by_line("numpy._core.multiarray", "_reconstruct")
NDARRAY, DTYPE = by_line("numpy", "ndarray"), by_line("numpy", "dtype")
FLOATS = DTYPE + b"\x8c\x02f4\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def array_of(shape, data, *, dtype=FLOATS, fortran=b"\x89"):
    """An ndarray with this state; shape, dtype and fortran as pickled, data as it is."""
    state = b"(K\x01" + shape + dtype + fortran + b"B" + struct.pack("<I", len(data)) + data + b"tb"
    return RECONSTRUCT + NDARRAY + b"K\x00\x85C\x01b\x87R" + state


def test_the_hand_made_array_is_one_that_numpy_reads():
    data = array_of(b"K\x02\x85", bytes(8)) + b"."
    assert_same(loads(data, where="here"), np.zeros(2, dtype=np.float32))
    assert_same(loads(data, where="here"), standard(data))


def whole_number(number):
    return b"\x8a\x10" + number.to_bytes(16, "little", signed=True)


ARRAY_LIES = {
    "reconstruct 64 GiB": RECONSTRUCT + NDARRAY + whole_number(2**36) + b"\x85C\x01b\x87R",
    "reconstruct 1 byte": RECONSTRUCT + NDARRAY + b"K\x01\x85C\x01b\x87R",
    "reconstruct without shape": RECONSTRUCT + NDARRAY + b")C\x01b\x87R",
    "reconstruct a dtype": RECONSTRUCT + DTYPE + b"K\x00\x85C\x01b\x87R",
    "reconstruct another kind": RECONSTRUCT + NDARRAY + b"K\x00\x85C\x01d\x87R",
    "one byte short": array_of(b"K\x02\x85", bytes(7)),
    "one byte over": array_of(b"K\x02\x85", bytes(9)),
    "64-bit overflow": array_of(whole_number(2**32) * 2 + b"\x86", b""),
    "negative shape": array_of(b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86", bytes(8)),
    "shape of a list": array_of(b"]", bytes(4)),
    "shape of floats": array_of(b"G?\xf0\x00\x00\x00\x00\x00\x00\x85", bytes(4)),
    "shape of bools": array_of(b"\x88\x85", bytes(4)),
    "five dimensions": array_of(b"(" + b"K\x01" * 5 + b"t", bytes(4)),
    "dtype of text": array_of(b"K\x01\x85", bytes(4), dtype=b"\x8c\x02f4"),
    "dtype None": array_of(b"K\x01\x85", bytes(4), dtype=b"N"),
    **{
        f"dtype {code}": array_of(b"K\x01\x85", bytes(8), dtype=FLOATS.replace(b"\x02f4", bytes([len(code)]) + code))
        for code in (b"i3", b"f4,f4", b"O", b"")
    },
    "data of text": RECONSTRUCT + NDARRAY + b"K\x00\x85C\x01b\x87R(K\x01K\x00\x85" + FLOATS + b"\x89\x8c\x00tb",
    "state set twice": array_of(b"K\x01\x85", bytes(4)) + b"(K\x01K\x01\x85" + FLOATS + b"\x89C\x04abcdtb",
    "scalar of 3 bytes": by_line("numpy._core.multiarray", "scalar") + FLOATS + b"C\x03abc\x86R",
    "scalar of an object": by_line("numpy._core.multiarray", "scalar") + b"NC\x04abcd\x86R",
    "frombuffer too short": by_line("numpy._core.numeric", "_frombuffer")
    + b"(C\x04abcd"
    + FLOATS
    + b"K\x02\x85\x8c\x01CtR",
    "frombuffer in no order": by_line("numpy._core.numeric", "_frombuffer")
    + b"(C\x04abcd"
    + FLOATS
    + b"K\x01\x85\x8c\x01AtR",
    "encode elsewhere": by_line("_codecs", "encode") + b"\x8c\x01x\x8c\x03zip\x86R",
}


@pytest.mark.parametrize("data", ARRAY_LIES.values(), ids=ARRAY_LIES)
def test_an_array_stated_in_a_way_numpy_never_writes_is_refused(data):
    with pytest.raises(DataError):
        loads(data + b".", where="here")


PICKLED_TYPES = {"O": "O8"}
"""Names that a pickle gives to types and that are not those of ``dtype.str``."""


@pytest.mark.parametrize(
    "array",
    [
        np.array([1, "a", None, [2]], dtype=object),
        np.array(["a", "bc"]),
        np.array([b"a"]),
        np.zeros(2, dtype=complex),
        np.array(["2026-01-01"], dtype="M8[D]"),
        np.zeros(2, dtype=[("a", "f4"), ("b", "i2")]),
        np.array(["a"])[0],
    ],
    ids=lambda array: array.dtype.str,
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_of_an_array_of_anything_but_numbers_only_the_type_is_known(array, protocol):
    loaded, after = loads(pickle.dumps((array, 1), protocol), where="here")
    assert (loaded.dtype[1:3], loaded.data, loaded.shape, loaded.numeric, after) == (
        PICKLED_TYPES.get(array.dtype.char, array.dtype.str[1:3]),
        b"",
        (),
        False,
        1,
    )


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"Dear reader, this is text", "holds text that begins with Dear reader, this is text, not a pickle"),
        (b"#13,l8d10i4f9 b\n", "holds text that begins with #13,l8d10i4f9 b.*, not a pickle"),
        (b"hello\n", "holds text that begins with hello.*, not a pickle"),
        (b'{"examples": []}', r'holds text that begins with \{"examples": \[\]\}, not a pickle'),
        (
            pickle.dumps([1, 2], protocol=2)[:-1],
            "the pickle makes no sense at byte .* of .* \\(something is missing there\\)",
        ),
        (b"\x80\x04h\x05.", "\\(it refers to what it never stated\\)"),
        (b"\x80\x04K\x01K\x02s.", "\\(something is missing there\\)"),
        (b"\x80\x04K\x01K\x02K\x03s.", "\\(the parts do not fit together\\)"),
        (b"\x80\x04I1x\n.", "\\(a text or number is malformed\\)"),
        (b"\x80\x04\x8c\x01\xff.", "\\(a text is malformed\\)"),
        (b"\x80\x04J\x01", "\\(it ends too early\\)"),
        (pickle.dumps([1, 2], protocol=4)[:-1], "a frame claims .* The file was cut or changed"),
        (b"\x80\x04\x8c\x09abc", "9 bytes are claimed where 3 are left .* The file was cut or changed"),
        (b"cposix\nsystem\n(S'echo no'\ntR.", "it names posix.system"),
    ],
)
def test_what_is_no_pickle_is_refused_in_words_that_say_what_it_is(data, sentence):
    with pytest.raises(DataError, match=sentence):
        loads(data, where="here")


HUGE = struct.pack("<Q", 1 << 40)

# each would take gigabytes, minutes or the whole C stack where a claim is believed or a reference is followed
BOMBS = {
    "BINBYTES8 of 1 TiB": b"\x8e" + HUGE + b"abc.",
    "BINBYTES of 4 GiB": b"B\xf0\xff\xff\xffabc.",
    "BYTEARRAY8 of 1 TiB": b"\x96" + HUGE + b"abc.",
    "BINUNICODE8 of 1 TiB": b"\x8d" + HUGE + b"abc.",
    "BINUNICODE of 4 GiB": b"X\xff\xff\xff\xffabc.",
    "FRAME of 1 TiB": b"\x80\x04\x95" + HUGE + b"N.",
    "LONG4 of 2 GiB": b"\x8b\xff\xff\xff\x7f\x01.",
    "LONG of 2 million digits": b"L" + b"7" * 2_000_000 + b"L\n.",
    "INT of 2 million digits": b"I" + b"7" * 2_000_000 + b"\n.",
    "PUT of 2 million digits": b"Np" + b"7" * 2_000_000 + b"\n.",
    "64 arrays of 1 GiB": b"(" + (RECONSTRUCT + NDARRAY + b"J\x00\x00\x00\x40\x85C\x01b\x87R") * 64 + b"l.",
    "laughs by lists": b"]\x94" + b"".join(b"]\x94(h%ch%ce" % (n, n) for n in range(200)) + b".",
    "laughs by dicts": b"}\x94" + b"".join(b"}\x94(\x8c\x01ah%c\x8c\x01bh%cu" % (n, n) for n in range(200)) + b".",
    "laughs by tuples": b")\x94" + b"".join(b"h%ch%c\x86\x94" % (n, n) for n in range(200)) + b".",
    "one list 2 million times": b"]]q\x000(" + b"h\x00" * 2_000_000 + b"e.",
    "one dict 2 million times": b"]}q\x000(" + b"h\x00" * 2_000_000 + b"e.",
    "4 million lists": b"(" + b"]" * 4_000_000 + b"l.",
    "4 million dicts": b"(" + b"}" * 4_000_000 + b"l.",
    "4 million tuples": b"(N" + b"\x85" * 4_000_000 + b"l.",
    "10 million copies of 60 KB": b"(" + by_line("_codecs", "encode") + b"q\x01X`\xea\x00\x00" + b"a" * 60_000
    + b"q\x02\x8c\x06latin1q\x03" + b"h\x01h\x02h\x03\x86R" * 2_000_000 + b"l.",
    "a name of nested lists": b"]" * 200_000 + b"a" * 199_999 + b"\x8c\x01x\x93.",
}  # fmt: skip

HARMLESS = {
    "memo index 4 billion": b"Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.",
    "memo index 4 billion in text": b"Np4294967295\n0g4294967295\n.",
    "a million numbers": b"(" + b"K\x07" * 1_000_000 + b"t.",
    "200,000 nested lists": b"]" * 200_000 + b"a" * 199_999 + b".",
    "200,000 nested tuples": b")" + b"\x85" * 200_000 + b".",
}

WIDE = {"a million looks at 100,000 entries": b"(" + b"N" * 100_000 + b"t\x94" + b"h\x000" * 1_000_000 + b"."}

MEASURE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import test_pickles
verdicts = {}
for name, data in getattr(test_pickles, sys.argv[2]).items():
    try:
        test_pickles.loads(data, where="here")
        verdicts[name] = "loaded"
    except test_pickles.DataError:
        verdicts[name] = "refused"
    except Exception as error:
        verdicts[name] = type(error).__name__
print(json.dumps(verdicts))
"""

HERE = os.path.dirname(__file__)


def test_bombs_are_refused_in_bounded_memory(small_machine):
    assert small_machine(MEASURE, HERE, "BOMBS") == dict.fromkeys(BOMBS, "refused")


def test_great_claims_that_cost_nothing_are_let_be(small_machine):
    assert small_machine(MEASURE, HERE, "HARMLESS") == dict.fromkeys(HARMLESS, "loaded")


def test_naming_a_wide_tuple_again_and_again_ends(small_machine):
    assert small_machine(MEASURE, HERE, "WIDE")


@pytest.mark.parametrize("opcode", ["B", "X", "C", "\x8c", "\x8a"])
def test_a_claim_of_one_byte_more_than_there_is_is_refused_as_that(opcode):
    size = struct.pack("<I" if opcode in "BX" else "B", 4)
    claim = opcode.encode("latin-1") + size
    with pytest.raises(DataError, match="4 bytes are claimed where 3 are left"):
        loads(claim + b"abc", where="here")


@pytest.mark.parametrize("opcode", [b"I", b"L", b"F"])
def test_a_number_in_text_has_64_characters_at_most(opcode):
    assert loads(opcode + b"1" * 64 + b"\n.", where="here") == pytest.approx(int("1" * 64))
    with pytest.raises(DataError, match="a line of text is longer than 64 characters"):
        loads(opcode + b"1" * 65 + b"\n.", where="here")


class OnLoad:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_that_a_pickle_names_is_run(protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = [
        OnLoad(os.system, "touch PWNED"),
        OnLoad(np.memmap, "PWNED", "uint8", "w+", 0, (1,)),
        OnLoad(open, "PWNED", "w"),
        OnLoad(exec, "open('PWNED', 'w')"),
    ]
    for call in calls:
        with pytest.raises(DataError, match="it names"):
            loads(pickle.dumps([1, {"policy": call}], protocol), where="here")
    assert list(tmp_path.iterdir()) == []
    standard(pickle.dumps(calls[0], protocol))
    assert (tmp_path / "PWNED").exists(), "the payload would not have run anyway"


def small_pickle():
    """One example in every way of pickling it that a file has used."""
    return [pickle.dumps({"examples": one_game(side=3)[:2]}, protocol) for protocol in (2, 4, 5)]


def test_a_pickle_cut_at_any_byte_is_a_data_error(hex_ai):
    for data in small_pickle():
        loads(data, where="here")
        for end in range(len(data)):
            with pytest.raises(DataError) as damage:
                loads(data[:end], where="here")
            assert "byte" in damage.value.problem


def test_a_pickle_with_any_byte_changed_loads_or_is_a_data_error(hex_ai):
    random = np.random.Generator(np.random.Philox(5))
    refused = 0
    for data in small_pickle():
        for at, byte in zip(random.integers(len(data), size=1500), random.integers(256, size=1500), strict=True):
            damaged = bytearray(data)
            damaged[at] = byte
            try:
                loads(bytes(damaged), where="here")
            except DataError:
                refused += 1
    assert refused > 1000


@pytest.mark.parametrize(
    "data", [b"", b".", b"NN.", b"(.", b"\x80\x06N.", b"N", b"\xff\xff", b"0.", b"1.", b"l.", b"K."]
)
def test_what_is_no_pickle_is_a_data_error(data):
    with pytest.raises(DataError):
        loads(data, where="here")


@pytest.mark.parametrize("key", [b"K\x01", b"N", b")", b"C\x01a", b"G?\xf0\x00\x00\x00\x00\x00\x00"])
def test_a_dict_with_keys_that_are_not_text_is_refused(key):
    for data in (b"}" + key + b"Ns.", b"}(" + key + b"Nu.", b"(" + key + b"Nd."):
        with pytest.raises(DataError, match="keys that are not text"):
            loads(data, where="here")


@pytest.mark.parametrize("shared", [[1], {"a": 1}, ([1],), ({},), (np.zeros(2),)])
def test_a_container_that_stands_in_two_places_is_refused(shared):
    with pytest.raises(DataError, match="stands in two places"):
        loads(pickle.dumps([shared, shared]), where="here")


@pytest.mark.parametrize("shared", ["text", b"bytes", (1, 2), 2**70, ("a", None, 1.5)])
def test_what_cannot_hold_a_container_may_stand_in_many_places(shared):
    assert loads(pickle.dumps([shared] * 100), where="here") == [shared] * 100
