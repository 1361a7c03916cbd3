"""Legal random games: game ``i`` is a function of (side, seed, i), and a file a function of its games.

BLUE moves first, every legal move is as likely as any other, and play stops at the move that connects. Of
NumPy's random numbers only ``random_raw`` is used, whose stream no release of NumPy may change.

Shapes: G games, P positions, C cells (side*side), S side.
"""

from __future__ import annotations

import gzip
import pickle
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from hexshards.arguments import LocalPath, checked
from hexshards.game.board import NEIGHBOURS, check_side, move_name
from hexshards.options import SYNTH, Format, SynthSpec
from hexshards.storage.files import publish, publishing

Example = dict[str, object]
"""One position of a processed file: board, policy, value, player_to_move, metadata."""

SUFFIX: dict[Format, str] = {"processed": "_processed.pkl.gz", "trmph": ".trmph"}
"""How the name of a file ends."""

PROCESSED_AT = "2025-01-01T00:00:00"
"""The time stamp in every processed file, so that the same games are the same bytes."""

GZIP_LEVEL = 3
"""500 games take 4.3 MB; with level 1 9.5 MB in the same time, with level 6 3.2 MB in 2.5 times the time."""

EDGE, NEVER = np.int16(-1), np.int16(np.iinfo(np.int16).max)
"""Plies of what is there before the first move, and of what is never there."""


class Player(Enum):
    """Whose turn it is, pickled as the class of that name in ``hex_ai.enums``."""

    __module__ = "hex_ai.enums"
    BLUE = 0
    RED = 1


class Winner(Enum):
    """Who won, pickled as the class of that name in ``hex_ai.enums``."""

    __module__ = "hex_ai.enums"
    BLUE = 0
    RED = 1


@dataclass(frozen=True, slots=True)
class Game:
    """One finished game: cells in the order they were played, BLUE first, and who connected."""

    side: int
    moves: tuple[int, ...]
    winner: int


def play(games: int, *, side: int = SYNTH.side, seed: int = SYNTH.seed, first: int = 0) -> list[Game]:
    """Games ``first`` to ``first + games - 1`` of a seed. Raises ValueError when the side is not 3 to 19."""
    order_GC = _orders(range(first, first + games), side=check_side(side), seed=seed)
    winner, plies = _results(order_GC, side=side)
    return [
        Game(side, tuple(order[:count]), won)
        for order, count, won in zip(order_GC.tolist(), plies.tolist(), winner.tolist(), strict=True)
    ]


def trmph_line(game: Game) -> str:
    """A game as a line of a .trmph file, without the line's end: ``#13,a1b2c3 b``."""
    moves = "".join(move_name(cell, side=game.side) for cell in game.moves)
    return f"#{game.side},{moves} {'br'[game.winner]}"


def examples_of(
    game: Game,
    *,
    game_id: tuple[int, int] = (0, 1),
    source_file: str = "synth.trmph",
) -> list[Example]:
    """The positions of a game as processed files hold them, in ply order, the empty board first.

    board float32 (2, S, S); policy float32 (C,), one-hot of the next move, None at the end; value 0.0 if BLUE
    won. ``game_id``: number of the file, and line in it from 1. No two examples share an array or a dict.
    """
    board_P2SS, policy_PC = _boards(game), _policies(game)
    return [
        {
            "board": board,
            "policy": policy_PC[ply] if ply < len(game.moves) else None,
            "value": float(game.winner),
            "player_to_move": Player(ply % 2),
            "metadata": {
                "game_id": game_id,
                "position_in_game": ply,
                "total_positions": len(game.moves) + 1,
                "value_sample_tier": 0,
                "winner": Winner(game.winner),
                "source_file": source_file,
            },
        }
        for ply, board in enumerate(board_P2SS)
    ]


def write_processed(path: Path, examples: Sequence[object], *, source_file: str, games: int = 1) -> None:
    """Write any examples, sound or not, as a processed file of the current generation, over what is there.

    ``games`` is only noted in the file. Not for two threads at once: meanwhile ``sys.modules`` has a stand-in
    for ``hex_ai.enums``.
    """
    stats = {
        "file_path": source_file,
        "all_games": games,
        "valid_games": games,
        "skipped_games": 0,
        "examples_generated": len(examples),
        "file_error": None,
    }
    document = {
        "examples": list(examples),
        "source_file": source_file,
        "processing_stats": stats,
        "processed_at": PROCESSED_AT,
    }
    with (
        publishing(path) as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=file, mtime=0) as zipped,
        _hex_ai_importable(),
    ):
        pickle.dump(document, zipped, protocol=4)


