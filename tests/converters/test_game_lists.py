from __future__ import annotations

import dataclasses
import gzip
import json

import numpy as np
import pytest
from helpers.game_files import hexworld, minizero, names, playhex, sgf, shf, trmph

import hexshards
from hexshards.conversion.discovery import discover
from hexshards.conversion.options import CONVERT, ConvertSpec
from hexshards.converters.hexworld import HexWorldLinks
from hexshards.converters.neurobenzene import NeurobenzeneGames
from hexshards.converters.playhex import PlayHexGames
from hexshards.converters.sgf import SgfGames
from hexshards.converters.trmph import TrmphFiles
from hexshards.errors import DataError
from hexshards.game.board import BLUE, move_name
from hexshards.game.game_filter import GameFilter, Players
from hexshards.game.positions import concat
from hexshards.game.random_games import play

SIDE = 5
GAMES = play(9, side=SIDE, seed=4)
RESIGNED = dataclasses.replace(CONVERT, unfinished="resigned")
KEEP = dataclasses.replace(CONVERT, unfinished="keep")


FORMATS = {
    "playhex": (PlayHexGames, "playhex-games-2026-01-01.json", playhex),
    "hexworld": (HexWorldLinks, "games.hexworld", hexworld),
    "sgf": (SgfGames, "games.sgf", sgf),
    "minizero": (SgfGames, "sgf_1.sgf", minizero),
    "hsgf": (SgfGames, "games.hsgf", lambda games: sgf(games, littlegolem=True)),
}


def read(converter, data, *, spec=CONVERT, name="games", skip=()):
    chunks = list(converter().read(data, name=name, where=name, spec=spec, skip=skip))
    rejects = [(r.place, r.reason) for chunk in chunks for r in chunk.rejects]
    parts = [chunk.positions for chunk in chunks if len(chunk.positions)] or [chunks[0].positions]
    return concat(parts), rejects, chunks[-1].notes


def columns(positions):
    return {name: column.tolist() for name, column in positions.columns().items()}


def test_games_of_neurobenzene_are_those_of_trmph():
    data = shf(GAMES)
    positions, rejects, notes = read(NeurobenzeneGames, data)
    expected, _, _ = read(TrmphFiles, b"\n" + b"#\n" + trmph(GAMES))
    assert columns(positions) == columns(expected) and not rejects and not notes


@pytest.mark.parametrize("policy", ["a3 0.5; c2 0.25;", "a3:0.5;c2:0.25", " a3 0.5 ;c2 0.25"])
def test_shares_of_neurobenzene_are_visits(policy):
    data = f"# 3 x 3 Hex\nB[a1] W[c2][{policy}] -1.0\n".encode()
    positions, _, _ = read(NeurobenzeneGames, data, spec=KEEP)
    (visits,) = positions.optional.values()
    assert visits[1, :, :3].tolist() == [[6, 5, 0], [10_000, 5_000, 0]]
    assert (
        not visits[0].any() and positions.value.tolist() == [1.0] * 3
    )  # after two moves BLUE is to move, and has lost


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("B[a1] B[a2] 1.0", "a player moves twice"),
        ("B[a1][] 1.0", "not a game"),
        ("B[a1][a9 1] 1.0", "policy that is no list of moves and shares"),
        ("B[a1][a2 x] 1.0", "policy that is no list of moves and shares"),
        ("B[a1][a2 0] 1.0", "policy that is no list of moves and shares"),
        ("B[a1]", "not a game"),
        ("B[a1] 1.0 1.0", "not a game"),
        ("B[z9] W[a1] 1.0", "move off the board"),
        ("B[a1] W[b1] 0.3", "unfinished game"),
    ],
)
def test_a_line_of_neurobenzene_that_is_none_is_named(line, reason):
    assert read(NeurobenzeneGames, f"#3 x 3 Hex\n{line}".encode())[1] == [("line 2", reason)]


def test_games_without_a_side_are_refused():
    with pytest.raises(DataError, match="side of the board"):
        read(NeurobenzeneGames, b"B[a1] 1.0")


