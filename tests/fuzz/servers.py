"""Servers that answer anything: it ends in the dataset or in a sentence, and in little memory.

    PYTHONPATH=tests python -m fuzz.servers [--minutes M | --cases N] [--seed S [--first N]]

Each case reads a whole dataset from a server of which some answers, or all, are wrong: other bytes, lengths, encodings
and places, bodies without end, and small ones that become large.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from helpers.small_data import dataset

from fuzz.harness import Case, Random, Unclean, fuzz, refusal
from hexshards.dataset.index import read_index
from hexshards.dataset.layout import Shard
from hexshards.dataset.verify import verify
from hexshards.storage.files import Home
from hexshards.storage.options import RemoteSpec
from hexshards.storage.remote import INDEX_BYTES, home_of

INDEX_MEMORY_BYTES = INDEX_BYTES * 3 // 2
"""That reading the index may take: nothing says beforehand how large it is."""

SHARD_MEMORY_BYTES = 64 << 20
"""That reading a shard may take, whose size the index says: some 20 kB here, and pieces that a body is read in."""

ENDLESS = 1 << 30
"""Where a body without end is cut."""

STATUSES = [200, 200, 200, 200, 204, 206, 206, 301, 304, 400, 401, 404, 416, 429, 500, 503, 999]
ENCODINGS = ["gzip", "deflate", "br", "zstd", "identity", "x\tx"]
PLACES = ["http://127.0.0.1:1/", "file:///etc/passwd", "//", "\\\\x", "http://[", "/" * 5000]


@cache
def bomb() -> bytes:
    """300 MB of spaces, a valid beginning of JSON, in 300 kB."""
    return gzip.compress(b" " * (300 << 20), compresslevel=6, mtime=0)


def answer(random: Random, data: bytes) -> bytes:
    """The bytes of an HTTP answer for a file, wrong in a few ways."""
    status, body, headers = random.choice(STATUSES), bytearray(data), {}
    for _ in range(random.randrange(3)):
        at = random.randrange(len(body) + 1)
        match random.randrange(5):
            case 0:
                body[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                del body[at:]
            case 2:
                body += bytes(random.randrange(200_000))
            case 3:
                body[at:at] = random.randbytes(random.randrange(50))
            case 4:
                body = bytearray(random.choice([b"[", b'{"a":', b"1"]) * 20_000)
    headers["Content-Length"] = random.choice([len(body)] * 6 + [len(body) // 2, 2 * len(body), -1, 10**30, "x", ""])
    if random.random() < 0.2:
        headers["Content-Encoding"] = random.choice(ENCODINGS)
    if random.random() < 0.2:
        headers["Transfer-Encoding"] = random.choice(["chunked", "gzip", "x"])
    if status == 301 or random.random() < 0.05:
        headers["Location"] = random.choice(PLACES)
    if random.random() < 0.1:
        headers["Content-Range"] = random.choice(["bytes 0-1/2", "bytes */0", "x", f"bytes 0-{10**30}/1"])
    head = f"HTTP/1.1 {status} \x1b[31m{'A' * random.choice([0, 3, 70_000])}\r\n" if random.random() < 0.1 else ""
    head = head or f"HTTP/1.1 {status} OK\r\n"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{head}{lines}\r\n".encode("latin-1") + body


class Server(ThreadingHTTPServer):
    """Serves a folder, and spoils a share of the answers."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder, self.faults, self.random, self.told = folder, 0.0, Random(0), list[str]()
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_: object) -> None:
        """A client that has heard enough goes away."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self) -> None:
        """A file, a range of it, or anything else."""
        server, name = self.server, Path(self.path.partition("?")[0]).name
        data = (server.folder / name).read_bytes()
        if server.random.random() < server.faults:
            self.close_connection = True
            match server.random.randrange(25):
                case 0:
                    server.told.append(f"{name} without end")
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + data)
                    for _ in range(ENDLESS >> 20):
                        self.wfile.write(b" " * (1 << 20))
                case 1:
                    server.told.append(f"a bomb for {name}")
                    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb())}\r\n\r\n"
                    self.wfile.write(head.encode() + bomb())
                case _:
                    wrong = answer(server.random, data)
                    server.told.append(f"{name}: {wrong[:40]!r}, {len(wrong)} bytes")
                    self.wfile.write(wrong)
            return
        first, last = 0, len(data)
        if asked := self.headers.get("Range"):
            low, high = asked.removeprefix("bytes=").split("-")
            first, last = int(low), int(high) + 1
        self.send_response(206 if asked else 200)
        self.end_headers()
        self.wfile.write(data[first:last])

    def log_message(self, *_: object) -> None:
        """Silence."""


@contextmanager
def bounded(most: int, what: str) -> Iterator[None]:
    """Raise Unclean where what is done takes more than so many bytes of memory, however it ends."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield
    finally:
        taken = tracemalloc.get_traced_memory()[1] - before
        if taken > most:
            raise Unclean("memory", f"{taken >> 20} MiB for {what}")


def _compare(shard: Shard, home: Home, folder: Path) -> None:
    with home.open(shard.name, size_bytes=shard.size_bytes, sha256=shard.sha256) as file:
        if file.read() != (folder / shard.name).read_bytes():
            raise Unclean("other bytes", shard.name)


def prepare(work: Path) -> Case:
    """A dataset and its server, and the case that reads it."""
    folder, cached = dataset(work, games=20), work / "cache"
    sound, server = verify(folder), Server(folder)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    spec = RemoteSpec(cache=cached, chunk_bytes=20_000, stall_s=2, first_wait_s=0, give_up_s=0)
    home = home_of(f"http://127.0.0.1:{server.server_port}/d", spec=spec)
    bomb()
    tracemalloc.start()

    def case(random: Random, told: list[str]) -> None:
        shutil.rmtree(cached, ignore_errors=True)
        server.random, server.told, server.faults = random, told, random.choice([0.05, 0.3, 1])
        try:
            with bounded(INDEX_MEMORY_BYTES, "the index"):
                index = read_index(home)
            for split in index.splits.values():
                for shard in split.shards[:2]:
                    with bounded(SHARD_MEMORY_BYTES, shard.name):
                        _compare(shard, home, folder)
            if sum(split.positions for split in index.splits.values()) != sound.positions:
                raise Unclean("other positions", index.splits)
        except FileNotFoundError as error:
            assert str(error).isprintable()
        except Exception as error:
            refusal(error)

    return case


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        fuzz(__doc__ or "", lambda: prepare(Path(place)))
