from __future__ import annotations

import codecs
import gzip
import json
import os
import pickle
import pickletools
import re
import sys
from enum import Enum
from types import ModuleType

import numpy as np
import pytest

from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.pickles import scanner
from hexshards.conversion.pickles.machine import Array, DType, Global, Member, loads
from hexshards.conversion.random_files import Player, Winner, examples_of, write, write_processed
from hexshards.converters.examples import EXAMPLES_OF_A_KIND, SINGLE_EXAMPLES
from hexshards.converters.processed import ProcessedFiles
from hexshards.errors import DataError
from hexshards.game.columns import NO_POLICY, UNKNOWN
from hexshards.game.positions import concat
from hexshards.game.random_games import play


@pytest.fixture(autouse=True)
def small_files_are_learnt_from(monkeypatch):
    """Files of few examples take the way of many."""
    monkeypatch.setattr(scanner, "LESSON_DICTS", 0)


SIDE = 7
ODD = 6
"""Which example is spoiled."""


def one_game(*, game_id=(3, 41), source_file="games_07.trmph"):
    """A game won by RED, in 22 examples or more."""
    games = play(20, side=SIDE, seed=1)
    game = next(game for game in games if game.winner == 1 and len(game.moves) > 20)
    return examples_of(game, game_id=game_id, source_file=source_file)


def read_bytes(data, name="a_processed.pkl.gz"):
    chunks = list(ProcessedFiles().read(data, name=name, where=name))
    rejects = [reject for chunk in chunks for reject in chunk.rejects]
    return concat([chunk.positions for chunk in chunks]), rejects, chunks[-1].sources


def read(tmp_path, examples):
    path = tmp_path / "a_processed.pkl.gz"
    write_processed(path, examples, source_file="whole.trmph", games=len(examples))
    return read_bytes(path.read_bytes())


def read_document(document):
    return read_bytes(gzip.compress(pickle.dumps(document), compresslevel=1))


def assert_holds(positions, examples):
    """Position by position what the examples say."""
    boards = np.array([np.asarray(example["board"], dtype=np.float32) for example in examples])
    np.testing.assert_array_equal(positions.planes(), boards)
    targets = [NO_POLICY if e["policy"] is None else int(np.argmax(e["policy"])) for e in examples]
    assert positions.policy.tolist() == targets
    assert positions.value.tolist() == [float(example["value"]) for example in examples]
    metas = [example["metadata"] for example in examples]
    assert positions.ply.tolist() == [meta["position_in_game"] for meta in metas]
    assert positions.player.tolist() == [meta["position_in_game"] % 2 for meta in metas]
    assert positions.plies.tolist() == [meta["total_positions"] - 1 for meta in metas]
    assert positions.tier.tolist() == [meta["value_sample_tier"] for meta in metas]
    assert positions.game.tolist() == [meta["game_id"][1] if meta["game_id"] else UNKNOWN for meta in metas]


@pytest.mark.parametrize("side", [3, 13, 19])
def test_a_file_of_whole_games_is_kept_whole(tmp_path, side):
    (path,) = write(tmp_path, games=3, side=side, seed=5)
    positions, rejects, sources = read_bytes(path.read_bytes(), path.name)
    games = play(3, side=side, seed=5)
    examples = [e for line, game in enumerate(games, start=1) for e in examples_of(game, game_id=(0, line))]
    assert (positions.side, rejects, sources) == (side, [], (f"synth{side}_00",))
    assert_holds(positions, examples)
    assert set(positions.source.tolist()) == {0}


@pytest.mark.parametrize("together", [EXAMPLES_OF_A_KIND, SINGLE_EXAMPLES])
def test_a_file_of_many_parts_is_kept_in_its_order_and_counted_through(together, tmp_path):
    games = play(1500, side=3, seed=2)
    examples = [e for line, game in enumerate(games, start=1) for e in examples_of(game, game_id=(0, line))]
    assert len(examples) > together + 10
    spoiled = [5, together - 1, together, len(examples) - 1]
    if together == SINGLE_EXAMPLES:  # examples that are like no other are read one at a time
        for number, example in enumerate(examples):
            example[f"note {number}"] = number
    for number in spoiled:
        examples[number]["value"] = 0.5 + examples[number]["value"]
    examples[spoiled[0]]["value"] = examples[spoiled[2]]["value"] = -1.0
    bad = {number for number in spoiled if not 0 <= examples[number]["value"] <= 1}
    positions, rejects, _ = read(tmp_path, examples)
    assert [reject.place for reject in rejects] == [f"example {number}" for number in sorted(bad)]
    sound = [example for number, example in enumerate(examples) if number not in bad]
    assert len(bad) >= 2 and len(positions) == len(sound)
    assert_holds(positions, sound)


