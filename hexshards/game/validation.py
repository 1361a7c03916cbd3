"""Validation of positions as source files state them: each is sound, or rejected with a reason. For converters.

What is admitted is packed (``positions``) and trusted inside.
Legend of shapes: P positions, S side, C = S * S cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.game.columns import NO_POLICY, SUM_TOLERANCE, UNKNOWN, VISITS, Array, Column
from hexshards.game.positions import Positions
from hexshards.game.visits import visit_rules
from hexshards.units import counted

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


class Plain(NamedTuple):
    """Boards and policies that are sound, packed as in Positions: stones (P, W), and moves (P,), -1 for none."""

    stones: NDArray[np.uint8]
    moves: NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draft:
    """Positions as a source file states them, of the right shapes but otherwise unchecked.

    boards (P, 2, S, S) of any real dtype. policy (P, C) float32, ignored where ``has_policy`` (P,) is false. Both are
    ignored where ``plain`` is given.
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
    plain: Plain | None = None
    """What ``plainly`` found in the place of boards and policies."""


Pack = Callable[[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64] | None, int], tuple[Array, Array] | None]
"""Packs floats that begin at some bytes, where all are sound (hexshards.game.packing_compiled)."""

_pack_first = list[Pack]()


def pack_first(pack: Pack) -> None:
    """From now on floats are made of boards and policies only where ``pack`` does not find them sound."""
    _pack_first[:] = [pack]


def plainly(
    data: NDArray[np.uint8], boards: NDArray[np.int64], policies: NDArray[np.int64] | None, *, side: int
) -> Plain | None:
    """Boards and policies, None for none, of float32 that begin at some bytes; None where not all are surely sound."""
    packed = _pack_first[0](data, boards, policies, side) if _pack_first else None
    return Plain(*packed) if packed else None


def admit(draft: Draft) -> tuple[Positions, list[Reject]]:
    """Validate a draft: its sound positions in their order, and a reject for each of the others."""
    if draft.plain:
        packed, target = draft.plain
        rows, entries, policies = np.zeros(0, dtype=np.int64), list[_Rule](), list[_Rule]()
    else:
        stones, plain = _stones(draft)
        packed, target = np.packbits(stones, axis=1), _single_moves(draft)
        rows = np.flatnonzero(draft.has_policy & (target == NO_POLICY))  # whose policies need a closer look
        entries, policies = _entry_rules(draft, stones, plain=plain), _policy_rules(draft, stones, target, rows)
    ply, blue = _counts(packed), _counts(packed & _blue_bits(draft.side))
    rules = [*entries, *_count_rules(draft, ply, blue), *policies, _value_rule(draft.value)]
    for kind, column in draft.optional.items():
        rules += visit_rules(column, _taken(packed, draft.side)) if kind == VISITS else [_bounds_rule(kind, column)]
    faulty, rejects = np.logical_or.reduce([bad for _, bad, _ in rules]), list[Reject]()
    for row in np.flatnonzero(faulty).tolist():
        reason, _, finding = next(rule for rule in rules if rule[1][row])
        rejects.append(Reject(draft.places[row], reason, str(finding(row))))
    sound = ~faulty if rejects else slice(None)  # which copies nothing
    kept = Positions(
        side=draft.side,
        stones=packed[sound],
        policy=_policy_column(draft, target, sound, rows[~faulty[rows]]),
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


def _taken(packed: NDArray[np.uint8], side: int) -> NDArray[np.bool_]:
    """Which cells have a stone, (P, C), on packed boards."""
    return taken_cells(np.unpackbits(packed, axis=1, count=2 * side**2).view(np.bool_))


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


_ONE = np.float32(1).view(np.uint32)
"""The bits of 1.0; those of 0.0 are all 0."""


def _ones(floats: NDArray[np.float32]) -> tuple[NDArray[np.bool_], bool]:
    """Which floats are 1.0; and whether all others are 0.0, by their bits: NumPy counts floats a sixth as fast."""
    bits = floats.view(np.uint32)
    ones = bits == _ONE
    return ones, np.count_nonzero(bits) == np.count_nonzero(ones)


def _stones(draft: Draft) -> tuple[NDArray[np.bool_], bool]:
    """Entries of the boards that are not 0, (P, 2 * C); and whether all of these are surely 1."""
    boards = draft.boards.reshape(-1, 2 * draft.side**2)
    if boards.dtype == np.float32:
        ones, plain = _ones(boards)
        if plain:
            return ones, True
    return boards != 0, False


def _single_moves(draft: Draft) -> NDArray[np.int16]:
    """The cell of each policy that is exactly one move, -1 for all others."""
    cells = draft.side**2
    if draft.has_policy.all():
        ones, plain = _ones(draft.policy)
        move = ones.argmax(axis=1)
        # as many moves as rows, and one in each
        if plain and np.count_nonzero(ones) == len(ones) and ones[np.arange(len(ones)), move].all():
            return np.asarray(move, dtype=np.int16)
    entries = np.flatnonzero(draft.policy != 0)  # of all rows: there is hardly more than one in each
    rows = entries // cells
    alone = np.bincount(rows, minlength=len(draft.policy)) == 1
    plain = entries[(draft.policy.reshape(-1)[entries] == 1) & (alone & draft.has_policy)[rows]]
    target = np.full(len(draft.policy), NO_POLICY, dtype=np.int16)
    target[plain // cells] = plain % cells
    return target


def _policy_column(
    draft: Draft, target: NDArray[np.int16], sound: NDArray[np.bool_] | slice, soft: NDArray[np.int64]
) -> NDArray[np.int16] | NDArray[np.float16]:
    """Moves of the sound rows; distributions, all zero for none, when any of ``soft`` rows is one."""
    if not len(soft):
        return target[sound]
    dense = draft.policy[soft]
    single = (np.count_nonzero(dense, axis=1) == 1) & (dense == 1).any(axis=1)  # -0.0 is 0 here
    if single.all():
        target = target.copy()
        target[soft] = dense.argmax(axis=1)
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


def _entry_rules(draft: Draft, stones: NDArray[np.bool_], *, plain: bool) -> list[_Rule]:
    """Faults of the entries of boards. plain: these are 0 and 1."""
    boards, cells = draft.boards.reshape(stones.shape), draft.side**2
    twice = stones[:, :cells] & stones[:, cells:]
    return [
        (
            "board entry neither 0 nor 1",
            np.zeros(len(stones), dtype=bool) if plain else _not_stones(boards, stones),
            lambda row: boards[row][boards[row] != stones[row]][0],
        ),
        (
            "cell with two stones",
            _any(twice),
            lambda row: f"cell {np.flatnonzero(twice[row])[0]}",
        ),
    ]


def _count_rules(draft: Draft, ply: Array, blue: Array) -> list[_Rule]:
    """Faults of the numbers of stones; ``ply`` and ``blue`` (P,) count all and those of BLUE."""
    lead = 2 * blue - ply

    def count(row: int) -> str:
        return f"{blue[row]} BLUE and {ply[row] - blue[row]} RED"

    return [
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


def _value_rule(value: NDArray[np.float64]) -> _Rule:
    return "value outside 0 to 1", ~((value >= 0) & (value <= 1)), lambda row: value[row]


def _policy_rules(
    draft: Draft, stones: NDArray[np.bool_], target: NDArray[np.int16], rows: NDArray[np.int64]
) -> list[_Rule]:
    """Faults of policies; ``rows`` are those whose policies are not plainly one move or none."""
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
    ]
