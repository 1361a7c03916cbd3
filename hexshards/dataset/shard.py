"""Shard format: a tar of blocks, each a WebDataset sample with a member per column; equal blocks give equal bytes.

Tar itself hides damage, so a block is a byte range of the file with a checksum kept outside, in the index; the range is
read at once, compared, and only then looked into.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from os import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO, Self

from isal import isal_zlib  # the same checksum as zlib's, at 11 times the speed
from numpy.typing import NDArray

from hexshards.dataset import codec
from hexshards.dataset.layout import END, Layout, Shard
from hexshards.dataset.validation import check_numbers, check_stones
from hexshards.errors import DataError, printable
from hexshards.game.columns import Column
from hexshards.game.positions import Positions
from hexshards.storage.files import Home, publishing
from hexshards.units import counted

REPAIR = (
    "Fetch this shard again, or make it again: `hexshards convert` with the same files and options, and a new --out, "
    "gives the same bytes"
)

MAX_BLOCK_BYTES = 1 << 30
"""Bytes of a block's members, headers included, above which it is refused, compressed or not."""

_PIECE_BYTES = 1 << 20


def write_shard(path: Path, blocks: Iterable[Positions], *, layout: Layout, threads: int = 1) -> Shard:
    """Write blocks to a tar that appears at ``path`` when it is complete, and say what it holds.

    ``threads`` compress blocks at once; the bytes do not depend on it.
    """
    positions, sizes, sums, digest = 0, [], [], hashlib.sha256()
    with publishing(path) as file:
        for rows, data in _packed(blocks, layout, threads):
            file.write(data)
            digest.update(data)
            positions += rows
            sizes.append(len(data))
            sums.append(isal_zlib.crc32(data))
        file.write(END)
        digest.update(END)
    return Shard(
        name=path.name,
        positions=positions,
        size_bytes=sum(sizes) + len(END),
        sha256=digest.hexdigest(),
        block_bytes=tuple(sizes),
        block_crc32=tuple(sums),
    )


def _packed(blocks: Iterable[Positions], layout: Layout, threads: int) -> Iterator[tuple[int, bytes]]:
    """Pack each block: its positions and bytes, in their order."""
    if threads == 1:
        yield from ((len(block), _pack(block, number, layout)) for number, block in enumerate(blocks))
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque[tuple[int, Future[bytes]]]()
        for number, block in enumerate(blocks):
            waiting.append((len(block), pool.submit(_pack, block, number, layout)))
            if len(waiting) > threads:
                rows, packed = waiting.popleft()
                yield rows, packed.result()
        for rows, packed in waiting:
            yield rows, packed.result()


def _pack(block: Positions, number: int, layout: Layout) -> bytes:
    columns = block.columns().items()
    return b"".join(
        _member(layout.member(number, name), codec.encode(column, codec=layout.codec)) for name, column in columns
    )


def _member(name: str, data: bytes) -> bytes:
    # TarInfo begins with mtime, uid and gid zero and no user names: the same header everywhere
    head = tarfile.TarInfo(name)
    head.size = len(data)
    return head.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def block_crc32(members: Mapping[str, bytes]) -> int:
    """Checksum that the index gives for the block of these members, for readers that have no bytes but theirs."""
    crc = 0
    for name, data in members.items():
        crc = isal_zlib.crc32(_member(name, data), crc)
    return crc


