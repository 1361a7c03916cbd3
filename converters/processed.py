"""Converter of hex_ai's processed files (``*.pkl.gz``): every sound example is kept, every other named with its fault.

A gzip of a pickle: a dict with ``examples``. No file states its generation; the structure of its examples does. They
are dicts of ``board``, ``policy``, ``value``, ``metadata`` and, but for the oldest, ``player_to_move``; in the first
files they were tuples of board, policy and value, and most of those say 1.0 where BLUE won. Their terminal boards show
who connected, so each such file is compared with itself, and corrected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np

from hexshards.conversion.options import CONVERT, ConvertSpec
from hexshards.conversion.pickles.frames import Unframed
from hexshards.conversion.pickles.lookahead import compiled_for
from hexshards.conversion.pickles.machine import Array, LostError
from hexshards.conversion.pickles.scanner import SimilarDicts, load_records
from hexshards.conversion.sources import Chunk, source_name
from hexshards.converters.examples import MAX_NAME_CHARS, Examples, Names, Stated, kind_of, plain_value, tallied
from hexshards.errors import DataError, printable
from hexshards.game.board import BLUE, MAX_SIDE, MIN_SIDE, RED, connects
from hexshards.game.positions import no_positions
from hexshards.game.validation import Reject
from hexshards.storage.files import gunzipped, stated_bytes
from hexshards.units import counted

SAMPLE_EXAMPLES = 512
"""Examples, spread over the file, that tell its generation and side."""

_GAMES, _HEAD_BYTES = b"\x8c\x05games", 128
"""How a file of whole games names them, within its first 64 bytes without a frame's head."""

_KEEP_OUT = "Leave this file out"
_CUT = "The file was cut when it was written: fetch or make it again, or leave it out"
_SELF_PLAY = "is a file of whole self-play games with a network's answers, not of positions to learn from"


class ProcessedFiles:
    """Converter for hex_ai's processed and shuffled files of every generation."""

    patterns = ("*.pkl.gz",)

    def read(self, data: bytes, *, name: str, where: str, spec: ConvertSpec = CONVERT) -> Iterator[Chunk]:
        """Yield the file's positions; see hexshards.conversion.sources.Source."""
        if (top := _streamed(data, where)) is not None:
            yield self._read(_contents(top, where), name=name, where=where, spec=spec)
            return
        with Unframed(gunzipped(data, where=where), expected_bytes=stated_bytes(data)) as pickled:
            chunk = self._read(_load(pickled, where), name=name, where=where, spec=spec)
        yield chunk

    def _read(self, top: dict[str, Any], *, name: str, where: str, spec: ConvertSpec) -> Chunk:
        own = top.get("source_file")
        names = Names(source_name(own if isinstance(own, str) and 0 < len(own) <= MAX_NAME_CHARS else name))
        if not (examples := _examples(top, where)):
            return Chunk(no_positions(MIN_SIDE), tuple(names.names), [], ["holds no examples"])
        notes = []
        if 2 * sum(isinstance(example, (dict, SimilarDicts)) for example in examples) < len(examples):
            examples, note = _from_tuples(examples, spec, where)
            notes.append(note)
        sample = _sample(examples)
        if "source_file" in top:
            names.expect_one(sample)
        stated = Stated(sample)
        reader = Examples(side=_side(sample, where), names=names, stated=stated)
        notes.insert(0, stated.generation)
        positions, sources, rejects = reader.read(examples)
        odd = _odd_counts(top, len(positions) + len(rejects), reader.side)
        return Chunk(positions, sources, odd + rejects, notes)


def _streamed(data: bytes, where: str) -> object | None:
    """What is in the file, read in one pass; None where it is to be read whole: it is small, or does what few do."""
    if not compiled_for(stated_bytes(data)):
        return None
    from hexshards.conversion.pickles.streaming import stream_records

    pieces = gunzipped(data, where=where)
    head = next(pieces, b"")
    with suppress(LostError):
        if _GAMES not in head[:_HEAD_BYTES]:
            return stream_records(chain([head], pieces), expected_bytes=stated_bytes(data), key="board")
    return None


def _load(pickled: Unframed, where: str) -> dict[str, Any]:
    if not pickled.size:
        raise DataError("is gzip of nothing", where=where, fix=_CUT)
    # a self-play file is refused for lists it holds twice, long before its structure is known
    if _GAMES in pickled.data[:64]:
        raise DataError(_SELF_PLAY, where=where, fix=_KEEP_OUT)
    return _contents(load_records(pickled, where=where, key="board"), where)


def _contents(top: object, where: str) -> dict[str, Any]:
    if isinstance(top, dict):
        return top
    kind = kind_of(top)
    if isinstance(top, (list, tuple)):
        kind += " (a bucket of an unfinished shuffle, or examples without their file's dict)"
    raise DataError(f"holds {kind}, not a dict with examples", where=where, fix=_KEEP_OUT)


def _examples(top: dict[str, Any], where: str) -> Sequence[Any]:
    examples = top.get("examples")
    if "games" in top and examples is None:
        raise DataError(_SELF_PLAY, where=where, fix=_KEEP_OUT)
    if not isinstance(examples, (list, tuple)):
        contents = "no examples" if examples is None else f"examples that are {kind_of(examples)}"
        raise DataError(f"holds {contents}", where=where, fix=_KEEP_OUT)
    return examples