def test_the_sources_of_a_shuffled_file_are_numbered_as_they_are_met(tmp_path):
    names = ["a/games_03.trmph", "games_09.trmph", "C:\\old\\games_03.trmph.gz", "games_03_processed.pkl.gz"]
    examples = [one_game(source_file=name)[0] for name in names]
    positions, rejects, sources = read(tmp_path, examples)
    assert (rejects, sources) == ([], ("whole", "games_03", "games_09"))
    assert positions.source.tolist() == [1, 2, 1, 1]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ("whole\x07.trmph", "source_file is not a file name"),
        ("whole.trmph\x00", "source_file is not a file name"),
        ("whole.trmph/..", "source_file is not a file name"),
        ("games/", "source_file is not a file name"),
        ("whole2.trmph", "source_file contradicts the file's other examples"),
        ("Whole.trmph", "source_file contradicts the file's other examples"),
    ],
)
@pytest.mark.parametrize("games", [1, 60], ids=["one at a time", "many alike"])
def test_an_example_under_another_name_than_the_file_is_a_reject_and_no_source_of_its_own(
    tmp_path, games, other, reason
):
    examples = [example for _ in range(games) for example in one_game(source_file="data/whole.trmph")]
    put_meta("source_file", other)(examples[5])
    positions, rejects, sources = read(tmp_path, examples)
    assert [(reject.place, reject.reason) for reject in rejects] == [("example 5", reason)]
    assert len(positions) == len(examples) - 1 and sources == ("whole",)


@pytest.mark.parametrize("other", ["../whole.trmph", "C:\\games\\whole.trmph", "./whole.trmph.gz"])
def test_another_folder_before_the_name_of_a_file_is_the_same_source(tmp_path, other):
    examples = one_game(source_file="data/whole.trmph")
    put_meta("source_file", other)(examples[5])
    _, rejects, sources = read(tmp_path, examples)
    assert (rejects, sources) == ([], ("whole",))


class Called:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def put(key, value):
    return lambda example: example.update({key: value})


def put_meta(key, value):
    return lambda example: example["metadata"].update({key: value})


def drop(key):
    return lambda example: example.pop(key)


def drop_meta(key):
    return lambda example: example["metadata"].pop(key)


def stone(plane, cell, entry):
    def spoil(example):
        example["board"][plane].reshape(-1)[cell] = entry

    return spoil


def first_stone(entry):
    def spoil(example):
        example["board"][0].reshape(-1)[np.flatnonzero(example["board"][0])[0]] = entry

    return spoil


def share(entry):
    def spoil(example):
        example["policy"][int(np.flatnonzero(example["policy"] == 0)[0])] = entry

    return spoil


def both_stones(example):
    board = example["board"].reshape(2, -1)
    board[1, np.flatnonzero(board[1])[0]] = 0
    board[1, np.flatnonzero(board[0])[0]] = 1


def one_more_blue(example):
    board = example["board"].reshape(2, -1)
    board[0, np.flatnonzero(~board.any(axis=0) & (example["policy"] == 0))[:2]] = 1


def on_a_stone(example):
    example["policy"][:] = 0
    example["policy"][np.flatnonzero(example["board"].reshape(2, -1).any(axis=0))[0]] = 1


