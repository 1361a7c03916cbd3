"""Atomic writes: files appear whole or not at all, and a compressed file never grows past what its size allows."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, Self, cast

from isal import isal_zlib  # ISA-L's gunzip: 2.7 times as fast as zlib's on real files

from hexshards.errors import DataError, escaped, nearest
from hexshards.units import counted

_IsalError = cast(type[Exception], isal_zlib.error)  # its type stub says object

GUNZIP_FLOOR_BYTES = 16 << 20
GUNZIP_RATIO = 256
"""A gzip file may grow to floor + ratio * its size. Real files grow 26- to 80-fold; deflate's own limit is 1032."""

NAME_BYTES = 255
"""The longest name that a file may have on nearly all disks."""

INDEX_BYTES = 256 << 20
"""The largest file that is read whole, which an index is: that of a million positions has 30 kB."""

PIECE_BYTES = 256 << 10
"""Decompressed at a time. It stays in the cache, and a piece of memory is used again: 1.6 times as fast as in one."""


class Home(Protocol):
    """Where the files of a dataset are. It travels to other processes, so it holds no open file or connection."""

    def __str__(self) -> str:
        """The home as a person names it."""
        ...

    def where(self, file: str) -> str:
        """A file of the dataset as a person names it."""
        ...

    def read(self, file: str) -> bytes:
        """A small file, whole. Raises FileNotFoundError, and DataError beyond INDEX_BYTES."""
        ...

    def open(self, file: str, *, size_bytes: int, sha256: str) -> BinaryIO:
        """A file of a known size and checksum, to be read from and to seek in. Raises FileNotFoundError."""
        ...

    def renewed(self, file: str, *, sha256: str) -> bool:
        """Whether a file in which damage was found was only a damaged copy, which is now forgotten: open it again."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """A home on this machine's disks."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def where(self, file: str) -> str:
        """The file's path."""
        return str(self.path / file)

    def read(self, file: str) -> bytes:
        """A file, whole."""
        with self._opened(file) as opened:
            data = opened.read(INDEX_BYTES + 1)
        if len(data) > INDEX_BYTES:
            raise too_large(self.where(file))
        return data

    def open(self, file: str, *, size_bytes: int, sha256: str) -> BinaryIO:
        """The file itself: its blocks are compared as they are read, so it is not read twice."""
        return self._opened(file)

    def _opened(self, file: str) -> BufferedReader:
        try:
            return open_regular(self.path / file)
        except NotRegular:
            problem, fix = "is no regular file", "Give a dataset of regular files"
            raise DataError(problem, where=self.where(file), fix=fix) from None

    def renewed(self, file: str, *, sha256: str) -> bool:
        """There is no other copy."""
        return False


_LOOKED_THROUGH = 10_000
"""Names in a folder among which one that may be meant is looked for."""


def too_large(where: str) -> DataError:
    """The error for a file that is not as small as one that is read whole must be."""
    return DataError(
        f"holds more than {counted(INDEX_BYTES, 'byte')}", where=where, fix="No index does: look at what this is"
    )


