"""Positions as columns, which every part passes on. What enters is checked once, here, and trusted inside.

Legend of shapes: P positions, S side, C = S * S cells, W = ceil(2 * C / 8) bytes of packed stones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.errors import escaped
from hexshards.game.board import check_side
from hexshards.game.columns import (
    NO_POLICY,
    SUM_TOLERANCE,
    UNKNOWN,
    VISITS,
    Array,
    Column,
    Fields,
    columns,
    declared,
    fields_of,
    in_order,
)
from hexshards.game.visits import visit_rules
from hexshards.units import counted


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Positions:
    """Packed positions of one side; every column has one entry per position.

    stones (P, W) uint8: bit ``plane * C + cell``, most significant bit first, BLUE plane then RED.
    policy int16 (P,): the cell of the target move, -1 for none; or float16 (P, C): soft targets, all zero for none.
    player uint8: 0 BLUE to move, 1 RED. value float32: 0.0 BLUE wins, 1.0 RED wins.
    source uint32, game int32: the file and line the game came from; the file by its number in a list of names that
    travels beside the positions; game is -1 when the file does not say.
    ply int16: stones on the board. plies int16: stones at the end of the game, -1 unknown. tier int8: hex_ai's
    value_sample_tier, -1 unknown. count uint32, only where equal positions were merged: how many each stands for.
    """

    side: int
    stones: NDArray[np.uint8]
    policy: NDArray[np.int16] | NDArray[np.float16]
    player: NDArray[np.uint8]
    value: NDArray[np.float32]
    source: NDArray[np.uint32]
    game: NDArray[np.int32]
    ply: NDArray[np.int16]
    plies: NDArray[np.int16]
    tier: NDArray[np.int8]
    count: NDArray[np.uint32] | None = None
    optional: Mapping[Column, Array] = field(default_factory=dict)
    """Columns that a dataset may have besides: those of ``columns.OPTIONAL``, and a third party's own."""

    def __post_init__(self) -> None:
        check_side(self.side)
        held = self.columns()
        for name, (dtype, shape) in self._shapes().items():
            column = held[name]
            if column.dtype != dtype or column.shape != (len(self.stones), *shape):
                raise ValueError(
                    f"Positions.{escaped(name)} must be {dtype} of shape {(len(self.stones), *shape)}, "
                    f"got {column.dtype} {column.shape}"
                )

    def __len__(self) -> int:
        return len(self.stones)

    @property
    def soft(self) -> bool:
        """Whether policies are distributions rather than single moves."""
        return self.policy.ndim == 2

    def columns(self) -> dict[str, Array]:
        """The columns by name, in the order in which a block stores them."""
        own = {each.name: getattr(self, each.name) for each in declared(soft=self.soft, counted=self.count is not None)}
        return own | {each.name: self.optional[each] for each in in_order(self.optional)} if self.optional else own

    @property
    def declared(self) -> tuple[Column, ...]:
        """What each column is, in the order in which a block stores them."""
        return (*declared(soft=self.soft, counted=self.count is not None), *in_order(self.optional))

    @classmethod
    def of(cls, side: int, columns: Mapping[str, Array], optional: Iterable[Column] = ()) -> Positions:
        """Positions of columns by their names; of the ``optional`` ones, those that are not there are unknown."""
        optional = tuple(optional)
        rows, names = len(columns["stones"]), {each.name for each in optional}
        return cls(
            side=side,
            **{name: column for name, column in columns.items() if name not in names},
            optional={
                each: columns[each.name] if each.name in columns else each.unknowns(rows, side=side)
                for each in optional
            },
        )

    def changed(self, **columns: Array) -> Positions:
        """The same positions with other columns in the place of some."""
        return Positions.of(self.side, {**self.columns(), **columns}, self.optional)

    def with_optional(self, columns: Mapping[Column, Array]) -> Positions:
        """The same positions and these optional columns besides. For converters."""
        return replace(self, optional={**self.optional, **columns})

    def having(self, optional: Sequence[Column]) -> Positions:
        """The same positions with these optional columns and no others; what they do not say is unknown."""
        if tuple(self.optional) == tuple(optional):
            return self
        held, dropped = self.columns(), {each.name for each in self.optional}
        kept = {each.name for each in optional}
        columns = {name: column for name, column in held.items() if name not in dropped or name in kept}
        return Positions.of(self.side, columns, optional)

    def _shapes(self) -> Fields:
        return fields_of(self.declared, self.side)

    def take(self, rows: Array | slice) -> Positions:
        """The positions at ``rows``: numbers, a mask, or a slice (then without a copy)."""
        return Positions.of(self.side, {name: column[rows] for name, column in self.columns().items()}, self.optional)

    def softened(self) -> Positions:
        """The same positions with policies as distributions."""
        if self.soft:
            return self
        return self.changed(policy=as_distributions(self.policy, cells=self.side**2))

    def planes(self) -> NDArray[np.uint8]:
        """Stones unpacked: (P, 2, S, S) uint8 of 0 and 1, BLUE plane then RED."""
        bits = np.unpackbits(self.stones, axis=1, count=2 * self.side**2)
        return bits.reshape(-1, 2, self.side, self.side)

    def _repr_svg_(self) -> str:
        """What a notebook shows: the first positions as boards."""
        from hexshards.drawing.svg import markup
        from hexshards.game.diagram_svg import sheet_of

        return markup(sheet_of(self))


