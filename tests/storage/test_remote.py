from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.loading import open_loader, stream
from helpers.small_data import CUT, dataset, processed
from helpers.small_server import serving
from typer.testing import CliRunner

import hexshards
from hexshards.cli.app import app
from hexshards.conversion.convert import convert
from hexshards.errors import DataError
from hexshards.loading.shard_prefetch import fetching
from hexshards.storage.cache import Cache
from hexshards.storage.options import RemoteSpec
from hexshards.storage.remote import Unreachable, home_of

aiohttp = pytest.importorskip("aiohttp", reason="without aiohttp NOTHING OF READING FROM URLS IS CHECKED")

SHARD = "train-000003.tar"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("remote"))


@pytest.fixture(scope="module")
def expected(data):
    return stream(open_loader(data))


@pytest.fixture
def server(data, tmp_path):
    shutil.copytree(data, tmp_path / "served" / "data")
    with serving(tmp_path / "served") as running:
        yield running


@pytest.fixture
def spec(tmp_path):
    # chunks of a third of a shard; on a busy machine an answer takes a second now and then
    return RemoteSpec(cache=tmp_path / "cache", chunk_bytes=20_000, stall_s=30, first_wait_s=0.01, give_up_s=60)


def opened(server, spec, **options):
    return open_loader(home_of(f"{server.url}/data", spec=spec), **options)


def cached(spec):
    return sorted(path.name for path in spec.cache.iterdir())


def shards_of(data, *splits):
    index = hexshards.read_index(data)
    return [shard for split in splits or ("train",) for shard in index.splits[split].shards]


# the same batches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_url_gives_the_batches_of_the_folder_and_each_shard_comes_down_once(
    data, expected, server, spec, num_workers
):
    loader = opened(server, spec, num_workers=num_workers)
    assert stream(loader) == expected
    assert cached(spec) == sorted(f"{shard.sha256}.tar" for shard in shards_of(data))
    assert all(len(server.asked_for(shard.name)) == -(-shard.size_bytes // 20_000) for shard in shards_of(data))
    assert len({*server.asked}) == len(server.asked)
    server.asked.clear()
    loader.set_epoch(0)
    assert stream(loader) == stream(opened(server, spec)) == expected
    assert {name for _, name, _ in server.asked} == {"index.json"}


def test_a_server_that_knows_no_ranges_sends_the_whole(expected, server, spec):
    server.ranges = False
    assert stream(opened(server, spec)) == expected
    assert server.asked_for(SHARD) == ["bytes=0-19999"]


@pytest.mark.parametrize(
    "faults",
    [(500, 500), ("cut",), ("fine", "cut"), ("flip",), ("fine", "flip"), ("stall",), (404,), (429, "cut", 503)],
)
def test_what_fails_for_a_while_is_tried_again(expected, server, spec, faults):
    server.fail(SHARD, *faults)
    assert stream(opened(server, replace(spec, stall_s=1 if "stall" in faults else spec.stall_s))) == expected
    assert not server.faults[SHARD]


def test_what_came_down_before_a_failure_is_not_asked_for_again(server, spec):
    server.fail(SHARD, "fine", "cut", 500)
    stream(opened(server, spec))
    assert server.asked_for(SHARD)[:4] == ["bytes=0-19999", *["bytes=20000-39999"] * 3]


# what lasts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (500, r"could not be read, [2-9] attempts in \d s: ClientResponseError: HTTP 500 Internal Server Error"),
        (403, r"could not be read, 1 attempt in 0 s: ClientResponseError: HTTP 403 Forbidden"),
        ("flip", r"could not be read, [2-9] attempts in \d s: its SHA-256 is \w{12}\.\.\., the index says"),
        ("cut", r"could not be read, [2-9] attempts in \d s: ClientPayloadError"),
        ("stall", r"could not be read, 1 attempt in \d s: FSTimeoutError"),
        (404, r"the shard is missing"),
    ],
)
def test_what_fails_for_good_is_an_error_with_url_attempts_and_cause(server, spec, fault, told):
    server.fail(SHARD, fault, ...)
    # a first answer may take a second on a busy machine; waits of 0.01 s and twice as long make 9 attempts in 4 s
    spec = replace(spec, stall_s=1, give_up_s=4 if "[2-9] attempts" in told else 0.5)
    loader = opened(server, spec, num_workers=2 if fault == 500 else 0)
    with pytest.raises(DataError, match=rf"^{server.url}/data/{SHARD}: {told}"):
        stream(loader)
    assert not (spec.cache / f"{shards_of(server.root / 'data')[3].sha256}.tar").exists()