# what is done to one example; the reason it is rejected with; what the reject says was found
FAULTS = {
    "board (13, 13)": (lambda e: e.update(board=e["board"][0]), "board of a wrong shape", r"\(7, 7\), not \(2, 7, 7\)"),
    "board of side 9": (put("board", np.zeros((2, 9, 9), np.float32)), "board of a wrong shape", r"\(2, 9, 9\)"),
    "board of nothing": (put("board", np.zeros((0, 7, 7), np.float32)), "board of a wrong shape", r"\(0, 7, 7\)"),
    "board of lists": (lambda e: e.update(board=e["board"].tolist()), "board is not an array", "a list"),
    "board None": (put("board", None), "board is not an array", "None"),
    "board of text": (put("board", "......"), "board is not an array", "text of 6 characters"),
    "stone -1": (first_stone(-1.0), "board entry neither 0 nor 1", "-1.0"),
    "stone NaN": (first_stone(np.nan), "board entry neither 0 nor 1", "nan"),
    "stone inf": (first_stone(np.inf), "board entry neither 0 nor 1", "inf"),
    "stone 2": (first_stone(2.0), "board entry neither 0 nor 1", "2.0"),
    "two stones in a cell": (both_stones, "cell with two stones", r"cell \d+"),
    "two more BLUE": (one_more_blue, "impossible stone counts", "5 BLUE and 3 RED"),
    "no policy": (drop("policy"), "no policy", "only board, value, player_to_move, metadata"),
    "policy too long": (put("policy", np.zeros(50, np.float32)), "policy of a wrong shape", r"\(50,\), not \(49,\)"),
    "policy of lists": (lambda e: e.update(policy=e["policy"].tolist()), "policy is not an array", "a list"),
    "policy a scalar": (put("policy", np.float32(1)), "policy of a wrong shape", r"\(\), not"),
    "policy NaN": (share(np.nan), "policy entry negative or not finite", "nan"),
    "policy negative": (share(-0.5), "policy entry negative or not finite", "-0.5"),
    "policy sums to 1.5": (share(0.5), "policy does not sum to 1", "sum 1.5"),
    "policy on a stone": (on_a_stone, "policy on an occupied cell", r"cell \d+"),
    "no value": (drop("value"), "no value", "only board, policy, player_to_move, metadata"),
    "value an array": (put("value", np.array([1.0])), "value is not a finite number", "a NumPy array"),
    "board of objects": (
        put("board", np.zeros((2, SIDE, SIDE), dtype=object)),
        "board is not an array of numbers",
        "elements of type O8",
    ),
    "board an array of text": (
        put("board", np.array(["B", "R"])),
        "board is not an array of numbers",
        "elements of type U1",
    ),
    "policy of complex numbers": (
        put("policy", np.zeros(SIDE**2, dtype=complex)),
        "policy is not an array of numbers",
        "elements of type c16",
    ),
    "value of objects": (put("value", np.array(None, dtype=object)), "value is not a finite number", "a NumPy array"),
    "a long double": (put("value", np.longdouble(1)), "value is not a finite number", "a NumPy array"),
    "value 10**400": (put("value", 10**400), "value outside 0 to 1", "an integer of 1329 bits"),
    "value True": (put("value", True), "value is not a finite number", "True"),
    "value None": (put("value", None), "value is not a finite number", "None"),
    "value of text": (put("value", "1.0"), "value is not a finite number", "text of 3 characters, 1.0"),
    "value inf": (put("value", float("inf")), "value is not a finite number", "inf"),
    "value NaN": (put("value", float("nan")), "value is not a finite number", "nan"),
    "value 1.5": (put("value", 1.5), "value outside 0 to 1", "1.5"),
    "value -1": (put("value", -1), "value outside 0 to 1", "-1"),
    "value of the loser": (put("value", 0.0), "winner contradicts the value", r"Winner\(1\), value 0.0"),
    "no player": (drop("player_to_move"), "no player_to_move", "only board, policy, value, metadata"),
    "player 0.0": (put("player_to_move", 0.0), "player_to_move is no player", "0.0"),
    "player 2": (put("player_to_move", 2), "player_to_move is no player", "2"),
    "player 0 among enums": (put("player_to_move", 0), "player_to_move is no player", "0"),
    "player None": (put("player_to_move", None), "player_to_move is no player", "None"),
    "player a winner": (put("player_to_move", Winner.BLUE), "player_to_move is no player", r"Winner\(0\)"),
    "player 9": (put("player_to_move", Called(Player, 9)), "player_to_move is no player", r"Player\(9\)"),
    "player a text": (put("player_to_move", Called(Player, "x")), "player_to_move is no player", r"Player\(text of 1"),
    "player the other": (
        put("player_to_move", Player.RED),
        "player to move contradicts the stones",
        "player 1, 3 BLUE and 3 RED",
    ),
    "no metadata": (drop("metadata"), "no metadata", "only board, policy, value, player_to_move"),
    "metadata a list": (put("metadata", []), "metadata is not a dict", "a list"),
    "metadata empty": (put("metadata", {}), r"no \w+", "nothing"),
    "no winner": (drop_meta("winner"), "no winner", "only game_id, "),
    "no game_id": (drop_meta("game_id"), "no game_id", "only position_in_game, "),
    "ply -1": (put_meta("position_in_game", -1), "position_in_game outside 0 to 49", "-1"),
    "ply 50": (put_meta("position_in_game", 50), "position_in_game outside 0 to 49", "50"),
    "ply True": (put_meta("position_in_game", True), "position_in_game outside 0 to 49", "True"),
    "ply None": (put_meta("position_in_game", None), "position_in_game outside 0 to 49", "None"),
    "another ply": (
        put_meta("position_in_game", 5),
        "stated number of stones contradicts the board",
        "stated 5, 6 on the board",
    ),
    "too few positions": (put_meta("total_positions", 6), "game ends before the position", "5 moves in the game"),
    "no positions": (put_meta("total_positions", 0), "total_positions outside 1 to 50", "0"),
    "positions 10**30": (put_meta("total_positions", 10**30), "total_positions outside 1 to 50", "integer of 100 bits"),
    "tier -1": (put_meta("value_sample_tier", -1), "value_sample_tier outside 0 to 127", "-1"),
    "tier of text": (put_meta("value_sample_tier", "0"), "value_sample_tier outside 0 to 127", "text of 1"),
    "winner None": (put_meta("winner", None), "winner is no player", "None"),
    "winner of text": (put_meta("winner", "GREEN"), "winner is no player", "text of 5 characters, GREEN"),
    "winner 7": (put_meta("winner", Called(Winner, 7)), "winner is no player", r"Winner\(7\)"),
    "winner a player": (put_meta("winner", Player.RED), "winner is no player", r"Player\(1\)"),
    "winner the other": (put_meta("winner", "BLUE"), "winner contradicts the value", "BLUE, value 1.0"),
    "game_id a list": (put_meta("game_id", [3, 41]), "game_id is not a pair of file and line", "a list"),
    "game_id of three": (put_meta("game_id", (3, 41, 5)), "game_id is not a pair of file and line", "a tuple"),
    "game_id of text": (put_meta("game_id", (3, "41")), "game_id is not a pair of file and line", "a tuple"),
    "game_id of line -1": (put_meta("game_id", (3, -1)), "game_id is not a pair of file and line", "a tuple"),
    "game_id of line 2**31": (put_meta("game_id", (3, 2**31)), "game_id is not a pair of file and line", "a tuple"),
    "source of 5 MB": (put_meta("source_file", "A" * 5_000_000), "source_file is not a file name", "text of 5,000,000"),
    "source None": (put_meta("source_file", None), "source_file is not a file name", "None"),
}


