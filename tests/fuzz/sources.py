"""Random damage to small good files: every reader either reads what is left or says what is wrong, and stays small.

    PYTHONPATH=tests python -m fuzz.sources pickle|trmph|games|katahex [CASES]

Run by test_fuzz with a limit on memory; by hand with as many cases as there is time for.
"""

import gzip
import io
import os
import pickle
import re
import sys
import tempfile
import zlib
from pathlib import Path
from random import Random  # noqa: TID251
from typing import Any

import numpy as np
from helpers import game_files, katahex_files

from hexshards.conversion.options import CONVERT, ConvertSpec
from hexshards.conversion.pickles import lookahead, scanner, streaming
from hexshards.conversion.random_files import examples_of, trmph_line, write_processed
from hexshards.conversion.sources import Source
from hexshards.converters.hexworld import HexWorldLinks
from hexshards.converters.katahex import KataHexRows
from hexshards.converters.neurobenzene import NeurobenzeneGames
from hexshards.converters.playhex import PlayHexGames
from hexshards.converters.processed import ProcessedFiles
from hexshards.converters.sgf import SgfGames
from hexshards.converters.trmph import TrmphFiles
from hexshards.errors import DataError
from hexshards.game.random_games import play
from hexshards.storage import files

CASES = 10_000
WINDOWS = (1 << 20, 64 << 10, 16 << 10), (8000, 2000, 2000)
"""Sizes of the window in which a pickle is streamed: it holds all of these, or little of them."""

GAMES = play(4, side=4, seed=2)
ROWS = katahex_files.arrays_of(katahex_files.rows_of(play(1, side=3, seed=2)))