def test_a_shard_that_was_cut_at_its_source_is_named_with_both_sizes(server, spec):
    path = server.root / "data" / SHARD
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(DataError, match=r"got 10,000 bytes instead of 20,000; it should hold [\d,]+\."):
        stream(opened(server, replace(spec, give_up_s=0.2)))


def test_a_network_that_is_down_is_no_damage_to_be_skipped(server, spec):
    server.fail(SHARD, 500, ...)
    with pytest.raises(Unreachable):
        stream(opened(server, replace(spec, give_up_s=0.2), on_error="skip"))


def test_a_missing_shard_is_damage_that_may_be_skipped(data, server, spec):
    (server.root / "data" / SHARD).unlink()
    loader = opened(server, spec, on_error="skip", window_blocks=16, group_shards=8)
    assert sum(len(batch.value) for batch in loader) == loader.positions
    assert loader.skipped.blocks == 6


def test_where_nothing_listens_the_error_says_so(server, spec, tmp_path):
    with serving(tmp_path) as gone:
        url = gone.url
    with pytest.raises(Unreachable, match=rf"{url}/data/index.json: could not be read, .*ClientConnectorError"):
        open_loader(home_of(f"{url}/data", spec=replace(spec, give_up_s=0.2)))


def test_where_there_is_no_index_there_is_no_dataset(server, spec):
    with pytest.raises(FileNotFoundError, match=rf"{server.url}/nothing: no dataset here"):
        open_loader(home_of(f"{server.url}/nothing", spec=spec))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://host/data", "ftp://host/data: datasets are read from folders and s3, "),
        (
            "https://me:secret@host/data?token=secret",
            r"https://host/data\?\.\.\.: give the URL of the dataset's folder",
        ),
        ("s3://me:secret@bucket/data", "s3://bucket/data: s3 URLs have no user and password"),
        (Path("s3://bucket/data"), "s3:/bucket/data is a URL that went through a Path"),
    ],
)
def test_a_url_that_cannot_be_one_is_refused(url, told):
    with pytest.raises(ValueError, match=told) as caught:
        hexshards.loader(url)
    assert "secret" not in str(caught.value)


def test_no_password_is_told(server, spec):
    url = server.url.replace("//", "//me:secret@") + "/nothing"
    with pytest.raises(FileNotFoundError) as caught:
        hexshards.read_index(home_of(url, spec=spec))
    assert "secret" not in str(caught.value)


# the cache ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("through", ["reading", "fetching ahead"])
def test_a_copy_that_was_damaged_in_the_cache_is_fetched_again(data, expected, server, spec, through):
    stream(opened(server, spec))
    shard = shards_of(data)[3]
    path = spec.cache / f"{shard.sha256}.tar"
    copy = bytearray(path.read_bytes())
    copy[700] ^= 1
    path.write_bytes(copy)
    server.asked.clear()
    if through == "reading":
        home = home_of(f"{server.url}/data", spec=spec)
        with home.open(shard.name, size_bytes=shard.size_bytes, sha256=shard.sha256) as file:
            assert file.read() == copy
    assert stream(opened(server, spec)) == expected
    assert len(server.asked_for(shard.name)) == 3
    assert path.read_bytes() == (data / shard.name).read_bytes()


def test_a_copy_of_another_size_is_none(data, server, spec):
    shard = shards_of(data)[3]
    spec.cache.mkdir()
    (spec.cache / f"{shard.sha256}.tar").write_bytes(b"half")
    home = home_of(f"{server.url}/data", spec=spec)
    with home.open(shard.name, size_bytes=shard.size_bytes, sha256=shard.sha256) as file:
        assert file.read() == (data / shard.name).read_bytes()


@pytest.mark.parametrize("left", [b"x" * 100, b"x" * 1_000_000])
def test_what_was_left_half_there_and_is_wrong_is_dropped(data, expected, server, spec, left):
    spec.cache.mkdir()
    (spec.cache / f"{shards_of(data)[3].sha256}.part").write_bytes(left)
    assert stream(opened(server, spec)) == expected
    assert not list(spec.cache.glob("*.part"))


