"""Examples (dicts) to columns: each becomes a checked row; what is wrong with it, and with it alone, is a reject.

Two ways to the same rows: one example at a time, which finds the words for any fault; and whole columns for examples
that were found by their bytes (pickles.scanner). A row that the columns cannot vouch for takes the first way.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.pickles.machine import Array, DType, Global, Member
from hexshards.conversion.pickles.scanner import DictsOfKind, SimilarDicts, joined, places_of
from hexshards.conversion.pickles.templates import Slot, Template
from hexshards.conversion.sources import source_name
from hexshards.converters import optional_keys
from hexshards.converters.optional_keys import OptionalReaders, count_faults
from hexshards.errors import printable
from hexshards.game.board import BLUE, RED
from hexshards.game.columns import UNKNOWN, VISITS
from hexshards.game.positions import Positions, concat
from hexshards.game.validation import Draft, Plain, Reject, admit, plainly
from hexshards.units import counted

MAX_NAME_CHARS = 4096
"""Longest source_file accepted."""

SINGLE_EXAMPLES, EXAMPLES_OF_A_KIND = 8192, 1024
"""Examples checked together, those that were read one at a time and those found alike. At side 13 the boards and
policies of 1,024 are 2 MB and stay in the cache."""

_META_KEYS = {"game_id", "position_in_game", "total_positions", "value_sample_tier", "winner", "source_file"}
_WINNERS = {"BLUE": BLUE, "RED": RED}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ODD = -9
"""In a column of whole numbers: this row must be looked at by itself."""

_LARGEST = 1e308

_KINDS: dict[type, str] = {
    Array: "a NumPy array",
    Global: "the name of a function or class",
    DType: "a NumPy type",
    SimilarDicts: "a dict",
    str: "text",
    bytes: "bytes",
    bool: "a truth value",
    int: "an integer",
    type(None): "None",
}

T = TypeVar("T")

ExampleColumns = dict[str, Any]
"""Columns of a Draft, boards and policies a row each, and ``number``: which example each row is."""


class _Unsound(Exception):
    """An example that does not become a row: reason, and what was found."""


class Stated:
    """What the examples of a file state. What most of them have, each must have; that tells the generations apart."""

    def __init__(self, sample: Sequence[dict[str, Any]]) -> None:
        metas = [meta for example in sample if type(meta := example.get("metadata")) is dict]
        self.keys, self.meta_keys = _most_common(sample), _most_common(metas)
        players = [example["player_to_move"] for example in sample if "player_to_move" in example]
        self.int_players = 2 * sum(type(player) is int for player in players) > len(players)

    @property
    def generation(self) -> str:
        """The generation in words."""
        if not self.meta_keys and "player_to_move" not in self.keys:
            return "v1: without metadata and player"
        if "player_to_move" not in self.keys:
            return "v2 without player"
        return "v2 with players as numbers" if self.int_players else "v2 with players as enums"


def _most_common(entries: Sequence[dict[str, Any]]) -> set[str]:
    counts = Counter[str]()
    for entry, times in tallied(entries):
        counts.update(dict.fromkeys(entry, times))
    return {key for key, count in counts.items() if 2 * count > len(entries)}


def tallied(entries: Sequence[T]) -> list[tuple[T, int]]:
    """The different ones of some objects, and how often each is there; few of a sample are objects of their own."""
    by_id = {id(entry): entry for entry in entries}
    return [(by_id[which], times) for which, times in Counter(map(id, entries)).items()]


class Names:
    """Numbers for the names of the files that games came from; 0 is what the file as a whole came from."""

    def __init__(self, own: str) -> None:
        self.names = [own]
        self.alone = False
        """Whether all games are of that file, so that an example that names another one contradicts the others."""
        self._numbers: dict[str, int] = {}

    def expect_one(self, sample: Sequence[dict[str, Any]]) -> None:
        """Take all games to be of the file's own source if most examples say so."""
        metas = [(meta, times) for each, times in tallied(sample) if type(meta := each.get("metadata")) is dict]
        stated = [(name, times) for meta, times in metas if type(name := meta.get("source_file")) is str]
        own = sum(times for name, times in stated if source_name(name[-MAX_NAME_CHARS:]) == self.names[0])
        self.alone = 2 * own > len(sample)

    def fault(self, stated: str) -> str:
        """Why a stated name names no file that the game can be of; empty where it does."""
        last = stated.replace("\\", "/").rsplit("/", 1)[-1]
        # compared before it is cleaned: another spelling must not become a source of its own, in a split of its own
        if last in ("", ".", "..") or _CONTROL.search(stated):
            return "source_file is not a file name"
        other = self.alone and source_name(stated) != self.names[0]
        return "source_file contradicts the file's other examples" if other else ""

    def number(self, stated: str) -> int:
        """The number of a file's name, as an example states it."""
        if stated not in self._numbers:
            name = source_name(stated)
            if name not in self.names:
                self.names.append(name)
            self._numbers[stated] = self.names.index(name)
        return self._numbers[stated]


