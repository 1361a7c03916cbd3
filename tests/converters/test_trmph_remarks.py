"""What comments of a .trmph file say of its games: headers, and what a search said of each move."""

from __future__ import annotations

import json
import re
import zlib

import numpy as np
import pytest
from helpers.small_data import CUT, SIDE, columns_of, files_of, processed
from typer.testing import CliRunner

import hexshards
from hexshards import SearchedGame, write_trmph
from hexshards.cli.app import app
from hexshards.conversion.convert import convert
from hexshards.conversion.options import CONVERT, ConvertSpec
from hexshards.conversion.random_files import trmph_line
from hexshards.conversion.sources import Contents
from hexshards.converters.trmph import TrmphFiles
from hexshards.dataset.index import read_index
from hexshards.dataset.verify import verify
from hexshards.errors import DataError, InputRejected
from hexshards.game.columns import GENERATION, SEARCH_VALUE, VISITS
from hexshards.game.positions import concat
from hexshards.game.random_games import play
from hexshards.game.random_visits import search

CELLS = SIDE * SIDE


def searched(count=5, *, seed=0):
    """Games with visits and values of every move but some."""
    random, games = np.random.default_rng(seed), []
    for number, game in enumerate(play(count, side=SIDE, seed=seed)):
        free = np.ones((len(game.moves), CELLS), dtype=bool)
        for ply, cell in enumerate(game.moves):
            free[ply + 1 :, cell] = False
        counts = list(search(free, simulations=30, seed=number))
        values = [round(float(value), 4) for value in random.random(len(counts))]
        counts[2], values[1] = None, None
        games.append(SearchedGame(game.moves, game.winner, counts, values))
    return games


def lines_of(tmp_path, games, **options):
    write_trmph(tmp_path / "games.trmph", games, side=SIDE, **options)
    return (tmp_path / "games.trmph").read_text().splitlines()


def read(text, *, spec=CONVERT):
    chunks = list(TrmphFiles().read(text.encode(), name="a.trmph", where="a.trmph", spec=spec))
    rejects = [tuple(reject) for chunk in chunks for reject in chunk.rejects]
    return concat([chunk.positions for chunk in chunks]), rejects, dict(chunks[-1].headers)


def said_of(positions):
    """By game and ply: the value, and the counts by cell, one move at a time."""
    rows = {}
    for row, place in enumerate(zip(positions.game.tolist(), positions.ply.tolist(), strict=True)):
        cells, times = positions.optional[VISITS][row].tolist()
        counts = {cell: count for cell, count in zip(cells, times, strict=True) if count}
        rows[place] = float(positions.optional[SEARCH_VALUE][row]), counts
    return rows


def expected(games):
    rows = {}
    for number, game in enumerate(games):
        for ply in range(len(game.moves) + 1):
            ends = ply == len(game.moves)
            counts = None if ends else game.visits[ply]
            value = None if ends else game.values[ply]
            by_cell = {} if counts is None else {cell: int(n) for cell, n in enumerate(counts) if n}
            rows[2 * number + 1, ply] = np.nan if value is None else float(np.float32(value)), by_cell
    return rows


@pytest.mark.parametrize("selector", ["all", "final", "penultimate"])
def test_what_is_written_is_read_again(tmp_path, selector):
    games = searched()
    lines = lines_of(tmp_path, games)
    positions, rejects, _ = read("\n".join(lines), spec=ConvertSpec(positions=selector))
    assert not rejects
    wanted = expected(games)
    if selector == "final":
        assert not positions.optional
        return
    remarks = said_of(positions)
    last = {2 * number + 1: len(game.moves) for number, game in enumerate(games)}
    assert remarks.keys() == {(game, ply) for game, ply in wanted if selector == "all" or ply == last[game] - 1}
    for place, said in remarks.items():
        np.testing.assert_equal(said, wanted[place])


def plain(positions):
    return [positions.columns()[name].tobytes() for name in ("stones", "policy", "player", "value", "ply", "plies")]


