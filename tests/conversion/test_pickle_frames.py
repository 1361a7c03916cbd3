from __future__ import annotations

import gzip
import pickle
import pickletools
from itertools import pairwise

import numpy as np
import pytest
from helpers.small_data import CUT, processed

from hexshards.conversion.convert import convert
from hexshards.conversion.pickles import frames, scanner
from hexshards.conversion.pickles.frames import Unframed
from hexshards.conversion.pickles.machine import loads
from hexshards.conversion.pickles.scanner import SimilarDicts, load_records
from hexshards.conversion.random_files import examples_of
from hexshards.converters.processed import ProcessedFiles
from hexshards.errors import DataError
from hexshards.game.random_games import play


@pytest.fixture(autouse=True)
def small_files_are_learnt_from(monkeypatch):
    """Files of few examples take the way of many."""
    monkeypatch.setattr(scanner, "LESSON_DICTS", 0)


def examples(*, side=3, games=8):
    """Examples with players as numbers and winners as text: no enum of hex_ai is needed to pickle them."""
    every = play(games, side=side, seed=3)
    made = [e for line, game in enumerate(every, start=1) for e in examples_of(game, game_id=(0, line))]
    for example in made:
        example["player_to_move"] = example["player_to_move"].value
        example["metadata"]["winner"] = example["metadata"]["winner"].name
    return made


def plainly(protocol=4):
    """A pickle without frames, as the standard library's pickler would write it if it made none."""
    data = pickle.dumps({"examples": examples(), "source_file": "x"}, protocol)
    return b"".join(opcodes_of(data, but="FRAME"))


def opcodes_of(data, *, but):
    places = [(at, op.name) for op, _, at in pickletools.genops(data)]
    ends = [*(at for at, _ in places[1:]), len(data)]
    return [data[at:end] for (at, name), end in zip(places, ends, strict=True) if name != but]


def framed(data, places, *, last=0):
    """The same with frames that begin behind the protocol and at places; the last claims so many bytes too many."""
    edges = [2, *sorted(places), len(data)]
    parts = [data[:2]]
    for start, end in pairwise(edges):
        size = end - start + (last if end == len(data) else 0)
        parts += [b"\x95", size.to_bytes(8, "little"), data[start:end]]
    return b"".join(parts)


def outcome(data):
    try:
        chunks = list(ProcessedFiles().read(gzip.compress(data, compresslevel=0), name="a", where="a"))
    except DataError as error:
        return str(error)
    (chunk,) = chunks
    return {name: column.tolist() for name, column in chunk.positions.columns().items()}, chunk.sources, chunk.rejects


def records(data):
    return load_records(Unframed([data], expected_bytes=len(data)), where="a", key="board")["examples"]


def pieces(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 7, 9, 4096, 1 << 20])
@pytest.mark.parametrize("expected_bytes", [0, 1 << 20])
def test_frames_are_taken_out_and_can_be_put_back_however_the_pickle_comes(size, expected_bytes):
    data = pickle.dumps({"examples": examples(games=100), "source_file": "x"}, 4)
    assert data.count(b"\x95") >= 3
    without = Unframed(pieces(data, size), expected_bytes=expected_bytes)
    assert without.sound
    assert without.data[: without.size] == b"".join(opcodes_of(data, but="FRAME"))
    assert without.whole() == data


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\x80\x04", b"\x80\x04N.", b"\x80\x04\x95", b"N.", b"\x80\x04\x95\0\0"]
)
def test_what_has_no_frames_is_left_as_it_is(data):
    without = Unframed([data], expected_bytes=0)
    assert (without.data[: without.size], without.whole(), without.cuts) == (data, data, [])


def test_frames_between_any_opcodes_change_nothing():
    data = plainly()
    whole = outcome(data)
    starts = np.cumsum([len(part) for part in opcodes_of(data, but="FRAME")])[:-1].tolist()
    random = np.random.Generator(np.random.Philox(1))
    for count in (1, 5, 15):
        for _ in range(12):
            assert outcome(framed(data, random.choice(starts[1:], count, replace=False).tolist())) == whole


