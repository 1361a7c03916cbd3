"""Positions as packed columns, which every part passes on: dtypes and shapes are checked here, and trusted inside.

What a source file says of positions is checked by ``validation``.
Legend of shapes: P positions, S side, C = S * S cells, W = ceil(2 * C / 8) bytes of packed stones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hexshards.errors import escaped
from hexshards.game.board import check_side
from hexshards.game.columns import Array, Column, Fields, columns, declared, fields_of, in_order


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
    if len(parts) == 1:
        return parts[0].having(in_order(parts[0].optional))
    if any(part.soft for part in parts):
        parts = [part.softened() for part in parts]
    optional = in_order(column for part in parts for column in part.optional)
    each = [part.having(optional).columns() for part in parts]
    return Positions.of(parts[0].side, {name: np.concatenate([c[name] for c in each]) for name in each[0]}, optional)
