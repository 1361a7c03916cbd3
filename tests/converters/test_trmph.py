from __future__ import annotations

import dataclasses
import gzip
import json
from collections import Counter

import numpy as np
import pytest

from hexshards import rng
from hexshards.conversion.discovery import discover
from hexshards.conversion.options import CONVERT
from hexshards.conversion.random_files import trmph_line, write
from hexshards.conversion.sources import Contents, formats
from hexshards.converters import trmph
from hexshards.converters.processed import ProcessedFiles
from hexshards.converters.trmph import CHUNK_GAMES, TrmphFiles
from hexshards.dataset.split import game_keys
from hexshards.errors import DataError
from hexshards.game.board import BLUE, NEIGHBOURS, RED, move_name, symmetry_cells
from hexshards.game.columns import NO_POLICY, UNKNOWN
from hexshards.game.positions import concat
from hexshards.game.random_games import Game, play
from hexshards.game.validation import Draft, admit

ALL = CONVERT
KEEP = dataclasses.replace(CONVERT, unfinished="keep")
SELECTORS = ("all", "final", "penultimate")


def lines_of(games):
    return [trmph_line(game).encode() for game in games]


def join(lines):
    return b"".join(line + b"\n" for line in lines)


def read(data, *, spec=ALL, name="games_07.trmph", skip=()):
    """Positions, rejects as (line, reason, finding), and the last chunk."""
    chunks = list(TrmphFiles().read(data, name=name, where=name, spec=spec, skip=skip))
    rejects = [(int(r.place.removeprefix("line ")), r.reason, r.finding) for chunk in chunks for r in chunk.rejects]
    return concat([chunk.positions for chunk in chunks]), rejects, chunks[-1]


def reasons(rejects):
    return [(line, reason) for line, reason, _ in rejects]


def games_kept(positions):
    return sorted(set(positions.game.tolist()))


def rows_of(positions, sources):
    """Each position as one tuple of all that both ways to a dataset know: everything but the tier."""
    columns = ("policy", "player", "value", "game", "ply", "plies")
    values = zip(*(getattr(positions, name).tolist() for name in columns), strict=True)
    stones = [row.tobytes() for row in positions.stones]
    names = [sources[number] for number in positions.source.tolist()]
    return list(zip(stones, names, values, strict=True))


# the slow obvious twin ----------------------------------------------------------------------------------------------


class Fault(Exception):
    pass


def slow_moves(text):
    """Cells as (row, col) from 0, by looking at one character after another."""
    moves = []
    while text:
        letter, text = text[0], text[1:]
        digits = ""
        while len(digits) < 2 and text and text[0] in "0123456789":
            digits, text = digits + text[0], text[1:]
        if letter not in "abcdefghijklmnopqrstuvwxyz" or not digits or digits[0] == "0":
            raise Fault("move that is not a letter and a number")
        moves.append((int(digits) - 1, ord(letter) - ord("a")))
    return moves