def test_every_other_reader_sees_the_plain_games(tmp_path):
    games = searched()
    lines = lines_of(tmp_path, games, headers={"Model": "net.pt", "Seed": 3})
    assert [line for line in lines if not line.startswith("# ")] == [trmph_line(game) for game in play(5, side=SIDE)]
    # readers that split a line at blanks and take two parts, as hex_ai's first one does, pass over all others
    assert all(len(line.split()) > 2 for line in lines if line.startswith("# "))
    one, _, _ = read("\n".join(lines))
    other, _, _ = read("\n".join(line for line in lines if not line.startswith("# ")))
    assert plain(one) == plain(other)
    assert not other.optional


def test_small_files_read_together_are_told_apart(tmp_path):
    texts = ["\n".join(lines_of(tmp_path / str(seed), searched(1, seed=seed))) for seed in range(3)]
    texts.insert(1, trmph_line(play(1, side=SIDE, seed=9)[0]))
    files = [Contents(text.encode(), f"{number}.trmph", str(number)) for number, text in enumerate(texts)]
    together = list(TrmphFiles().read_each(files))
    for text, chunks in zip(texts, together, strict=True):
        alone, _, _ = read(text)
        mine = concat([chunk.positions for chunk in chunks]).having(tuple(alone.optional))
        for name, column in alone.columns().items():
            assert mine.columns()[name].tobytes() == column.tobytes()


GAME = "#5,c3a1c2a2c1a3c4a4c5 b"
MOVES = "c3a1c2a2c1a3c4a4c5"
TOLD = " ".join(["0.5:c3=3,a1=1"] + ["-"] * 8)


def remark(told=TOLD, moves=MOVES):
    return f"# search {zlib.crc32(moves.encode()):08x} {told}"


@pytest.mark.parametrize(
    ("told", "reason", "finding"),
    [
        ("-", "search of more or fewer moves than the game has", "1 of 9 moves"),
        (TOLD + " -", "search of more or fewer moves than the game has", "10 of 9 moves"),
        (TOLD.replace("c3=3", "c3=0"), "search that cannot be read", "0.5:c3=0,a1=1"),
        (TOLD.replace("c3=3", "c3=-3"), "search that cannot be read", "0.5:c3=-3,a1=1"),
        (TOLD.replace("0.5", "1.5"), "search that cannot be read", "1.5:c3=3,a1=1"),
        (TOLD.replace("0.5", "nan"), "search that cannot be read", "nan:c3=3,a1=1"),
        (TOLD.replace("0.5", "\x1b[2J"), "search that cannot be read", r"\x1b[2J:c3=3,a1=1"),
        (TOLD.replace("c3=3", "c3=123456"), "search that cannot be read", "0.5:c3=123456,a1=1"),
        (TOLD.replace("c3=3", "c3=65536"), "more than 65535 visits of a move", "c3 before move 1"),
        (TOLD.replace("c3=3", "f3=3"), "visits of a cell beyond the board", "f3"),
        (TOLD.replace("c3=3", "a1=3"), "visits of a move twice", "a1 before move 1"),
        ("- :c3=3 - - - - - - -", "visits on an occupied cell", "c3 before move 2"),
        (TOLD.replace("a1=1", ",".join(["a1=1"] * 32)), "visits of more than 32 moves", "33 before move 1"),
    ],
)
def test_a_search_that_is_none_is_named_and_its_game_stays(told, reason, finding):
    positions, rejects, _ = read(f"{GAME}\n{remark(told)}\n{GAME}\n{remark()}")
    assert rejects == [("line 2", reason, finding)]
    assert len(positions) == 20
    assert said_of(positions)[3, 0] == (0.5, {12: 3, 0: 1})


def test_a_search_is_never_taken_for_that_of_another_game():
    other = "#5,c3a2c2a1c1a3c4a4c5 b"
    positions, rejects, _ = read(f"{other}\n{remark()}")
    assert [reject[:2] for reject in rejects] == [("line 2", "search of another game")]
    assert not positions.optional


@pytest.mark.parametrize("before", ["", f"{GAME}\n# a comment\n", f"{GAME}\n{remark()}\n"])
def test_a_search_below_no_game_is_named(before):
    _, rejects, _ = read(f"{before}{remark()}\n{GAME}")
    assert [reject[1] for reject in rejects] == ["search below no game"]


