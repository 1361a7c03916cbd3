"""Pack boards and policies of float32 where they lie, in compiled code: what is plainly sound, and nothing else.

A position takes 0.1 us and no memory beside what is packed. It needs numba, which takes longer to load than it saves
for few positions: who loads it anyway says so with ``validation.pack_first``.
Legend of shapes: P positions, C = S * S cells, W bytes of packed stones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from hexshards.game.columns import stone_bytes

_FLOAT_BYTES = 4
_ONE = 0x3F800000
"""The bits of 1.0; those of 0.0 are all 0."""

_LANES = 8
"""Floats that are looked at together."""

_PLACES = types.Array(types.int64, 1, "C", readonly=True)


@intrinsic
def unaligned_word(typingctx: Any, address: Any) -> Any:
    """Unaligned load: the 8 bytes at any address in this machine's order; of two floats the first is the low half."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), align=1)

    return types.uint64(types.int64), emit


@intrinsic
def _float(typingctx: Any, address: Any) -> Any:
    """The bits of the float at any address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.load(builder.inttoptr(args[0], ir.IntType(32).as_pointer()), align=1)
        return builder.zext(bits, ir.IntType(64))

    return types.uint64(types.int64), emit


def _floats(builder: Any, address: Any) -> Any:
    """The bits of 8 floats at any address."""
    return builder.load(builder.inttoptr(address, ir.VectorType(ir.IntType(32), _LANES).as_pointer()), align=1)


def _same_bits(builder: Any, floats: Any, bits: int) -> Any:
    """Which of 8 floats have these bits: a byte, the first float's bit the lowest."""
    wanted = ir.Constant(floats.type, [bits] * _LANES)
    return builder.bitcast(builder.icmp_unsigned("==", floats, wanted), ir.IntType(_LANES))


@intrinsic
def _ones_and_zeros(typingctx: Any, address: Any) -> Any:
    """Which of the 8 floats at any address are 1.0, in the low byte; which are 0.0, in the next one."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        floats, word = _floats(builder, args[0]), ir.IntType(64)
        ones, zeros = (builder.zext(_same_bits(builder, floats, bits), word) for bits in (_ONE, 0))
        return builder.or_(ones, builder.shl(zeros, ir.Constant(word, _LANES)))

    return types.uint64(types.int64), emit


@intrinsic
def _all_apart(typingctx: Any, address: Any, other: Any) -> Any:
    """Whether no bit is set in both of two floats, for the 8 at each of two addresses."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        both = builder.and_(_floats(builder, args[0]), _floats(builder, args[1]))
        return builder.icmp_unsigned("==", _same_bits(builder, both, 0), ir.Constant(ir.IntType(_LANES), 0xFF))

    return types.boolean(types.int64, types.int64), emit


@intrinsic
def _lowest_bit(typingctx: Any, word: Any) -> Any:
    """The place of the lowest bit that is set in a word that is not 0."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), emit


@intrinsic
def _first_highest(typingctx: Any, bits: Any) -> Any:
    """The lowest 8 bits in the opposite order."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(_LANES)
        return builder.zext(builder.bitreverse(builder.trunc(args[0], byte)), ir.IntType(64))

    return types.uint64(types.uint64), emit


