"""Pack boards and policies of float32 where they lie, in compiled code: what is plainly sound, and nothing else.

A position takes 0.2 us and no memory beside what is packed. It needs numba, which takes longer to load than it saves
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
"""The bits of 1.0. Bit 29 is set in them, and the bits of 0.0 are all 0."""

_BIT_29, _LOW, _BOTH = 29, 32, 0x1_0000_0001
"""Two floats are looked at as one word: where the bit is, how far apart they are, and the lowest bits of both."""

_PLACES = types.Array(types.int64, 1, "C", readonly=True)


@intrinsic
def unaligned_word(typingctx: Any, address: Any) -> Any:
    """Unaligned load: the 8 bytes at any address in this machine's order; of two floats the first is the low half."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), align=1)

    return types.uint64(types.int64), emit


@intrinsic
def _float(typingctx: Any, address: Any) -> Any:
    """The float at any address, in the low half of a word."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.load(builder.inttoptr(args[0], ir.IntType(32).as_pointer()), align=1)
        return builder.zext(bits, ir.IntType(64))

    return types.uint64(types.int64), emit


@njit(inline="always")
def _ones(word):  # type: ignore[no-untyped-def]
    """Which of two floats may be 1.0; both surely are that or 0.0 where ``word`` is as many times ``_ONE``."""
    return (word >> np.uint64(_BIT_29)) & np.uint64(_BOTH)


@njit(
    types.boolean(
        types.int64, _PLACES, _PLACES, types.int64, types.Array(types.uint8, 2, "C"), types.Array(types.int16, 1, "C")
    ),
    nogil=True,
    cache=True,
)
def _pack(address, boards, policies, cells, stones_PW, moves_P):  # type: ignore[no-untyped-def]
    """Fill stones and moves; False at the first position that is not plainly sound."""
    one, zero, low, first = np.uint64(_ONE), np.uint64(0), np.uint64(_LOW), np.uint64(1)
    half = (first << low) - first
    for row in range(len(boards)):
        board = address + boards[row]
        red = board + 4 * cells
        odd = zero
        for byte in range(stones_PW.shape[1]):
            bits = zero
            for pair in range(4 * byte, 4 * byte + 4):
                bits <<= np.uint64(2)
                if pair < cells:  # a board has twice as many entries as cells
                    word = unaligned_word(board + 8 * pair)
                    ones = _ones(word)
                    odd |= word ^ (ones * one)
                    bits |= (ones << first | ones >> low) & np.uint64(3)
            stones_PW[row, byte] = bits
        for pair in range(cells // 2):
            odd |= unaligned_word(board + 8 * pair) & unaligned_word(red + 8 * pair)
        odd |= _float(red - 4) & _float(red + 4 * cells - 4)
        if odd != zero:
            return False
        moves_P[row] = -1
        if len(policies):
            policy, counts, pairs = address + policies[row], zero, zero  # of each half of the words
            for pair in range(cells // 2):
                word = unaligned_word(policy + 8 * pair)
                ones = _ones(word)
                odd |= word ^ (ones * one)
                counts += ones
                pairs += ones * np.uint64(pair)
            if cells % 2:
                word = _float(policy + 4 * cells - 4)
                ones = _ones(word)
                odd |= word ^ (ones * one)
                counts += ones
                pairs += ones * np.uint64(cells // 2)
            if odd != zero or (counts & half) + (counts >> low) != first:
                return False
            move = (((pairs & half) + (pairs >> low)) << first) + (counts >> low)
            place = np.int64(move)
            if (_float(board + 4 * place) | _float(red + 4 * place)) != zero:
                return False
            moves_P[row] = place
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