def test_a_comment_that_only_begins_like_a_search_is_a_comment():
    text = f"# search for better games\n# search\n{GAME}\n# search 1234\n# search xyz\n#search {TOLD}\n"
    _, rejects, _ = read(text)
    assert [reject[0] for reject in rejects] == ["line 6"]  # no comment in any reader


def test_an_unsound_game_is_named_and_its_search_is_passed_over():
    bad = GAME.replace(" b", " r")
    positions, rejects, _ = read(f"{bad}\n{remark()}\n{GAME}\n{remark()}")
    assert [reject[:2] for reject in rejects] == [("line 1", "winner did not connect")]
    assert set(positions.game.tolist()) == {3}


@pytest.mark.parametrize("length", [10_000, 1_000_000])
def test_a_search_of_any_length_is_read_once(length):
    for told in ("-" * length, "a1=1," * length, ":" * length, "0.5 " * length):
        _, rejects, _ = read(f"{GAME}\n{remark(told)}\n")
        assert len(rejects) == 1
        assert len(rejects[0][2]) < 100


# a writer's arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visits": [None]}, "9 moves and 1 visits"),
        ({"values": [2.0] * 9}, "the value before move 1 is 2.0"),
        ({"visits": [{12: 1}] * 9}, "the visits before move 2 of cell 12 are 1"),
        ({"visits": [{25: 1}] * 9}, "the visits before move 1 of cell 25"),
        ({"visits": [{12: 0.5}] * 9}, "the visits before move 1 of cell 12 are 0.5"),
        ({"visits": [{12: 70000}] * 9}, "the visits before move 1 of cell 12 are 70000"),
        ({"winner": 2}, "the winner is 0 or 1"),
        ({"moves": [99]}, "moves are cells from 0 to 24"),
    ],
)
def test_a_writer_is_told_what_no_search_can_say(tmp_path, change, message):
    game = SearchedGame([12, 0, 7, 5, 2, 10, 17, 15, 22], 0)
    with pytest.raises(ValueError, match=f"game 1: .*{re.escape(message)}"):
        write_trmph(tmp_path / "a.trmph", [game._replace(**change)], side=SIDE)
    assert not (tmp_path / "a.trmph").exists()


def test_a_writer_overwrites_no_file(tmp_path):
    write_trmph(tmp_path / "a.trmph", [], side=SIDE)
    with pytest.raises(FileExistsError, match="give each file a name of its own"):
        write_trmph(tmp_path / "a.trmph", [], side=SIDE)


def test_of_many_moves_the_most_visited_are_written(tmp_path):
    games = play(1, side=7)
    visits = [np.arange(1, 50)] + [None] * (len(games[0].moves) - 1)
    write_trmph(tmp_path / "a.trmph", [SearchedGame(games[0].moves, games[0].winner, visits)], side=7)
    positions, rejects, _ = read((tmp_path / "a.trmph").read_text())
    assert not rejects
    assert sorted(positions.optional[VISITS][0, 1].tolist()) == list(range(18, 50))


# headers --------------------------------------------------------------------------------------------------------------

HEADERS = "# Self-play\n# Model: nets/gen_0012/epoch3.pt.gz\n# MCTS simulations: 400\n# Temperature: 0.5\n# Seed: 7\n"
HEADERS += "# Git commit: abc123\n# Players: two\n"


def test_headers_are_kept_and_tell_the_generation():
    positions, rejects, headers = read(f"{HEADERS}{GAME}\n# Model: other.pt\n{GAME}\n# Generation: 14\n{GAME}\n")
    assert not rejects
    assert headers == {
        "model": "nets/gen_0012/epoch3.pt.gz, other.pt",
        "simulations": "400",
        "temperature": "0.5",
        "seed": "7",
        "commit": "abc123",
        "generation": "14",
    }
    assert dict(zip(positions.game.tolist(), positions.optional[GENERATION].tolist(), strict=True)) == {
        8: 12,
        10: -1,
        12: 14,
    }


def test_of_a_million_headers_a_few_are_kept():
    text = "".join(f"# Seed: {number} {'x' * 500}\n" for number in range(1000))
    _, _, headers = read(text + GAME)
    assert len(headers["seed"]) < 1000


