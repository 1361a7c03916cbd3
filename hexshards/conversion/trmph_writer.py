"""Self-play games as a .trmph file, with what the search said of each move: every reader of .trmph finds plain games.

What is said stands in comments, which the converter reads (converters/trmph_remarks.py).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hexshards.arguments import checked
from hexshards.errors import escaped
from hexshards.game.board import check_side, move_name
from hexshards.game.columns import MAX_VISITED
from hexshards.game.visits import MAX_COUNT
from hexshards.storage.files import write_whole

Counts = Mapping[int, int] | Sequence[int] | None
"""How often a search visited moves: by cell, or a number for each cell; None where nothing was searched."""


class SearchedGame(NamedTuple):
    """A finished game. A cell is row * side + column, and BLUE moves first."""

    moves: Sequence[int]
    """Cells, in turn."""
    winner: int
    """0 BLUE, 1 RED."""
    visits: Sequence[Counts] = ()
    """Before each move, one entry a move; or nothing at all."""
    values: Sequence[float | None] = ()
    """What the search said before each move: 0.0 BLUE wins, 1.0 RED wins, None or NaN for nothing."""


@checked
def write_trmph(
    path: str | Path, games: Iterable[SearchedGame], *, side: int = 13, headers: Mapping[str, object] | None = None
) -> None:
    """Write games to a new file that appears when it is whole; ``headers`` become lines ``# key: value`` at its top.

    Of more than 32 moves that a search visited the 32 most visited are written. ``hexshards convert`` keeps headers
    that name model, simulations, temperature, seed, commit or generation, and ignores others. Raises FileExistsError
    where there is a file, and ValueError, naming the game, for what no search of it can say.
    """
    check_side(side)
    if Path(path).exists():
        raise FileExistsError(f"{escaped(path)} is there already: give each file a name of its own")
    lines = [f"# {key}: {value}".replace("\n", " ").replace("\r", " ") for key, value in (headers or {}).items()]
    for number, game in enumerate(games, start=1):
        try:
            lines += _lines(SearchedGame(*game), side)
        except ValueError as error:
            raise ValueError(f"game {number:d}: {escaped(error)}") from None
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(Path(path), "".join(f"{line}\n" for line in lines).encode())


def _lines(game: SearchedGame, side: int) -> list[str]:
    cells, plies = [int(cell) for cell in game.moves], len(game.moves)
    if not all(0 <= cell < side * side for cell in cells) or game.winner not in (0, 1):
        raise ValueError(f"moves are cells from 0 to {side * side - 1}, and the winner is 0 or 1")
    for name, said in (("visits", game.visits), ("values", game.values)):
        if len(said) not in (0, plies):
            raise ValueError(
                f"has {plies} moves and {len(said)} {escaped(name)}: give one for each move, None for nothing"
            )
    moves = "".join(move_name(cell, side=side) for cell in cells)
    line = f"#{side},{moves} {'br'[game.winner]}"
    if not (len(game.visits) or len(game.values)):
        return [line]
    visits, values = game.visits if len(game.visits) else [None] * plies, game.values
    told = [
        _said(values[ply] if len(values) else None, visits[ply], side, cells[:ply], ply + 1) for ply in range(plies)
    ]
    return [line, " ".join([f"# search {zlib.crc32(moves.encode()):08x}", *told])]


def _said(value: float | None, counts: Counts, side: int, taken: Sequence[int], move: int) -> str:
    """What was said before a move: ``0.48:a1=3,b2=1``."""
    if value is not None and not math.isnan(value) and not 0 <= value <= 1:
        raise ValueError(f"the value before move {move} is {value}, and must be 0 (BLUE wins) to 1 (RED wins)")
    said = "" if value is None or math.isnan(value) else f"{float(value):.7f}".rstrip("0").rstrip(".")
    by_cell = counts if isinstance(counts, Mapping) else dict(enumerate([] if counts is None else counts))
    visited = sorted((-int(count), int(cell)) for cell, count in by_cell.items() if count)
    for count, cell in visited:
        if not (by_cell[cell] == -count and 0 < -count <= MAX_COUNT and 0 <= cell < side * side) or cell in taken:
            raise ValueError(
                f"the visits before move {move} of cell {escaped(cell)} are {escaped(by_cell[cell])}, and must be "
                f"whole numbers up to {MAX_COUNT} on cells of the board that are free"
            )
    text = ",".join(f"{move_name(cell, side=side)}={-count}" for count, cell in visited[:MAX_VISITED])
    return f"{said}:{text}" if text else said or "-"