class Examples:
    """The examples of one file."""

    def __init__(self, *, side: int, names: Names, stated: Stated) -> None:
        self.side, self.names, self.stated = side, names, stated

    def read(self, examples: Sequence[Any]) -> tuple[Positions, tuple[str, ...], list[Reject]]:
        """The sound positions in their order, the names that column ``source`` numbers, and the rejects.

        examples: dicts, and SimilarDicts that stand for several.
        """
        single, similar, numbers = _sorted_out(examples)
        admitted, kept, rejects = [], [], list[Reject]()
        for part, unsound in self._parts(single, similar, numbers):
            # part by part: floats are 50 times as large as what is packed of them, and need not be put in order
            positions, more = admit(self._draft(part))
            admitted.append(positions)
            refused = [_number(reject) for reject in more]
            kept.append(np.setdiff1d(part["number"], refused, assume_unique=True) if refused else part["number"])
            rejects += [*unsound, *more]
        order = np.argsort(np.concatenate(kept), kind="stable")  # there are long runs in order
        return concat(admitted).take(order), tuple(self.names.names), sorted(rejects, key=_number)

    def _parts(
        self, single: list[tuple[int, Any]], similar: Sequence[SimilarDicts], numbers: Sequence[NDArray[np.int64]]
    ) -> Iterator[tuple[ExampleColumns, list[Reject]]]:
        """The columns of all examples, some at a time, and what did not become a row."""
        if similar:
            number = np.concatenate(numbers)
            for dicts, mine in joined(similar).by_kind():
                single += yield from self._columns(dicts, number[mine])
        for start in range(0, max(1, len(single)), SINGLE_EXAMPLES):
            yield self._single(single[start : start + SINGLE_EXAMPLES])

    def _draft(self, part: ExampleColumns) -> Draft:
        held = {name: column for name, column in part.items() if name not in ("number", "boards", "stones", "moves")}
        plain = Plain(part["stones"], part["moves"]) if "stones" in part else None
        if plain:
            held |= {"boards": np.zeros((0, 2 * self.side**2)), "policy": np.zeros((0, self.side**2), np.float32)}
        else:
            held["boards"] = part["boards"].reshape(-1, 2, self.side, self.side)
        return Draft(side=self.side, places=_Places(part["number"]), plain=plain, **held)

    # one at a time --------------------------------------------------------------------------------------------------

    def _single(self, numbered: Sequence[tuple[int, Any]]) -> tuple[ExampleColumns, list[Reject]]:
        rows: list[tuple[Any, ...]] = []
        rejects = []
        for number, example in numbered:
            try:
                rows.append((number, *self._row(example)))
            except _Unsound as fault:
                rejects.append(Reject(f"example {number}", *fault.args))
        listed: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) if rows else [()] * 11
        places, boards, policy, value, player, ply, source, game, plies, tier, stated = listed
        none = bytes(4 * self.side**2)
        columns = {
            "number": np.array(places, dtype=np.int64),
            "boards": _floats(b"".join(boards), 2 * self.side**2),
            "policy": _floats(b"".join(none if target is None else target for target in policy), self.side**2),
            "has_policy": np.array([target is not None for target in policy], dtype=bool),
            "value": np.array(value, dtype=np.float64),
            "player": np.array(player, dtype=np.int8),
        }
        numbers = {"ply": ply, "source": source, "game": game, "plies": plies, "tier": tier}
        columns |= {name: np.array(column, dtype=np.int64) for name, column in numbers.items()}
        return columns | {"optional": optional_keys.columns_of(stated)}, rejects

    def _row(self, example: Any) -> tuple[Any, ...]:
        """Board, policy, value, player, ply, source, game, plies, tier and optional numbers of one example.

        Arrays are float32 bytes.
        """
        if type(example) is not dict:
            raise _Unsound("example is not a dict", kind_of(example))
        board = _float_bytes(_need(example, "board"), (2, self.side, self.side), "board")
        policy = _need(example, "policy")
        target = None if policy is None else _float_bytes(policy, (self.side**2,), "policy")
        value = _value(_need(example, "value"))
        player = self._player(example)
        meta = _need(example, "metadata")
        if type(meta) is not dict:
            raise _Unsound("metadata is not a dict", kind_of(meta))
        for key in sorted(_META_KEYS & self.stated.meta_keys):
            _need(meta, key)
        if "winner" in meta:
            _check_winner(meta["winner"], value)
        cells = self.side**2
        ply = _integer(meta, "position_in_game", 0, cells)
        plies = _integer(meta, "total_positions", 1, cells + 1) - 1 if "total_positions" in meta else UNKNOWN
        tier = _integer(meta, "value_sample_tier", 0, 127)
        return board, target, value, player, ply, *self._game(meta), plies, tier, _stated(example, cells)

    def _player(self, example: dict[str, Any]) -> int:
        if "player_to_move" not in self.stated.keys and "player_to_move" not in example:
            return UNKNOWN
        stated = _need(example, "player_to_move")
        if (player := self._player_number(stated)) == _ODD:
            raise _Unsound("player_to_move is no player", _shown(stated))
        return player

    def _player_number(self, stated: Any) -> int:
        if self.stated.int_players:
            player = stated
        else:
            player = stated.value if isinstance(stated, Member) and stated.enum == "Player" else None
        return player if type(player) is int and player in (BLUE, RED) else _ODD

    def _game(self, meta: dict[str, Any]) -> tuple[int, int]:
        """Source and line of the game; the file itself and UNKNOWN where the metadata names none."""
        game_id, stated = meta.get("game_id"), meta.get("source_file", "")
        if type(stated) is not str or len(stated) > MAX_NAME_CHARS:
            raise _Unsound("source_file is not a file name", _shown(stated))
        if game_id is None:
            return 0, UNKNOWN
        if (line := _line(game_id)) == _ODD:
            raise _Unsound("game_id is not a pair of file and line", _shown(game_id))
        if stated and (fault := self.names.fault(stated)):
            raise _Unsound(fault, _shown(stated))
        return self.names.number(stated) if stated else 0, line

    # many at a time -------------------------------------------------------------------------------------------------

    def _columns(
        self, dicts: DictsOfKind, number: NDArray[np.int64]
    ) -> Generator[tuple[ExampleColumns, list[Reject]], None, list[tuple[int, Any]]]:
        """Columns of examples of one kind, some at a time; and those of them that must be looked at one at a time."""
        plan = self._plan(dicts.template)
        if plan is None:
            return [(int(number[row]), dicts.dict(row)) for row in range(len(dicts))]
        scalars = plan.scalars(dicts) | {"number": number}
        odd = np.any([scalars[name] == _ODD for name in ("player", "ply", "source", "game", "plies", "tier")], axis=0)
        value, winner = scalars["value"], scalars.pop("winner")
        odd |= ~np.isfinite(value) | (winner == _ODD)
        odd |= (winner != UNKNOWN) & ((value == 0) | (value == 1)) & (winner != value)
        size = SINGLE_EXAMPLES if dicts.is_packed else EXAMPLES_OF_A_KIND
        for start in range(0, len(dicts), size):
            rows = slice(start, start + size)
            columns = {name: column[rows] for name, column in scalars.items()} | plan.arrays(dicts, rows)
            optional, unsure = plan.optional.read(dicts, rows)
            odd[rows] |= unsure
            if odd[rows].any():
                columns = {name: column[~odd[rows]] for name, column in columns.items()}
                optional = optional_keys.taken(optional, ~odd[rows])
            yield columns | {"optional": optional}, []
        return [(int(number[row]), dicts.dict(row)) for row in np.flatnonzero(odd).tolist()]

    def _plan(self, template: Template) -> _ColumnReaders | None:
        """How a kind's leaves become columns; None when its examples need to be looked at one at a time."""
        like, side = template.example, self.side
        meta = like.get("metadata")
        board, policy = like.get("board"), like.get("policy", False)
        plain = _is_plain(board, (2, side, side)) and (policy is None or _is_plain(policy, (side * side,)))
        if not plain or type(like.get("value")) is not float or type(meta) is not dict:
            return None
        if not (self.stated.keys <= like.keys() and _META_KEYS & self.stated.meta_keys <= meta.keys()):
            return None
        if not {("board", "data"), ("value",)} <= template.leaves.keys():
            return None
        if policy is not None and ("policy", "data") not in template.leaves:
            return None
        plan = _ColumnReaders(template, side, has_policy=policy is not None)
        if not plan.optional.plain:
            return None
        cells = side * side
        plan.read("player", ("player_to_move",), self._player_number)
        plan.read("winner", ("metadata", "winner"), _winner)
        plan.read("ply", ("metadata", "position_in_game"), lambda v: _whole(v, 0, cells))
        plan.read("plies", ("metadata", "total_positions"), lambda v: _whole(v, 1, cells + 1, less=1))
        plan.read("tier", ("metadata", "value_sample_tier"), lambda v: _whole(v, 0, 127))
        self._plan_game(plan, meta)
        return plan

    def _plan_game(self, plan: _ColumnReaders, meta: dict[str, Any]) -> None:
        game_id = meta.get("game_id")
        if game_id is None:
            plan.constants |= {"source": 0, "game": UNKNOWN}
            return
        if ("metadata", "game_id") in plan.template.leaves:  # one tuple for all positions of a game
            plan.read("game", ("metadata", "game_id"), _line)
        elif type(game_id) is tuple and len(game_id) == 2:
            plan.read("game", ("metadata", "game_id", 1), lambda v: _whole(v, 0, 2**31 - 1))
        plan.read("source", ("metadata", "source_file"), self._source_number)
        if "source_file" not in meta:
            plan.constants["source"] = 0

    def _source_number(self, stated: Any) -> int:
        if type(stated) is not str or len(stated) > MAX_NAME_CHARS:
            return _ODD
        if stated and self.names.fault(stated):
            return _ODD
        return self.names.number(stated) if stated else 0


