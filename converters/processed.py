"""hex_ai's processed and shuffled files (``*.pkl.gz``): every sound example is kept, every other named with its fault.

A gzip of a pickle: a dict whose ``examples`` are dicts of ``board``, ``policy``, ``value``, ``player_to_move`` (not in
the oldest) and ``metadata``. No file states its generation; the structure of its examples does. What an example says of
its position twice must agree: ``position_in_game`` and ``player_to_move`` with the stones, ``winner`` with the value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.board import BLUE, MAX_SIDE, MIN_SIDE, RED
from hexshards.errors import DataError, printable
from hexshards.pickles import Array, Member, loads
from hexshards.positions import UNKNOWN, Draft, Reject, admit
from hexshards.sources import Chunk
from hexshards.storage import gunzip

CHUNK_EXAMPLES = 8192
"""Examples checked together: 18 MB of float32 boards and policies at side 13."""

MAX_NAME_CHARS = 4096
"""Longest source_file accepted."""

_KEEP_OUT = "Leave this file out"
_META_KEYS = {"game_id", "position_in_game", "total_positions", "value_sample_tier", "winner", "source_file"}
_WINNERS = {"BLUE": BLUE, "RED": RED}


class _Unsound(Exception):
    """An example that does not become a draft: reason, and what was found."""


class ProcessedFiles:
    """Converter for hex_ai's processed and shuffled files of the current generation."""

    patterns = ("*.pkl.gz",)

    def read(self, data: bytes, *, name: str, where: str) -> Iterator[Chunk]:
        """Yield the file's positions; see hexshards.sources.Source."""
        top = loads(gunzip(data, where=where), where=where)
        examples = _examples(top, where)
        reader = _Reader(
            side=_side(examples, where), sources=_Sources(_own_source(top, name)), stated=_Stated(examples)
        )
        numbered = iter(enumerate(examples))
        while batch := list(islice(numbered, CHUNK_EXAMPLES)):
            yield reader.chunk(batch)


def _examples(top: object, where: str) -> list[object] | tuple[object, ...]:
    if not isinstance(top, dict):
        raise DataError(f"holds a {type(top).__name__}, not a dict with examples", where=where, fix=_KEEP_OUT)
    if "games" in top and "examples" not in top:
        raise DataError("is a self-play file of whole games, not of positions", where=where, fix=_KEEP_OUT)
    examples = top.get("examples")
    if not isinstance(examples, (list, tuple)) or not examples:
        found = "no examples" if not examples else f"examples that are a {type(examples).__name__}"
        raise DataError(f"holds {found}", where=where, fix=_KEEP_OUT)
    if not any(isinstance(example, dict) for example in examples):
        kind = type(examples[0]).__name__
        raise DataError(f"its examples are {kind}s, not dicts with metadata", where=where, fix=_KEEP_OUT)
    return examples


def _side(examples: list[object] | tuple[object, ...], where: str) -> int:
    """The side most boards have: one odd example must not decide over the others."""
    seen: dict[int, int] = {}
    for example in examples[:CHUNK_EXAMPLES]:
        board = example.get("board") if isinstance(example, dict) else None
        if isinstance(board, Array) and len(board.shape) == 3 and board.shape == (2, board.shape[1], board.shape[1]):
            seen[board.shape[1]] = seen.get(board.shape[1], 0) + 1
    side = max(seen, key=lambda s: seen[s], default=0)
    if not MIN_SIDE <= side <= MAX_SIDE:
        found = f"boards of side {side}" if seen else "no board of shape (2, side, side)"
        raise DataError(f"holds {found}", where=where, fix=f"Sides are {MIN_SIDE} to {MAX_SIDE}. {_KEEP_OUT}")
    return side


class _Stated:
    """What the examples of a file state. What most of them have, each must have; that tells the generations apart."""

    def __init__(self, examples: list[object] | tuple[object, ...]) -> None:
        sample = [example for example in examples[:CHUNK_EXAMPLES] if type(example) is dict]
        metas = [meta for example in sample if type(meta := example.get("metadata")) is dict]
        self.keys = _most_common(sample) | {"board", "policy", "value", "metadata"}
        self.meta_keys = _most_common(metas)
        players = [example["player_to_move"] for example in sample if "player_to_move" in example]
        self.int_players = 2 * sum(type(player) is int for player in players) > len(players)