def pickles() -> list[bytes]:
    """A game as examples, in all protocols, and as the tuples of the first generation."""
    examples = examples_of(play(1, side=3, seed=4)[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a_processed.pkl.gz"
        write_processed(path, examples, source_file="a.trmph")
        corpus = [gzip.decompress(path.read_bytes())]
    plain = [{**e, "player_to_move": e["player_to_move"].value, "metadata": {"winner": "RED"}} for e in examples]
    tuples = [(e["board"], e["policy"], e["value"]) for e in examples]
    corpus += [pickle.dumps({"examples": plain}, protocol=protocol) for protocol in range(6)]
    return [
        *corpus,
        pickle.dumps({"examples": tuples}, protocol=4),
        *[pickle.dumps({"examples": shuffled(side)}, protocol=4) for side in (3, 4)],
        pickle.dumps([[[]], {"a": (1, 2.5, None)}, b"x" * 99]),
    ]


def shuffled(side: int) -> list[dict[str, Any]]:
    """Examples as they come of several files: each with its own keys, and a tuple that positions of a game share."""
    examples = []
    for source in range(3):
        key = {name: "".join(list(name)) for name in ("board", "policy", "value", "player_to_move", "metadata")}
        name = f"{source}.trmph"
        for line, game in enumerate(play(3, side=side, seed=source)):
            game_id = (source, line)
            for e in examples_of(game, game_id=game_id):
                metadata = {**e["metadata"], "game_id": game_id, "winner": "RED", "source_file": name}
                values = e["board"], e["policy"], e["value"], e["player_to_move"].value, metadata
                examples.append(dict(zip(key.values(), values, strict=True)))
    return [*Random(side).sample(examples, len(examples))]


def nudged(random: Random, data: bytes) -> bytes:
    """A pickle after few of its bytes were changed, most of them references: it may still make sense."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 2)):
        at, other = (random.randint(0, len(data) - 6) for _ in range(2))
        opcode, width = random.choice([(b"h", 2), (b"j", 5), (b"G", 9), (b"K", 2)])
        at, other = (max(0, data.find(opcode, place)) for place in (at, other))
        match random.randint(0, 3):
            case 0:
                changed[at + 1] = random.randint(0, 255)
            case _:  # what stands somewhere else
                changed[at : at + width] = data[other : other + width]
    return bytes(changed)


def records() -> list[bytes]:
    """Games of several sides, with comments, addresses and other line ends."""
    lines = [trmph_line(game) for side in (3, 5, 13) for game in play(3, side=side, seed=1)]
    text = "\n".join(lines) + "\n"
    legacy = text.replace(" b\n", " 1\n").replace(" r\n", " 2\n")
    dressed = "# a comment\n\nhttp://www.trmph.com/hex/board" + lines[0] + " # good game\r\n" + lines[1] + "\t\n"
    searched = "# Model: gen_12.pt\n# Seed: 3\n"
    for line in lines[:6]:
        moves = line.partition(",")[2].partition(" ")[0]
        plies = len(re.findall("[a-z]", moves))
        searched += f"{line}\n# search {zlib.crc32(moves.encode()):08x} 0.5:{moves[:2]}=3" + " -" * (plies - 1) + "\n"
    others = [legacy, searched, "\ufeff" + dressed]
    return [text.encode(), *(other.encode() for other in others), gzip.compress(text.encode(), mtime=0)]


SPICES = [
    b"\x95",
    b".",
    b"0",
    b"R",
    b"b",
    b"h\x00",
    b"j\xff\xff\xff\x7f",
    b"\x94" * 40,
    b"}" * 90,
    b"(" * 50,
    b"\xff" * 9,
]
SPICES += [
    b"cposix\nsystem\n",
    b"B\xff\xff\xff\xff",
    b"\x8a\xff",
    b"L9" * 60,
    b"#",
    b"#13,",
    b"a1",
    b" b\n",
    b"\r",
    b"\0",
]


def damaged(random: Random, corpus: list[bytes], spices: list[bytes] = SPICES) -> bytes:
    """A file of the corpus after a few cuts, overwrites, repeats and insertions."""
    data = bytearray(random.choice(corpus))
    for _ in range(random.randint(1, 6)):
        at = random.randint(0, len(data))
        match random.randint(0, 5):
            case 0:
                data[at : at + 1] = bytes([random.randint(0, 255)])
            case 1:
                data[at:at] = random.choice(spices)
            case 2:
                del data[at : at + random.randint(1, 40)]
            case 3:
                data[at:at] = data[at : at + random.randint(1, 400)] * random.randint(1, 4)
            case 4:
                del data[at:]
            case 5:
                data[at : at + 30] = random.choice(corpus)[at : at + 30]
    return bytes(data)


FORMATS = {
    "playhex": (PlayHexGames, game_files.playhex),
    "hexworld": (HexWorldLinks, game_files.hexworld),
    "sgf": (SgfGames, game_files.sgf),
    "minizero": (SgfGames, game_files.minizero),
    "shf": (NeurobenzeneGames, game_files.shf),
}
SPICES_OF_GAMES = [
    b"[",
    b"]",
    b"(",
    b")",
    b";",
    b'"',
    b"{",
    b"}",
    b",",
    b":s",
    b":rb",
    b"swap-pieces ",
    b"pass ",
    b"\\",
]
SPICES_OF_GAMES += [
    b"1e999",
    b"-1",
    b"P[0:1]",
    b"C[1 0 0]",
    b"9" * 400,
    b"\xff",
    b"\x1b[2J",
    b"null",
    b"(;" * 30,
    b"\n",
]


def read(converter: Source, data: bytes, name: str, spec: ConvertSpec = CONVERT) -> None:
    """Read all of it; a DataError is a good answer, anything else is not."""
    try:
        for chunk in converter.read(data, name=name, where=name, spec=spec):
            assert all(len(column) == len(chunk.positions) for column in chunk.positions.columns().values())
            assert all(reject.place.isprintable() and reject.finding.isprintable() for reject in chunk.rejects)
    except DataError as error:
        assert str(error).isprintable() and len(str(error)) < 2_000


def read_pickle(data: bytes) -> None:
    """Read it as few bytes are read and as many are, whole and in a window: what comes out must be the same."""
    outcomes = []
    files.PIECE_BYTES = 2000
    for bytes_before_compiled, window in ((1 << 60, WINDOWS[0]), *((0, window) for window in WINDOWS)):
        lookahead.COMPILED_FROM_BYTES = bytes_before_compiled
        streaming.WINDOW_BYTES, streaming.AHEAD_BYTES, streaming.BEHIND_BYTES = window
        try:
            (chunk,) = ProcessedFiles().read(data, name="a_processed.pkl.gz", where="a_processed.pkl.gz")
            columns = {name: column.tobytes() for name, column in chunk.positions.columns().items()}
            outcomes.append((columns, chunk.sources, chunk.rejects, chunk.notes))
        except DataError as error:
            outcomes.append(str(error))
    assert all(outcome == outcomes[0] for outcome in outcomes)


def damaged_rows(random: Random) -> bytes:
    """Rows of which some numbers are others."""
    arrays = {name: array.copy() for name, array in ROWS.items()}
    for _ in range(random.randint(1, 6)):
        flat = arrays[random.choice(sorted(arrays))].reshape(-1).view(np.uint8)
        at = random.randint(0, len(flat) - 4)
        flat[at : at + 4] = list(random.choice([b"\0\0\xc0\x7f", b"\xff" * 4, b"\0" * 4, b"\0\0\x80\xff"]))
    return katahex_files.npz(arrays)


def gzipped(data: bytes) -> bytes:
    """Stored, not compressed: fast."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=0, mtime=0) as file:
        file.write(data)
    return out.getvalue()


def main(kind: str, cases: int) -> None:
    """Try so many cases."""
    scanner.LESSON_DICTS = 0  # these few examples take the way of many
    corpus = {"pickle": pickles, "trmph": records}.get(kind, list)()
    for number in range(cases):
        random, name, spec = Random(f"{kind} {number}"), kind, CONVERT
        if kind == "pickle":
            changed = damaged(random, corpus) if random.random() < 0.5 else nudged(random, random.choice(corpus[-4:-1]))
            converter, data, name = ProcessedFiles(), gzipped(changed), "a_processed.pkl.gz"
        elif kind == "trmph":
            converter, data = TrmphFiles(), damaged(random, corpus)
            name = "a.trmph.gz" if data[:2] == b"\x1f\x8b" else "a.trmph"
        elif kind == "games":
            form, written = FORMATS[random.choice(sorted(FORMATS))]
            converter, data = form(), damaged(random, [written(GAMES)], SPICES_OF_GAMES)
            spec = ConvertSpec(unfinished="keep")
        else:
            converter, data, name = KataHexRows(), damaged_rows(random), "a.npz"
        try:
            read(converter, data, name, spec)
            if kind == "pickle":
                read_pickle(data)
        except Exception as error:
            error.add_note(f"case {number} of {kind}: {data!r}")
            raise
    assert not os.listdir(), "something was written"
    print(f"{cases:,} cases of {kind}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else CASES)