def _is_plain(array: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(array, Array) and array.dtype == "<f4" and not array.fortran and array.shape == shape


def _sorted_out(examples: Sequence[Any]) -> tuple[list[tuple[int, Any]], list[SimilarDicts], list[NDArray[np.int64]]]:
    """Numbered dicts, SimilarDicts, and the numbers of what these stand for."""
    single, similar, numbers, first = list[tuple[int, Any]](), list[SimilarDicts](), list[NDArray[np.int64]](), 0
    for example in examples:
        if isinstance(example, SimilarDicts):
            similar.append(example)
            numbers.append(np.arange(first, first + len(example)))
            first += len(example)
        else:
            single.append((first, example))
            first += 1
    return single, similar, numbers


def _number(reject: Reject) -> int:
    return int(reject.place.removeprefix("example "))


class _ColumnReaders:
    """Which leaf of a kind of example becomes which column, and what its numbers stand for."""

    def __init__(self, template: Template, side: int, *, has_policy: bool) -> None:
        self.template, self.side, self.has_policy = template, side, has_policy
        self.optional = OptionalReaders(template, side * side)
        self.constants = dict.fromkeys(("player", "winner", "ply", "plies", "tier"), UNKNOWN)
        self.constants |= {"source": _ODD, "game": _ODD}
        self.readers: dict[str, tuple[Slot, Callable[[Any], int]]] = {}

    def read(self, column: str, path: tuple[str | int, ...], meaning: Callable[[Any], int]) -> None:
        """Fill a column from a leaf; one that is the same in all examples is looked at once."""
        if path in self.template.leaves:
            self.readers[column] = (self.template.leaves[path], meaning)
            return
        value: Any = self.template.example
        for step in path:
            if isinstance(value, dict) and step not in value:
                return
            value = value[step]
        self.constants[column] = meaning(value)

    def scalars(self, dicts: DictsOfKind) -> ExampleColumns:
        """The columns of one number an example."""
        count = len(dicts)
        columns: ExampleColumns = {
            "has_policy": np.full(count, self.has_policy),
            "value": dicts.floats(self.template.leaves[("value",)]),
        }
        for column, value in self.constants.items():
            columns[column] = np.full(count, value, dtype=np.int64)
        for column, (slot, meaning) in self.readers.items():
            seen, numbers = dicts.distinct(slot)
            refers = slot.opcode in (pickle.BINGET, pickle.LONG_BINGET)
            known = np.array([meaning(dicts.meaning(n) if refers else n) for n in seen.tolist()], dtype=np.int64)
            columns[column] = known.repeat(count) if numbers is None else known[places_of(numbers, seen)]
        return columns

    def arrays(self, dicts: DictsOfKind, rows: slice) -> ExampleColumns:
        """Boards and policies of some of the examples; stones and moves where all are plainly sound."""
        if packed := dicts.packed(rows):
            return packed._asdict()
        leaves, count = self.template.leaves, len(dicts.starts[rows])
        policies = dicts.places(leaves[("policy", "data")], rows) if self.has_policy else None
        board = leaves[("board", "data")]
        if plain := plainly(dicts.repeats.bytes, dicts.places(board, rows), policies, side=self.side):
            return plain._asdict()
        boards = dicts.blobs(board, rows).view("<f4")
        if not self.has_policy:
            return {"boards": boards, "policy": np.zeros((count, self.side**2), dtype=np.float32)}
        return {"boards": boards, "policy": dicts.blobs(leaves[("policy", "data")], rows).view("<f4")}


class _Places(Sequence[str]):
    """Names of places, made when they are asked for: hardly ever."""

    def __init__(self, numbers: NDArray[np.int64]) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: Any) -> Any:
        return f"example {self.numbers[row]}"