@pytest.mark.parametrize("selector", ["all", "final", "penultimate"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_game_gives_the_same_positions_whatever_format_it_comes_in(form, selector):
    converter, _, written = FORMATS[form]
    spec = dataclasses.replace(CONVERT, positions=selector)
    positions, rejects, notes = read(converter, written(GAMES), spec=spec)
    expected, _, _ = read(TrmphFiles, trmph(GAMES), spec=spec)
    assert columns(positions.having(())) == columns(expected)
    assert not rejects and not notes


@pytest.mark.parametrize("form", FORMATS)
def test_a_game_has_the_same_key_whatever_format_it_comes_in(form):
    converter, _, written = FORMATS[form]
    games = converter().games(written(GAMES), name="x", where="x")
    expected = TrmphFiles().games(trmph(GAMES), name="x", where="x")
    assert np.array_equal(games.keys, expected.keys) and np.array_equal(games.games, expected.games)


@pytest.mark.parametrize("form", FORMATS)
def test_games_that_are_to_be_skipped_are_not_read(form):
    converter, _, written = FORMATS[form]
    positions, _, _ = read(converter, written(GAMES), skip=(2, 3))
    assert sorted(set(positions.game.tolist())) == [1, 4, 5, 6, 7, 8, 9]


def test_a_swap_leaves_the_stone_and_turns_the_rest_over():
    """By hand: red's b1 becomes blue's a2; in that mirror, where red is RED, it lies at b1 and is BLUE's again."""
    moves = "b1 swap-pieces a1 a3 c3"
    data = json.dumps([{"boardsize": 3, "moves": moves, "winner": "red", "outcome": "resign"}]).encode()
    positions, rejects, _ = read(PlayHexGames, data, spec=RESIGNED)
    assert not rejects
    assert [move_name(cell, side=3) for cell in positions.policy[:-1].tolist()] == ["b1", "a1", "c1", "c3"]
    assert positions.player.tolist() == [0, 1, 0, 1, 0] and positions.value.tolist() == [1.0] * 5


@pytest.mark.parametrize("form", FORMATS)
def test_repeats_are_found_across_formats(form, tmp_path):
    _, name, written = FORMATS[form]
    (tmp_path / name).write_bytes(written(GAMES))
    (tmp_path / "plain.trmph").write_bytes(trmph(GAMES))
    report = hexshards.convert([tmp_path / name, tmp_path / "plain.trmph"], out=tmp_path / "data")
    assert report.positions == len(read(TrmphFiles, trmph(GAMES))[0])


def test_games_of_other_sides_are_counted_and_a_side_may_be_asked_for():
    games = [*play(3, side=5, seed=1), *play(2, side=6, seed=1)]
    positions, rejects, notes = read(PlayHexGames, playhex(games))
    assert positions.side == 5 and not rejects and notes == ["passed over: 2 games of side 6"]
    positions, _, notes = read(PlayHexGames, playhex(games), spec=ConvertSpec(side=6))
    assert positions.side == 6 and notes == ["passed over: 3 games of side 5"]


@pytest.mark.parametrize(("outcome", "kept"), [("resign", (RESIGNED, KEEP)), ("time", (KEEP,)), ("forfeit", (KEEP,))])
def test_the_result_of_a_game_without_connection_is_trusted_only_when_asked_for(outcome, kept):
    game = dataclasses.replace(GAMES[0], moves=GAMES[0].moves[:-2])
    data = playhex([*GAMES[2:3], game], outcome=outcome)
    for spec in (CONVERT, RESIGNED, KEEP):
        positions, rejects, notes = read(PlayHexGames, data, spec=spec)
        expected = {1, 2} if spec in kept else set()
        assert set(positions.game.tolist()) == expected and not rejects
        assert bool(notes) == (spec not in kept)


def test_a_link_says_who_resigned():
    link = b"https://hexworld.org/board/#3c1,a1b1:rw"
    positions, rejects, _ = read(HexWorldLinks, link, spec=RESIGNED)
    assert not rejects and positions.value.tolist() == [0.0] * 3


def test_games_with_a_pass_are_counted():
    _, _, notes = read(HexWorldLinks, hexworld(GAMES[:1]) + b"\nhttps://hexworld.org/board/#5c1,a1:pb1")
    assert notes == ["passed over: 1 game with a pass"]


def test_games_are_chosen_by_who_played():
    data = playhex(GAMES[:2], rated=True, playerRedType="bot", playerBlueType="player")
    for text, kept in (
        ("rated=yes", 2),
        ("rated=no", 0),
        ("bots=no", 0),
        ("bots=yes, rated=yes", 2),
        ("rating=1..", 0),
    ):
        positions, _, notes = read(PlayHexGames, data, spec=ConvertSpec(games=text))
        assert len(set(positions.game.tolist())) == kept and bool(notes) == (not kept)


def test_ratings_of_an_sgf_are_those_of_both_players():
    data = sgf(GAMES[:1]).replace(b"RE[", b"BR[1850]WR[1700?]RE[")
    for text, kept in (("rating=1700..", 1), ("rating=1701..", 0), ("rating=1600..1800", 0), ("rating=1000..2000", 1)):
        positions, _, _ = read(SgfGames, data, spec=ConvertSpec(games=text))
        assert len(set(positions.game.tolist())) == kept


@pytest.mark.parametrize(
    "text", ["rated", "rated=maybe", "rating=9", "rating=9..8", "x=1", "rated=yes,rated=no", "=", "\x1b=1"]
)
def test_a_filter_of_games_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="games: ") as raised:
        ConvertSpec(games=text)
    assert "\x1b" not in str(raised.value)


def test_one_who_says_nothing_meets_no_condition():
    assert GameFilter().keeps(Players())
    assert not any(GameFilter.parse(text).keeps(Players()) for text in ("rated=no", "bots=no", "rating=0.."))


def test_what_a_search_said_is_a_column_seen_from_white():
    game = play(1, side=3, seed=2)[0]
    nodes = "".join(f";{'BW'[ply % 2]}[{move}]C[0.25 0.70 0.05 v=28]" for ply, move in enumerate(names(game)))
    data = f"(;FF[4]GM[1]SZ[3]RE[{'BW'[game.winner]}+]{nodes})".encode()
    positions, _, _ = read(SgfGames, data)
    (value,) = positions.optional.values()
    assert value.tolist() == pytest.approx([0.275] * len(game.moves) + [np.nan], nan_ok=True)


def test_visits_of_minizero_are_a_column():
    """By hand, side 3: 0 is x = 0 at the bottom, the upper right corner here: c1; 5 is x = 2, y = 1: b3."""
    data = b"(;GM[hex]RE[0]SZ[3];B[0]P[0:7,5:9,8:0];W[5]P[5:0.25,8:0.5])"
    positions, rejects, _ = read(SgfGames, data, spec=dataclasses.replace(KEEP))
    assert not len(positions) and rejects == [("game 1", "unfinished game")]
    positions, _, _ = read(SgfGames, data.replace(b"RE[0]", b"RE[-1]"), spec=KEEP)
    (visits,) = positions.optional.values()
    assert [move_name(cell, side=3) for cell in positions.policy[:2].tolist()] == ["c1", "b3"]
    assert visits[0, :, :3].tolist() == [[7, 2, 0], [9, 7, 0]]  # b3 most, then c1
    assert visits[1, :, :3].tolist() == [[6, 7, 0], [10_000, 5_000, 0]]  # a3, then b3
    assert not visits[2].any() and positions.value.tolist() == [1.0] * 3


@pytest.mark.parametrize("policy", ["x", "0", "0:-1", "0:nan", "9:1", "0:1,0:2", "0:0", "0:1e999", "0:1,", ":1"])
def test_visits_that_are_none_are_named(policy):
    data = f"(;GM[hex]RE[1]SZ[3];B[0]P[{policy}])".encode()
    assert read(SgfGames, data)[1] == [("game 1", "policy that is no list of moves and visits")]


@pytest.mark.parametrize("move", ["9", "9999", "a1", "-1", ""])
def test_a_move_of_minizero_beyond_the_board_is_named(move):
    ((place, reason),) = read(SgfGames, f"(;GM[hex]RE[1]SZ[3];B[{move}])".encode())[1]
    assert place == "game 1" and reason in ("move off the board", "move that is no number")


def test_many_games_without_an_end_are_refused_at_once():
    with pytest.raises(DataError, match="not closed"):
        read(SgfGames, b"(;SZ[5]\n" * 200)


def test_a_text_file_is_known_by_what_it_holds(tmp_path):
    (tmp_path / "links.txt").write_bytes(hexworld(GAMES))
    (tmp_path / "lines.txt").write_bytes(trmph(GAMES))
    (tmp_path / "links.txt.gz").write_bytes(gzip.compress(hexworld(GAMES)))
    formats = {
        each.path.name: each.format for each in discover([tmp_path / "links.txt", tmp_path / "lines.txt"]).inputs
    }
    assert formats == {"links.txt": "hexworld", "lines.txt": "trmph"}


BROKEN = {
    "cell played twice": "a1 a1",
    "move off the board": "a1 f1",
    "winner did not connect": None,
    "no moves": "",
    "unfinished game": "a1 b1",
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_game_that_is_none_is_named_with_its_fault(reason):
    moves = " ".join(names(GAMES[1])) if BROKEN[reason] is None else BROKEN[reason]
    winner = "red" if (GAMES[1].winner == BLUE) != (reason == "winner did not connect") else "blue"
    entry = {"boardsize": 5, "moves": moves, "winner": winner, "outcome": "path"}
    data = json.dumps([*json.loads(playhex(GAMES[:1])), entry]).encode()
    positions, rejects, _ = read(PlayHexGames, data)
    assert rejects == [("game 2", reason)] and set(positions.game.tolist()) == {1}


@pytest.mark.parametrize(
    "entry",
    [b"1", b"{}", b'{"boardsize": "x"}', b"[]", b'{"boardsize":5,"moves":5,"winner":"red"}', b'{"boardsize":1e400}'],
)
def test_an_entry_that_is_no_game_is_named(entry):
    data = playhex(GAMES[:1])[:-1] + b"," + entry + b"]"
    positions, rejects, _ = read(PlayHexGames, data)
    assert rejects == [("game 2", "not a game")] and len(positions)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[", b"\xff", b"[1," + b"1," * 99_999 + b"1]", b"[" * 100_000, b"[" + b"{}," * 99_999 + b"{}]", b"5"],
    ids=["empty", "object", "open", "bytes", "numbers", "nested", "objects", "number"],
)
def test_a_file_that_is_no_export_is_refused_in_a_sentence(data):
    with pytest.raises(DataError, match="array of games"):
        read(PlayHexGames, data)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"https://hexworld.org/board/#5x6c1,a1", "board that is no rhombus of one side"),
        (b"https://hexworld.org/board/#c1,a1", "not a game"),
        (b"https://hexworld.org/board/#5c1,a1$", "move that is not a letter and a number"),
        (b"https://hexworld.org/board/#5c1,a1:rba2", "moves after the end"),
        (b"https://hexworld.org/board/#5c1," + b"a1" * 500, "more moves than any board has cells"),
        (b"hello", "not a link to a board"),
    ],
)
def test_a_line_that_is_no_game_is_named(line, reason):
    _, rejects, _ = read(HexWorldLinks, hexworld(GAMES[:1]) + b"\n\n" + line)
    assert rejects == [("line 3", reason)]