def test_the_least_recently_used_leave_first(data, server, spec):
    shards = shards_of(data)[:4]
    size = max(shard.size_bytes for shard in shards)
    home = home_of(f"{server.url}/data", spec=replace(spec, cache_bytes=3 * size))

    def use(shard):
        home.open(shard.name, size_bytes=shard.size_bytes, sha256=shard.sha256).close()
        # a file system may count in steps of a few milliseconds
        time.sleep(0.02)

    for number in (0, 1, 2, 0, 3):
        use(shards[number])
    assert cached(spec) == sorted(f"{shards[number].sha256}.tar" for number in (0, 2, 3))


def held_in(folder):
    """Bytes of the whole files there; one may leave while it is looked at."""
    total = 0
    for path in list(folder.glob("*.tar")):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_an_epoch_through_a_small_cache_stays_within_it_and_misses_nothing(data, expected, server, spec):
    shards = shards_of(data)
    limit = 5 * max(shard.size_bytes for shard in shards)
    loader, held = opened(server, replace(spec, cache_bytes=limit)), []
    batches = []
    for batch in loader:
        batches.append(batch)
        held.append(held_in(spec.cache))
    assert len(batches) == len(expected)
    assert max(held) <= limit


def test_a_cache_that_cannot_hold_what_is_shuffled_together_is_refused(server, spec):
    with pytest.raises(ValueError, match=r"shuffling needs 4 shards at hand, .* Raise cache_limit"):
        opened(server, replace(spec, cache_bytes=100_000))
    with pytest.raises(ValueError, match="cache_limit must be a size like"):
        hexshards.loader(f"{server.url}/data", cache_limit="much")


def test_no_more_comes_down_ahead_than_the_next_group(data, server, spec):
    batches = iter(opened(server, spec, batch_size=8))
    next(batches)
    time.sleep(0.5)  # what is not held back would come down meanwhile
    shards = {name for _, name, _ in server.asked} - {"index.json"}
    assert 2 <= len(shards) <= 4
    batches.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A dataset of 24 additions, a shard of a block or two each."""
    folder = tmp_path_factory.mktemp("tiny")
    for number, source in enumerate(processed(folder / "sources", games=24, games_per_file=1)):
        options = {**CUT, "val_fraction": 0} if number == 0 else {}
        convert(source, out=folder / "data", append=number > 0, **options)
    return folder / "data"


def test_of_many_small_shards_those_of_the_next_window_come_down_while_one_is_used(tiny, tmp_path, spec):
    options = {"window": "500", "window_blocks": 8, "group_shards": 1, "batch_size": 8}
    with serving(tiny.parent) as server:
        loader = opened(server, spec, **options)
        windows = loader.epochs.windows(0)
        first, second = ({shard.name for _, shard in windows.shards_of(number)} for number in (0, 1))
        assert len(second - first) > 2  # more than a group of one, and one of the next
        deadline = time.monotonic() + 60
        with fetching(windows, range(len(windows))):
            while not first | second <= {name for _, name, _ in server.asked}:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert stream(opened(server, spec, **options)) == stream(open_loader(tiny, **options))


def test_room_in_the_cache_is_asked_for_by_the_blocks_of_a_group_where_shards_are_small(tiny, tmp_path, spec):
    index = hexshards.read_index(tiny)
    whole = sum(shard.size_bytes for shard in index.splits["train"].shards)
    options = {"window": "700", "window_blocks": 8, "group_shards": 1}
    with serving(tiny.parent) as server:
        small = replace(spec, cache_bytes=4 * max(shard.size_bytes for shard in index.splits["train"].shards))
        opened(server, small, group_shards=1)  # shard by shard there is room
        with pytest.raises(ValueError, match=r"Raise cache_limit"):
            opened(server, small, **options)
        opened(server, replace(spec, cache_bytes=whole), **options)


def test_shards_that_are_being_written_are_not_thrown_out(data, tmp_path):
    cache = Cache(tmp_path, limit_bytes=100)
    with cache.writing("0" * 64) as part:
        part.append(b"x" * 90)
        cache.make_room(50)
        part.publish()
    cache.make_room(50)
    assert list(tmp_path.iterdir()) == []


READ = """
import sys
from pathlib import Path
from hexshards.storage.remote import home_of
from hexshards.storage.options import RemoteSpec
from hexshards.dataset.verify import verify

