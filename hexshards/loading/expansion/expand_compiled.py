"""Expand packed rows in one pass of compiled code, without Python's lock: the same bits as NumPy makes.

It needs numba, ``hexshards[fast]``; importing it compiles, or loads what was compiled before. Sixteen cells are written
at a time, ones where words and masks share a bit: one word under sixteen masks for cells that follow one another, and
sixteen words, a row of the board each, under one mask for a column, which is a row of the transposed board.
Legend of shapes: B rows, S side, C = S * S cells, W bytes of packed stones.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from hexshards.game.board import MAX_SIDE, SYMMETRIES, symmetry_cells
from hexshards.game.columns import stone_bytes
from hexshards.loading.expansion import expand
from hexshards.loading.expansion.expand import Packed, Rows, show_policy
from hexshards.units import counted

LANES = 16
"""Cells that are written at a time."""

_ROWS = -(-MAX_SIDE // LANES) * LANES
"""Words for the rows of one plane."""

_BESIDE = 8
"""Bytes on either side of a row's stones: up to four are asked for that are not the row's own, whatever they hold."""

_MASKS = np.uint32(1) << np.array([range(31, 31 - LANES, -1), range(32 - LANES, 32)], dtype=np.uint32)
"""(2, LANES): the highest bits of a word, one to a lane, from the highest down and upwards to the highest."""


class _Scratch(threading.local):
    """Scratch memory of a thread: for each batch anew it would take 2 us."""

    def __init__(self) -> None:
        self.words = np.zeros(2 * _ROWS, dtype=np.uint32)
        self.edge = np.zeros(_BESIDE + stone_bytes(MAX_SIDE) + _BESIDE, dtype=np.uint8)


_scratch = _Scratch()


def fill(
    rows: Rows, side: int, board: NDArray[np.float32], policy: NDArray[np.float32], value: NDArray[np.float32]
) -> None:
    """What ``expand.fill`` does: board (B, 3 * C), policy (B, C) and value (B,) are written in full.

    Raises IndexError for a move beyond the board or a symmetry beyond the four, which would be written beyond the
    batch.
    """
    if side * side < LANES:
        expand.fill(rows, side, board, policy, value)
        return
    if not all(column.flags.c_contiguous and column.flags.aligned for column in rows):
        rows = Packed(*(np.require(column, requirements=("C", "A")) for column in rows[:5]))
    several = rows.policy.ndim > 1
    moves = np.full(len(rows.policy), -1, dtype=np.int16) if several else rows.policy
    assert rows.stones.shape[1] == stone_bytes(side)
    inputs = (rows.stones, rows.player, moves, rows.value, rows.symmetry)
    tables = _MASKS, symmetry_cells(side), _scratch.words, _scratch.edge
    wrong = _fill(*inputs, side, *tables, board.reshape(-1), policy.reshape(-1), value)
    if wrong >= 0:
        problem = f"move {moves[wrong]:d} in symmetry {rows.symmetry[wrong]:d}"
        raise IndexError(f"{problem} is beyond {counted(side * side, 'cell')} in {len(SYMMETRIES)} symmetries")
    if rows.policy.ndim == 2:
        show_policy(rows.policy, rows.symmetry, side, policy)
    elif several:
        from hexshards.loading.expansion import targets_compiled  # few need it: others do not wait until it is compiled

        targets_compiled.show(rows.policy, rows.symmetry, side, policy)


_WORD, _INDEX = ir.IntType(32), ir.IntType(64)
_WORDS, _FLOATS = ir.VectorType(_WORD, LANES), ir.VectorType(ir.FloatType(), LANES)


def _at(context: Any, builder: Any, array: Any, value: Any, place: Any, kind: Any) -> Any:
    """Pointer to the vector that begins at an element of an array."""
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [place]), kind.as_pointer())


def _everywhere(builder: Any, value: Any, kind: Any) -> Any:
    """Broadcast: a vector of one value."""
    unset, first = ir.Constant(kind, ir.Undefined), ir.Constant(_WORD, 0)
    return builder.shuffle_vector(builder.insert_element(unset, value, first), unset, ir.Constant(_WORDS, [0] * LANES))


@intrinsic
def _word(typingctx: Any, address: Any, bit: Any) -> Any:
    """The 32 bits of packed bytes from any bit on, of which the last seven may be zero; the first is the highest."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = builder.add(args[0], builder.ashr(args[1], ir.Constant(_INDEX, 3)))
        word = builder.bswap(builder.load(builder.inttoptr(byte, _WORD.as_pointer()), align=1))
        return builder.shl(word, builder.trunc(builder.and_(args[1], ir.Constant(_INDEX, 7)), _WORD))

    return types.uint32(types.int64, types.int64), emit