def _floats(data: bytes, width: int) -> NDArray[np.float32]:
    return np.frombuffer(data, dtype="<f4").reshape(-1, width)


# single values ------------------------------------------------------------------------------------------------------


def _stated(example: dict[str, Any], cells: int) -> dict[str, Any]:
    """What an example has under optional keys: numbers, and of visits an array."""
    stated: dict[str, Any] = {}
    for name in (kind.name for kind in optional_keys.NUMBERS if example.get(kind.name) is not None):
        value = example[name]
        number = plain_value(value)
        if type(number) not in (int, float) or not abs(number) <= _LARGEST:
            raise _Unsound(f"{name} is not a finite number", _shown(value))
        stated[name] = float(number)
    if example.get(VISITS.name) is not None:
        stated[VISITS.name] = _counts(example[VISITS.name], cells)
    return stated


def _counts(visits: Any, cells: int) -> NDArray[np.float32]:
    counts = np.frombuffer(_float_bytes(visits, (cells,), VISITS.name), dtype="<f4")
    for reason, bad in count_faults(counts[None]):
        if bad.any():
            wrong = counts[~((counts >= 0) & (counts % 1 == 0))][:1].tolist() or [int(counts.max())]
            shown = f"{np.count_nonzero(counts)} moves" if "more than" in reason else f"{wrong[0]}"
            raise _Unsound(reason, shown)
    return counts