@checked
def write(
    out: LocalPath,
    *,
    games: int = SYNTH.games,
    format: Format = SYNTH.format,
    side: int = SYNTH.side,
    seed: int = SYNTH.seed,
    games_per_file: int = SYNTH.games_per_file,
) -> list[Path]:
    """Write random games to files ``synth{side}_{number}`` in the folder ``out``, and return their paths.

    The same arguments give the same bytes, and both formats hold the same games: line *i* of a .trmph file is
    the game with the id (file, *i*). Before anything is written, raises ValueError for an argument out of
    bounds and FileExistsError when one of the files is there.
    """
    check_side(side)
    spec = SynthSpec(games=games, format=format, side=side, seed=seed, games_per_file=games_per_file)
    stems, out = _stems(spec), Path(out)
    paths = [out / f"{stem}{SUFFIX[format]}" for stem in stems]
    if there := next((path for path in paths if path.exists()), None):
        raise FileExistsError(f"{there} is there already: choose another folder, or remove it first")
    out.mkdir(parents=True, exist_ok=True)
    for number, (stem, path) in enumerate(zip(stems, paths, strict=True)):
        first = number * games_per_file
        played = play(min(games_per_file, games - first), side=side, seed=seed, first=first)
        if format == "trmph":
            publish(path, "".join(f"{trmph_line(game)}\n" for game in played).encode())
        else:
            _write_games(path, played, number=number, source_file=f"{stem}{SUFFIX['trmph']}")
    return paths


def _stems(spec: SynthSpec) -> list[str]:
    """File names without their endings, digits enough that they sort as text."""
    files = -(-spec.games // spec.games_per_file)
    digits = max(2, len(str(files - 1)))
    return [f"synth{spec.side}_{number:0{digits}d}" for number in range(files)]


def _write_games(path: Path, games: list[Game], *, number: int, source_file: str) -> None:
    examples = [
        example
        for line, game in enumerate(games, start=1)
        for example in examples_of(game, game_id=(number, line), source_file=source_file)
    ]
    write_processed(path, examples, source_file=source_file, games=len(games))


def _orders(games: range, *, side: int, seed: int) -> NDArray[np.int64]:
    """A random order of all cells for each game: (G, C) int64, of which the game is a beginning."""
    keys_GC = np.empty((len(games), side * side), dtype=np.uint64)
    for row, game in zip(keys_GC, games, strict=True):
        row[:] = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(side, game))).random_raw(len(row))
    return np.argsort(keys_GC, axis=1, kind="stable")


def _results(order_GC: NDArray[np.int64], *, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who connects first when the cells are played in this order, after how many stones: two (G,) int64."""
    # the games come last, so that each step below is one pass over contiguous memory
    ply_CG = np.argsort(order_GC, axis=1).T.astype(np.int16)
    ply_SSG = np.ascontiguousarray(ply_CG).reshape(side, side, -1)
    blue = np.where(ply_SSG % 2 == 0, ply_SSG, NEVER)
    red = np.where(ply_SSG % 2 == 1, ply_SSG, NEVER).swapaxes(0, 1)
    connected_2G = np.stack([_connected_at(blue), _connected_at(red)])
    return connected_2G.argmin(axis=0), connected_2G.min(axis=0).astype(np.int64) + 1


def _connected_at(ply_SSG: NDArray[np.int16]) -> NDArray[np.int16]:
    """The ply that joins the first row to the last, given the plies of one player's stones: (G,) int16.

    A chain is whole once its latest stone is there, and of the chains from the first row to a cell the one
    that is whole first counts. These plies fall from NEVER until no neighbour offers an earlier one.
    """
    side, _, games = ply_SSG.shape
    whole = np.full((side + 2, side + 2, games), NEVER)
    whole[0] = EDGE
    inner = whole[1:-1, 1:-1]
    while True:
        near = inner.copy()
        for row, col in NEIGHBOURS:
            np.minimum(near, whole[1 + row : 1 + row + side, 1 + col : 1 + col + side], out=near)
        np.maximum(near, ply_SSG, out=near)
        if np.array_equal(near, inner):
            joined: NDArray[np.int16] = inner[-1].min(axis=0)
            return joined
        inner[...] = near


def _boards(game: Game) -> NDArray[np.float32]:
    """Stones after 0, 1, ... all moves: (P, 2, S, S) float32."""
    plies = len(game.moves)
    placed_2C = np.full((2, game.side**2), NEVER)
    placed_2C[np.arange(plies) % 2, game.moves] = np.arange(plies)
    stones_P2C = placed_2C < np.arange(plies + 1)[:, None, None]
    return stones_P2C.astype(np.float32).reshape(-1, 2, game.side, game.side)


def _policies(game: Game) -> NDArray[np.float32]:
    """One-hot rows of the moves: (P - 1, C) float32."""
    policy_PC = np.zeros((len(game.moves), game.side**2), dtype=np.float32)
    policy_PC[np.arange(len(game.moves)), game.moves] = 1.0
    return policy_PC


@contextmanager
def _hex_ai_importable() -> Iterator[None]:
    """A pickler looks a class up in the module it names, so a module of that name stands in meanwhile."""
    enums = ModuleType("hex_ai.enums")
    vars(enums).update(Player=Player, Winner=Winner)
    stand_ins = {"hex_ai": ModuleType("hex_ai"), "hex_ai.enums": enums}
    kept = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
        sys.modules.update(kept)
