"""Expand packed rows into float planes at the last moment, each in its symmetry (augmentation); rows keep their order.

Ways to the same bits: NumPy on the CPU, compiled code there in ``expand_compiled``, and plain torch operations on
whatever device the rows are on.
Legend of shapes: B rows, S side, C = S * S cells, W bytes of packed stones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hexshards.game.board import SWAPS_COLOURS, symmetry_cells
from hexshards.loading.expansion import policy_targets

CHUNK_ROWS = 1024
"""Rows that are expanded at once: what lies between bits and floats, 0.7 MB at side 13, stays in a core's cache."""


class Packed(NamedTuple):
    """Packed rows of samples, as they travel to where they are expanded: NumPy arrays or tensors, one entry per row.

    stones (B, W) uint8, player (B,) uint8, policy (B,) int16 or (B, C) float16, value (B,) float32: see Positions;
    policy int16 (B, 2, T) where visits are part of the target: see policy_targets.
    symmetry (B,) uint8: which symmetry the row is to be shown in.
    """

    stones: Any
    player: Any
    policy: Any
    value: Any
    symmetry: Any


class PackedWithColumns(NamedTuple):
    """Packed rows with the columns that were asked for, as they are in the dataset: in no row's symmetry yet.

    columns (B,): a structured array, a field a column; as tensor, its bytes (B, E).
    """

    stones: Any
    player: Any
    policy: Any
    value: Any
    symmetry: Any
    columns: Any


Rows = Packed | PackedWithColumns


def rows_of(columns: Mapping[str, Any]) -> Rows:
    """Packed rows of columns by their names."""
    return PackedWithColumns(**columns) if "columns" in columns else Packed(**columns)


def like(rows: Rows, columns: Iterable[Any]) -> Rows:
    """Rows of the same kind that have these columns."""
    return type(rows)(*columns)


class Batch(NamedTuple):
    """Batch of samples as a network takes them, in hex_ai's layout: board, policy target, value target.

    board float32 (B, 3, S, S): BLUE stones, RED stones, player to move (0.0 BLUE, 1.0 RED) in every cell.
    policy float32 (B, C): target distribution over cells; all zero where a position has no target.
    value float32 (B, 1): 0.0 BLUE wins, 1.0 RED wins.
    """

    board: torch.Tensor
    policy: torch.Tensor
    value: torch.Tensor

    def _repr_svg_(self) -> str:
        """What a notebook shows: the first samples as boards."""
        return _boards(self.board, self.policy, self.value)


class BatchWithColumns(NamedTuple):
    """Batch with a fourth part: the columns that were asked for, by name, a tensor of B rows each."""

    board: torch.Tensor
    policy: torch.Tensor
    value: torch.Tensor
    columns: dict[str, torch.Tensor]

    def _repr_svg_(self) -> str:
        """What a notebook shows: the first samples as boards."""
        return _boards(self.board, self.policy, self.value)


def _boards(*parts: torch.Tensor) -> str:
    from hexshards.drawing.svg import markup
    from hexshards.game.diagram_svg import MOST_SHOWN, sheet_of_planes

    return markup(sheet_of_planes(*(part[:MOST_SHOWN].detach().float().cpu().numpy() for part in parts)))


def parts_of(batch: Batch | BatchWithColumns) -> list[torch.Tensor]:
    """All tensors of a batch."""
    return [*batch[:3], *(batch.columns.values() if isinstance(batch, BatchWithColumns) else ())]


def split(batch: Batch | BatchWithColumns, counts: list[int]) -> Iterator[Batch | BatchWithColumns]:
    """A batch as several of so many rows each."""
    names = tuple(batch.columns) if isinstance(batch, BatchWithColumns) else None
    for board, policy, value, *rest in zip(*(torch.split(part, counts) for part in parts_of(batch)), strict=True):
        part = Batch(board, policy, value)
        yield part if names is None else BatchWithColumns(*part, dict(zip(names, rest, strict=True)))


def each_alone(batch: Batch | BatchWithColumns) -> Iterator[Batch | BatchWithColumns]:
    """The samples of a batch, one by one."""
    names = tuple(batch.columns) if isinstance(batch, BatchWithColumns) else None
    for board, policy, value, *rest in zip(*parts_of(batch), strict=True):
        sample = Batch(board, policy, value)
        yield sample if names is None else BatchWithColumns(*sample, dict(zip(names, rest, strict=True)))


Fill = Callable[[Rows, int, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], None]
"""Writes packed rows of a side as floats: see ``fill``."""


def batch_floats(rows: int, *, side: int) -> int:
    """Float32 numbers in a batch: three planes, a policy and a value per row."""
    return rows * (4 * side * side + 1)


def expand(rows: Rows, *, side: int, out: NDArray[np.float32] | None = None, by: Fill | None = None) -> Batch:
    """Rows of NumPy arrays as a batch in CPU memory: in ``out``, of ``batch_floats`` numbers, or in fresh memory.

    ``by`` is what writes the numbers, ``fill`` or its compiled twin.
    """
    count, cells = len(rows.stones), side * side
    if out is None:
        out = np.empty(batch_floats(count, side=side), dtype=np.float32)
    board_BC = out[: 3 * count * cells].reshape(count, 3 * cells)
    policy_BC = out[3 * count * cells : 4 * count * cells].reshape(count, cells)
    value = out[4 * count * cells :]
    (by or fill)(rows, side, board_BC, policy_BC, value)
    board = board_BC.reshape(count, 3, side, side)
    return Batch(torch.from_numpy(board), torch.from_numpy(policy_BC), torch.from_numpy(value.reshape(count, 1)))