def _need(entry: dict[str, Any], key: str) -> Any:
    if key not in entry:
        raise _Unsound(f"no {key}", f"only {printable(', '.join(entry))}" if entry else "nothing")
    return entry[key]


def _shown(value: Any) -> str:
    """A short, safe description: text as it is, numbers too, of anything else only the kind."""
    if type(value) is str:
        return f"text of {counted(len(value), 'character')}, {printable(value, width=40)}"
    if isinstance(value, Member):
        return f"{value.enum}({_shown(value.value)})"
    if type(value) is int and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return repr(value) if value is None or type(value) in (int, float, bool) else kind_of(value)


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, Member):
        return f"a member of {value.enum}"
    for kind, words in _KINDS.items():
        if isinstance(value, kind):
            return words
    return f"a {type(value).__name__}"


def _float_bytes(array: Any, shape: tuple[int, ...], what: str) -> bytes:
    if not isinstance(array, Array) or array.data is None:
        raise _Unsound(f"{what} is not an array", _shown(array))
    if not array.numeric:
        raise _Unsound(f"{what} is not an array of numbers", f"elements of type {array.dtype[1:]}")
    if array.shape != shape:
        raise _Unsound(f"{what} of a wrong shape", f"{array.shape}, not {shape}")
    if array.dtype == "<f4" and not array.fortran:
        return array.data
    dtype = np.dtype(array.dtype.replace("b1", "u1"))
    stated: NDArray[Any] = np.frombuffer(array.data, dtype=dtype).reshape(shape, order="F" if array.fortran else "C")
    with np.errstate(over="ignore"):
        return stated.astype("<f4").tobytes()


