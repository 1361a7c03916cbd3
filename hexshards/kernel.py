"""Packed rows become floats in one pass of compiled code, without Python's lock: the same bits as NumPy makes.

It needs numba, ``hexshards[fast]``; importing it compiles, or loads what was compiled before. All goes eight cells at a
time: a byte of stones is eight floats of a table, and a symmetry says which bits make that byte.
Legend of shapes: B rows, S side, C = S * S cells, W bytes of packed stones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types, void
from numba.extending import intrinsic
from numpy.typing import NDArray

from hexshards.board import SYMMETRIES, symmetry_cells
from hexshards.expand import Packed, show_policy
from hexshards.positions import stone_bytes

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)

_FLOATS = _BITS.astype(np.float32)
"""(256, 8): the bits of a byte, its first bit first."""

_TURNED = np.ascontiguousarray(_FLOATS[:, ::-1])
"""The same, last bit first."""

_SPREAD = (_BITS.astype(np.uint64) << (8 * np.arange(8, dtype=np.uint64) + np.uint64(7))).sum(axis=1, dtype=np.uint64)
"""(256,): the bits of a byte as the highest bits of the bytes of a word, the first bit in its lowest byte."""

_BEFORE = 8
"""Zero bytes before a row's stones, and more behind them: bits may be asked for that are beside the board."""


def fill(
    rows: Packed, side: int, board: NDArray[np.float32], policy: NDArray[np.float32], value: NDArray[np.float32]
) -> None:
    """What ``expand.fill`` does: board (B, 3 * C), policy (B, C) and value (B,) are written in full.

    Raises IndexError for a move beyond the board, which would be written beyond the batch.
    """
    rows = Packed(*(np.require(column, requirements=("C", "A")) for column in rows))
    soft = rows.policy.ndim == 2
    moves = np.full(len(rows.policy), -1, dtype=np.int16) if soft else rows.policy
    assert rows.stones.shape[1] == stone_bytes(side) and rows.symmetry.max(initial=0) < len(SYMMETRIES)
    if moves.max(initial=-1) >= side * side:
        raise IndexError(f"move {moves.max()} is beyond a board of {side * side} cells")
    inputs = (rows.stones, rows.player, moves, rows.value, rows.symmetry)
    tables = (_FLOATS, _TURNED, _SPREAD, symmetry_cells(side))
    _fill(*inputs, side, *tables, board.reshape(-1), policy.reshape(-1), value)
    if soft:
        show_policy(rows.policy, rows.symmetry, side, policy)


@intrinsic
def _put(typingctx: Any, floats: Any, place: Any, table: Any, byte: Any) -> Any:
    """Eight floats of a table to a place, in one load and one store: of a loop numba makes eight of each."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def address(number: int, index: Any) -> Any:
            array = context.make_array(signature.args[number])(context, builder, args[number])
            return builder.bitcast(builder.gep(array.data, [index]), ir.VectorType(ir.FloatType(), 8).as_pointer())

        eight = builder.load(address(2, builder.shl(args[3], args[3].type(3))), align=4)
        builder.store(eight, address(0, args[1]), align=4)
        return context.get_dummy_value()

    return types.void(floats, types.int64, table, types.int64), emit


@intrinsic
def _byte(typingctx: Any, packed: Any, first: Any) -> Any:
    """Eight bits of packed bytes, from any bit on."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        start = builder.gep(array.data, [builder.lshr(args[1], args[1].type(3))])
        pair = builder.bswap(builder.load(builder.bitcast(start, ir.IntType(16).as_pointer()), align=1))
        shift = builder.sub(args[1].type(8), builder.and_(args[1], args[1].type(7)))
        return builder.and_(builder.lshr(builder.zext(pair, args[1].type), shift), args[1].type(255))

    return types.int64(packed, types.int64), emit


