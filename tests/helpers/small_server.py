"""A real HTTP server on loopback with a folder behind it; it fails when told to, and speaks some S3."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape


class Server(ThreadingHTTPServer):
    """Serves ``root``. ``faults[name]`` are what the next requests for a file of that name meet.

    A fault is an HTTP status, or ``stall`` (until the server ends), ``cut`` (half of what was announced), ``flip`` (one
    bit), ``fine``; the last of a list that ends in ``...`` goes on for ever.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.ranges = root, True
        self.faults, self.asked, self.ended = defaultdict(deque), [], threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fail(self, name, *faults):
        self.faults[name] = deque(faults)

    def asked_for(self, name, method="GET"):
        """The ranges that were asked for, in order; None for the whole file."""
        return [each[2] for each in self.asked if each[:2] == (method, name)]

    def next_fault(self, name):
        waiting = self.faults[name]
        if len(waiting) == 2 and waiting[1] is ...:
            return waiting[0]
        return waiting.popleft() if waiting else "fine"

    def handle_error(self, request, client_address):
        """A client that goes away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing."""

    @property
    def path_asked(self):
        return self.server.root / unquote(urlsplit(self.path).path).lstrip("/")

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        if "list-type=2" in self.path:
            return self.listing()
        self.answer(body=True)

    def do_PUT(self):
        length = int(self.headers.get("x-amz-decoded-content-length") or self.headers["Content-Length"])
        data = (
            self.dechunked() if "aws-chunked" in self.headers.get("Content-Encoding", "") else self.rfile.read(length)
        )
        self.server.asked.append(("PUT", self.path_asked.name, len(data)))
        fault = self.server.next_fault(self.path_asked.name)
        if fault == "stall":
            return self.server.ended.wait()
        if fault == "cut":
            data = data[: len(data) // 2]
        if isinstance(fault, int):
            return self.status(fault)
        self.path_asked.parent.mkdir(parents=True, exist_ok=True)
        self.path_asked.write_bytes(data)
        self.status(200)

    def do_DELETE(self):
        self.path_asked.unlink(missing_ok=True)
        self.status(204)

    def dechunked(self):
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def answer(self, *, body):
        path = self.path_asked
        asked = self.headers.get("Range")
        self.server.asked.append((self.command, path.name, asked))
        fault = self.server.next_fault(path.name) if body else "fine"
        if fault == "stall":
            self.server.ended.wait()
            return
        if isinstance(fault, int) or not path.is_file():
            return self.status(fault if isinstance(fault, int) else 404)
        data, first = path.read_bytes(), 0
        if asked and self.server.ranges:
            first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
            if first >= len(data):
                return self.status(416)
            whole, data = len(data), data[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{whole}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"none"')
        self.end_headers()
        if fault == "flip":
            data = bytes([data[0] ^ 1]) + data[1:]
        if fault == "cut":
            data, self.close_connection = data[: len(data) // 2], True
        if body:
            self.wfile.write(data)

    def listing(self):
        parts = urlsplit(self.path)
        asked = dict(part.partition("=")[::2] for part in parts.query.split("&"))
        bucket = self.server.root / parts.path.strip("/")
        prefix = unquote(asked.get("prefix", ""))
        keys = sorted(str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_file())
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{(bucket / key).stat().st_size}</Size>"
            "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys
            if key.startswith(prefix)
        )
        self.status(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode())

    def status(self, code, data=b""):
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(root: Path):
    """A server while entered."""
    server = Server(root)
    # it looks twenty times a second whether it should end
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
