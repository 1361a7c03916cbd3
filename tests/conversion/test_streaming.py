from __future__ import annotations

import gzip
import pickle
import pickletools
import struct
from random import Random  # noqa: TID251

import numpy as np
import pytest

from hexshards.conversion.pickles import lookahead, scanner
from hexshards.conversion.pickles.frames import Frames
from hexshards.conversion.pickles.machine import LostError
from hexshards.conversion.pickles.scanner import SimilarDicts
from hexshards.conversion.random_files import examples_of
from hexshards.converters.processed import ProcessedFiles
from hexshards.errors import DataError
from hexshards.game.random_games import play
from hexshards.storage import files

streaming = pytest.importorskip("hexshards.conversion.pickles.streaming")
FrameCopier = pytest.importorskip("hexshards.conversion.pickles.frames_compiled").FrameCopier

WINDOWS = {"all of it": (1 << 20, 64 << 10, 16 << 10), "little of it": (16_000, 6_000, 5_000)}
PIECE_BYTES = 3000


@pytest.fixture(autouse=True)
def small_files_are_learnt_from(monkeypatch):
    monkeypatch.setattr(scanner, "LESSON_DICTS", 0)
    monkeypatch.setattr(files, "PIECE_BYTES", PIECE_BYTES)


@pytest.fixture(params=WINDOWS)
def window(request, monkeypatch):
    for name, size in zip(("WINDOW_BYTES", "AHEAD_BYTES", "BEHIND_BYTES"), WINDOWS[request.param], strict=True):
        monkeypatch.setattr(streaming, name, size)


def shuffled(*, side=5, files=3, games=6):
    """Examples as they come of several files: each with its own keys, and a tuple that positions of a game share."""
    examples = []
    for source in range(files):
        name = f"{source}.trmph"
        keys = ["".join(list(key)) for key in ("board", "policy", "value", "player_to_move", "metadata")]
        for line, game in enumerate(play(games, side=side, seed=source)):
            game_id = (source, line)
            for e in examples_of(game, game_id=game_id):
                metadata = {**e["metadata"], "game_id": game_id, "winner": "RED", "source_file": name}
                values = e["board"], e["policy"], e["value"], e["player_to_move"].value, metadata
                examples.append(dict(zip(keys, values, strict=True)))
    return Random(side).sample(examples, len(examples))


def pickled(examples, protocol=4):
    return pickle.dumps({"examples": examples}, protocol)


def in_pieces(data, size=PIECE_BYTES):
    return [data[start : start + size] for start in range(0, len(data), size)]


def stream(data):
    return streaming.stream_records(in_pieces(data), expected_bytes=len(data), key="board")


def similar(top):
    return sum(len(example) for example in top["examples"] if isinstance(example, SimilarDicts))