@njit(types.boolean(types.int64, types.int64, types.Array(types.uint8, 2, "C"), types.int64), nogil=True, cache=True)
def pack_board(board, cells, stones_PW, row):  # type: ignore[no-untyped-def]
    """Fill a row of stones; False where an entry is neither 0.0 nor 1.0, or a cell has two stones."""
    sound, whole = True, 2 * cells - 2 * cells % _LANES
    for first in range(0, whole, _LANES):
        bits = _ones_and_zeros(board + _FLOAT_BYTES * first)
        sound &= (bits | bits >> np.uint64(_LANES)) & np.uint64(0xFF) == np.uint64(0xFF)
        stones_PW[row, first // _LANES] = _first_highest(bits)
    if whole < 2 * cells:
        last = np.uint64(0)
        for entry in range(whole, 2 * cells):
            bits = _float(board + _FLOAT_BYTES * entry)
            sound &= bits == np.uint64(_ONE) or bits == np.uint64(0)
            last |= np.uint64(bits == np.uint64(_ONE)) << np.uint64(7 - entry % _LANES)
        stones_PW[row, whole // _LANES] = last
    red = board + _FLOAT_BYTES * cells
    # the last 8 cells overlap those before them
    for first in range(0, cells - _LANES, _LANES):
        sound &= _all_apart(board + _FLOAT_BYTES * first, red + _FLOAT_BYTES * first)
    if cells >= _LANES:
        first = cells - _LANES
        return sound and _all_apart(board + _FLOAT_BYTES * first, red + _FLOAT_BYTES * first)
    for cell in range(cells):
        sound &= (_float(board + _FLOAT_BYTES * cell) & _float(red + _FLOAT_BYTES * cell)) == np.uint64(0)
    return sound


@njit(types.int64(types.int64, types.int64, types.int64), nogil=True, cache=True)
def packed_move(policy, board, cells):  # type: ignore[no-untyped-def]
    """The cell of a policy that is one move to an empty cell of a board of 0.0 and 1.0; -1 where it is not."""
    sound, moves, move, whole = True, np.uint64(0), np.uint64(0), cells - cells % _LANES
    for first in range(0, whole, _LANES):
        bits = _ones_and_zeros(policy + _FLOAT_BYTES * first)
        ones = bits & np.uint64(0xFF)
        sound &= ones | bits >> np.uint64(_LANES) == np.uint64(0xFF)
        if ones != np.uint64(0):
            sound &= moves == np.uint64(0) and ones & (ones - np.uint64(1)) == np.uint64(0)
            moves, move = np.uint64(1), np.uint64(first) + _lowest_bit(ones)
    for cell in range(whole, cells):
        bits = _float(policy + _FLOAT_BYTES * cell)
        sound &= bits == np.uint64(0) or bits == np.uint64(_ONE)
        if bits != np.uint64(0):
            sound &= moves == np.uint64(0)
            moves, move = np.uint64(1), np.uint64(cell)
    place = np.int64(move)
    stone = _float(board + _FLOAT_BYTES * place) | _float(board + _FLOAT_BYTES * (cells + place))
    return place if sound and moves != np.uint64(0) and stone == np.uint64(0) else np.int64(-1)


@njit(
    types.boolean(
        types.int64, _PLACES, _PLACES, types.int64, types.Array(types.uint8, 2, "C"), types.Array(types.int16, 1, "C")
    ),
    nogil=True,
    cache=True,
)
def _pack(address, boards, policies, cells, stones_PW, moves_P):  # type: ignore[no-untyped-def]
    """Fill stones and moves; False at the first position that is not plainly sound."""
    for row in range(len(boards)):
        board = address + boards[row]
        if not pack_board(board, cells, stones_PW, row):
            return False
        moves_P[row] = -1
        if len(policies):
            moves_P[row] = packed_move(address + policies[row], board, cells)
            if moves_P[row] < 0:
                return False
    return True


def pack(
    data: NDArray[np.uint8], boards_P: NDArray[np.int64], policies_P: NDArray[np.int64] | None, side: int
) -> tuple[NDArray[np.uint8], NDArray[np.int16]] | None:
    """Stones (P, W) and moves (P,), -1 without policies, of the floats that begin at some bytes of ``data``.

    None where an entry is neither 0.0 nor 1.0, a cell has two stones, or a policy is not one move to an empty cell.
    """
    cells, count = side * side, len(boards_P)
    policies = boards_P[:0] if policies_P is None else policies_P
    if len(policies) not in (0, count):
        raise ValueError(f"{len(policies)} policies of {count} boards")
    for places, floats in ((boards_P, 2 * cells), (policies, cells)):
        if len(places) and not 0 <= places.min() <= places.max() <= len(data) - _FLOAT_BYTES * floats:
            raise IndexError("floats begin or end outside the data")
    stones, moves = np.empty((count, stone_bytes(side)), dtype=np.uint8), np.empty(count, dtype=np.int16)
    sound = _pack(data.ctypes.data, boards_P, policies, cells, stones, moves)
    return (stones, moves) if sound else None
