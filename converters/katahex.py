"""Training rows of KataHex (``.npz``): positions with a search's policy and value, weights, and the game's hash.

A row is seen by the player to move: planes 1 and 2 of ``binaryInputNCHWPacked`` are his stones and the opponent's, and
where White, the second player, is to move (``globalInputNC[0]``), board and policy are transposed, so that own stones
always connect top to bottom. ``globalTargetsNC`` has at 0 and 1 the mover's win and loss; at 16 to 18 win, loss and no
result as the search said (``search_value``); at 25 the row's weight and at 26 the policy's; at 41 to 46 the game's
hash. ``policyTargetsNCMove[0]`` has visits of each cell, and of a pass, which is left out. After trainingwrite.cpp
(cpp/dataio) and Board::checkWinner (cpp/game/board.cpp) of github.com/selinger/katahex.

A game's rows lie in many files. 8 bits of its hash name its source (``katahex-00`` to ``katahex-ff``), 31 more the game
in it, so that all its rows fall in one split, whatever file they come in.

Legend of shapes: N rows, L side of the arrays, S side of a board, C = S * S cells.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from tokenize import TokenError
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.options import CONVERT, ConvertSpec
from hexshards.conversion.sources import Chunk
from hexshards.errors import DataError, printable
from hexshards.game.board import MAX_SIDE, MIN_SIDE
from hexshards.game.columns import OPTIONAL, UNKNOWN
from hexshards.game.positions import no_positions
from hexshards.game.validation import Draft, Reject, admit
from hexshards.storage.files import GUNZIP_FLOOR_BYTES, GUNZIP_RATIO
from hexshards.units import counted

CHUNK_ROWS = 4_096
"""Rows checked together: 25 MB at side 19."""

_Number = TypeVar("_Number", bound=np.generic)

_KINDS = {column.name: column for column in OPTIONAL}
_FIX = "Fetch or make the file again, or leave it out"


class _Rows(NamedTuple):
    """What is used of a file. stones (N, 3, L, L) uint8: on board, own, opponent's."""

    packed: NDArray[np.uint8]
    second: NDArray[np.bool_]
    visits: NDArray[np.int16]
    targets: NDArray[np.float32]
    width: int

    def __len__(self) -> int:
        return len(self.packed)


class KataHexRows:
    """Converter for KataHex's training rows."""

    patterns = ("*.npz",)

    def read(self, data: bytes, *, name: str, where: str, spec: ConvertSpec = CONVERT) -> Iterator[Chunk]:
        """Yield the file's positions; see sources.Source."""
        rows = _rows(data, where)
        sides = np.concatenate(
            [np.zeros(0, dtype=np.int64), *(_sides(_planes(rows, part)) for part in _parts(len(rows)))]
        )
        counts = Counter(sides[sides > 0].tolist())
        side = spec.side or max(counts.items(), key=lambda each: (each[1], each[0]), default=(MIN_SIDE, 0))[0]
        others = {other: count for other, count in sorted(counts.items()) if other != side}
        notes = [f"passed over: {counted(count, 'row')} of side {other}" for other, count in others.items()]
        undecided = 0
        used, source_of = np.unique(_hashes(rows.targets)[:, 1] >> 9 & 0xFF, return_inverse=True)
        sources = tuple(f"katahex-{number:02x}" for number in used.tolist())
        yield Chunk(no_positions(side), sources, [], notes)
        for part in _parts(len(rows)):
            decided = rows.targets[part, :2].sum(axis=1) > 0
            here = sides[part]
            undecided += int(((here == side) & ~decided).sum())
            strange = [
                Reject(f"row {row}", "no square board in the corner", "plane 0 has another shape")
                for row in (part.start + np.flatnonzero(here == 0)).tolist()
            ]
            chosen = part.start + np.flatnonzero((here == side) & decided)
            positions, rejects = admit(_draft(rows, chosen, source_of[chosen], side))
            told = [f"passed over: {counted(undecided, 'row')} of games without a winner"] if undecided else []
            yield Chunk(positions, sources, [*strange, *rejects], [*notes, *told])


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK_ROWS, count)) for start in range(0, count, CHUNK_ROWS))


# the file -----------------------------------------------------------------------------------------------------------