def _most_common(entries: list[dict[str, object]]) -> set[str]:
    counts = Counter(key for entry in entries for key in entry)
    return {key for key, count in counts.items() if 2 * count > len(entries)}


def _own_source(top: object, name: str) -> str:
    """The file that all games of this one came from, where it says so; else itself."""
    stated = top.get("source_file") if isinstance(top, dict) else None
    return stated if isinstance(stated, str) and 0 < len(stated) <= MAX_NAME_CHARS else name


def source_name(stated: str) -> str:
    """The name by which a file of games is known: without folders and suffixes, as the same games come by many ways."""
    last = stated.replace("\\", "/").rsplit("/", 1)[-1]
    for suffix in (".gz", ".pkl", "_processed", ".trmph", ".txt"):
        last = last.removesuffix(suffix)
    return printable(last, width=200)


class _Sources:
    """Numbers for the names of the files that games came from; 0 is what the file as a whole came from."""

    def __init__(self, own: str) -> None:
        self.names = [source_name(own)]
        self._numbers: dict[str, int] = {}

    def number(self, stated: str) -> int:
        if stated not in self._numbers:
            name = source_name(stated)
            if name not in self.names:
                self.names.append(name)
            self._numbers[stated] = self.names.index(name)
        return self._numbers[stated]


class _Reader:
    """Examples of one file, as drafts."""

    def __init__(self, *, side: int, sources: _Sources, stated: _Stated) -> None:
        self.side, self.sources, self.stated = side, sources, stated
        self.no_policy = bytes(4 * side * side)

    def chunk(self, numbered: list[tuple[int, object]]) -> Chunk:
        rows, odd = [], []
        for number, example in numbered:
            try:
                rows.append((f"example {number}", *self._row(example)))
            except _Unsound as fault:
                odd.append(Reject(f"example {number}", *fault.args))
        positions, unsound = admit(self._draft(rows))
        return Chunk(positions, tuple(self.sources.names), odd + unsound)

    def _draft(self, rows: list[tuple[Any, ...]]) -> Draft:
        columns = zip(*rows, strict=True) if rows else [()] * 10
        places, boards, policies, values, players, ply, sources, games, plies, tiers = columns
        cells = self.side**2
        policy = b"".join(self.no_policy if p is None else p for p in policies)
        return Draft(
            side=self.side,
            boards=np.frombuffer(b"".join(boards), dtype="<f4").reshape(-1, 2, self.side, self.side),
            policy=np.frombuffer(policy, dtype="<f4").reshape(-1, cells),
            has_policy=np.array([p is not None for p in policies], dtype=bool),
            value=np.array(values, dtype=np.float64),
            player=np.array(players, dtype=np.int8),
            ply=np.array(ply, dtype=np.int32),
            source=np.array(sources, dtype=np.uint32),
            game=np.array(games, dtype=np.int32),
            plies=np.array(plies, dtype=np.int16),
            tier=np.array(tiers, dtype=np.int8),
            places=places,
        )

    def _row(self, example: object) -> tuple[object, ...]:
        """Board, policy, value, player, ply, source, game, plies and tier of one example; arrays as float32 bytes."""
        if type(example) is not dict:
            raise _Unsound("example is not a dict", f"a {type(example).__name__}")
        board = _float_bytes(_need(example, "board"), (2, self.side, self.side), "board")
        policy = _need(example, "policy")
        target = None if policy is None else _float_bytes(policy, (self.side**2,), "policy")
        value = _value(_need(example, "value"))
        player = self._player(example)
        meta = _need(example, "metadata")
        if type(meta) is not dict:
            raise _Unsound("metadata is not a dict", f"a {type(meta).__name__}")
        return board, target, value, player, *self._origin(meta, value)

    def _player(self, example: dict[str, object]) -> int:
        if "player_to_move" not in self.stated.keys and "player_to_move" not in example:
            return UNKNOWN
        stated = _need(example, "player_to_move")
        player = stated.value if isinstance(stated, Member) and stated.enum == "Player" else None
        if self.stated.int_players:
            player = stated
        if type(player) is not int or player not in (BLUE, RED):
            raise _Unsound("player_to_move is no player", _shown(stated))
        return player

    def _origin(self, meta: dict[str, object], value: float) -> tuple[int, int, int, int, int]:
        """Ply, source, game, plies and tier."""
        for key in _META_KEYS & self.stated.meta_keys:
            _need(meta, key)
        if "winner" in meta:
            _check_winner(meta["winner"], value)
        cells = self.side**2
        ply = _integer(meta, "position_in_game", 0, cells)
        plies = _integer(meta, "total_positions", 1, cells + 1) - 1 if "total_positions" in meta else UNKNOWN
        tier = _integer(meta, "value_sample_tier", 0, 127)
        return ply, *self._game(meta), plies, tier

    def _game(self, meta: dict[str, object]) -> tuple[int, int]:
        """Source and line of the game; the file itself and UNKNOWN where the metadata names none."""
        game_id, stated = meta.get("game_id"), meta.get("source_file", "")
        if type(stated) is not str or len(stated) > MAX_NAME_CHARS:
            raise _Unsound("source_file is not a file name", _shown(stated))
        if game_id is None:
            return 0, UNKNOWN
        if (
            type(game_id) is not tuple
            or len(game_id) != 2
            or type(game_id[1]) is not int
            or not 0 <= game_id[1] < 2**31
        ):
            raise _Unsound("game_id is not a pair of file and line", _shown(game_id))
        return self.sources.number(stated) if stated else 0, game_id[1]


