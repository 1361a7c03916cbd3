"""Servers that answer anything: it ends in the dataset or in a sentence. ``fuzzing_servers.py SECONDS [SEED]``."""

from __future__ import annotations

import random as randomness  # noqa: TID251 - what is drawn here is no order of a dataset
import shutil
import sys
import tempfile
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from small_data import dataset

from hexshards.errors import DataError
from hexshards.index import read_index
from hexshards.remote import home_of
from hexshards.specs import RemoteSpec
from hexshards.verification import verify

MEMORY_BYTES = 64 << 20
STATUSES = [200, 200, 200, 200, 204, 206, 206, 301, 304, 400, 401, 404, 416, 429, 500, 503, 999]
ENCODINGS = ["gzip", "deflate", "br", "zstd", "identity", "x\tx"]
PLACES = ["http://127.0.0.1:1/", "file:///etc/passwd", "//", "\\\\x", "http://[", "/" * 5000]


def answer(random: randomness.Random, data: bytes) -> bytes:
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


def try_servers(folder: Path, cache: Path, *, random: randomness.Random, seconds: float, cases: int) -> int:
    """Verify a dataset through servers for so long, and so many at least. Raises where anything else comes of it."""
    sound = verify(folder)
    state: dict[str, float] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = (folder / Path(self.path.partition("?")[0]).name).read_bytes()
            if random.random() < state["faults"]:
                self.wfile.write(answer(random, data))
                self.close_connection = True
                return
            first, last = 0, len(data)
            if asked := self.headers.get("Range"):
                low, high = asked.removeprefix("bytes=").split("-")
                first, last = int(low), int(high) + 1
            self.send_response(206 if asked else 200)
            self.end_headers()
            self.wfile.write(data[first:last])

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    spec = RemoteSpec(cache=cache, chunk_bytes=20_000, stall_s=2, first_wait_s=0, give_up_s=0)
    home, end, tried = home_of(f"http://127.0.0.1:{server.server_port}/d", spec=spec), time.monotonic() + seconds, 0
    tracemalloc.start()
    try:
        while tried < cases or time.monotonic() < end:
            shutil.rmtree(cache, ignore_errors=True)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            state["faults"] = random.choice([0.05, 0.3, 1])
            try:
                index = read_index(home)
                for split in index.splits.values():
                    for shard in split.shards[:2]:
                        with home.open(shard.name, size_bytes=shard.size_bytes, sha256=shard.sha256) as file:
                            assert file.read() == (folder / shard.name).read_bytes()
                assert sum(split.positions for split in index.splits.values()) == sound.positions
            except (DataError, FileNotFoundError) as error:
                assert str(error).isprintable() and len(str(error)) < 2_000, str(error)[:300]
            assert tracemalloc.get_traced_memory()[1] - before < MEMORY_BYTES
            tried += 1
    finally:
        tracemalloc.stop()
        server.shutdown()
        server.server_close()
    return tried


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
        found = try_servers(
            dataset(Path(place)),
            Path(place) / "cache",
            random=randomness.Random(seed),
            seconds=float(sys.argv[1]),
            cases=1,
        )
        print(f"{found:,} servers")
