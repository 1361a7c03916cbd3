"""Disk space, estimated before it is used: what is refused early costs minutes, what fails late costs a night."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from pathlib import Path

from hexshards.conversion.duplicates.overlaps import MAX_ROWS, ROW_BYTES
from hexshards.conversion.memory import decompressed_bytes, row_bytes
from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.sorted_runs import Spill
from hexshards.conversion.sources import Input
from hexshards.conversion.spill_sources import MAX_SPILLS
from hexshards.game.board import SYMMETRIES
from hexshards.game.columns import Column
from hexshards.storage.files import free_bytes
from hexshards.units import counted, show_bytes

KEY_BYTES = 16
"""In scratch, besides its packed row, a position has its key, and its game's key once for each shard."""

ZSTD_SHARE = 0.4
"""Compressed over packed size of a shard's rows: 0.25 to 0.35 for real games."""

PROCESSED_BYTES = 2_200
"""Decompressed bytes of a position in a processed file of side 13; smaller boards take fewer."""

MARK_BYTES = 20
"""What tells copies of it from others, and its number if it stays, where games are kept once."""

TEXT_BYTES = 20
"""Bytes of a position in a file of game records: 5 to 6 measured."""


def images(spec: ConvertSpec) -> int:
    """How many rows a position becomes."""
    return len(SYMMETRIES) if spec.bake_symmetries else 1


def scratch_bytes(
    positions: float, *, side: int, soft: bool, spec: ConvertSpec, optional: Sequence[Column] = ()
) -> int:
    """Most that the scratch folder holds at once: rows, their keys, and the sketches that overlaps are found by."""
    sketches = ROW_BYTES * min(positions, MAX_ROWS * MAX_SPILLS)
    key_bytes = KEY_BYTES + (MARK_BYTES if spec.dedupe == "games" else 0)
    return int(positions * images(spec) * (row_bytes(side, soft=soft, optional=optional) + key_bytes) + sketches)


def dataset_bytes(
    positions: float, *, side: int, soft: bool, spec: ConvertSpec, optional: Sequence[Column] = ()
) -> int:
    """What the shards take, guessed."""
    share = ZSTD_SHARE if spec.codec == "zstd" else 1.05
    # a distribution of one move compresses to little more than the move
    row = row_bytes(side, soft=soft and spec.codec == "none", optional=optional)
    return int(positions * images(spec) * row * share)


def check_space(out: Path, *, waiting: Sequence[Input], spills: Iterable[Spill], spec: ConvertSpec) -> None:
    """Raise OSError when what is still to be read and written does not fit on the disk.

    Positions per byte are those of the spills; before there are any, fewer than any real file has.
    """
    spills = list(spills)
    done = sum(file.positions for spill in spills for file in spill.inputs)
    size = sum(file.size_bytes for spill in spills for file in spill.inputs)
    rest = sum(file.path.stat().st_size for file in waiting) * done / size if size else least_positions(waiting, spec)
    side, soft = (spills[0].side, spills[0].soft) if spills else (13, False)
    optional = tuple({column.name: column for spill in spills for column in spill.optional}.values())
    needed = scratch_bytes(rest, side=side, soft=soft, spec=spec, optional=optional)
    needed += dataset_bytes(rest + done, side=side, soft=soft, spec=spec, optional=optional)
    if needed > (free := free_bytes(out)):
        guess = f"about {counted(rest + done, 'position', verb='needs/need')} {show_bytes(needed)}"
        raise OSError(errno.ENOSPC, f"{guess}, while {show_bytes(free)} are free", str(out))


def least_positions(files: Sequence[Input], spec: ConvertSpec) -> float:
    """Positions that files hold at least, by their sizes."""
    if spec.positions != "all":
        return 0
    return sum(
        decompressed_bytes(file.path) / (PROCESSED_BYTES if file.path.suffix == ".gz" else TEXT_BYTES) for file in files
    )
