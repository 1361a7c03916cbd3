from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from helpers.processes import OPTIONS, wait_for
from helpers.small_data import CUT, files_of, processed
from helpers.small_server import serving

import hexshards
from hexshards.conversion.convert import convert
from hexshards.dataset.upload import written_in
from hexshards.dataset.verify import verify


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    processed(folder)
    return folder


@pytest.fixture(scope="module")
def whole(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "data"
    convert(sources, out=out, **CUT)
    return out


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served") as running:
        yield running


@pytest.fixture
def target(server, s3_bucket, tmp_path, monkeypatch):
    """A URL to publish to, and the folder behind it; this machine's part is in a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url, bucket = s3_bucket(server)
    return f"{url}/data", bucket / "data"


def sent(server):
    return [name for method, name, _ in server.asked if method == "PUT"]


def command(sources, url):
    return [sys.executable, "-m", "hexshards", "convert", str(sources), "--out", url, *OPTIONS]


def test_a_dataset_is_published_as_it_would_be_written_to_a_folder_index_last(sources, whole, server, target):
    url, folder = target
    told = []
    report = convert(sources, out=url, progress=told.append, **CUT)
    assert files_of(folder) == files_of(whole)
    assert sent(server)[-1] == "index.json"
    assert report.out == url
    assert (told[-1].uploads, told[-1].uploads_done) == (len(files_of(whole)) - 1,) * 2
    assert verify(url).problems == ()
    # nothing is left on this machine but what verify fetched
    assert not written_in(url).exists()


def test_a_publication_that_was_killed_goes_on_with_what_is_missing(sources, whole, server, target):
    url, folder = target
    server.fail("train-000007.tar", "stall")
    first = subprocess.Popen(command(sources, url), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: "train-000007.tar" in sent(server))
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not (folder / "index.json").exists()
    with pytest.raises(FileNotFoundError):
        hexshards.read_index(url)
    server.asked.clear()
    ended = subprocess.run(command(sources, url), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "it was whole already" in ended.stdout
    assert "train-000006.tar" not in sent(server)
    assert "train-000007.tar" in sent(server)
    assert files_of(folder) == files_of(whole)


def test_what_arrived_of_another_dataset_is_not_taken_for_this_one(sources, whole, server, target):
    url, folder = target
    folder.mkdir()
    for name, data in files_of(whole).items():
        # the same sizes, and other contents
        if name != "index.json":
            (folder / name).write_bytes(bytes(len(data)))
    convert(sources, out=url, **CUT)
    assert files_of(folder) == files_of(whole)


@pytest.mark.parametrize("faults", [(503,), (500, 503)])
def test_what_fails_for_a_while_is_sent_again(sources, whole, server, target, faults):
    url, folder = target
    server.fail("train-000003.tar", *faults)
    convert(sources, out=url, **CUT)
    assert files_of(folder) == files_of(whole)


def test_a_file_that_did_not_arrive_whole_stops_it_before_the_index(sources, server, target):
    url, folder = target
    server.fail("train-000003.tar", "cut")
    with pytest.raises(hexshards.DataError, match=rf"{url}/train-000003.tar: [\d,]+ bytes were sent, \d+ are there"):
        convert(sources, out=url, **CUT)
    assert not (folder / "index.json").exists()
    convert(sources, out=url, **CUT)
    assert verify(url).problems == ()


def test_where_a_dataset_is_none_is_published(sources, target):
    url, _ = target
    convert(sources, out=url, **CUT)
    with pytest.raises(FileExistsError, match=f"{url} holds a finished dataset"):
        convert(sources, out=url, **CUT)


def test_what_waits_to_be_published_is_not_replaced_by_another(sources, server, target):
    url, _ = target
    server.fail("train-000003.tar", "cut")
    with pytest.raises(hexshards.DataError):
        convert(sources, out=url, **CUT)
    with pytest.raises(FileExistsError, match=f"holds a dataset on its way to {url}, of other options or files"):
        convert(sources, out=url, seed=1, **CUT)


@pytest.mark.parametrize(
    ("url", "options", "fault"),
    [
        ("https://host/data", {}, "datasets are published to s3, "),
        ("s3://bucket/data", {"append": True}, "files are added to a dataset in a folder"),
    ],
)
def test_what_cannot_be_published_is_refused_before_anything_is_read(sources, url, options, fault):
    with pytest.raises(ValueError, match=fault):
        convert(sources, out=url, **options)