def as_distributions(moves: Array, *, cells: int) -> NDArray[np.float16]:
    """Policies that are single moves, int16 (P,), as distributions, float16 (P, C)."""
    rows = np.flatnonzero(moves >= 0)
    policy = np.zeros((len(moves), cells), dtype=np.float16)
    policy[rows, moves[rows]] = 1
    return policy


def no_positions(side: int) -> Positions:
    """No position, of a side."""
    none = {name: np.zeros((0, *shape), dtype) for name, (dtype, shape) in columns(side, soft=False).items()}
    return Positions.of(side, none)


def concat(parts: Sequence[Positions]) -> Positions:
    """Concatenate positions; policies become soft when any part's are. Raises ValueError for no part.

    Each has the optional columns of all, unknown where it does not say; two of one name must be declared alike.
    """
    if not parts:
        raise ValueError("concat needs at least one part")
    if any(part.soft for part in parts):
        parts = [part.softened() for part in parts]
    optional = in_order(column for part in parts for column in part.optional)
    each = [part.having(optional).columns() for part in parts]
    return Positions.of(parts[0].side, {name: np.concatenate([c[name] for c in each]) for name in each[0]}, optional)


_Rule = tuple[str, NDArray[np.bool_], Callable[[int], object]]
"""A fault's name, the rows that have it, and what to say was found in a row."""