@pytest.mark.parametrize(("spoil", "reason", "finding"), FAULTS.values(), ids=FAULTS)
def test_a_fault_rejects_its_example_alone_with_place_reason_and_finding(tmp_path, spoil, reason, finding):
    examples = one_game()
    spoil(examples[ODD])
    positions, rejects, _ = read(tmp_path, examples)
    assert_holds(positions, examples[:ODD] + examples[ODD + 1 :])
    (reject,) = rejects
    assert reject.place == f"example {ODD}"
    assert re.fullmatch(reason, reject.reason)
    assert re.search(finding, reject.finding)
    assert len(reject.finding) < 200


@pytest.mark.parametrize(
    "odd", [None, [], "text", 7, (1, 2, 3), Player.BLUE, np.zeros((2, 7, 7), np.float32)], ids=repr
)
def test_an_example_that_is_no_dict_is_rejected_alone(tmp_path, odd):
    examples = one_game()
    examples[ODD] = odd
    positions, rejects, _ = read(tmp_path, examples)
    assert [(reject.place, reject.reason) for reject in rejects] == [("example 6", "example is not a dict")]
    assert_holds(positions, examples[:ODD] + examples[ODD + 1 :])


def test_many_faults_are_each_named_in_the_order_of_the_file(tmp_path):
    examples = one_game()
    for number, spoil in ((2, put("value", 2.0)), (3, first_stone(2.0)), (9, drop("board")), (14, put("policy", 1))):
        spoil(examples[number])
    positions, rejects, _ = read(tmp_path, examples)
    assert sorted(int(reject.place.split()[1]) for reject in rejects) == [2, 3, 9, 14]
    assert_holds(positions, [e for number, e in enumerate(examples) if number not in (2, 3, 9, 14)])


VARIANTS = {
    "uint8": lambda a: a.astype(np.uint8),
    "bool": lambda a: a.astype(bool),
    "int64": lambda a: a.astype(np.int64),
    "float64": lambda a: a.astype(np.float64),
    "float16": lambda a: a.astype(np.float16),
    "Fortran": np.asfortranarray,
    "big-endian": lambda a: a.astype(">f4"),
    "big-endian Fortran": lambda a: np.asfortranarray(a.astype(">f8")),
}


@pytest.mark.parametrize("vary", VARIANTS.values(), ids=VARIANTS)
def test_an_array_of_right_values_loads_however_it_is_stored(tmp_path, vary):
    examples, varied = one_game(), one_game()
    for example in varied:
        example["board"] = vary(example["board"])
        example["policy"] = None if example["policy"] is None else vary(example["policy"])
    positions, rejects, _ = read(tmp_path, varied)
    assert rejects == []
    assert_holds(positions, examples)