class OpenShard:
    """A shard that is read from. Where each of its blocks begins is reckoned once."""

    def __init__(self, file: BinaryIO, shard: Shard, *, where: str) -> None:
        self.file, self.shard, self.where = file, shard, where
        self._starts = tuple(accumulate(shard.block_bytes, initial=0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self.file.close()

    def read_block(self, number: int, *, layout: Layout, sources: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read and decode a block: see ``stored`` and ``decode``."""
        return self.decode(self.stored(number), number, layout=layout, sources=sources, names=names)

    def stored(self, number: int) -> bytes:
        """The bytes of a block as they lie there. Raises DataError where the file ends before the block."""
        size, there = self.shard.block_bytes[number], self.size_from(number)
        if there < size:  # a size that is only claimed would be allocated
            problem = f"the file ends after {there:,} of the block's {counted(size, 'byte')}"
            raise DataError(problem, where=self._place(number), fix=REPAIR)
        return self.unchecked(number)

    def decode(
        self, data: bytes, number: int, *, layout: Layout, sources: int, names: Sequence[str], again: bool = False
    ) -> dict[str, NDArray[Any]]:
        """The columns ``names`` of a block whose bytes are these; the file is not looked at, and may be closed.

        ``sources``: how many the index lists. ``again``: the stones were sound when they were last decoded, and the
        checksum says that they are the same. Raises DataError naming shard, block and, where a column is damaged or
        holds what cannot be, the column.
        """
        shard, where = self.shard, self._place(number)
        if (crc := isal_zlib.crc32(data)) != shard.block_crc32[number]:
            problem = f"checksum is {crc:08x}, the index says {shard.block_crc32[number]:08x}"
            raise DataError(problem, where=where, fix=REPAIR)
        members = _members(memoryview(data), where)
        rows = min(layout.block_positions, shard.positions - number * layout.block_positions)
        kinds = layout.kinds
        columns = {name: _column(members, kinds[name], number, rows, layout, where) for name in names}
        check_numbers(columns, kinds, side=layout.side, sources=sources, where=where)
        if "stones" in columns and not again:
            check_stones(columns["stones"], side=layout.side, where=where)
        return columns

    def _place(self, number: int) -> str:
        return f"{self.where}, block {number:06d}"

    def unchecked(self, number: int) -> bytes:
        """The bytes of a block, as far as there are."""
        self.file.seek(self._starts[number])
        return self.file.read(self.shard.block_bytes[number])

    def size_from(self, number: int) -> int:
        """How many bytes the file has from where a block begins."""
        return max(0, self.file.seek(0, SEEK_END) - self._starts[number])


def open_shard(home: Home, shard: Shard) -> OpenShard:
    """A shard, to be read from. Raises DataError when it is missing."""
    where = home.where(shard.name)
    try:
        return OpenShard(home.open(shard.name, size_bytes=shard.size_bytes, sha256=shard.sha256), shard, where=where)
    except FileNotFoundError:
        raise DataError("the shard is missing", where=where, fix=REPAIR) from None


def _column(
    members: dict[str, memoryview], kind: Column, number: int, rows: int, layout: Layout, where: str
) -> NDArray[Any]:
    member = layout.member(number, kind.name)
    if member not in members:
        if kind.optional:
            return kind.unknowns(rows, side=layout.side)
        raise DataError(f"has no member {member}", where=where, fix=REPAIR)
    shape, where = (rows, *kind.shape(layout.side)), f"{where}, {kind.name}"
    return codec.decode(members[member], dtype=kind.dtype, shape=shape, codec=layout.codec, where=where)


def stream_members(stream: BinaryIO, *, where: str) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the regular members of a tar, as they come. Raises DataError where it is damaged.

    tarfile would take what a header claims for true: a member of any size, or of less than none, for which it waits
    for ever.
    """
    key, held = "", 0
    while (head := _read(stream, tarfile.BLOCKSIZE)).strip(b"\0"):
        name, size = _header(head, where)
        # a reader may hold all members of a block before it gives them
        held = held * (name.partition(".")[0] == key) + len(head) + size
        key = name.partition(".")[0]
        if size < 0 or held > MAX_BLOCK_BYTES:
            problem = (
                f"has a member {printable(name)} of {counted(size, 'byte')}, and a block at most {MAX_BLOCK_BYTES:,}"
            )
            raise DataError(problem, where=where, fix=REPAIR)
        data = _read(stream, size + -size % tarfile.BLOCKSIZE)
        if len(data) < size:
            problem = f"ends {counted(size - len(data), 'byte')} before its member {printable(name)} does"
            raise DataError(problem, where=where, fix=REPAIR)
        if head[156:157] in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield name, data[:size]
    if not head:
        raise DataError("ends before the end of a tar", where=where, fix=REPAIR)


def _read(stream: BinaryIO, size: int) -> bytes:
    """Read so many bytes, or what there is; in pieces, for memory is taken for what comes, not for what was claimed."""
    parts = list[bytes]()
    while size and (part := stream.read(min(size, _PIECE_BYTES))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _members(data: memoryview, where: str) -> dict[str, memoryview]:
    members, at = {}, 0
    while at < len(data):
        name, size = _header(bytes(data[at : at + tarfile.BLOCKSIZE]), where)
        start = at + tarfile.BLOCKSIZE
        if not 0 <= size <= len(data) - start:
            raise DataError("has a member that reaches beyond it", where=where, fix=REPAIR)
        members[name] = data[start : start + size]
        at = start + size + -size % tarfile.BLOCKSIZE
    return members


def _header(head: bytes, where: str) -> tuple[str, int]:
    """Parse a tar header: name and size of the member that it announces. Raises DataError for what is none."""
    digits = head[124:135]
    # as _pack writes it; tarfile, which knows every kind of header, takes 15 us for one
    if len(head) == tarfile.BLOCKSIZE and head.isascii() and not digits.strip(b"01234567"):
        # the low half of Adler-32 is 1 and the sum of all bytes modulo 65,521: more than 512 characters can make
        checksum = (isal_zlib.adler32(head[:148] + b" " * 8 + head[156:]) & 0xFFFF) - 1
        if head[148:156] == b"%06o\0 " % checksum:
            return head[:100].rstrip(b"\0").decode("ascii"), int(digits, 8)
    try:
        read = tarfile.TarInfo.frombuf(head, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise DataError(f"has a damaged tar header ({error})", where=where, fix=REPAIR) from None
    return read.name, read.size