def _need(entry: dict[str, object], key: str) -> object:
    if key not in entry:
        raise _Unsound(f"no {key}", f"only {printable(', '.join(entry))}" if entry else "nothing")
    return entry[key]


def _shown(value: object) -> str:
    """A short, safe description: text as it is, numbers too, of anything else only the kind."""
    if type(value) is str:
        return f"text of {len(value):,} characters, {printable(value, width=40)}"
    if isinstance(value, Member):
        return f"{value.enum}({_shown(value.value)})"
    if type(value) is int and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return repr(value) if value is None or type(value) in (int, float, bool) else f"a {type(value).__name__}"


def _float_bytes(array: object, shape: tuple[int, ...], what: str) -> bytes:
    if not isinstance(array, Array) or array.data is None:
        raise _Unsound(f"{what} is not an array", _shown(array))
    if array.shape != shape:
        raise _Unsound(f"{what} of a wrong shape", f"{array.shape}, not {shape}")
    if array.dtype == "<f4" and not array.fortran:
        return array.data
    dtype = np.dtype(array.dtype.replace("b1", "u1"))
    stated: NDArray[Any] = np.frombuffer(array.data, dtype=dtype).reshape(shape, order="F" if array.fortran else "C")
    with np.errstate(over="ignore"):
        return stated.astype("<f4").tobytes()


def _value(value: object) -> float:
    if isinstance(value, Array) and value.shape == () and value.dtype[1] == "f":
        value = float(np.frombuffer(value.data or b"", dtype=value.dtype)[0])
    if type(value) not in (int, float) or not math.isfinite(value if type(value) is float else 0.0):
        raise _Unsound("value is not a finite number", _shown(value))
    if type(value) is int and value not in (0, 1):
        raise _Unsound("value outside 0 to 1", _shown(value))
    return float(value)  # type: ignore[arg-type]


def _integer(meta: dict[str, object], key: str, low: int, high: int) -> int:
    """The whole number that the metadata states, UNKNOWN where it states none."""
    if key not in meta:
        return UNKNOWN
    value = meta[key]
    if type(value) is not int or not low <= value <= high:
        raise _Unsound(f"{key} outside {low} to {high}", _shown(value))
    return value


def _check_winner(winner: object, value: float) -> None:
    won = _WINNERS.get(winner) if type(winner) is str else None
    if isinstance(winner, Member) and winner.enum == "Winner" and type(winner.value) is int:
        won = winner.value
    if won not in (BLUE, RED):
        raise _Unsound("winner is no player", _shown(winner))
    if value in (0.0, 1.0) and won != value:
        raise _Unsound("winner contradicts the value", f"{_shown(winner)}, value {value}")