def test_a_list_without_links_is_refused():
    with pytest.raises(DataError, match="no list of links"):
        list(HexWorldLinks().read(b"hello\n", name="x", where="x", spec=CONVERT))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"(;FF[4]SZ[5];B[a1]", "not a game"),
        (b"(;FF[4]SZ[5]" + b"(;B[a1])" * 1_001 + b")", "not a game"),
        (b"(;FF[4];B[a1])", "no side of the board"),
        (b"(;FF[4]SZ[5:6];B[a1])", "no side of the board"),
        (b"(;FF[4]SZ[5]RE[W+];B[a1];W[resign];B[a2])", "moves after the end"),
        (b"(;FF[4]SZ[5]RE[W+];B[a1];W[zz])", "move off the board"),
        (b"(;FF[4]SZ[5]RE[?];B[a1])", "unfinished game"),
    ],
)
def test_an_sgf_that_is_no_game_is_named_and_the_next_is_read(text, reason):
    positions, rejects, _ = read(SgfGames, text + b"\n" + sgf(GAMES[:1]))
    assert rejects == [("game 1", reason)] and set(positions.game.tolist()) == {2}


def test_variations_are_not_read():
    data = sgf(GAMES[:1])[:-1] + b"(;C[main])(;B[a1]))"
    assert columns(read(SgfGames, data)[0]) == columns(read(SgfGames, sgf(GAMES[:1]))[0])


def test_what_an_sgf_holds_besides_games_of_hex_is_counted():
    data = sgf(GAMES[:1]) + b"(;GM[2]SZ[5];B[a1])(;SZ[5]AB[a1];W[b1])(;SZ[5];B[a1];B[a2])"
    _, rejects, notes = read(SgfGames, data)
    assert not rejects and len(notes) == 3


@pytest.mark.parametrize("options", [{"side": 6}, {"games": "rated=yes"}])
def test_later_options_are_recorded_only_where_they_are_given(options, tmp_path):
    (tmp_path / "a.trmph").write_bytes(trmph(GAMES))
    hexshards.convert(tmp_path / "a.trmph", out=tmp_path / "plain")
    assert not options.keys() & hexshards.read_index(tmp_path / "plain").options.keys()
    with pytest.raises(ValueError, match="can't be added"):
        hexshards.convert(tmp_path / "a.trmph", out=tmp_path / "plain", append=True, **options)
