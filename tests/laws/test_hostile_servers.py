from __future__ import annotations

import gzip
import json
import tracemalloc
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from helpers.loading import open_loader, stream
from helpers.small_data import dataset

import hexshards
from hexshards.errors import DataError
from hexshards.storage import files, remote
from hexshards.storage.options import RemoteSpec
from hexshards.storage.remote import home_of

pytest.importorskip("aiohttp", reason="without aiohttp NOTHING OF READING FROM URLS IS CHECKED")


class Serving:
    """A server that answers every request with what ``answer(handler)`` writes; it keeps the requests' headers."""

    def __init__(self, answer):
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append((self.path, dict(self.headers)))
                answer(self)

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                """A client that has heard enough goes away."""

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def answering(body, **headers):
    def answer(handler):
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def endless(handler):
    answering(b"")(handler)
    while True:
        handler.wfile.write(b"[" * 65_536)


@pytest.fixture
def spec(tmp_path):
    return RemoteSpec(cache=tmp_path / "cache", stall_s=30, first_wait_s=0.01, give_up_s=0)


def test_of_an_index_without_end_no_more_is_read_than_the_limit(spec, monkeypatch):
    monkeypatch.setattr(remote, "INDEX_BYTES", 1 << 20)
    with Serving(endless) as server, pytest.raises(DataError, match=r"index.json: holds more than [\d,]+ bytes"):
        tracemalloc.start()
        try:
            hexshards.read_index(home_of(server.url, spec=spec))
        finally:
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
            tracemalloc.stop()


def test_a_file_on_disk_that_is_no_index_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "INDEX_BYTES", 1000)
    (tmp_path / "index.json").write_bytes(b" " * 1001)
    with pytest.raises(DataError, match=r"index.json: holds more than 1,000 bytes"):
        hexshards.read_index(tmp_path)


def test_nothing_is_decompressed_on_its_way(spec):
    bomb = gzip.compress(bytes(64 << 20))
    with Serving(answering(bomb, Content_Encoding="gzip")) as server:
        with pytest.raises(DataError, match="the server sent 'gzip', and was asked for the file as it is"):
            hexshards.read_index(home_of(server.url, spec=spec))
        assert server.asked[0][1]["Accept-Encoding"] == "identity"


def test_of_a_shard_without_end_no_more_is_read_than_the_index_says(tmp_path, spec):
    with Serving(endless) as server, pytest.raises(DataError, match="the server sent more than 1,000 bytes"):
        home_of(server.url, spec=spec).open("train-000000.tar", size_bytes=1000, sha256="0" * 64)


@pytest.mark.parametrize(
    "name", ["../outside.tar", "/outside.tar", "train-000000.tar\0", "http://127.0.0.1:1/train-000000.tar", "..", ""]
)
def test_a_name_of_a_shard_leads_nowhere_else(tmp_path, name):
    folder = dataset(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    entry = json.loads((folder / "index.json").read_text())
    entry["splits"]["train"]["shards"][0]["name"] = name
    (folder / "index.json").write_text(json.dumps(entry))
    with pytest.raises(DataError, match="is not well formed") as caught:
        hexshards.read_index(folder)
    assert str(caught.value).isprintable()
    assert sorted(tmp_path.rglob("*")) == before


def test_credentials_do_not_follow_a_redirect_to_another_host(spec):
    with Serving(answering(b"{}")) as other:

        def elsewhere(handler):
            handler.send_response(302)
            handler.send_header("Location", other.url.replace("127.0.0.1", "localhost") + handler.path)
            handler.end_headers()

        with Serving(elsewhere) as server, pytest.raises(DataError, match="is not the index"):
            hexshards.read_index(home_of(server.url.replace("//", "//me:s3cret@") + "/d", spec=spec))
        assert "Authorization" in server.asked[0][1]
        assert other.asked
        assert "Authorization" not in other.asked[0][1]


def test_a_proxy_is_heeded(spec, monkeypatch):
    with Serving(answering(b"{}")) as proxy:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy.url)
        with pytest.raises(DataError, match="is not the index"):
            hexshards.read_index(home_of("http://nowhere.invalid/d", spec=spec))
        assert proxy.asked[0][0] == "http://nowhere.invalid/d/index.json"


def test_a_cache_folder_that_is_removed_while_shards_come_down_is_made_again(tmp_path, spec):
    import shutil

    from helpers.small_server import serving

    folder = dataset(tmp_path)
    expected = stream(open_loader(folder))
    with serving(tmp_path) as server:
        home = home_of(f"{server.url}/data", spec=replace(spec, chunk_bytes=20_000, give_up_s=60))
        asked, shard = server.next_fault, hexshards.read_index(folder).splits["train"].shards[3].name
        removed = []

        def remove_once(name):
            if name == shard and len(server.asked_for(shard)) == 2 and not removed:
                removed.append(name)
                shutil.rmtree(spec.cache, ignore_errors=True)
            return asked(name)

        server.next_fault = remove_once
        loader = open_loader(home, on_error="skip")
        assert stream(loader) == expected
        assert removed
        assert loader.skipped.blocks == 0