def test_a_frame_inside_an_opcode_is_what_the_opcode_holds():
    data = plainly()
    random = np.random.Generator(np.random.Philox(2))
    same = 0
    for _ in range(150):
        cut = framed(data, random.integers(3, len(data), 3).tolist())
        whole = Unframed([cut], expected_bytes=0)
        try:
            plain = loads(cut, where="a")
        except DataError as error:
            assert outcome(cut) == str(error)
        else:
            loaded = load_records(whole, where="a", key="board")
            same += not isinstance(loaded["examples"][-1], SimilarDicts)
            assert len(plain["examples"]) == sum(
                len(e) if isinstance(e, SimilarDicts) else 1 for e in loaded["examples"]
            )
    assert same


def test_a_last_frame_that_claims_more_than_there_is_refuses_the_file():
    data = plainly()
    assert isinstance(outcome(framed(data, [], last=0)), tuple)
    assert "a frame claims" in outcome(framed(data, [], last=1))


def test_a_pickle_that_was_left_gives_its_memory_to_the_next_and_nothing_of_what_it_held():
    long, short = (pickle.dumps(bytes(range(1, 256)) * times, 4) for times in (900, 500))
    frames.let_go()
    with Unframed([long], expected_bytes=len(long)) as first:
        memory = first.data
    with Unframed([short], expected_bytes=0) as second:
        assert second.data is memory
        assert (second.whole(), len(second.data), second.data[second.size]) == (short, second.size + 1, 0)
        with Unframed([long], expected_bytes=0) as third:  # while the second one is in use
            assert third.data is not memory
            assert (second.whole(), third.whole()) == (short, long)


def test_memory_that_somebody_still_looks_into_is_not_used_again():
    data = pickle.dumps(b"x" * 5000, 4)
    with Unframed([data], expected_bytes=0) as left:
        seen = np.frombuffer(left.data, dtype=np.uint8)
    before = seen.tobytes()
    with Unframed([bytes(len(data))], expected_bytes=0) as other:
        assert other.whole() == bytes(len(data))
    assert seen.tobytes() == before


def test_frames_without_number_are_not_all_remembered():
    data = b"\x80\x04" + (b"\x95" + bytes(8)) * 100_000 + b"N."
    without = Unframed([data], expected_bytes=len(data))
    assert len(without.cuts) < 1000
    assert without.whole() == data
    assert load_records(without, where="a", key="board") is None


def test_nearly_all_examples_of_a_file_are_found_alike():
    every = examples(side=13, games=30)
    data = pickle.dumps({"examples": every, "source_file": "x"}, 4)
    assert len(data) > 5 << 20  # more than is looked through at once
    loaded = load_records(Unframed(pieces(data, 1 << 16), expected_bytes=len(data)), where="a", key="board")["examples"]
    assert sum(len(e) if isinstance(e, SimilarDicts) else 1 for e in loaded) == len(every)
    assert sum(not isinstance(e, SimilarDicts) for e in loaded) < 40


@pytest.mark.parametrize("games", [1, 3])
def test_a_file_too_small_to_learn_from_is_read_as_if_it_were_learnt_from(monkeypatch, games):
    data = pickle.dumps({"examples": examples(games=games), "source_file": "x"}, 4)
    learnt = outcome(data)
    assert any(isinstance(each, SimilarDicts) for each in records(data))
    monkeypatch.setattr(scanner, "LESSON_DICTS", 1000)
    assert not any(isinstance(each, SimilarDicts) for each in records(data))
    assert outcome(data) == learnt


@pytest.mark.parametrize("numbers", [[2, 2, 2], [0, 2, 0], [0, 0, 2], [3, 3, 3]])
def test_a_reference_to_what_is_stated_only_later_refuses_the_file(numbers):
    kept = b"\x8c\x05board\x940"  # a text that gets the next number, and is put aside
    dicts = [b"}(h\x01)))\x87h" + bytes([number]) + b"G" + bytes(8) + b"u" for number in (0, *numbers)]

    def read(before, behind):
        head, middle = b"\x80\x04" + kept + b"\x8c\x01x\x940", b"}(\x8c\x08examples]("
        return records(head + before + middle + b"".join(dicts) + b"e" + behind + b"u.")

    assert any(isinstance(each, SimilarDicts) for each in read(kept * 2, b""))
    with pytest.raises(DataError, match="refers to what it never stated"):
        read(b"", kept * 2)


def test_a_conversion_keeps_no_memory_of_pickles(tmp_path):
    convert(processed(tmp_path / "in", games=2), out=tmp_path / "out", **CUT)
    assert not frames._kept