class Reject(NamedTuple):
    """Reject: one thing in a source file that was not kept, and why."""

    place: str
    """Where in the file, e.g. ``example 6``, counted from 0."""
    reason: str
    """What kind of fault; rejects are counted by it."""
    finding: str
    """What stood there."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draft:
    """Positions as a source file states them, of the right shapes but otherwise unchecked.

    boards (P, 2, S, S) of any real dtype. policy (P, C) float32, ignored where ``has_policy`` (P,) is false.
    value (P,) float64. player (P,) int8 and ply (P,), the stones on the board, as the file states them, UNKNOWN where
    it does not. source, game, plies, tier (P,) integers as in Positions. places: where in the file each stands.
    """

    side: int
    boards: Array
    policy: NDArray[np.float32]
    has_policy: NDArray[np.bool_]
    value: NDArray[np.float64]
    player: NDArray[np.int8]
    ply: Array
    source: Array
    game: Array
    plies: Array
    tier: Array
    places: Sequence[str]
    optional: Mapping[Column, Array] = field(default_factory=dict)
    """Optional columns of floats or whole numbers; what is beyond the bounds of one is a fault."""


def admit(draft: Draft) -> tuple[Positions, list[Reject]]:
    """Validate a draft: its sound positions in their order, and a reject for each of the others."""
    stones = draft.boards.reshape(-1, 2 * draft.side**2) != 0
    packed = np.packbits(stones, axis=1)
    ply, blue = _counts(packed), _counts(packed & _blue_bits(draft.side))
    target = _single_moves(draft)
    rows = np.flatnonzero(draft.has_policy & (target == NO_POLICY))  # whose policies need a closer look
    rules = [*_board_rules(draft, stones, ply, blue), *_target_rules(draft, stones, target, rows)]
    for kind, column in draft.optional.items():
        rules += visit_rules(column, taken_cells(stones)) if kind == VISITS else [_bounds_rule(kind, column)]
    faults = np.stack([bad for _, bad, _ in rules])
    first = faults.argmax(axis=0)
    sound = np.asarray(~faults.any(axis=0))
    rejects = []
    for row in np.flatnonzero(~sound).tolist():
        reason, _, finding = rules[first[row]]
        rejects.append(Reject(draft.places[row], reason, str(finding(row))))
    kept = Positions(
        side=draft.side,
        stones=packed[sound],
        policy=_policy_column(draft, target, sound, rows[sound[rows]]),
        player=(2 * blue - ply)[sound].astype(np.uint8),
        value=draft.value[sound].astype(np.float32),
        source=draft.source[sound].astype(np.uint32),
        game=draft.game[sound].astype(np.int32),
        ply=ply[sound].astype(np.int16),
        plies=draft.plies[sound].astype(np.int16),
        tier=draft.tier[sound].astype(np.int8),
        optional={kind: column[sound].astype(kind.dtype) for kind, column in draft.optional.items()},
    )
    return kept, rejects


def taken_cells(stones_PB: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which cells have a stone, (P, C), on unpacked boards (P, 2 * C)."""
    blue, red = np.split(stones_PB, 2, axis=1)
    return np.asarray(blue | red)


def _bounds_rule(kind: Column, column: Array) -> _Rule:
    """The fault of a number beyond the bounds of its column."""
    beyond = ~kind.within(column)
    if beyond.ndim > 1:
        beyond = np.asarray(beyond.reshape(len(beyond), -1).any(axis=1))
    return f"{kind.name} {kind.bounds}", beyond, lambda row: column[row]