class NotRegular(OSError):
    """A pipe, a socket or a device: what has no end, or no bytes."""


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read. Raises NotRegular for what is no regular file, such as a pipe, which would be waited for."""
    # without O_NONBLOCK a pipe that nobody writes is waited for already here
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    kind = os.fstat(file).st_mode
    if not stat.S_ISREG(kind):
        os.close(file)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise NotRegular(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(file, "rb")


def inflating(archive: BinaryIO) -> str | None:
    """What in a zip archive may grow beyond the archive's own size when it is read; None where nothing does.

    ``torch.save`` compresses nothing, so what it wrote never does.
    """
    size = archive.seek(0, os.SEEK_END)
    try:
        records = zipfile.ZipFile(archive).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "is a zip archive that is damaged"
    finally:
        archive.seek(0)
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        return "holds compressed records, which may grow to anything"
    if sum(record.file_size for record in records) > size:
        return "holds records that claim more bytes than the file has"
    return None


@contextmanager
def publishing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write that takes its name only when the block ends well; a crash leaves the old file whole.

    durable: whether it must outlast a loss of power too, and not only the end of the process.
    """
    partial = path.with_name(fitted(path.name, f".{platform.node()}.{os.getpid()}.partial"))
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(partial, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        if error.errno and error.filename in (None, str(partial)):
            # nobody asked for a file of that name
            raise _of_file(error, path) from None
        raise
    finally:
        with suppress(OSError):  # where no file can be, none was made
            partial.unlink(missing_ok=True)


def remove_halves(folder: Path, names: str) -> None:
    """Remove what a killed process left of files whose names match an expression, and no file that is called alike."""
    for half in folder.glob("*.partial"):
        if re.fullmatch(rf"(?:{names})(?:\..*)?\.[0-9]+\.partial", half.name):
            half.unlink(missing_ok=True)


def fitted(name: str, ending: str = "") -> str:
    """A file's name with an ending; where that is too long, it is cut, and told apart by a digest."""
    if len(os.fsencode(name + ending)) <= NAME_BYTES:
        return name + ending
    ending = f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{ending}"
    while len(os.fsencode(name + ending)) > NAME_BYTES:
        name = name[:-1]
    return name + ending


def _of_file(error: OSError, path: Path) -> OSError:
    """A failure to write, by the name of the file that was to be written."""
    if isinstance(error, FileNotFoundError):
        return _no_folder(path)
    return OSError(error.errno, error.strerror, str(path))


def check_parent(path: Path) -> None:
    """Raise FileNotFoundError, before there is anything to write, where there is no folder to write a file into."""
    if not path.absolute().parent.is_dir():
        raise _no_folder(path)


def _no_folder(path: Path) -> FileNotFoundError:
    return FileNotFoundError(f"{escaped(path)}: there is no folder {escaped(path.parent)}. Make it first")


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` in one step."""
    with publishing(path) as file:
        file.write(data)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as durable as the files they name."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def gunzip(data: bytes, *, where: str) -> bytes:
    """The decompressed contents of a gzip file. Raises DataError as ``gunzipped`` does."""
    return b"".join(gunzipped(data, where=where))


def gunzipped(data: bytes, *, where: str) -> Iterator[bytes]:
    """Decompress all members of a gzip file in pieces, comparing checksum and length of each to the very end.

    Raises DataError when ``data`` is not gzip, is cut or damaged, is followed by anything but zeros, or grows beyond
    GUNZIP_FLOOR_BYTES + GUNZIP_RATIO * len(data).
    """
    if data[:2] != b"\x1f\x8b":
        problem = "is empty" if not data else f"is not gzip (begins with {data[:12]!r})"
        raise DataError(problem, where=where, fix="Fetch or make the file again, or leave it out")
    limit = _gunzip_limit(data)
    size = at = 0
    while at < len(data):
        if at and data[at] == 0 and not data[at:].strip(b"\0"):
            return  # zeros that a tape or a disk's block was filled with, which gzip -t passes over too
        member = isal_zlib.decompressobj(wbits=31)
        while not member.eof:
            # given in pieces too: what is not consumed is copied each time
            given = memoryview(data)[at : at + PIECE_BYTES // 16]
            try:
                piece = member.decompress(given, PIECE_BYTES)
            except _IsalError as error:
                raise _damaged(f"gzip is damaged ({error})", where) from None
            at += len(given) - len(member.unconsumed_tail) - len(member.unused_data)
            size += len(piece)
            if size > limit:
                raise DataError(
                    f"decompresses to more than {counted(limit, 'byte')} from {len(data):,}",
                    where=where,
                    fix="No real file is that repetitive: leave it out",
                )
            if not (given or piece or member.eof):
                raise _damaged("gzip ends in the middle", where)
            yield piece


def stated_bytes(data: bytes) -> int:
    """What a gzip file says that it decompresses to, as far as it may: right for one member below 4 GiB."""
    return min(int.from_bytes(data[-4:], "little"), _gunzip_limit(data))


def _gunzip_limit(data: bytes) -> int:
    return GUNZIP_FLOOR_BYTES + GUNZIP_RATIO * len(data)


def _damaged(problem: str, where: str) -> DataError:
    return DataError(
        problem, where=where, fix="The file was cut or changed after it was written: fetch or make it again"
    )


def real_path(path: Path) -> Path:
    """The absolute path without links; of a link that leads to itself, which ``Path.resolve`` raises for, as it is."""
    return Path(os.path.realpath(path))


def nearest_path(path: Path, fits: Callable[[Path], bool] = lambda beside: True) -> str:
    """The end of a sentence about a path where nothing is: which path beside it may be meant; or nothing."""
    with suppress(OSError):
        there = [name for name in islice(os.listdir(path.parent), _LOOKED_THROUGH) if fits(path.parent / name)]
        return nearest(path.name, there)
    return ""


class Stamp(NamedTuple):
    """What tells a file from what it was before: another size, another time, or another file in its place."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    device: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The stamp of a file whose status this is."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino)


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of the file at a path; None where none can be seen."""
    with suppress(OSError):
        return Stamp.of(path.stat())
    return None


def check_named(path: Path, *, fix: str) -> None:
    """Raise FileNotFoundError where a file that somebody named is not there, ValueError where it is a folder.

    fix: what to name instead of a folder.
    """
    if path.is_dir():
        raise ValueError(f"{escaped(path)} is a folder: {escaped(fix)}")
    if not path.exists():
        raise FileNotFoundError(f"{escaped(path)}: no such file{nearest_path(path)}")


def of_path(error: OSError) -> str:
    """What the system says of a path, for a person who named it."""
    said = {
        **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "is a file, where a folder is needed"),
        errno.EISDIR: "is a folder, where a file is needed",
    }.get(error.errno or 0)
    # a rename tells both names, and the second is the one that was asked for
    return f"{error.filename2 or error.filename} {said}" if said and error.filename else str(error)


def free_bytes(out: Path) -> int:
    """Room on the disk where a folder is or will be."""
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free