@njit(nogil=True)
def _all(floats, first, count, table, byte):  # type: ignore[no-untyped-def]
    """The same byte everywhere in ``count`` floats, of which the last eight may be written twice."""
    for place in range(first, first + count - 8, 8):
        _put(floats, place, table, byte)
    _put(floats, first + count - 8, table, byte)


@njit(nogil=True)
def _turn(row, cells, table, board, place):  # type: ignore[no-untyped-def]
    """Both planes from their last cell to their first."""
    for plane in range(2):
        last = 8 * _BEFORE + (plane + 1) * cells - 8
        for cell in range(0, cells, 8):
            _put(board, place + plane * cells + cell, table, _byte(row, last - cell))


@njit(nogil=True)
def _column(row, bit, step, count, spread):  # type: ignore[no-untyped-def]
    """Eight columns of up to eight rows of a board, ``step`` bits apart, each column a byte of a word."""
    word = np.uint64(0)
    for number in range(min(count, 8)):
        word |= spread[_byte(row, bit)] >> np.uint64(number)
        bit += step
    return word


@njit(nogil=True)
def _transpose(row, side, anti, table, spread, board, place):  # type: ignore[no-untyped-def]
    """Columns become rows, RED's plane the first; ``anti``: from the last bit to the first.

    What a row has beyond its end is written over by the next one, and by the third plane.
    """
    cells = side * side
    sign = -1 if anti else 1
    for plane in range(2):
        start = 8 * _BEFORE + (1 - plane) * cells + (cells - 8 if anti else 0)
        for column in range(0, side, 8):
            bit, step = start + sign * column, sign * side
            top = _column(row, bit, step, side, spread)
            middle = _column(row, bit + 8 * step, step, side - 8, spread)
            bottom = _column(row, bit + 16 * step, step, side - 16, spread)
            for number in range(min(8, side - column)):
                shift = np.uint64(56 - 8 * number if anti else 8 * number)
                to = place + plane * cells + (column + number) * side
                _put(board, to, table, np.int64(top >> shift & np.uint64(255)))
                if side > 8:
                    _put(board, to + 8, table, np.int64(middle >> shift & np.uint64(255)))
                if side > 16:
                    _put(board, to + 16, table, np.int64(bottom >> shift & np.uint64(255)))


def _read(dtype: Any, dimensions: int) -> Any:
    return types.Array(dtype, dimensions, "C", readonly=True)


_INPUTS = (_read(types.uint8, 2), *(_read(each, 1) for each in (types.uint8, types.int16, types.float32, types.uint8)))
_TABLES = (*(_read(types.float32, 2),) * 2, _read(types.uint64, 1), _read(types.int64, 2))


@njit(void(*_INPUTS, types.int64, *_TABLES, *(types.float32[::1],) * 3), nogil=True, cache=True)
def _fill(  # type: ignore[no-untyped-def]
    stones, player, moves, wins, symmetry, side, floats, turned, spread, sends, board, policy, value
):
    """Row by row; ``board`` and ``policy`` are flat."""
    count, width = stones.shape
    cells = side * side
    row = np.zeros(_BEFORE + width + 8, dtype=np.uint8)
    for number in range(count):
        row[_BEFORE : _BEFORE + width] = stones[number]
        place, shown = 3 * cells * number, symmetry[number]
        if shown == 0:
            for byte in range(width):
                _put(board, place + 8 * byte, floats, np.int64(row[_BEFORE + byte]))
        elif shown == 1:
            _turn(row, cells, turned, board, place)
        else:
            _transpose(row, side, shown == 3, floats, spread, board, place)
        swapped = shown >= 2
        _all(board, place + 2 * cells, cells, floats, 255 if (player[number] != 0) != swapped else 0)
        _all(policy, cells * number, cells, floats, 0)
        if moves[number] >= 0:
            policy[cells * number + sends[shown, moves[number]]] = 1
        value[number] = np.float32(1) - wins[number] if swapped else wins[number]