def _counts(packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many bits are set in each row: a quarter of the time that adding up the bits takes."""
    return np.asarray(np.bitwise_count(packed).sum(axis=1, dtype=np.int64))


@cache
def _blue_bits(side: int) -> NDArray[np.uint8]:
    """Packed stones of a board full of BLUE ones."""
    return np.packbits(np.arange(2 * side**2) < side**2)


def _single_moves(draft: Draft) -> NDArray[np.int16]:
    """The cell of each policy that is exactly one move, -1 for all others."""
    cells = draft.side**2
    entries = np.flatnonzero(draft.policy != 0)  # of all rows: there is hardly more than one in each
    rows = entries // cells
    alone = np.bincount(rows, minlength=len(draft.policy)) == 1
    plain = entries[(draft.policy.reshape(-1)[entries] == 1) & (alone & draft.has_policy)[rows]]
    target = np.full(len(draft.policy), NO_POLICY, dtype=np.int16)
    target[plain // cells] = plain % cells
    return target


def _policy_column(
    draft: Draft, target: NDArray[np.int16], sound: NDArray[np.bool_], soft: NDArray[np.int64]
) -> NDArray[np.int16] | NDArray[np.float16]:
    """Moves of the sound rows; distributions, all zero for none, when any of ``soft`` rows is one."""
    dense = draft.policy[soft]
    single = (np.count_nonzero(dense, axis=1) == 1) & (dense == 1).any(axis=1)  # -0.0 is 0 here
    if single.all():
        target = target.copy()
        target[soft] = dense.argmax(axis=1) if len(soft) else NO_POLICY
        return target[sound]
    policy = np.zeros((len(target), draft.side**2), dtype=np.float16)
    moves = np.flatnonzero(target >= 0)
    policy[moves, target[moves]] = 1
    policy[soft] = dense
    return policy[sound]


def _not_stones(boards: Array, stones: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows have an entry that is neither 0 nor 1."""
    return _any(stones != (boards == 1))


def _any(entries: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows hold a true entry; mostly none does, which is found out faster."""
    return np.asarray(entries.any(axis=1)) if entries.any() else np.zeros(len(entries), dtype=bool)


def _board_rules(draft: Draft, stones: NDArray[np.bool_], ply: Array, blue: Array) -> list[_Rule]:
    """Faults of boards; ``ply`` and ``blue`` (P,) count all stones and those of BLUE."""
    boards, cells = draft.boards.reshape(stones.shape), draft.side**2
    twice = stones[:, :cells] & stones[:, cells:]
    lead = 2 * blue - ply

    def count(row: int) -> str:
        return f"{blue[row]} BLUE and {ply[row] - blue[row]} RED"

    return [
        (
            "board entry neither 0 nor 1",
            _not_stones(boards, stones),
            lambda row: boards[row][boards[row] != stones[row]][0],
        ),
        (
            "cell with two stones",
            _any(twice),
            lambda row: f"cell {np.flatnonzero(twice[row])[0]}",
        ),
        ("impossible stone counts", (lead < 0) | (lead > 1), count),
        (
            "player to move contradicts the stones",
            (draft.player != UNKNOWN) & (lead != draft.player),
            lambda row: f"player {draft.player[row]}, {count(row)}",
        ),
        (
            "stated number of stones contradicts the board",
            (draft.ply != UNKNOWN) & (draft.ply != ply),
            lambda row: f"stated {draft.ply[row]}, {ply[row]} on the board",
        ),
        (
            "game ends before the position",
            (draft.plies != UNKNOWN) & (draft.plies < ply),
            lambda row: f"{counted(draft.plies[row], 'move')} in the game, {counted(ply[row], 'stone')} on the board",
        ),
    ]


def _target_rules(
    draft: Draft, stones: NDArray[np.bool_], target: NDArray[np.int16], rows: NDArray[np.int64]
) -> list[_Rule]:
    """Faults of policies and values; ``rows`` are those whose policies are not plainly one move or none."""
    cells = draft.side**2
    policy, place = draft.policy[rows], {row: at for at, row in enumerate(rows.tolist())}
    occupied = stones[rows, :cells] | stones[rows, cells:]
    with np.errstate(invalid="ignore", over="ignore"):
        total = policy.sum(axis=1, dtype=np.float64)
        usable = (policy >= 0) & np.isfinite(policy)
        taken = (policy > 0) & occupied
    number, cell = np.arange(len(target)), np.maximum(target, 0)
    on_stone = (target >= 0) & (stones[number, cell] | stones[number, cells + cell])

    def spread(bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
        every = np.zeros(len(target), dtype=bool)
        every[rows] = bad
        return every

    def stone(row: int) -> str:
        return f"cell {target[row] if on_stone[row] else np.flatnonzero(taken[place[row]])[0]}"

    return [
        (
            "policy entry negative or not finite",
            spread(np.asarray(~usable.all(axis=1))),
            lambda row: policy[place[row]][~usable[place[row]]][0],
        ),
        (
            "policy does not sum to 1",
            spread(~(np.abs(total - 1) <= SUM_TOLERANCE)),
            lambda row: f"sum {total[place[row]]:.6g}",
        ),
        ("policy on an occupied cell", on_stone | spread(np.asarray(taken.any(axis=1))), stone),
        ("value outside 0 to 1", ~((draft.value >= 0) & (draft.value <= 1)), lambda row: draft.value[row]),
    ]
