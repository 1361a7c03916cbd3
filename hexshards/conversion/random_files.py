"""Random games written as source files: processed files of hex_ai, or game records."""

from __future__ import annotations

import gzip
import pickle
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from hexshards.arguments import LocalPath, checked
from hexshards.errors import escaped
from hexshards.game.board import move_name
from hexshards.game.options import SYNTH, Format, SynthSpec
from hexshards.game.random_games import NEVER, Game, play
from hexshards.storage.files import publishing, write_whole

Example = dict[str, object]
"""One position of a processed file: board, policy, value, player_to_move, metadata."""

SUFFIX: dict[Format, str] = {"processed": "_processed.pkl.gz", "trmph": ".trmph"}
"""How the name of a file ends."""

PROCESSED_AT = "2025-01-01T00:00:00"
"""The time stamp in every processed file, so that the same games are the same bytes."""

GZIP_LEVEL = 3
"""500 games take 4.3 MB; with level 1 9.5 MB in the same time, with level 6 3.2 MB in 2.5 times the time."""


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
    spec = SynthSpec(games=games, format=format, side=side, seed=seed, games_per_file=games_per_file)
    stems, out = _stems(spec), Path(out)
    paths = [out / f"{stem}{SUFFIX[format]}" for stem in stems]
    if there := next((path for path in paths if path.exists()), None):
        raise FileExistsError(f"{escaped(there)} is there already: choose another folder, or remove it first")
    out.mkdir(parents=True, exist_ok=True)
    for number, (stem, path) in enumerate(zip(stems, paths, strict=True)):
        first = number * games_per_file
        played = play(min(games_per_file, games - first), side=side, seed=seed, first=first)
        if format == "trmph":
            write_whole(path, "".join(f"{trmph_line(game)}\n" for game in played).encode())
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