def outcome(data, *, streamed):
    """All that the converter makes of a pickle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookahead, "COMPILED_FROM_BYTES", 0 if streamed else 1 << 60)
        try:
            (chunk,) = ProcessedFiles().read(gzip.compress(data, 1), name="a_processed.pkl.gz", where="a")
        except DataError as error:
            return str(error)
    columns = {name: column.tobytes() for name, column in chunk.positions.columns().items()}
    return columns, chunk.sources, chunk.rejects, chunk.notes


@pytest.mark.parametrize("side", [3, 5, 13])
@pytest.mark.parametrize("protocol", [4, 5])
def test_what_is_streamed_comes_out_as_what_is_read_whole(window, side, protocol):
    data = pickled(shuffled(side=side), protocol)
    # of protocol 5 no dict has a template: its arrays are byte arrays
    assert similar(stream(data)) > 100 or protocol == 5
    assert outcome(data, streamed=True) == outcome(data, streamed=False)


def test_a_file_whose_size_is_not_what_gzip_states_is_packed_all_the_same(window):
    data = pickled(shuffled())
    whole = streaming.stream_records(in_pieces(data), expected_bytes=len(data), key="board")
    top = streaming.stream_records(in_pieces(data), expected_bytes=0, key="board")
    assert similar(top) > 0.5 * similar(whole) > 100


def test_rows_that_must_be_looked_at_are_written_out_again_as_they_were(window):
    examples = shuffled()
    for number, example in enumerate(examples):
        if number % 7 == 3:
            example["value"] = [float("nan"), 0.5, 7.0][number % 3]
        if number % 11 == 5:
            example["metadata"]["position_in_game"] += 1
    data = pickled(examples)
    assert similar(stream(data)) > 0.5 * len(examples)
    streamed = outcome(data, streamed=True)
    assert streamed == outcome(data, streamed=False)
    assert len(streamed[2]) > len(examples) // 11


def test_a_dict_that_is_written_out_again_says_what_it_said(window):
    examples = shuffled()
    (top,) = [stream(pickled(examples))]
    number = compared = 0
    for each in top["examples"]:
        if not isinstance(each, SimilarDicts):
            number += 1
            continue
        for dicts, rows in each.by_kind():
            for row, place in enumerate(rows.tolist()):
                again, was = dicts.dict(row), examples[number + place]
                assert again["board"].data == was["board"].tobytes()
                assert again["policy"] is was["policy"] is None or again["policy"].data == was["policy"].tobytes()
                assert (again["value"], again["metadata"]) == (was["value"], was["metadata"])
                compared += 1
        number += len(each)
    assert compared > 0.5 * len(examples)


def test_a_tuple_that_a_packed_dict_made_is_known_to_those_behind_it(window):
    data = pickled(shuffled(files=1, games=30))
    assert similar(stream(data)) > 100
    streamed = outcome(data, streamed=True)
    assert streamed == outcome(data, streamed=False)
    # those that BLUE won contradict their examples' winner
    assert len(set(np.frombuffer(streamed[0]["game"], dtype=np.int32).tolist())) == 10


def soft(example):
    return {**example, "policy": None if example["policy"] is None else np.full(25, 0.04, dtype=np.float32)}


@pytest.mark.parametrize(
    "examples",
    [
        [soft(example) for example in shuffled()],
        [{**example, "board": example["board"].astype(np.float64)} for example in shuffled()],
        [{**example, "visits": np.zeros(25, dtype=np.float32)} for example in shuffled()],
    ],
    ids=["soft policies", "boards of other numbers", "visits"],
)
def test_a_file_of_what_is_not_packed_is_read_whole(window, examples):
    data = pickled(examples)
    with pytest.raises(LostError):
        stream(data)
    assert outcome(data, streamed=True) == outcome(data, streamed=False)


def test_a_few_boards_that_cannot_be_packed_are_left_to_the_machine(window):
    examples = shuffled()
    for example in examples[40::20]:
        example["board"] = example["board"] * 2
    data = pickled(examples)
    assert similar(stream(data))
    streamed = outcome(data, streamed=True)
    assert streamed == outcome(data, streamed=False)
    assert streamed[2]


def entries_of(data, opcode=b"h"):
    """Where the references of the last examples are."""
    half = data.index(b"\x85", len(data) // 2)
    return [at for at in range(half, len(data) - 300) if data[at : at + 1] == opcode]


def test_a_reference_to_what_comes_later_or_means_something_else_is_not_taken_for_the_key(window):
    data = pickled(shuffled(side=3, files=1, games=40))
    taken = refused = 0
    for at in entries_of(data)[:200:9]:
        for entry in (0, 3, 9, 250):
            changed = data[: at + 1] + bytes([entry]) + data[at + 2 :]
            try:
                taken += bool(similar(stream(changed)))
            except LostError:
                refused += 1
            assert outcome(changed, streamed=True) == outcome(changed, streamed=False)
    assert taken
    assert refused


def test_an_entry_of_the_memo_that_is_stated_later_is_not_taken(window):
    data = pickled(shuffled(side=3, files=1, games=40))
    places = [(op.name, at) for op, _, at in pickletools.genops(data)]
    at = [place for name, place in places if name == "LONG_BINGET"][-20]
    made = sum(name == "MEMOIZE" for name, place in places if place < at)
    for entry in (made, 1 << 20, (1 << 32) - 1):
        changed = data[: at + 1] + struct.pack("<I", entry) + data[at + 5 :]
        with pytest.raises(LostError):
            stream(changed)
        assert outcome(changed, streamed=True) == outcome(changed, streamed=False)


def test_a_key_in_the_place_of_another_is_not_taken_for_it(window):
    data = pickled(shuffled(files=1, games=30))
    keys, references, entries, text = {}, [], 0, ""
    for op, said, at in pickletools.genops(data):
        if op.name == "MEMOIZE":
            if text in ("board", "policy", "value", "player_to_move", "metadata"):
                keys[entries] = text
            entries += 1
        elif op.name == "BINGET" and said in keys:
            references.append((at, said))
        text = said if op.name == "SHORT_BINUNICODE" else ""
    assert len(keys) == 5
    for at, entry in references[-25:-5:3]:
        for other in keys.keys() - {entry}:
            changed = data[: at + 1] + bytes([other]) + data[at + 2 :]
            assert outcome(changed, streamed=True) == outcome(changed, streamed=False)


def test_a_game_that_is_stated_later_is_not_taken(window):
    data = pickled(shuffled(files=1, games=60))
    games, references, entries = {}, [], 0  # where each tuple of a game gets its entry, and who refers to one
    before = ""
    for op, entry, at in pickletools.genops(data):
        if op.name == "MEMOIZE":
            if before == "TUPLE2":
                games[entries] = at
            entries += 1
        elif op.name in ("BINGET", "LONG_BINGET") and entry in games:
            references.append((at, 1 if op.name == "BINGET" else 4, entry))
        before = op.name
    later = [
        (at, width, next(other for other, place in games.items() if place > at))
        for at, width, _ in references
        if width == 4 and at < max(games.values())
    ]
    assert len(later) > 5
    refused = 0
    for at, width, entry in later[-6:]:
        changed = data[: at + 1] + entry.to_bytes(width, "little") + data[at + 1 + width :]
        whole = outcome(changed, streamed=False)
        assert outcome(changed, streamed=True) == whole
        refused += isinstance(whole, str)
        with pytest.raises(LostError):
            stream(changed)
    assert refused == 6


def unframed(data):
    frames = Frames()
    return b"".join(map(bytes, [*frames.without(data), frames.rest()]))


def framed(data, size):
    """A pickle with frames of so many bytes, wherever they begin."""
    parts = [data[start : start + size] for start in range(2, len(data), size)]
    return data[:2] + b"".join(b"\x95" + struct.pack("<Q", len(part)) + part for part in parts)


@pytest.mark.parametrize("size", [9, 700, 4099, 40_000])
def test_frames_that_cut_an_opcode_are_read_whole(window, size):
    data = framed(unframed(pickled(shuffled(side=9))), size)
    with pytest.raises(LostError):
        stream(data)
    assert outcome(data, streamed=True) == outcome(data, streamed=False)


@pytest.mark.parametrize("more", [1, 5, 70_000])
def test_a_last_frame_that_claims_more_than_it_holds_is_read_whole(window, more):
    data = unframed(pickled(shuffled()))
    data = data[:2] + b"\x95" + struct.pack("<Q", len(data) - 2 + more) + data[2:]
    with pytest.raises(LostError):
        stream(data)
    assert outcome(data, streamed=True) == outcome(data, streamed=False)


@pytest.mark.parametrize("rest", [1, 3, 300, 2900, 9000])
def test_a_pickle_that_ends_early_is_told_as_one_that_is_read_whole(window, rest):
    data = pickled(shuffled())[:-rest]
    with pytest.raises(LostError):
        stream(data)
    assert outcome(data, streamed=True) == outcome(data, streamed=False)


def test_what_follows_the_pickle_is_read_for_its_checksum_and_not_looked_at(window):
    data = pickled(shuffled()) + b"\x00" * 70_000
    assert outcome(data, streamed=True) == outcome(data, streamed=False)
    broken = bytearray(gzip.compress(data, 1))
    broken[-7] ^= 1
    with pytest.MonkeyPatch.context() as patch, pytest.raises(DataError, match="gzip is damaged"):
        patch.setattr(lookahead, "COMPILED_FROM_BYTES", 0)
        list(ProcessedFiles().read(bytes(broken), name="a.pkl.gz", where="a"))


def test_a_text_larger_than_the_window_is_read_whole(window):
    data = pickle.dumps({"note": "x" * 300_000, "examples": shuffled()}, 4)
    assert outcome(data, streamed=True) == outcome(data, streamed=False)


def test_frames_are_left_out_by_compiled_code_as_without_it():
    random = Random(3)
    for number in range(200):
        sizes = [random.choice([0, 5, 40_000, 66_000, 70_000, 1 << 41]) for _ in range(random.randint(1, 6))]
        data = b"\x80\x04" + b"".join(
            (b"\x95" if random.random() < 0.9 else b"}") + struct.pack("<Q", size) + random.randbytes(size % (1 << 20))
            for size in sizes
        )
        frames, target, piece = Frames(), np.zeros(1 << 20, dtype=np.uint8), random.choice([7, 1000, 65_536, 200_000])
        copier, slow, size = FrameCopier(target), Frames(), 0
        expected = b"".join(bytes(view) for part in in_pieces(data, piece) for view in slow.without(part))
        for part in in_pieces(data, piece):
            if (left := frames.left) is not None:
                copied = copier.copy(part, size, left)
                frames.passed(copied.written, left=copied.left, cuts=copied.cuts)
                size += copied.written
                part = part[copied.read :]
            for view in frames.without(part):
                target[size : size + len(view)] = np.frombuffer(view, dtype=np.uint8)
                size += len(view)
        assert target[:size].tobytes() == expected, number
        assert [cut.place for cut in frames.cuts] == [cut.place for cut in slow.cuts]
        assert (frames.size, frames.sound, frames.left) == (slow.size, slow.sound, slow.left)


def test_a_piece_without_room_for_it_is_refused():
    copier = FrameCopier(np.zeros(100, dtype=np.uint8))
    assert copier.copy(bytes(40), 60, 10**6).written == 40
    with pytest.raises(IndexError):
        copier.copy(bytes(41), 60, 10**6)