def slow_line(content):
    """Side, moves and mark; None for a comment; raises Fault."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise Fault("bytes that are not UTF-8") from None
    text = text.strip(" \t")
    if text.split(" ")[0].split("\t")[0] == "#":
        return None
    words = text.replace("\t", " ").split(" ")
    if "#" in words:
        words = words[: words.index("#")]
    words = [word for word in words if word]
    page, hash_, game = words[0].partition("#") if words else ("", "", "")
    number, comma, moves = game.partition(",")
    known = page == "" or page.startswith(("http://", "https://", "trmph.com/", "www.trmph.com/"))
    if not (hash_ and comma and known and page.isascii() and number.isascii() and number.isdigit()):
        raise Fault("not a game")
    if not all("!" <= character <= "~" for character in page):
        raise Fault("not a game")
    if number not in [str(side) for side in range(3, 20)]:
        raise Fault("side outside 3 to 19")
    moves = slow_moves(moves)
    if len(words) == 1:
        raise Fault("no winner")
    if len(words) > 2 or words[1] not in ("b", "r", "1", "2"):
        raise Fault("unknown winner")
    return int(number), moves, words[1]


def slow_connects(own, side, player):
    first = [cell for cell in own if cell[player] == 0]
    seen, stack = set(first), list(first)
    while stack:
        row, col = stack.pop()
        if (row, col)[player] == side - 1:
            return True
        near = {(row + down, col + right) for down, right in NEIGHBOURS} & own - seen
        seen |= near
        stack += near
    return False


def slow_fault(side, moves, mark, unfinished):
    if not moves:
        return "no moves"
    if any(max(cell) >= side for cell in moves):
        return "move off the board"
    if len(set(moves)) < len(moves):
        return "cell played twice"
    own, won = (set(), set()), None
    for ply, cell in enumerate(moves):
        if won is not None:
            return "moves after the win"
        own[ply % 2].add(cell)
        if slow_connects(own[ply % 2], side, ply % 2):
            won = ply % 2
    if won is None:
        return None if unfinished == "keep" else "unfinished game"
    return None if won == "br".index(mark) else "winner did not connect"


def slow_read(data, *, spec):
    """Positions as (planes, policy, player, value, game, ply, plies), and rejects as (line, reason)."""
    read, rejects, number = [], [], 0
    for line, content in enumerate(data.split(b"\n"), start=1):
        if content.decode(errors="replace").strip() == "":
            continue
        number += 1
        try:
            game = slow_line(content)
        except Fault as fault:
            rejects.append((line, str(fault)))
        else:
            read += [(line, number, *game)] if game else []
    sides = Counter(side for _, _, side, _, _ in read)
    positions = []
    for line, number, side, moves, mark in read:
        fault = "game of another side" if side != max(sides, key=sides.get) else None
        if fault is None and mark in "12":
            fault = "winner 1 or 2 in a file that has b or r"
        fault = fault or slow_fault(side, moves, mark, spec.unfinished)
        if fault:
            rejects.append((line, fault))
            continue
        plies = len(moves)
        chosen = {"all": range(plies + 1), "final": [plies], "penultimate": [plies - 1]}[spec.positions]
        for ply in chosen:
            board = np.zeros((2, side, side), dtype=np.uint8)
            for before, (row, col) in enumerate(moves[:ply]):
                board[before % 2, row, col] = 1
            policy = moves[ply][0] * side + moves[ply][1] if ply < plies else NO_POLICY
            positions.append((board.tobytes(), policy, ply % 2, float("br".index(mark)), number, ply, plies))
    return positions, sorted(rejects)


SNIPPETS = [
    *(b"#", b" ", b"\t", b" # ", b"#5,", b"#6,", b"#20,", b"#05,", b",", b"\xff", b"\xc3\xa9", b"\xc2\xb2", b"\x00"),
    *(b"a0", b"a01", b"A1", b"a1", b"e5", b"f1", b"a6", b"a55", b"z99", b"9", b"b", b"r", b" b", b" r", b" 1", b"x"),
    *(b"https://trmph.com/hex/board", b"trmph.com/", b"ftp://x/", b"\xd9\xa2", b"\xef\xbb\xbf", b"\xc2\xa0", b"\x1c"),
]


def corrupted(lines, seed):
    """Each line with none to three spots cut out, doubled or replaced; most with none."""
    words = iter(rng.raw(20 * len(lines), seed).tolist())
    for line in lines:
        for _ in range(max(0, next(words) % 8 - 4)):
            start = next(words) % (len(line) + 1)
            stop = start + next(words) % 4
            snippet = SNIPPETS[next(words) % len(SNIPPETS)]
            line = line[:start] + [b"", line[start:stop] * 2, snippet, snippet][next(words) % 4] + line[stop:]
        yield [line, b"  " + line + b"\t", b"", line + b" # said \xe2\x9c\x93", b"# " + line, line[:-1]][
            max(0, next(words) % 16 - 10)
        ]


@pytest.mark.parametrize("unfinished", ["reject", "keep"])
@pytest.mark.parametrize("selector", SELECTORS)
def test_sound_and_corrupted_lines_are_read_as_a_slow_twin_reads_them(selector, unfinished):
    spec = dataclasses.replace(CONVERT, positions=selector, unfinished=unfinished)
    games = play(700, side=5, seed=1)
    games += [dataclasses.replace(game, moves=game.moves[:-1]) for game in play(60, side=5, seed=2)]
    games += [dataclasses.replace(game, winner=1 - game.winner) for game in play(60, side=5, seed=3)]
    games += play(30, side=6, seed=4)
    words = rng.raw(len(games), 9)
    lines = lines_of([games[at] for at in np.argsort(words).tolist()])
    data = join(corrupted(lines, seed=len(selector)))
    expected, rejects = slow_read(data, spec=spec)
    positions, listed, _ = read(data, spec=spec)
    assert reasons(listed) == rejects
    columns = ("policy", "player", "value", "game", "ply", "plies")
    boards = [board.tobytes() for board in positions.planes()]
    assert list(zip(boards, *(getattr(positions, c).tolist() for c in columns), strict=True)) == expected
    assert len(set(games_kept(positions))) > 250 and len({reason for _, reason in rejects}) > 8


@pytest.mark.parametrize("side", [3, 4, 13, 19])
def test_what_the_border_admits_of_these_positions_is_all_of_them_unchanged(side):
    games = play(20, side=side, seed=6)
    cut = [dataclasses.replace(game, moves=game.moves[:-2]) for game in play(5, side=side, seed=7)]
    positions, rejects, _ = read(join(lines_of([game for game in games + cut if game.moves])), spec=KEEP)
    assert rejects == []
    soft = positions.softened()
    draft = Draft(
        side=side,
        boards=positions.planes().astype(np.float32),
        policy=soft.policy.astype(np.float32),
        has_policy=positions.policy != NO_POLICY,
        value=positions.value.astype(np.float64),
        player=positions.player.astype(np.int8),
        ply=positions.ply,
        source=positions.source,
        game=positions.game,
        plies=positions.plies,
        tier=positions.tier,
        places=[""] * len(positions),
    )
    admitted, refused = admit(draft)
    assert refused == []
    for name, column in admitted.columns().items():
        np.testing.assert_array_equal(column, getattr(positions, name), strict=True)


# the same games by processed files ----------------------------------------------------------------------------------


def assert_same_positions(raw, processed):
    positions, rejects, chunk = read(raw.read_bytes(), name=raw.name)
    assert rejects == [] and chunk.notes == ()
    theirs, sources = read_processed(processed)
    assert chunk.sources == sources and set(theirs.source.tolist()) == {0}
    theirs = theirs.take(np.lexsort((theirs.ply, theirs.game)))
    for name, column in positions.columns().items():
        if name != "tier":
            np.testing.assert_array_equal(column, getattr(theirs, name), strict=True)


def read_processed(path):
    chunks = list(ProcessedFiles().read(path.read_bytes(), name=path.name, where=path.name))
    return concat([chunk.positions for chunk in chunks]), tuple(chunks[-1].sources)


@pytest.mark.parametrize("side", [3, 11, 19])
def test_random_games_give_the_positions_of_their_processed_file(tmp_path, side):
    (raw,) = write(tmp_path / "raw", games=30, side=side, format="trmph")
    (processed,) = write(tmp_path / "processed", games=30, side=side)
    assert_same_positions(raw, processed)


def test_each_real_file_gives_the_positions_of_the_processed_file_made_of_it_and_none_is_left_over(real):
    pairs = [(path, real / "processed" / f"{path.stem}_processed.pkl.gz") for path in (real / "trmph").iterdir()]
    pairs = [(raw, processed) for raw, processed in pairs if processed.exists()]
    assert len(pairs) == 8
    for raw, processed in pairs:
        assert_same_positions(raw, processed)


def test_a_shuffled_file_names_its_games_as_the_raw_files_do(real):
    theirs, sources = read_processed(real / "shuffled" / "shuffled_0000.pkl.gz")
    for name in ("wolve13_00", "wolve13_09"):
        positions, _, chunk = read((real / "trmph" / f"{name}.trmph").read_bytes(), name=f"{name}.trmph")
        shuffled = theirs.take(theirs.source == sources.index(name))
        assert len(shuffled) > 1000
        assert set(rows_of(shuffled, sources)) <= set(rows_of(positions, chunk.sources))
        keys = game_keys(sources, shuffled.source, shuffled.game)
        assert set(keys.tolist()) <= set(game_keys(chunk.sources, positions.source, positions.game).tolist())


def test_blank_lines_are_not_counted_in_a_games_number_but_in_the_place_of_a_reject():
    first, second, third = lines_of(play(3, side=5))
    data = b"\n" + first + b"\n \t \n\xc2\xa0\n# comment\n" + b"x\n" + second + b"\n\n\r\n" + third
    positions, rejects, _ = read(data)
    assert (games_kept(positions), reasons(rejects)) == ([1, 4, 5], [(6, "not a game")])


# hostile files ------------------------------------------------------------------------------------------------------


def test_each_hostile_file_is_kept_refused_or_rejected_by_line_as_its_kind_says(real):
    manifest = json.loads((real / "hostile" / "MANIFEST.json").read_bytes())
    kinds = Counter()
    for name, entry in manifest.items():
        if not name.startswith("trmph/"):
            continue
        kinds[entry["kind"]] += 1
        data = (real / "hostile" / name).read_bytes()
        if entry["kind"] == "container":
            with pytest.raises(DataError):
                read(data)
            continue
        positions, rejects, _ = read(data)
        assert [line for line, _ in reasons(rejects)] == ([2] if entry["kind"] == "line" else []), name
        lines = set(range(1, len(data.splitlines()) + 1))
        assert games_kept(positions) == sorted(lines - {line for line, _ in reasons(rejects)}), name
    assert kinds["line"] >= 15 and kinds["edge"] >= 6 and kinds["container"] >= 1


# a line between two sound games of side 5; the reason it is rejected with; what the reject says was found
FAULTS = {
    "prose": (b"a game of hex", "not a game", "a game of hex"),
    "markup": (b"<html>", "not a game", "<html>"),
    "no comma": (b"#5 a1b2 b", "not a game", "#5 a1b2 b"),
    "no number": (b"#,a1b2 b", "not a game", "#,a1b2 b"),
    "number in Arabic digits": ("#\u0665,a1 b".encode(), "not a game", "#\u0665,a1 b"),
    "negative side": (b"#-5,a1 b", "not a game", "#-5,a1 b"),
    "a word before": (b"game #5,a1 b", "not a game", "game #5,a1 b"),
    "another page": (b"ftp://trmph.com/#5,a1 b", "not a game", "ftp://trmph.com/#5,a1 b"),
    "a comment without a blank": (b"#comment", "not a game", "#comment"),
    "NUL": (b"\0\0#5,a1 b", "not a game", r"\x00\x00#5,a1 b"),
    "escape codes": (b"\x1b[2J#5,a1 b", "not a game", r"\x1b[2J#5,a1 b"),
    "not UTF-8": (b"#5,a1b2 b # caf\xe9", "bytes that are not UTF-8", "byte 0xe9 after 15 others"),
    "side 2": (b"#2,a1b2 b", "side outside 3 to 19", "2"),
    "side 20": (b"#20,a1b2 b", "side outside 3 to 19", "20"),
    "side 0": (b"#0,a1b2 b", "side outside 3 to 19", "0"),
    "side 05": (b"#05,a1b2 b", "side outside 3 to 19", "05"),
    "side 999999": (b"#999999,a1 b", "side outside 3 to 19", "999999"),
    "side of 5,000 digits": (b"#" + b"9" * 5000 + b",a1 b", "side outside 3 to 19", "9" * 39 + "…"),
    "another side": (b"#6,a1b2 b", "game of another side", "side 6, most games here are of side 5"),
    "no winner": (b"#5,a1b2", "no winner", "nothing after the moves: append b or r, who won"),
    "a comment for a winner": (b"#5,a1b2 # b", "no winner", "nothing after the moves: append b or r, who won"),
    "winner R": (b"#5,a1b2 R", "unknown winner", "R"),
    "two winners": (b"#5,a1b2 b r", "unknown winner", "b r"),
    "winner in words": (b"#5,a1b2 blue", "unknown winner", "blue"),
    "two games": (b"#5,a1b2 b #5,a1b2 b", "unknown winner", "b #5,a1b2 b"),
    "winner 1 among letters": (b"#5,a1b2 1", "winner 1 or 2 in a file that has b or r", "1"),
    "winner 3": (b"#5,a1b2 3", "unknown winner", "3"),
    "winner without a blank": (b"#5,a1b2b", "move that is not a letter and a number", "b"),
    "digits first": (b"#5,1a2b b", "move that is not a letter and a number", "1a2b b"),
    "capitals": (b"#5,A1B2 b", "move that is not a letter and a number", "A1B2 b"),
    "row 0": (b"#5,a1b0 b", "move that is not a letter and a number", "b0 b"),
    "row 01": (b"#5,a01b2 b", "move that is not a letter and a number", "a01b2 b"),
    "row 100": (b"#5,a1b100 b", "move that is not a letter and a number", "0 b"),
    "commas": (b"#5,a1,b2 b", "move that is not a letter and a number", ",b2 b"),
    "superscript": ("#5,a²b2 b".encode(), "move that is not a letter and a number", "a²b2 b"),
    "full-width digit": ("#5,a\uff11b2 b".encode(), "move that is not a letter and a number", "a\uff11b2 b"),
    "swap": (b"#5,a1swapb2 b", "move that is not a letter and a number", "swapb2 b"),
    "row 6": (b"#5,a1b6 b", "move off the board", "b6, move 2"),
    "column 6": (b"#5,a1c3f1a1 b", "move off the board", "f1, move 3"),
    "row 99": (b"#5,z99 b", "move off the board", "z99, move 1"),
    "repeat": (b"#5,a1b2c3b2a1 b", "cell played twice", "b2, move 4"),
    "more moves than cells": (b"#5," + b"a1b2" * 100 + b" b", "cell played twice", "a1, move 3"),
    "362 moves": (b"#5," + b"a1" * 362 + b" b", "more moves than any board has cells", "more than 361"),
    "a million moves": (b"#5," + b"a1" * 10**6 + b" b", "more moves than any board has cells", "more than 361"),
    "no moves": (b"#5, b", "no moves", "none"),
    "unfinished": (b"#5,a1b2c3 b", "unfinished game", "nobody connected in 3 moves"),
    "one move too many": (b"#5,c1a1c2a2c3a3c4a4c5a5 b", "moves after the win", "BLUE had connected before move 10"),
    "RED said to win": (b"#5,c1a1c2a2c3a3c4a4c5 r", "winner did not connect", "r, but BLUE connected"),
    "BLUE said to win": (b"#5,e5a1e4b1d5c1d4d1a5e1 b", "winner did not connect", "b, but RED connected"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_line_is_rejected_with_its_place_and_the_games_around_it_are_kept(fault):
    line, reason, finding = FAULTS[fault]
    first, last = lines_of(play(2, side=5))
    positions, rejects, _ = read(join([first, line, last]))
    assert rejects == [(2, reason, finding)]
    assert games_kept(positions) == [1, 3]


REFUSED = {
    "nothing": (b"", "is empty"),
    "a text": (
        b"Dear reader,\nthis is text # of some kind.\n",
        r"reads as a game, like #13,a1b2c3 b \(line 1: not a game, Dear reader,\)\. Leave",
    ),
    "UTF-16": ("#5,a1b2 b\n".encode("utf-16"), r"\(line 1: bytes that are not UTF-8, byte 0xff after 0 others\)"),
    "NUL bytes": (bytes(5000), r"\(line 1: not a game, \\x00"),
    "a processed file": (b"\x1f\x8b\x08\0\0\0\0\0", "gzip ends in the middle"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_holds_no_game_is_refused_in_a_sentence(kind):
    data, sentence = REFUSED[kind]
    with pytest.raises(DataError, match=sentence) as refusal:
        read(data, name="notes.txt")
    assert str(refusal.value).startswith("notes.txt: ")


@pytest.mark.parametrize("data", [b"\n \n\t\n", b"# one\n#\n# two"])
def test_a_file_of_blanks_and_comments_holds_no_games_and_says_so(data):
    positions, rejects, chunk = read(data)
    assert (len(positions), rejects, chunk.notes) == (0, [], ("holds no games",))


@pytest.mark.parametrize(
    ("line", "reason"), [(b"#20,a1b2 b", "side outside 3 to 19"), (b"#5,a1b2", "no winner"), (b"#5,a1Z b", "move that")]
)
def test_a_file_of_one_faulty_game_is_not_refused_but_has_a_reject(line, reason):
    positions, ((place, given, _),), _ = read(b"# a comment\n" + line + b"\n")
    assert (len(positions), place) == (0, 2) and given.startswith(reason)


def test_a_file_with_a_game_and_far_more_lines_that_are_none_is_refused(monkeypatch):
    monkeypatch.setattr(trmph, "MAX_STRAY_LINES", 10)
    games = lines_of(play(20, side=3))
    assert len(read(join([*games[:1], *[b"x"] * 10]))[1]) == 10
    assert len(read(join([*games, *[b"x"] * 20]))[1]) == 20
    with pytest.raises(DataError, match=r"has 11 lines that are no games \(line 2: not a game, x\)"):
        read(join([*games[:1], *[b"x"] * 11]))


@pytest.mark.parametrize(
    "make",
    [
        "b'#13,' + b'a1' * N",
        "b'#13,' + b'a' * N",
        "b'#' * N",
        "b' #' * N",
        "b' ' * N + b'x'",
        "b'#13,a1' + b' ' * N + b'x'",
        "b'#13,a1 b' + b' ' * N + b'#x'",
        "b'https://' * (N // 8)",
        "b'https://' + b'/' * N + b'#13'",
        "b'# ' + b'x' * N",
        "b'#' + b'1' * N",
        "b'\\xff' * N",
        "b'\\xc3\\xa9' * N",
        "b'\\0' * N",
        "b'\\n' * N",
        "b'\\r' * N",
        "b' \\n' * (N // 4)",
        "b'\\n'.join([b'x'] * N)",
        "b'\\n'.join([b'#5,' + b'a1' * 361 + b' b'] * (N // 727))",
        "(b'#19,' + b''.join(b'%c%d' % (97 + c, r) for r in range(1, 20) for c in range(19)) + b' b\\n') * 2500",
    ],
)
def test_megabytes_without_sense_take_little_time_and_memory(small_machine, make):
    source = f"""