def _odd_counts(top: dict[str, Any], count: int, side: int) -> list[Reject]:
    """A reject when the file claims a number of examples that it cannot have been written with."""
    stats = top.get("processing_stats")
    stated, games = (stats.get(key) if isinstance(stats, dict) else None for key in ("examples_generated", "all_games"))
    if stated is None:
        return []
    most = games * (side * side + 1) if type(games) is int and games.bit_length() < 64 else None
    if type(stated) is int and count <= stated and (most is None or stated <= most):
        return []
    claim = f"examples_generated {printable(stated, width=24)}"
    finding = f"{claim} for {counted(count, 'example')} of {printable(games, width=24)} games"
    return [Reject("processing_stats", "stated count is impossible", finding)]


def _sample(examples: Sequence[Any]) -> list[dict[str, Any]]:
    """Dicts like those of the file; leaves may be another example's."""
    picked: list[Any] = []
    for example in examples[:: max(1, len(examples) // SAMPLE_EXAMPLES)]:
        if isinstance(example, SimilarDicts):
            picked += [kind.example for kind in example.kinds_of(slice(8))]
        else:
            picked.append(example)
    return [example for example in picked if type(example) is dict]


def _side(sample: Sequence[dict[str, Any]], where: str) -> int:
    """The side most boards have: one odd example must not decide over the others."""
    seen: dict[int, int] = {}
    for example, times in tallied(sample):
        board = example.get("board")
        if isinstance(board, Array) and len(board.shape) == 3 and board.shape == (2, board.shape[1], board.shape[1]):
            seen[board.shape[1]] = seen.get(board.shape[1], 0) + times
    side = max(seen, key=lambda s: seen[s], default=0)
    if not MIN_SIDE <= side <= MAX_SIDE:
        contents = f"boards of side {side}" if seen else "no board of shape (2, side, side)"
        raise DataError(f"holds {contents}", where=where, fix=f"Sides are {MIN_SIDE} to {MAX_SIDE}. {_KEEP_OUT}")
    return side


# the first generation -----------------------------------------------------------------------------------------------


def _from_tuples(examples: Sequence[Any], spec: ConvertSpec, where: str) -> tuple[list[Any], str]:
    """Examples as dicts, their values 1.0 where RED won, and what was done to them."""
    if not any(type(example) is tuple and len(example) == 3 for example in examples):
        raise DataError(
            f"its first example is {kind_of(examples[0])}, neither a dict nor a tuple of board, policy and value",
            where=where,
            fix=_KEEP_OUT,
        )
    inverted, note = _inverted(examples, spec, where)
    flipped = [_as_dict(example, inverted) for example in examples]
    return flipped, note


def _as_dict(example: Any, inverted: bool) -> Any:
    if type(example) is not tuple or len(example) != 3:
        return example
    board, policy, value = example
    value = plain_value(value)
    if inverted and (type(value) is float or (type(value) is int and value in (0, 1))):
        value = 1 - value
    return {"board": board, "policy": policy, "value": value, "metadata": {}}


def _inverted(examples: Sequence[Any], spec: ConvertSpec, where: str) -> tuple[bool, str]:
    """Whether BLUE's wins are written as 1.0, by what the terminal boards show."""
    if spec.v1_value != "check":
        return spec.v1_value == "inverted", f"values taken {spec.v1_value}, as asked"
    agree, contradict = _terminal_values(examples)
    if agree + contradict == 0 or (agree and contradict):
        problem = f"does not show whether its values are inverted ({agree} terminal boards say no, {contradict} yes)"
        raise DataError(problem, where=where, fix="Find out, and say --v1-value as-is or --v1-value inverted")
    if contradict:
        return True, f"values were inverted (BLUE's wins as 1.0, by {contradict} terminal boards): corrected"
    return False, f"values are as they should be (by {agree} terminal boards)"


def _terminal_values(examples: Sequence[Any]) -> tuple[int, int]:
    """How many terminal boards have the value of who connected, and how many the other one."""
    boards: dict[int, list[bytes]] = defaultdict(list)
    values: dict[int, list[float]] = defaultdict(list)
    for example in examples:
        if type(example) is not tuple or len(example) != 3 or example[1] is not None:
            continue
        board, value = example[0], plain_value(example[2])
        if isinstance(board, Array) and len(board.shape) == 3 and type(value) in (int, float) and value in (0, 1):
            side = board.shape[1]
            if MIN_SIDE <= side <= MAX_SIDE and board.shape == (2, side, side) and board.dtype == "<f4":
                boards[side].append(board.data or b"")
                values[side].append(float(value))
    agree = contradict = 0
    for side, planes in boards.items():
        stones = np.frombuffer(b"".join(planes), "<f4").reshape(-1, 2, side, side) == 1
        blue, red = connects(stones[:, 0], player=BLUE), connects(stones[:, 1], player=RED)
        same = np.array(values[side])[blue ^ red] == red[blue ^ red]
        agree, contradict = agree + int(same.sum()), contradict + int((~same).sum())
    return agree, contradict
