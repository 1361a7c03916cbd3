import gzip
import io
import pickle
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hexshards.conversion.random_files import examples_of, trmph_line, write, write_processed
from hexshards.game.board import BLUE, NEIGHBOURS, RED
from hexshards.game.options import SYNTH, SynthSpec
from hexshards.game.random_games import Game, play

SIDES = (3, 5, 13, 19)
GOLDEN = ["#4,c1d2c3c4b1a4b4d1a3d3b3d4b2 b", "#4,c4b4b1d4a4d2a1b2c2c3c1b3d3a3 r"]
REAL = Path(__file__).parents[3] / "shared" / "data"


def winner_slowly(stones, side):
    """Who connects, by flooding from BLUE's top row and RED's left column; stones: (row, col) -> player."""
    for player, along in ((BLUE, 0), (RED, 1)):
        mine = {cell for cell, owner in stones.items() if owner == player}
        stack = [cell for cell in mine if cell[along] == 0]
        seen = set(stack)
        while stack:
            row, col = stack.pop()
            if (row, col)[along] == side - 1:
                return player
            near = {(row + down, col + right) for down, right in NEIGHBOURS} & mine - seen
            seen |= near
            stack += near
    return None


class Reader(pickle.Unpickler):
    """Reads numpy's arrays, and a hex_ai class as its name; ``seen`` gathers every global the file names."""

    def __init__(self, data):
        super().__init__(io.BytesIO(data))
        self.seen = set()

    def find_class(self, module, name):
        self.seen.add((module.replace("numpy.core", "numpy._core"), name))
        if module == "hex_ai.enums":
            return lambda value: (name, value)
        return super().find_class(module, name)


def read(path):
    return Reader(gzip.decompress(path.read_bytes())).load()