def plain_value(value: Any) -> Any:
    """A NumPy scalar as a float, anything else as it is."""
    if isinstance(value, Array) and value.numeric and value.shape == () and value.dtype[1] == "f":
        return float(np.frombuffer(value.data or b"", dtype=value.dtype)[0])
    return value


def _value(value: Any) -> float:
    value = plain_value(value)
    if type(value) not in (int, float) or not math.isfinite(value if type(value) is float else 0.0):
        raise _Unsound("value is not a finite number", _shown(value))
    if type(value) is int and value not in (0, 1):
        raise _Unsound("value outside 0 to 1", _shown(value))
    return float(value)


def _integer(meta: dict[str, Any], key: str, low: int, high: int) -> int:
    """The whole number that the metadata states, UNKNOWN where it states none."""
    if key not in meta:
        return UNKNOWN
    if (value := _whole(meta[key], low, high)) == _ODD:
        raise _Unsound(f"{key} outside {low} to {high}", _shown(meta[key]))
    return value


def _whole(value: Any, low: int, high: int, *, less: int = 0) -> int:
    return value - less if type(value) is int and low <= value <= high else _ODD


def _line(game_id: Any) -> int:
    if type(game_id) is not tuple or len(game_id) != 2:
        return _ODD
    return _whole(game_id[1], 0, 2**31 - 1)


def _winner(winner: Any) -> int:
    if isinstance(winner, Member) and winner.enum == "Winner":
        return winner.value if type(winner.value) is int and winner.value in (BLUE, RED) else _ODD
    return _WINNERS.get(winner, _ODD) if type(winner) is str else _ODD


def _check_winner(winner: Any, value: float) -> None:
    if (won := _winner(winner)) == _ODD:
        raise _Unsound("winner is no player", _shown(winner))
    if value in (0.0, 1.0) and won != value:
        raise _Unsound("winner contradicts the value", f"{_shown(winner)}, value {value}")