def fill(
    rows: Rows, side: int, board: NDArray[np.float32], policy: NDArray[np.float32], value: NDArray[np.float32]
) -> None:
    """Write what rows show: board (B, 3 * C), policy (B, C) and value (B,), each in full."""
    for first in range(0, len(rows.stones), CHUNK_ROWS):
        part = slice(first, first + CHUNK_ROWS)
        _fill_at_once(Packed(*(column[part] for column in rows[:5])), side, board[part], policy[part], value[part])


def _fill_at_once(
    rows: Rows, side: int, board: NDArray[np.float32], policy: NDArray[np.float32], value: NDArray[np.float32]
) -> None:
    swapped = SWAPS_COLOURS[rows.symmetry]
    stones = 2 * side * side
    board[:, :stones] = _shown(rows.stones, rows.symmetry, side)
    board[:, stones:] = (rows.player ^ swapped).astype(np.float32)[:, None]
    show_policy(rows.policy, rows.symmetry, side, policy)
    value[...] = rows.value
    np.subtract(1, value, out=value, where=swapped)


def _shown(stones_BW: NDArray[np.uint8], symmetry: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Apply each row's symmetry to its stone planes, (B, 2 * C) of 0 and 1.

    Rows are grouped by symmetry while they are still packed, so that each symmetry is one strided copy, and put back
    in order as bytes.
    """
    grouped = np.argsort(symmetry, kind="stable")
    packed = np.take(stones_BW, grouped, axis=0)
    planes = np.empty((len(packed), 2, side, side), dtype=np.uint8)
    first = 0
    for show, count in zip(_SHOW, np.bincount(symmetry, minlength=4).tolist(), strict=True):
        planes[first : first + count] = show(packed[first : first + count], side)
        first += count
    place = np.empty_like(grouped)
    place[grouped] = np.arange(len(grouped))
    return np.take(planes.reshape(len(packed), -1), place, axis=0)


def _same(stones: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.unpackbits(stones, axis=1, count=2 * side * side).reshape(-1, 2, side, side)


def _turned(stones: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    # bits from the last to the first, RED's before BLUE's: to copy bytes backwards would take three times as long
    bits = np.unpackbits(stones[:, ::-1], axis=1, bitorder="little")
    return bits[:, -2 * side * side :].reshape(-1, 2, side, side)[:, ::-1]


def _transposed(stones: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return _same(stones, side)[:, ::-1].swapaxes(2, 3)


def _anti_transposed(stones: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return _same(stones, side)[:, ::-1, ::-1, ::-1].swapaxes(2, 3)


_SHOW = (_same, _turned, _transposed, _anti_transposed)
"""For each symmetry, packed stones (B, W) as planes (B, 2, S, S)."""


def show_policy(policy: NDArray[Any], symmetry: NDArray[np.uint8], side: int, shown_BC: NDArray[np.float32]) -> None:
    """Targets under each row's symmetry, moves (B,), soft (B, C) or (B, 2, T), written to ``shown_BC`` in full."""
    cells = symmetry_cells(side)
    if policy.ndim > 1:
        for first in range(0, len(policy), CHUNK_ROWS):
            part = slice(first, first + CHUNK_ROWS)
            if policy.ndim == 3:
                policy_targets.show(policy[part], symmetry[part], side, shown_BC[part])
                continue
            np.put_along_axis(shown_BC[part], cells[symmetry[part]], policy[part].astype(np.float32), axis=1)
        return
    shown_BC.fill(0)
    rows = np.flatnonzero(policy >= 0)
    shown_BC[rows, cells[symmetry[rows], policy[rows]]] = 1


def expand_on_device(
    rows: Rows, *, side: int, dtype: torch.dtype = torch.float32, channels_last: bool = False
) -> Batch:
    """Rows of tensors as a batch on the device where the rows are; in float32 equal to ``expand`` bit for bit."""
    count, cells = len(rows.stones), side * side
    device = rows.stones.device
    symmetry = rows.symmetry.long()
    table = cells_on(device, side)[symmetry]
    swapped = symmetry >= 2
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
    bits = ((rows.stones[:, :, None] >> shifts) & 1).flatten(1)[:, : 2 * cells].reshape(count, 2, cells)
    bits = torch.where(swapped[:, None, None], bits.flip(1), bits).gather(2, table[:, None].expand(-1, 2, -1))
    player = (rows.player.bool() ^ swapped).to(torch.uint8)[:, None, None].expand(-1, 1, cells)
    board = torch.cat([bits, player], dim=1).view(count, 3, side, side)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if rows.policy.ndim == 3:
        policy = policy_targets.shown_on_device(rows.policy, table, cells).to(dtype)
    elif rows.policy.ndim == 2:
        policy = rows.policy.gather(1, table).to(dtype)
    else:
        target = table.gather(1, rows.policy.long().clamp(min=0)[:, None])
        policy = torch.zeros(count, cells, dtype=dtype, device=device)
        policy.scatter_(1, target, (rows.policy >= 0).to(dtype)[:, None])
    value = torch.where(swapped, 1 - rows.value, rows.value)[:, None]
    return Batch(board.to(dtype, memory_format=layout), policy, value.to(dtype))


@lru_cache(maxsize=16)
def cells_on(device: torch.device, side: int) -> torch.Tensor:
    """Where each symmetry sends a cell: see symmetry_cells."""
    # a copy that waits until it is there, so that any stream may read it
    return torch.from_numpy(np.array(symmetry_cells(side))).to(device)