def moves_of(line):
    """A .trmph line, read one move at a time."""
    side, moves, winner = re.fullmatch(r"#(\d+),([a-s0-9]+) ([br])", line).groups()
    cells = [
        (int(number) - 1) * int(side) + ord(letter) - ord("a")
        for letter, number in re.findall(r"([a-s])([1-9]\d?)", moves)
    ]
    return Game(int(side), tuple(cells), "br".index(winner))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same 25 games in both formats, three files each."""
    out = tmp_path_factory.mktemp("games")
    wanted = {"games": 25, "seed": 3, "games_per_file": 10}
    return {format: write(out, format=format, **wanted) for format in ("processed", "trmph")}


@pytest.mark.parametrize("side", SIDES)
def test_play_is_legal_and_stops_at_the_move_that_connects(side):
    for game in play(12, side=side, seed=1):
        stones = {}
        for ply, cell in enumerate(game.moves):
            assert 0 <= cell < side * side and divmod(cell, side) not in stones
            assert winner_slowly(stones, side) is None
            stones[divmod(cell, side)] = ply % 2
        assert winner_slowly(stones, side) == game.winner == (len(game.moves) - 1) % 2


def test_both_players_win_and_games_differ():
    games = play(200, seed=5)
    assert 50 < sum(game.winner for game in games) < 150
    assert len({game.moves for game in games}) == 200


def test_every_first_move_is_about_as_likely():
    counts = np.bincount([game.moves[0] for game in play(9_000, side=3)], minlength=9)
    # 1,000 each, standard deviation 30
    assert counts.min() > 850 and counts.max() < 1_150


def test_the_same_seed_gives_the_same_games_and_another_seed_others():
    assert play(20, seed=1) == play(20, seed=1)
    assert not set(play(20, seed=1)) & set(play(20, seed=2))


def test_a_game_does_not_depend_on_how_many_are_asked_for():
    games = play(20, seed=9)
    assert play(7, seed=9) == games[:7]
    assert play(5, seed=9, first=11) == games[11:16]


def test_games_are_the_ones_published_in_version_1():
    assert [trmph_line(game) for game in play(2, side=4, seed=7)] == GOLDEN


def test_a_line_says_side_moves_and_winner():
    assert trmph_line(Game(3, (0, 1, 3, 2, 6), BLUE)) == "#3,a1b1a2c1a3 b"


def test_examples_replay_the_game_stone_by_stone():
    for game in play(3, side=5):
        board = np.zeros((2, 5, 5), dtype=np.float32)
        examples = examples_of(game, game_id=(4, 2), source_file="x.trmph")
        assert len(examples) == len(game.moves) + 1
        for ply, example in enumerate(examples):
            assert np.array_equal(example["board"], board)
            assert example["player_to_move"].value == ply % 2
            assert example["value"] == float(game.winner)
            assert example["metadata"]["position_in_game"] == ply
            assert example["metadata"]["game_id"] == (4, 2)
            if ply < len(game.moves):
                cell = game.moves[ply]
                assert np.flatnonzero(example["policy"]).tolist() == [cell] and example["policy"][cell] == 1.0
                board[ply % 2, cell // 5, cell % 5] = 1.0
        assert examples[-1]["policy"] is None


def test_no_two_examples_share_an_array():
    first, second, *_ = examples_of(play(1)[0])
    first["board"][...] = 7.0
    first["policy"][...] = 7.0
    first["metadata"]["game_id"] = None
    assert second["board"].max() == second["policy"].max() == 1.0
    assert second["metadata"]["game_id"] == (0, 1)


def test_files_are_named_in_order_and_the_last_is_shorter(written):
    names = [path.name for path in written["processed"] + written["trmph"]]
    assert names == [f"synth13_0{i}{end}" for end in ("_processed.pkl.gz", ".trmph") for i in range(3)]
    assert [len(path.read_text().splitlines()) for path in written["trmph"]] == [10, 10, 5]


def test_names_of_many_files_sort_as_text(tmp_path):
    paths = write(tmp_path, games=101, side=3, format="trmph", games_per_file=1)
    assert paths == sorted(paths) and paths[0].name == "synth3_000.trmph"


def test_trmph_files_hold_the_games_in_order(written):
    lines = [line for path in written["trmph"] for line in path.read_text().splitlines()]
    assert [moves_of(line) for line in lines] == play(25, seed=3)


def test_both_formats_hold_the_same_games(written):
    for number, (processed, trmph) in enumerate(zip(written["processed"], written["trmph"], strict=True)):
        games = [moves_of(line) for line in trmph.read_text().splitlines()]
        played, winners = {}, {}
        for example in read(processed)["examples"]:
            about = example["metadata"]
            assert about["source_file"] == trmph.name
            winners[about["game_id"]] = about["winner"]
            if example["policy"] is not None:
                played.setdefault(about["game_id"], []).append(int(example["policy"].argmax()))
        assert list(played) == [(number, line) for line in range(1, len(games) + 1)]
        assert [tuple(moves) for moves in played.values()] == [game.moves for game in games]
        assert list(winners.values()) == [("Winner", game.winner) for game in games]


@pytest.mark.parametrize("format", ["processed", "trmph"])
def test_the_same_arguments_give_the_same_bytes(written, format, tmp_path):
    again = write(tmp_path / "not" / "there" / "yet", games=25, seed=3, games_per_file=10, format=format)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written[format]]


@pytest.mark.parametrize("side", SIDES)
def test_every_side_can_be_written(side, tmp_path):
    (path,) = write(tmp_path, games=2, side=side)
    assert path.name == f"synth{side}_00_processed.pkl.gz"
    assert {example["board"].shape for example in read(path)["examples"]} == {(2, side, side)}


@pytest.mark.parametrize("format", ["processed", "trmph"])
def test_nothing_is_overwritten_and_nothing_else_is_written(tmp_path, format):
    kept = write(tmp_path, games=4, side=3, format=format, games_per_file=2)
    kept[0].unlink()
    before = kept[1].read_bytes()
    with pytest.raises(FileExistsError, match=re.escape(f"{kept[1]} is there already: choose another folder")):
        write(tmp_path, games=4, side=3, seed=1, format=format, games_per_file=2)
    assert list(tmp_path.iterdir()) == [kept[1]] and kept[1].read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"games": 0}, "games must be at least 1, got 0"),
        ({"games_per_file": 0}, "games_per_file must be at least 1, got 0"),
        ({"side": 2}, "side must be 3 to 19, got 2"),
        ({"side": 20}, "side must be 3 to 19, got 20"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"format": "zip"}, r"format must be one of \('processed', 'trmph'\), got 'zip'"),
    ],
)
def test_an_argument_out_of_bounds_is_named_before_anything_is_written(tmp_path, wrong, rule):
    with pytest.raises(ValueError, match=rule):
        write(tmp_path / "out", **{"games": 1, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_the_defaults_are_the_ones_in_specs():
    assert SynthSpec() == SYNTH
    assert play(1) == play(1, side=SYNTH.side, seed=SYNTH.seed)


def test_a_file_names_hex_ais_classes_and_leaves_no_trace_of_them(tmp_path):
    (path,) = write(tmp_path, games=1, side=3)
    reader = Reader(gzip.decompress(path.read_bytes()))
    reader.load()
    assert {name for module, name in reader.seen if module == "hex_ai.enums"} == {"Player", "Winner"}
    assert "hex_ai" not in sys.modules and "hex_ai.enums" not in sys.modules


def test_a_hex_ai_that_is_imported_stays_imported_even_when_a_dump_fails(tmp_path, monkeypatch):
    theirs = ModuleType("hex_ai")
    monkeypatch.setitem(sys.modules, "hex_ai", theirs)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        write_processed(tmp_path / "x_processed.pkl.gz", [lambda: None], source_file="x.trmph")
    assert sys.modules["hex_ai"] is theirs and "hex_ai.enums" not in sys.modules
    assert list(tmp_path.iterdir()) == []


def test_broken_examples_are_written_as_they_are(tmp_path):
    examples = examples_of(play(1, side=3)[0])
    del examples[1]["board"]
    examples[2] = (1, "not an example", None)
    write_processed(tmp_path / "x_processed.pkl.gz", examples, source_file="x.trmph")
    loaded = read(tmp_path / "x_processed.pkl.gz")["examples"]
    assert "board" not in loaded[1] and loaded[2] == (1, "not an example", None)


def shape_of(value):
    """Keys in their order, types, dtypes and shapes: all of a value but what it says."""
    if isinstance(value, dict):
        return [(key, shape_of(item)) for key, item in value.items()]
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.flags.c_contiguous)
    if isinstance(value, tuple) and isinstance(value[0], str):
        return value[0]
    return [shape_of(item) for item in value] if isinstance(value, tuple) else type(value).__name__


def structure_of(path):
    data = gzip.decompress(path.read_bytes())
    reader = Reader(data)
    document = reader.load()
    examples = document.pop("examples")
    return {
        "protocol": list(data[:2]),
        "globals": sorted(reader.seen),
        "document": shape_of(document),
        "examples": sorted({repr(shape_of(example)) for example in examples}),
    }


def test_an_example_is_built_as_hex_ai_builds_it(written):
    about = [("game_id", ["int", "int"]), ("position_in_game", "int"), ("total_positions", "int")]
    about += [("value_sample_tier", "int"), ("winner", "Winner"), ("source_file", "str")]
    first, *_, last = read(written["processed"][0])["examples"]
    assert shape_of(first) == [
        ("board", ("<f4", (2, 13, 13), True)),
        ("policy", ("<f4", (169,), True)),
        ("value", "float"),
        ("player_to_move", "Player"),
        ("metadata", about),
    ]
    assert first["metadata"]["position_in_game"] == 0 and last["policy"] is None


def test_a_processed_file_is_built_like_a_real_one(written):
    real = sorted((REAL / "processed").glob("*.pkl.gz"))
    if not real:
        pytest.skip(f"NOT COMPARED WITH REAL FILES: there are none in {REAL / 'processed'}")
    assert structure_of(written["processed"][0]) == structure_of(real[0])


def test_a_trmph_file_is_built_like_a_real_one(written):
    real = sorted((REAL / "trmph").glob("*.trmph"))
    if not real:
        pytest.skip(f"NOT COMPARED WITH REAL FILES: there are none in {REAL / 'trmph'}")
    theirs, ours = real[0].read_bytes(), written["trmph"][0].read_bytes()
    lines = theirs.decode("ascii").splitlines()
    assert [trmph_line(moves_of(line)) for line in lines] == lines
    assert ours.endswith(b"\n") == theirs.endswith(b"\n") and b"\r" not in ours + theirs


def test_a_url_is_no_folder_for_games(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"out must be a folder .* on this machine, and http:/+host/d is a URL"):
        write(Path("http://me:secret@host/d"), games=1)
    assert list(tmp_path.iterdir()) == []