import json
from hexshards.converters.trmph import TrmphFiles
from hexshards.errors import DataError
N = 2_000_000
game = b"#3,a1b1a2b2a3 b\\n"
try:
    chunks = list(TrmphFiles().read(game + {make} + b"\\n" + game, name="a", where="a"))
    answer = sum(len(chunk.positions) for chunk in chunks)
except DataError as error:
    answer = error.problem
print(json.dumps(answer))
"""
    assert small_machine(source) in (12, 0, "has 100,001 lines that are no games (line 2: not a game, x)")


# ways to write the same ---------------------------------------------------------------------------------------------

FILES = {
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "CR": lambda data: data.replace(b"\n", b"\r"),
    "byte-order mark": lambda data: b"\xef\xbb\xbf" + data,
    "no newline at the end": lambda data: data[:-1],
    "tabs": lambda data: data.replace(b" ", b"\t"),
    "blanks around": lambda data: data.replace(b"#", b"\t #").replace(b"\n", b" \t\n"),
    "pages": lambda data: data.replace(b"#", b"https://trmph.com/hex/board#"),
    "old pages": lambda data: data.replace(b"#", b"http://www.trmph.com/hex/board#"),
    "bare pages": lambda data: data.replace(b"#", b"www.trmph.com/hex/board#"),
    "remarks": lambda data: data.replace(b"\n", " # naïve, level #3\n".encode()),
    "empty remarks": lambda data: data.replace(b"\n", b" #\n"),
    "blank lines": lambda data: data.replace(b"\n", b"\n\n \n"),
    "gzip": gzip.compress,
    "gzip in two members": lambda data: gzip.compress(data[:30]) + gzip.compress(data[30:]),
}


@pytest.mark.parametrize("way", FILES)
def test_the_same_games_written_another_way_are_the_same_positions(way):
    data = join(lines_of(play(10, side=5)))
    plain, _, chunk = read(data)
    positions, rejects, other = read(FILES[way](data), name="games_07.trmph.gz" if "gzip" in way else "games_07.txt")
    assert rejects == [] and rows_of(positions, other.sources) == rows_of(plain, chunk.sources)
    assert other.sources == ("games_07",) and set(positions.tier.tolist()) == {UNKNOWN}


def test_a_file_named_gz_that_is_not_gzip_is_refused():
    with pytest.raises(DataError, match="is not gzip"):
        read(join(lines_of(play(1, side=5))), name="a.trmph.gz")


def test_the_three_names_of_such_files_lead_to_this_converter(tmp_path):
    for name in ("a.trmph", "b.trmph.gz", "c.txt", "d.bin"):
        (tmp_path / name).write_bytes(b"")
    format_of = {file.path.name: file.format for file in discover([tmp_path, tmp_path / "*.txt"]).inputs}
    assert format_of == {"a.trmph": "trmph", "b.trmph.gz": "trmph", "c.txt": "trmph"}
    assert "c.txt" not in {file.path.name for file in discover([tmp_path]).inputs}, "folders hold other texts"
    assert isinstance(formats()["trmph"], TrmphFiles)


# winners ------------------------------------------------------------------------------------------------------------


def old_marks(data, *, swapped=False):
    marks = (b" 2", b" 1") if swapped else (b" 1", b" 2")
    return data.replace(b" b", marks[0]).replace(b" r", marks[1])


@pytest.mark.parametrize("swapped", [False, True])
def test_in_a_file_of_old_marks_who_connected_decides_what_they_mean_and_a_note_says_so(swapped):
    data = join(lines_of(play(600, side=4)))
    plain, _, chunk = read(data)
    positions, rejects, old = read(old_marks(data, swapped=swapped))
    assert rejects == [] and rows_of(positions, old.sources) == rows_of(plain, chunk.sources)
    meant = "1 is RED, 2 is BLUE" if swapped else "1 is BLUE, 2 is RED"
    assert old.notes == (f"winners are written 1 and 2: {meant}, as 600 of 600 finished games bear out",)


def test_a_game_that_contradicts_the_meaning_of_the_old_marks_is_rejected():
    games = play(10, side=4)
    games[3] = dataclasses.replace(games[3], winner=1 - games[3].winner)
    for swapped in (False, True):
        _, rejects, chunk = read(old_marks(join(lines_of(games)), swapped=swapped))
        assert reasons(rejects) == [(4, "winner did not connect")]
        assert "as 9 of 10 finished games bear out" in chunk.notes[0]


def test_old_marks_without_a_finished_game_mean_blue_and_red():
    positions, _, chunk = read(b"#5,a1b2 1\n#5,a1c3 2\n", spec=KEEP)
    assert positions.value.tolist() == [BLUE] * 3 + [RED] * 3
    assert chunk.notes == ("winners are written 1 and 2: 1 is BLUE, 2 is RED, as 0 of 0 finished games bear out",)


def test_one_letter_among_old_marks_makes_the_old_ones_faults():
    lines = old_marks(join(lines_of(play(5, side=4)))).splitlines()
    lines[2] = lines_of(play(3, side=4))[2]
    positions, rejects, chunk = read(join(lines))
    assert [line for line, _ in reasons(rejects)] == [1, 2, 4, 5] and games_kept(positions) == [3] and chunk.notes == ()


# selections ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", SELECTORS)
def test_a_selector_takes_these_positions_of_all(selector):
    data = join(lines_of(play(40, side=7)))
    everything, _, chunk = read(data)
    behind = everything.plies - everything.ply
    chosen = {"all": behind >= 0, "final": behind == 0, "penultimate": behind == 1}[selector]
    positions, _, _ = read(data, spec=dataclasses.replace(CONVERT, positions=selector))
    assert rows_of(positions, chunk.sources) == rows_of(everything.take(chosen), chunk.sources)
    assert ((positions.policy == NO_POLICY) == (positions.ply == positions.plies)).all()


def test_the_result_of_a_resigned_game_is_trusted_where_that_is_asked_for():
    (game,) = play(1, side=5)
    resigned = Game(5, game.moves[:4], 1 - game.winner)
    lines = join(lines_of([game, resigned, dataclasses.replace(game, winner=1 - game.winner)]))
    assert reasons(read(lines)[1]) == [(2, "unfinished game"), (3, "winner did not connect")]
    positions, rejects, _ = read(lines, spec=KEEP)
    assert reasons(rejects) == [(3, "winner did not connect")]
    kept = positions.take(positions.game == 2)
    assert kept.value.tolist() == [1.0 - game.winner] * 5 and kept.plies.tolist() == [4] * 5
    assert kept.policy.tolist() == [*game.moves[:4], NO_POLICY]


def test_a_file_has_the_side_of_most_of_its_games_and_rejects_the_others():
    lines = [*lines_of(play(2, side=7)), *lines_of(play(3, side=5))]
    positions, rejects, _ = read(join(lines))
    assert positions.side == 5 and games_kept(positions) == [3, 4, 5]
    assert reasons(rejects) == [(1, "game of another side"), (2, "game of another side")]


def test_a_file_whose_every_game_is_faulty_gives_no_position_and_all_the_reasons():
    positions, rejects, chunk = read(b"#6,a1b2 b\n#5,a1b2 1\n#5,c3 2\n")
    assert games(b"#6,a1b2 b\n#5,a1b2 1\n#5,c3 2\n") == ([], [])
    assert len(positions) == 0 and positions.side == 5 and chunk.sources == ("games_07",)
    assert [line for line, _ in reasons(rejects)] == [1, 2, 3]


def test_a_file_of_many_chunks_is_read_in_its_order_and_so_are_its_rejects():
    lines = lines_of(play(2 * CHUNK_GAMES + 7, side=3))
    spoiled = [0, 1, CHUNK_GAMES - 1, CHUNK_GAMES, CHUNK_GAMES + 1, len(lines) - 1]
    for number, at in enumerate(spoiled):
        lines[at] = [b"x", b"#3,a1 b", b"#4,a1 b"][number % 3]
    chunks = list(TrmphFiles().read(join(lines), name="a", where="a"))
    assert len(chunks) > 2 and max(len(set(chunk.positions.game.tolist())) for chunk in chunks) <= CHUNK_GAMES
    positions, rejects, _ = read(join(lines))
    assert [line - 1 for line, _, _ in rejects] == spoiled
    order_kept = list(dict.fromkeys(positions.game.tolist()))
    assert order_kept == [line for line in range(1, len(lines) + 1) if line - 1 not in spoiled]


# repeats ------------------------------------------------------------------------------------------------------------


def turned(game):
    return dataclasses.replace(game, moves=tuple(symmetry_cells(game.side)[1][list(game.moves)].tolist()))


def games(data, *, spec=ALL):
    listed = TrmphFiles().games(data, name="a.trmph", where="a.trmph", spec=spec)
    assert listed.keys.dtype == np.uint64 and listed.keys.shape == (len(listed.games), 2)
    return [tuple(key) for key in listed.keys.tolist()], listed.games.tolist()


@pytest.mark.parametrize("side", [3, 4, 13, 19])
def test_games_share_a_key_when_one_is_the_other_or_the_other_turned_and_not_otherwise(side):
    one, other = play(2, side=side)
    keys, numbers = games(join(lines_of([one, other, turned(one), one, turned(other)])))
    assert numbers == [1, 2, 3, 4, 5]
    assert keys[0] == keys[2] == keys[3] and keys[1] == keys[4] and keys[0] != keys[1]


def test_a_game_that_begins_in_the_centre_shares_its_key_with_itself_turned():
    keys, _ = games(b"#3,b2a1 b\n#3,b2c3 b\n#3,b2a3 b\n#3,b2 b\n", spec=KEEP)
    assert keys[0] == keys[1] and len(set(keys)) == 3


def test_the_other_symmetries_are_other_games_as_are_other_results_orders_and_sides():
    moves = "a1b2c3b1"
    lines = [f"#5,{moves} b", f"#5,{moves} r", "#5,c3b2a1b1 b", f"#5,{moves}d4 b", "#5,a1b2c3a2 b"]
    assert len(set(games("\n".join(lines).encode(), spec=KEEP)[0])) == 5
    assert games(f"#6,{moves} b".encode(), spec=KEEP)[0] != games(f"#5,{moves} b".encode(), spec=KEEP)[0]


def test_games_are_those_that_read_keeps_and_skip_leaves_out_exactly_those_named():
    lines = lines_of(play(CHUNK_GAMES + 40, side=4))
    lines[3], lines[7] = b"x", b"#4,a1 b"
    data = join([b"", *lines])
    numbers = games(data)[1]
    everything, rejects, chunk = read(data)
    assert numbers == games_kept(everything)
    skip = frozenset(numbers[::3])
    positions, same, _ = read(data, skip=skip)
    assert same == rejects
    kept = everything.take(~np.isin(everything.game, list(skip)))
    assert rows_of(positions, chunk.sources) == rows_of(kept, chunk.sources)
    assert len(read(data, skip=np.array(numbers))[0]) == 0


def test_keys_are_the_published_ones():
    keys, _ = games(b"#3,a1b1a2b2a3 b\n")
    assert keys == [(13846153039233989453, 17351669780611097172)]


def test_a_move_name_is_read_as_the_cell_it_names():
    for side in (3, 13, 19):
        names = "".join(move_name(cell, side=side) for cell in range(side))
        positions, _, _ = read(f"#{side},{names} b".encode(), spec=KEEP)
        assert positions.policy.tolist() == [*range(side), NO_POLICY]


# many small files ---------------------------------------------------------------------------------------------------


def small_files():
    """Contents of files of many kinds, most of which may be checked together."""
    good = [join(lines_of(play(count, side=side, first=7 * count))) for side in (4, 5, 5, 4) for count in (1, 3, 1)]
    full = join(lines_of(play(CHUNK_GAMES - 1, side=3)))
    odd = [
        b"# a comment\n\n#5,a1 b\n" + good[4] + b"nonsense\n",  # faults before, between and behind
        b"",  # refused
        b"#5,a1b2 b\n",  # nothing kept
        b"# nothing but a comment\n",
        gzip.compress(good[3]),
        b"nonsense\n",
        good[0].replace(b" b", b" 1").replace(b" r", b" 2"),
        full,
        join(lines_of(play(CHUNK_GAMES + 5, side=3))),
        good[1] + b"#5,a1b2c3 b\n",
    ]
    return [part for pair in zip(good, [*odd, *good], strict=False) for part in pair] + [full[:-1], good[0], good[2]]


def told(chunks):
    if isinstance(chunks, DataError):
        return str(chunks)
    positions = concat([chunk.positions for chunk in chunks])
    columns = {name: (column.dtype, column.tolist()) for name, column in positions.columns().items()}
    rejects = [reject for chunk in chunks for reject in chunk.rejects]
    return positions.side, columns, rejects, chunks[-1].sources, tuple(chunks[-1].notes)


def alone(call):
    try:
        return call()
    except DataError as error:
        return error


@pytest.mark.parametrize("spec", [*(dataclasses.replace(ALL, positions=each) for each in SELECTORS), KEEP])
def test_small_files_that_are_read_together_give_what_each_gives_alone(spec):
    files = [
        Contents(data, f"f{number}.trmph", f"in/f{number}", skip=(1, 3) if number % 5 == 1 else ())
        for number, data in enumerate(small_files())
    ]
    converter = TrmphFiles()
    together = [told(each) for each in converter.read_each(iter(files), spec=spec)]
    assert together == [
        told(alone(lambda f=f: list(converter.read(f.data, name=f.name, where=f.where, spec=spec, skip=f.skip))))
        for f in files
    ]
    assert len({len(each) for each in map(str, together)}) > 10  # not all alike
    listed = list(converter.games_each(iter(files), spec=spec))
    for file, games in zip(files, listed, strict=True):
        one = alone(lambda f=file: converter.games(f.data, name=f.name, where=f.where, spec=spec))
        if isinstance(one, DataError):
            assert str(games) == str(one)
        else:
            assert games.keys.tolist() == one.keys.tolist() and games.games.tolist() == one.games.tolist()
            assert games.keys.dtype == one.keys.dtype and games.games.dtype == one.games.dtype


def test_few_games_are_held_when_files_are_read_together(monkeypatch):
    asked = []
    monkeypatch.setattr(trmph, "CHUNK_GAMES", 8)
    line = join(lines_of(play(1, side=3)))

    def contents():
        for number in range(40):
            asked.append(number)
            yield Contents(line, f"{number}.trmph", "")

    for done, _ in enumerate(TrmphFiles().read_each(contents())):
        assert len(asked) <= done + 9