@intrinsic
def _put_shared(typingctx: Any, floats: Any, place: Any, words: Any, first: Any, word: Any) -> Any:
    """1.0 for each of sixteen words that shares a bit with one more, 0.0 for the others."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = builder.load(_at(context, builder, signature.args[2], args[2], args[3], _WORDS), align=4)
        shared = builder.and_(words, _everywhere(builder, args[4], _WORDS))
        which = builder.icmp_unsigned("!=", shared, ir.Constant(_WORDS, [0] * LANES))
        shown = builder.select(which, ir.Constant(_FLOATS, [1.0] * LANES), ir.Constant(_FLOATS, [0.0] * LANES))
        builder.store(shown, _at(context, builder, signature.args[0], args[0], args[1], _FLOATS), align=4)
        return context.get_dummy_value()

    return types.void(floats, types.int64, words, types.int64, types.uint32), emit


@intrinsic
def _put_same(typingctx: Any, floats: Any, place: Any, value: Any) -> Any:
    """Store one number sixteen times."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        same = _everywhere(builder, args[2], _FLOATS)
        builder.store(same, _at(context, builder, signature.args[0], args[0], args[1], _FLOATS), align=4)
        return context.get_dummy_value()

    return types.void(floats, types.int64, types.float32), emit


_part = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""A part of a compiled function, which nobody else calls."""


@_part
def _all(floats, first, count, value):  # type: ignore[no-untyped-def]
    """Fill with one number, ``count`` times; the last ones may be written twice."""
    for place in range(first, first + count - LANES, LANES):
        _put_same(floats, place, value)
    _put_same(floats, first + count - LANES, value)


@_part
def _same(address, cells, masks, board, place):  # type: ignore[no-untyped-def]
    """Identity: both planes as they are."""
    for cell in range(0, 2 * cells, LANES):
        _put_shared(board, place + cell, masks, 0, _word(address, cell))


@_part
def _turn(address, cells, masks, board, place):  # type: ignore[no-untyped-def]
    """Rotate by 180 degrees: both planes from their last cell to their first."""
    for plane in range(2):
        last = (plane + 1) * cells - LANES
        for cell in range(0, cells, LANES):
            _put_shared(board, place + plane * cells + cell, masks, LANES, _word(address, last - cell))


@_part
def _transpose(address, side, anti, words, board, place):  # type: ignore[no-untyped-def]
    """Columns become rows, RED's plane the first; ``anti``: from the last column to the first, and so the rows."""
    cells = side * side
    for plane in range(2):
        bit = (1 - plane) * cells + (cells - side if anti else 0)
        for row in range(side):
            words[plane * _ROWS + row] = _word(address, bit)
            bit += -side if anti else side
    for plane in range(2):
        mask = np.uint32(1) << np.uint32(32 - side if anti else 31)
        for column in range(side):
            to = place + plane * cells + column * side
            _put_shared(board, to, words, plane * _ROWS, mask)
            if side > LANES:
                _put_shared(board, to + LANES, words, plane * _ROWS + LANES, mask)
            mask = mask << np.uint32(1) if anti else mask >> np.uint32(1)


def _read(dtype: Any, dimensions: int) -> Any:
    return types.Array(dtype, dimensions, "C", readonly=True)


_INPUTS = (_read(types.uint8, 2), *(_read(each, 1) for each in (types.uint8, types.int16, types.float32, types.uint8)))
_TABLES = (types.uint32[:, ::1], _read(types.int64, 2), types.uint32[::1], types.uint8[::1])


@njit(types.int64(*_INPUTS, types.int64, *_TABLES, *(types.float32[::1],) * 3), nogil=True, cache=True)
def _fill(  # type: ignore[no-untyped-def]
    stones, player, moves, wins, symmetry, side, masks, sends, words, edge, board, policy, value
):
    """Expand row by row; ``board`` and ``policy`` are flat. Returns the first row that cannot be shown, or -1.

    ``words`` and ``edge`` are scratch: memory of its own would take longer to compile than all that is done here.
    What a store has beyond the end of a row or a plane is written over by the next one, up to the third plane, which
    ends where it should.
    """
    count, width = stones.shape
    cells = side * side
    for number in range(count):
        shown, move = symmetry[number], moves[number]
        if shown > 3 or move >= cells:
            return number
        address = stones.ctypes.data + number * width
        if number == 0 or number == count - 1:  # beside all others there are rows
            for byte in range(width):  # numba takes a second and a half to compile that a slice may not fit
                edge[_BESIDE + byte] = stones[number, byte]
            address = edge.ctypes.data + _BESIDE
        place, swapped = 3 * cells * number, shown >= 2
        if shown == 0:
            _same(address, cells, masks, board, place)
        elif shown == 1:
            _turn(address, cells, masks, board, place)
        else:
            _transpose(address, side, shown == 3, words, board, place)
        _all(board, place + 2 * cells, cells, np.float32((player[number] != 0) != swapped))
        _all(policy, cells * number, cells, np.float32(0))
        if move >= 0:
            policy[cells * number + sends[shown, move]] = 1
        value[number] = np.float32(1) - wins[number] if swapped else wins[number]
    return -1


def was_there() -> bool:
    """Whether this had been compiled before, and was only loaded."""
    return bool(_fill.stats.cache_hits)