def write(folder, text):
    folder.mkdir(exist_ok=True)
    path = folder / "a.trmph"
    path.write_text(text)
    return path


WHOLE = {**CUT, "val_fraction": 0.0}


def test_info_shows_where_games_come_from(tmp_path):
    games = "\n".join(trmph_line(game) for game in play(9, side=SIDE))
    convert(write(tmp_path / "a", HEADERS + games), out=tmp_path / "data", **WHOLE)
    said = CliRunner().invoke(app, ["info", str(tmp_path / "data")]).output
    facts = "commit abc123, model nets/gen_0012/epoch3.pt.gz, seed 7, simulations 400, temperature 0.5"
    assert facts in " ".join(said.split())
    assert set(columns_of(tmp_path / "data", "train")["generation"].tolist()) == {12}
    (file,) = read_index(tmp_path / "data").inputs
    assert file.headers["commit"] == "abc123"
    assert verify(tmp_path / "data").problems == ()


def test_comments_that_say_nothing_change_nothing(tmp_path):
    games = "\n".join(trmph_line(game) for game in play(9, side=SIDE))
    convert(write(tmp_path / "a", "# a comment\n# Players: two\n" + games), out=tmp_path / "data", **WHOLE)
    entry = json.loads((tmp_path / "data" / "index.json").read_text())
    assert entry["version"] == 1
    assert "headers" not in entry["inputs"][0]


@pytest.mark.parametrize("headers", [{}, {"model": 3}, {"model": "x" * 2000}, ["model"], {"m" * 50: "x"}])
def test_an_index_with_headers_that_nobody_wrote_is_refused(tmp_path, headers):
    games = "\n".join(trmph_line(game) for game in play(9, side=SIDE))
    convert(write(tmp_path / "a", HEADERS + games), out=tmp_path / "data", **WHOLE)
    entry = json.loads((tmp_path / "data" / "index.json").read_text())
    entry["inputs"][0]["headers"] = headers
    (tmp_path / "data" / "index.json").write_text(json.dumps(entry))
    with pytest.raises(DataError, match="headers"):
        read_index(tmp_path / "data")


@pytest.mark.parametrize("form", ["trmph", "processed"])
def test_a_generation_is_given_where_no_header_gives_one(tmp_path, form):
    games = "\n".join(trmph_line(game) for game in play(9, side=SIDE))
    path = write(tmp_path / "a", games) if form == "trmph" else processed(tmp_path / "a", games=9)
    convert(path, out=tmp_path / "data", generation=3, **WHOLE)
    convert(
        write(tmp_path / "b", HEADERS + games.replace("\n", "\n\n")), out=tmp_path / "data", append=True, generation=4
    )
    generations = columns_of(tmp_path / "data", "train")["generation"]
    assert sorted(set(generations.tolist())) == [3, 12]
    assert [file.headers["generation"] for file in read_index(tmp_path / "data").inputs] == ["3", "4"]


def test_a_generation_below_0_is_refused(tmp_path):
    with pytest.raises(ValueError, match="generation must be a number from 0 on"):
        hexshards.convert(write(tmp_path / "a", GAME), out=tmp_path / "data", generation=-2)


def test_files_with_searches_give_the_same_bytes_in_any_order(tmp_path):
    paths = [tmp_path / "a" / f"games_{seed}.trmph" for seed in range(2)]
    for seed, path in enumerate(paths):
        write_trmph(path, searched(12, seed=seed), side=SIDE)
    convert(paths, out=tmp_path / "one", **CUT)
    convert(paths[::-1], out=tmp_path / "same", **CUT)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "same")
    assert [each.name for each in read_index(tmp_path / "one").layout.optional] == ["search_value", "visits"]
    assert verify(tmp_path / "one").problems == ()


def test_a_search_that_is_none_stops_convert_in_one_sentence(tmp_path):
    path = write(tmp_path / "a", f"{GAME}\n{remark('-')}\n")
    with pytest.raises(
        InputRejected, match=r"1 line was rejected \(search of more or fewer moves than the game has: 1"
    ):
        convert(path, out=tmp_path / "data", **WHOLE)