@pytest.mark.parametrize("number", [int, float, np.float32, np.float64, np.float16], ids=lambda kind: kind.__name__)
def test_a_value_is_a_number_of_any_kind(tmp_path, number):
    examples = one_game()
    for example in examples:
        example["value"] = number(example["value"])
    positions, rejects, _ = read(tmp_path, examples)
    assert rejects == []
    assert_holds(positions, examples)


def test_soft_policies_are_kept_as_distributions(tmp_path):
    examples = one_game()
    policy = examples[ODD]["policy"]
    empty = np.flatnonzero(~examples[ODD]["board"].reshape(2, -1).any(axis=0))
    policy[:] = 0
    policy[empty[:4]] = 0.25
    positions, rejects, _ = read(tmp_path, examples)
    assert rejects == []
    np.testing.assert_array_equal(positions.policy[ODD], policy.astype(np.float16))
    assert positions.policy[-1].sum() == 0


def enums_of(home, monkeypatch):
    """hex_ai's Player and Winner as they were when they lived in ``home``."""
    module = ModuleType(home)
    for name in ("Player", "Winner"):
        setattr(module, name, Enum(name, {"BLUE": 0, "RED": 1}, module=home))
    monkeypatch.setitem(sys.modules, "hex_ai", ModuleType("hex_ai"))
    monkeypatch.setitem(sys.modules, home, module)
    return module.Player, module.Winner


def int_players(examples, player, winner):
    for example in examples:
        example["player_to_move"] = example["player_to_move"].value
        example["metadata"]["winner"] = example["metadata"]["winner"].name


def no_players(examples, player, winner):
    for example in examples:
        del example["player_to_move"]
        example["metadata"].update(game_id=None, winner=example["metadata"]["winner"].name)


def enum_players(examples, player, winner):
    for example in examples:
        example["player_to_move"] = player(example["player_to_move"].value)
        example["metadata"]["winner"] = winner(example["metadata"]["winner"].value)


def enum_players_text_winners(examples, player, winner):
    for example in examples:
        example["player_to_move"] = player(example["player_to_move"].value)
        example["metadata"]["winner"] = example["metadata"]["winner"].name


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("home", ["hex_ai.enums", "hex_ai.value_utils"])
@pytest.mark.parametrize("age", [int_players, no_players, enum_players, enum_players_text_winners])
def test_every_generation_with_metadata_is_kept_whole(age, home, protocol, monkeypatch):
    examples = one_game()
    age(examples, *enums_of(home, monkeypatch))
    data = gzip.compress(pickle.dumps({"examples": examples, "source_file": "old.trmph"}, protocol))
    positions, rejects, _ = read_bytes(data)
    assert rejects == []
    assert_holds(positions, examples)


def tuples_of(examples, *, value=lambda example: example["value"]):
    """Examples as the first files held them."""
    return [(example["board"], example["policy"], value(example)) for example in examples]


def two_games():
    """A game that BLUE won and one that RED won."""
    games = play(20, side=SIDE, seed=1)
    return [e for won in (0, 1) for e in examples_of(next(game for game in games if game.winner == won))]


def read_tuples(examples, **options):
    data = gzip.compress(pickle.dumps({"examples": examples}, 4), compresslevel=1)
    chunks = list(ProcessedFiles().read(data, name="old.pkl.gz", where="old.pkl.gz", spec=ConvertSpec(**options)))
    positions = concat([chunk.positions for chunk in chunks])
    return positions, [reject for chunk in chunks for reject in chunk.rejects], " ".join(chunks[-1].notes)