url, cache, chunk = sys.argv[1:]
print(verify(home_of(url, spec=RemoteSpec(cache=Path(cache), chunk_bytes=int(chunk)))).positions)
"""


def reading(server, spec):
    command = [sys.executable, "-c", READ, f"{server.url}/data", spec.cache, str(spec.chunk_bytes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_share_a_cache_and_fetch_each_shard_once(data, server, spec):
    readers = [reading(server, spec) for _ in range(3)]
    total = sum(shard.positions for shard in shards_of(data, "train", "val"))
    assert [int(reader.communicate(timeout=60)[0]) for reader in readers] == [total] * 3
    asked = [each for each in server.asked if each[1] != "index.json"]
    assert len(asked) == len(set(asked))


def test_a_download_that_was_killed_goes_on_where_it_was(data, server, spec):
    server.fail(SHARD, "fine", "fine", "stall")
    reader = reading(server, spec)
    end = time.monotonic() + 60
    while len(server.asked_for(SHARD)) < 3:
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(reader.pid, signal.SIGKILL)
    reader.communicate()
    assert len(list(spec.cache.glob("*.part"))) == 1
    server.asked.clear()
    assert reading(server, spec).communicate(timeout=60)[0]
    assert server.asked_for(SHARD) == [f"bytes=40000-{shards_of(data)[3].size_bytes - 1}"]
    assert not list(spec.cache.glob("*.part"))


# the command line ---------------------------------------------------------------------------------------------------


@pytest.fixture
def told(spec, monkeypatch):
    """What a command prints, and its exit code; shards come down to ``hexshards`` in the cache of ``spec``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(spec.cache))

    def run(*command, exit_code=0):
        result = CliRunner().invoke(app, [str(part) for part in command])
        assert result.exit_code == exit_code, result.output
        return result.stdout

    return run


def test_commands_take_a_url_where_they_take_a_folder(data, server, spec, tmp_path, told):
    url = f"{server.url}/data"
    assert json.loads(told("info", url, "--json"))["layout"]["side"] == 5
    assert "sound: 1,309 positions" in told("verify", url)
    assert told("show", url) == told("show", data)
    assert len(cached(replace(spec, cache=spec.cache / "hexshards"))) == len(shards_of(data, "train", "val"))
    told("train", url, "--run", tmp_path / "run", "--channels", "4", "--blocks", "1")
    assert (tmp_path / "run" / "metrics.jsonl").exists()


def test_verify_names_the_url_of_what_it_cannot_read(server, told):
    (server.root / "data" / SHARD).unlink()
    url = f"{server.url}/data"
    assert f"{url}/{SHARD}: the shard is missing" in told("verify", url, exit_code=1)


# S3 -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def s3(server, s3_bucket):
    """The URL of the same files on the same server, as an S3 endpoint, and their folder behind it."""
    url, folder = s3_bucket(server)
    return f"{url}/data", (server.root / "data").rename(folder / "data")


def test_s3_gives_the_batches_of_the_folder(expected, server, s3, spec):
    url, _ = s3
    server.fail(SHARD, 503, "fine", "flip")
    loader = open_loader(home_of(url, spec=spec))
    assert stream(loader) == expected
    assert str(loader.home) == url


def test_a_missing_shard_on_s3_is_named(s3, spec):
    url, folder = s3
    (folder / SHARD).unlink()
    with pytest.raises(DataError, match=rf"{url}/{SHARD}: the shard is missing"):
        stream(open_loader(home_of(url, spec=spec)))


def test_s3_without_credentials_is_not_tried_again(server, s3_bucket, spec, tmp_path, monkeypatch):
    url, _ = s3_bucket(server)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(Unreachable, match=r"1 attempt in .*NoCredentialsError"):
        hexshards.read_index(home_of(f"{url}/nothing", spec=spec))


def test_a_public_bucket_is_read_without_credentials(server, s3, spec, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("FSSPEC_S3_ANON", "true")
    from fsspec import config

    monkeypatch.setitem(config.conf, "s3", {"anon": True})  # which fsspec makes of the environment when it is imported
    assert hexshards.read_index(home_of(f"{s3[0]}", spec=spec)).side == 5


def test_a_user_without_a_home_is_told_what_to_name(monkeypatch):
    from hexshards.storage.cache import default_folder

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ValueError, match=r"this user has no home, .* --cache, cache=, or XDG_CACHE_HOME"):
        default_folder()


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for folder, told in ((tmp_path / "file", "is not a folder"), (tmp_path / "file" / "x", "no folder for a cache")):
        with pytest.raises((OSError, ValueError), match=told), Cache(folder, limit_bytes=1).writing("0" * 64):
            pass