def _rows(data: bytes, where: str) -> _Rows:
    """The arrays, each checked against the bytes that are there before it is made."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            packed = _array(archive, "binaryInputNCHWPacked", np.uint8, 3, where)
            inputs = _array(archive, "globalInputNC", np.float32, 2, where)
            visits = _array(archive, "policyTargetsNCMove", np.int16, 3, where)
            targets = _array(archive, "globalTargetsNC", np.float32, 2, where)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise DataError(f"is no sound .npz ({printable(str(error), width=80)})", where=where, fix=_FIX) from None
    width = next((side for side in range(MIN_SIDE, MAX_SIDE + 1) if side**2 + 1 == visits.shape[2]), 0)
    fits = (
        width
        and len({len(array) for array in (packed, inputs, visits, targets)}) == 1
        and packed.shape[1] >= 3
        and packed.shape[2] == (width**2 + 7) // 8
        and visits.shape[1] >= 1
        and inputs.shape[1] >= 1
        and targets.shape[1] >= 47
    )
    if not fits:
        shapes = ", ".join(str(array.shape) for array in (packed, inputs, visits, targets))
        raise DataError(f"holds no training rows of KataHex (arrays of {shapes})", where=where, fix="Leave it out")
    return _Rows(packed, inputs[:, 0] > 0.5, visits[:, 0], targets, width)


def _array(archive: zipfile.ZipFile, name: str, dtype: type[_Number], axes: int, where: str) -> NDArray[_Number]:
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError:
        try:
            member = archive.getinfo(name)
        except KeyError:
            raise DataError(f"holds no {name}", where=where, fix="Leave it out: it has no training rows") from None
    if member.file_size > GUNZIP_FLOOR_BYTES + GUNZIP_RATIO * member.compress_size:
        stated = f"{counted(member.file_size, 'byte')} from {member.compress_size:,}"
        raise DataError(
            f"{name} decompresses to {stated}", where=where, fix="No real file is that repetitive: leave it out"
        )
    file = io.BytesIO(archive.read(member))
    try:
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, stated_dtype = reader(file, max_header_size=10_000)
    except (ValueError, EOFError, SyntaxError, RecursionError, MemoryError, TokenError) as error:
        raise DataError(f"{name} is no array ({printable(str(error), width=80)})", where=where, fix=_FIX) from None
    rest = file.getbuffer()[file.tell() :]
    wanted = stated_dtype == dtype and len(shape) == axes and min(shape) >= 0 and not in_columns
    if not wanted or int(np.prod([int(each) for each in shape], dtype=object)) * stated_dtype.itemsize != len(rest):
        held = printable(f"{stated_dtype} {shape} in {counted(len(rest), 'byte')}", width=80)
        raise DataError(f"{name} is {held}", where=where, fix=f"It must be {np.dtype(dtype)} with {axes} axes. {_FIX}")
    return np.frombuffer(rest, dtype=dtype).reshape(shape)


# rows ---------------------------------------------------------------------------------------------------------------


def _planes(rows: _Rows, part: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
    """On board, own stones and the opponent's: (n, 3, L, L) uint8."""
    bits = np.unpackbits(rows.packed[part, :3], axis=2, count=rows.width**2)
    return bits.reshape(len(bits), 3, rows.width, rows.width)


def _sides(planes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The side of each board, which fills the upper left corner; 0 where plane 0 is anything else."""
    on = planes[:, 0]
    side = on[:, 0].sum(axis=1, dtype=np.int64)
    inside = np.arange(on.shape[1])[None, :] < side[:, None]
    square = inside[:, :, None] & inside[:, None, :]
    sound = (on.astype(bool) == square).all(axis=(1, 2)) & (side >= MIN_SIDE)
    return np.where(sound, side, 0)


def _draft(rows: _Rows, chosen: NDArray[np.int64], source: NDArray[np.int64], side: int) -> Draft:
    targets, second = rows.targets[chosen], rows.second[chosen]
    planes = _planes(rows, chosen)[:, 1:, :side, :side]
    visits: NDArray[Any] = rows.visits[chosen, :-1].reshape(-1, rows.width, rows.width)
    off_board = visits.sum(axis=(1, 2), dtype=np.int64)
    visits = visits[:, :side, :side]
    off_board -= visits.sum(axis=(1, 2), dtype=np.int64)
    planes = np.where(second[:, None, None, None], planes[:, ::-1].swapaxes(2, 3), planes)
    visits = np.where(second[:, None, None], visits.swapaxes(1, 2), visits).reshape(len(chosen), side**2)
    total = visits.sum(axis=1, dtype=np.int64)
    shares = visits / np.maximum(total, 1)[:, None]
    # visits beyond the board, or fewer than none, make no policy: the border says so
    shares[off_board != 0] = np.nan
    hashes = _hashes(targets)
    count = len(chosen)
    return Draft(
        side=side,
        boards=planes,
        policy=shares.astype(np.float32),
        has_policy=(total > 0) & (targets[:, 26] > 0),
        value=_of_red(targets[:, 0], targets[:, 1], np.zeros(count), second),
        player=second.astype(np.int8),
        ply=np.full(count, UNKNOWN, dtype=np.int16),
        source=source.astype(np.uint32),
        game=(hashes[:, 0] | (hashes[:, 1] & 0x1FF) << 22).astype(np.int32),
        plies=np.full(count, UNKNOWN, dtype=np.int16),
        tier=np.full(count, UNKNOWN, dtype=np.int8),
        places=[f"row {row}" for row in chosen.tolist()],
        optional={
            _KINDS["weight"]: targets[:, 25],
            _KINDS["policy_weight"]: targets[:, 26],
            _KINDS["search_value"]: _of_red(targets[:, 16], targets[:, 17], targets[:, 18], second).astype(np.float32),
        },
    )


def _hashes(targets: NDArray[np.float32]) -> NDArray[np.int64]:
    """The first two parts of each game's hash, of 22 bits: (N, 2)."""
    return np.clip(np.nan_to_num(targets[:, 41:43]), 0, (1 << 22) - 1).astype(np.int64)


def _of_red(
    win: NDArray[Any], loss: NDArray[Any], neither: NDArray[Any], second: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """How likely RED wins, of what the mover is told; NaN where nothing is."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mover = (win + neither / 2.0) / (win + loss + neither)
    return np.asarray(np.where(second, mover, 1 - mover), dtype=np.float64)