@pytest.mark.parametrize("number", [float, int], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("inverted", [False, True])
def test_the_terminal_boards_of_a_file_of_tuples_decide_what_its_values_mean(inverted, number):
    examples = two_games()
    stated = tuples_of(examples, value=lambda e: number(1 - e["value"] if inverted else e["value"]))
    positions, rejects, notes = read_tuples(stated)
    assert rejects == []
    assert ("corrected" in notes) == inverted
    assert positions.value.tolist() == [example["value"] for example in examples]
    np.testing.assert_array_equal(positions.planes(), [example["board"] for example in examples])
    assert positions.ply.tolist() == [example["metadata"]["position_in_game"] for example in examples]
    assert set(positions.plies.tolist()) == set(positions.game.tolist()) == {UNKNOWN}


def test_a_file_of_tuples_that_cannot_be_decided_is_refused_until_it_is_told():
    examples = two_games()
    without_finals = [example for example in examples if example["policy"] is not None]
    values = [example["value"] for example in without_finals]
    with pytest.raises(DataError, match="does not show whether its values are inverted"):
        read_tuples(tuples_of(without_finals))
    assert read_tuples(tuples_of(without_finals), v1_value="as-is")[0].value.tolist() == values
    inverted = read_tuples(tuples_of(without_finals), v1_value="inverted")[0].value.tolist()
    assert inverted == [1 - value for value in values]


@pytest.mark.parametrize("number", [float, int, np.float32, np.float64, np.float16], ids=lambda kind: kind.__name__)
def test_values_said_to_be_inverted_are_turned_round_or_rejected_whatever_number_they_are(number):
    examples = two_games()
    stated = tuples_of(examples, value=lambda e: number(1 - e["value"]))
    positions, rejects, _ = read_tuples(stated, v1_value="inverted")
    assert len(positions) + len(rejects) == len(examples)
    rejected = {int(reject.place.split()[1]) for reject in rejects}
    assert positions.value.tolist() == [e["value"] for i, e in enumerate(examples) if i not in rejected]


def test_a_file_of_tuples_that_contradicts_itself_is_refused():
    with pytest.raises(DataError, match="1 terminal boards say no, 1 yes"):
        read_tuples(tuples_of(two_games(), value=lambda example: 0.0))


ODD_TUPLES = {
    "board of three planes": lambda e: (np.zeros((3, SIDE, SIDE), np.float32), None, 0.0),
    "another board": lambda e: (np.zeros((3, 5, 5), np.float32), None, 0.0),
    "flat board": lambda e: (e["board"].reshape(-1), None, 0.0),
    "board of lists": lambda e: (e["board"].tolist(), None, 0.0),
    "board None": lambda e: (None, None, None),
    "board of float64": lambda e: (np.full((2, SIDE, SIDE), 7.0), None, 0.0),
    "value a list": lambda e: (e["board"], None, [0.0, 1.0]),
    "value an array": lambda e: (e["board"], None, np.zeros(3)),
    "value 10**400": lambda e: (e["board"], None, 10**400),
    "value NaN": lambda e: (e["board"], None, float("nan")),
    "a tuple of four": lambda e: (e["board"], None, 0.0, 0),
    "an empty tuple": lambda e: (),
    "a dict": lambda e: {"board": e["board"]},
    "None": lambda e: None,
}


@pytest.mark.parametrize("spoil", ODD_TUPLES.values(), ids=ODD_TUPLES)
def test_an_odd_tuple_is_rejected_alone(spoil):
    examples = two_games()
    stated = tuples_of(examples, value=lambda e: 1 - e["value"])
    final = next(number for number, example in enumerate(examples) if example["policy"] is None)
    stated.append(spoil(examples[final]))
    positions, rejects, notes = read_tuples(stated)
    assert [reject.place for reject in rejects] == [f"example {len(examples)}"]
    assert "corrected" in notes
    assert positions.value.tolist() == [example["value"] for example in examples]


def test_a_game_without_an_id_counts_as_one_of_the_file(tmp_path):
    examples = one_game(game_id=None)
    positions, rejects, sources = read(tmp_path, examples)
    assert (rejects, sources) == ([], ("whole",))
    assert set(positions.game.tolist()) == {UNKNOWN} and set(positions.source.tolist()) == {0}


def test_examples_may_be_a_tuple():
    examples = [{**e, "player_to_move": i % 2} for i, e in enumerate(one_game())]
    for example in examples:
        example["metadata"]["winner"] = "RED"
    positions, rejects, _ = read_document({"examples": tuple(examples)})
    assert rejects == []
    assert_holds(positions, examples)


REFUSED = {
    "a self-play file": ({"games": [{"moves": ["a1"]}]}, "whole self-play games"),
    "no examples key": ({"positions": []}, "holds no examples"),
    "examples None": ({"examples": None}, "holds no examples"),
    "examples a text": ({"examples": "abc"}, "examples that are text"),
    "a bare list": ([{"board": None}], "holds a list .*not a dict"),
    "None": (None, "holds None, not a dict"),
    "examples of lists": ({"examples": [[1, 2, 3], [4, 5, 6]]}, "its first example is a list, neither a dict nor"),
    "no boards": ({"examples": [{"board": None}]}, "no board of shape"),
    "boards of side 2": ({"examples": [{"board": np.zeros((2, 2, 2), np.float32)}]}, "boards of side 2"),
    "boards of side 20": ({"examples": [{"board": np.zeros((2, 20, 20), np.float32)}]}, "boards of side 20"),
}


def test_gzip_of_nothing_is_called_that():
    with pytest.raises(DataError, match=r"is gzip of nothing\. The file was cut"):
        read_bytes(gzip.compress(b""))


@pytest.mark.parametrize("none", [[], ()])
def test_a_file_without_examples_is_read_and_said_to_hold_none(none):
    (chunk,) = ProcessedFiles().read(gzip.compress(pickle.dumps({"examples": none})), name="a.pkl.gz", where="here")
    assert (len(chunk.positions), chunk.rejects, chunk.notes) == (0, [], ["holds no examples"])


@pytest.mark.parametrize(("document", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_file_of_something_else_is_refused_with_a_sentence(document, sentence):
    with pytest.raises(DataError, match=sentence) as refusal:
        read_document(document)
    assert refusal.value.where == "a_processed.pkl.gz"


def test_text_from_inside_a_file_reaches_no_message_raw(tmp_path):
    hostile = "\x1b]0;owned\x07\x1b[2J\n\r\u202e\x00" * 3
    examples = one_game()
    put_meta("winner", hostile)(examples[1])
    put("player_to_move", hostile)(examples[2])
    put("value", hostile)(examples[3])
    examples[4] = {hostile: 1}
    put("player_to_move", Called(Player, hostile))(examples[5])
    put_meta("source_file", hostile)(examples[6])
    examples[7]["metadata"] = {hostile: 1}
    put("board", hostile)(examples[8])
    path = tmp_path / "a_processed.pkl.gz"
    write_processed(path, examples, source_file=hostile)
    _, rejects, sources = read_bytes(path.read_bytes())
    assert len(rejects) == 8
    assert all(text.isprintable() for reject in rejects for text in reject)
    assert len(sources) == 2 and all(name.isprintable() for name in sources)


def test_a_call_in_place_of_a_policy_refuses_the_file_and_does_not_happen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = one_game()
    examples[ODD]["policy"] = Called(os.system, "touch PWNED")
    with pytest.raises(DataError, match=r"it names \w+\.system"):
        read(tmp_path, examples)
    assert not (tmp_path / "PWNED").exists()


def outcome(data):
    """What reading a pickle comes to: columns and rejects, or the refusal's kind."""
    try:
        positions, rejects, sources = read_bytes(gzip.compress(data, compresslevel=0))
    except DataError:
        return "refused"
    return {name: column.tolist() for name, column in positions.columns().items()}, sorted(rejects), sources


NUMPY = {
    "_reconstruct": np.zeros(1).__reduce__()[0],
    "_frombuffer": np.zeros(1).__reduce_ex__(5)[0],
    "scalar": np.float32(1).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "encode": codecs.encode,
}


def restated(value, enums):
    """Plain data as the objects that would be pickled into it."""
    match value:
        case Array(data=None):
            return Called(NUMPY["_reconstruct"], np.ndarray, (0,), b"b")
        case Array():
            flat = np.frombuffer(value.data, dtype=value.dtype.replace("b1", "?"))
            return flat.reshape(value.shape, order="F" if value.fortran else "C")
        case Member():
            return Called(enums[value.enum], restated(value.value, enums))
        case DType():
            return np.dtype(value.order + value.code)
        case Global():
            return {**NUMPY, **enums}[value.name]
        case dict():
            return {key: restated(inner, enums) for key, inner in value.items()}
        case list() | tuple():
            return type(value)(restated(inner, enums) for inner in value)
    return value


def outcome_slowly(data, enums):
    """The same by way of plain data, pickled again in the least clever of the protocols that know bytes."""
    try:
        plain = loads(data, where="here")
    except DataError:
        return "refused"
    return outcome(pickle.dumps(restated(plain, enums), 3))


def byte_changed(data, random):
    at = int(random.integers(len(data)))
    return data[:at] + random.bytes(1) + data[at + 1 :]


def bit_flipped(data, random):
    at = int(random.integers(len(data)))
    return data[:at] + bytes([data[at] ^ 1 << int(random.integers(8))]) + data[at + 1 :]


def bytes_left_out(data, random):
    at = int(random.integers(len(data)))
    return data[:at] + data[at + int(random.integers(1, 9)) :]


def bytes_repeated(data, random):
    start, at, size = (int(random.integers(len(data))) for _ in range(3))
    return data[:at] + data[start : start + size % 40] + data[at:]


def reference_changed(data, random):
    """Another memo entry in place of one: what is said of an example stays well formed and means something else."""
    gets = [(at, op.name) for op, _, at in pickletools.genops(data) if op.name in ("BINGET", "LONG_BINGET")]
    at, name = gets[int(random.integers(len(gets)))]
    size = 1 if name == "BINGET" else 4
    entry = int(random.integers(256 if size == 1 else 400))
    return data[: at + 1] + entry.to_bytes(size, "little") + data[at + 1 + size :]


def stretch_copied_over_another(data, random):
    start, at, size = (int(random.integers(len(data))) for _ in range(3))
    size = min(size % 40, len(data) - max(start, at))
    return data[:at] + data[start : start + size] + data[at + size :]


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    "damage",
    [byte_changed, bit_flipped, bytes_left_out, bytes_repeated, reference_changed, stretch_copied_over_another],
)
def test_a_damaged_pickle_is_refused_or_read_as_the_plain_data_that_it_is(damage, protocol, monkeypatch):
    enums = dict(zip(("Player", "Winner"), enums_of("hex_ai.enums", monkeypatch), strict=True))
    examples = [e for line in (1, 2, 3) for e in examples_of(play(1, side=3, seed=line)[0], game_id=(0, line))]
    enum_players(examples, enums["Player"], enums["Winner"])
    data = pickle.dumps({"examples": examples, "source_file": "x"}, protocol)
    # a frame's length says again how much follows: without it more damage gets through
    data = re.sub(rb"(?s)\A(\x80.)\x95.{8}", rb"\1", data)
    whole = outcome(data)
    assert whole[1] == [] and whole == outcome_slowly(data, enums)
    random = np.random.Generator(np.random.Philox(protocol))
    outcomes = set()
    for _ in range(60):
        damaged = damage(data, random)
        read = outcome(damaged)
        assert read == outcome_slowly(damaged, enums)
        outcomes.add("refused" if read == "refused" else "rejects" if read[1] else "other" if read != whole else "same")
    assert "refused" in outcomes
    assert outcomes & {"rejects", "other"} or damage in (bytes_left_out, bytes_repeated)


READ_ALL = """
import json, sys
from pathlib import Path
from hexshards.converters.processed import ProcessedFiles
from hexshards.errors import DataError
from hexshards.conversion.pickles.machine import Array, DType, Global, Member, loads

outcomes = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    kept, rejects = 0, []
    try:
        for chunk in ProcessedFiles().read(path.read_bytes(), name=path.name, where=path.name):
            kept += len(chunk.positions)
            rejects += [[reject.place, reject.reason, reject.finding] for reject in chunk.rejects]
        outcomes[path.name] = {"kept": kept, "rejects": rejects, "refusal": ""}
    except DataError as error:
        outcomes[path.name] = {"kept": 0, "rejects": [], "refusal": str(error)}
print(json.dumps(outcomes))
"""


def test_each_hostile_file_is_loaded_rejected_or_refused_as_its_kind_demands(real, small_machine):
    manifest = json.loads((real / "hostile" / "MANIFEST.json").read_bytes())
    outcomes = small_machine(READ_ALL, real / "hostile" / "pkl")
    kinds = {name.removeprefix("pkl/"): entry["kind"] for name, entry in manifest.items() if name.startswith("pkl/")}
    assert outcomes.keys() == kinds.keys()
    for name, outcome in outcomes.items():
        match kinds[name]:
            case "control" | "edge":
                assert (outcome["rejects"], outcome["refusal"]) == ([], ""), name
                assert outcome["kept"] == (1 if name.startswith("nd_good") else 57), name
            case "container" | "exec" | "bomb":
                assert outcome["refusal"].startswith(f"{name}: "), name
            case "schema" if outcome["kept"]:
                ((place, _, _),) = outcome["rejects"]
                assert outcome["kept"] == (56 if place == "example 6" else 57), name
            case "schema":
                assert outcome["rejects"] or outcome["refusal"].startswith(f"{name}: "), name


@pytest.mark.parametrize(
    "name",
    [
        "processed/wolve13_00_processed.pkl.gz",
        "shuffled/shuffled_0000.pkl.gz",
        "variants/authors_small_shuffled_test.pkl.gz",
        "variants/gen2_20250724_a604e18_intptm_processed.pkl.gz",
        "variants/gen3_20250731_6a6ad56_valueutils_processed.pkl.gz",
        "variants/gen4_20250908_HEAD_enums_processed.pkl.gz",
        "variants/numpy1_proto2_intptm_processed.pkl.gz",
    ],
)
def test_a_real_file_is_kept_whole(real, name, monkeypatch):
    data = (real / name).read_bytes()
    positions, rejects, _ = read_bytes(data, name)
    for home in ("hex_ai.enums", "hex_ai.value_utils"):
        enums_of(home, monkeypatch)
    examples = pickle.loads(gzip.decompress(data))["examples"]  # noqa: TID251 - the twin, on files known to be good
    assert rejects == []
    assert_holds(positions, examples)
