from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from helpers.cli import call
from helpers.processes import wait_for
from helpers.small_data import dataset, files_of, processed
from helpers.small_server import serving
from helpers.stand_in_hub import Hub, hub
from typer.testing import CliRunner

import hexshards
from hexshards.cli.publish_command import _license
from hexshards.publishing.options import LICENSES, license_of
from hexshards.publishing.publish import UNLICENSED

pytest.importorskip("pyarrow", reason="without pyarrow NOTHING OF PUBLISHING IS CHECKED")

URL = "hf://datasets/me/games"
ADDED = {"README.md", "preview/train.parquet", "preview/val.parquet"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("other"), games=10)


def publish(data, target, **options):
    return hexshards.publish(data, target, **{"license": "cc-by-4.0", **options})


def all_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_gets_the_dataset_as_it_is_and_what_others_need_beside_it(data, tmp_path):
    sent = publish(data, tmp_path / "out")
    there, index = all_of(tmp_path / "out"), hexshards.read_index(data)
    shards = {shard.name for split in index.splits.values() for shard in split.shards}
    assert set(there) == set(sent.files) == shards | {"index.json", "croissant.json"} | ADDED
    assert {name: there[name] for name in (*shards, "index.json")} == {
        name: (data / name).read_bytes() for name in (*shards, "index.json")
    }
    assert sent.sent[-1] == "index.json"
    assert hexshards.verify(tmp_path / "out").problems == ()
    assert sent.files == {name: len(file) for name, file in there.items()}


def test_what_is_published_twice_is_sent_once(data, tmp_path):
    publish(data, tmp_path / "out")
    assert publish(data, tmp_path / "out").sent == ()
    again = publish(data, tmp_path / "out", license="mit")
    assert set(again.sent) == {"README.md", "croissant.json", "index.json"}
    assert b'\nlicense: "mit"\n' in (tmp_path / "out" / "README.md").read_bytes()
    (tmp_path / "out" / "train-000003.tar").unlink()
    assert publish(data, tmp_path / "out", license="mit").sent == ("train-000003.tar", "index.json")


def test_what_was_cut_off_goes_on_and_nobody_finds_a_dataset_until_then(data, tmp_path):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    whole = publish(data, tmp_path / "whole" / "games")
    out = tmp_path / "cut" / "games"
    with pytest.raises(KeyboardInterrupt):
        publish(data, out, progress=stop)
    with pytest.raises(FileNotFoundError):
        hexshards.read_index(out)
    assert publish(data, out).sent == whole.sent[3:]
    assert all_of(out) == all_of(tmp_path / "whole" / "games")


def test_half_a_file_that_a_kill_left_goes_away_and_nobody_elses_does(data, tmp_path):
    out = tmp_path / "out"
    (out / "preview").mkdir(parents=True)
    left = [out / "train-000000.tar.host.name.77.partial", out / "preview" / "val.parquet.host.7.partial"]
    mine = [out / "notes.partial", out / ".partial"]
    for path in (*left, *mine):
        path.write_text("half")
    publish(data, out)
    assert [path.exists() for path in (*left, *mine)] == [False, False, True, True]
    assert not (out / ".publishing.lock").exists()


def test_two_do_not_publish_into_one_folder_at_once(data, tmp_path):
    told = []

    def meanwhile(done, total):
        if not told:
            told.append(call("publish", data, tmp_path / "out", "--license", "mit", code=2).stderr)

    publish(data, tmp_path / "out", progress=meanwhile)
    assert "something else is being published into this folder. Wait for it to end" in told[0]


def test_options_changed_after_a_cut_hold_for_all_that_is_written(data, tmp_path):
    def stop(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(data, tmp_path / "out", license="mit", progress=stop)
    # as many letters: the card is as long as the other
    publish(data, tmp_path / "out", license="isc")
    assert b'license: "isc"' in (tmp_path / "out" / "README.md").read_bytes()


def test_a_killed_publication_to_s3_goes_on(data, tmp_path, s3_bucket):
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served") as server:
        url, bucket = s3_bucket(server)
        server.fail("train-000007.tar", "stall")
        command = [sys.executable, "-m", "hexshards", "publish", str(data), f"{url}/games", "--license", "mit"]
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: ("PUT", "train-000007.tar") in [each[:2] for each in server.asked])
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert not (bucket / "games" / "index.json").exists()
        server.asked.clear()
        sent = publish(data, f"{url}/games", license="mit")
        put = [name for method, name, _ in server.asked if method == "PUT"]
        assert "train-000006.tar" not in put
        assert (put[0], put[-1]) == ("publishing.json", "index.json")
        assert all_of(bucket / "games").keys() == sent.files.keys()
        assert hexshards.verify(f"{url}/games").problems == ()


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(data, tmp_path):
    told = json.loads(call("publish", data, tmp_path / "out", "--license", "mit", "--dry-run", "--json").stdout)
    assert not (tmp_path / "out").exists()
    sent = publish(data, tmp_path / "out", license="mit")
    assert told["sent"] == list(sent.sent)
    assert told["files"] == dict(sent.files)
    assert (told["sent_bytes"], told["preview"]) == (sent.sent_bytes, {"train": 1117, "val": 192})
    said = call("publish", data, tmp_path / "third", "--license", "mit", "--dry-run").stdout
    assert "would be sent to" in said
    assert "train-000000.tar" in said


def test_a_dry_run_needs_no_license_and_asks_for_none(data, tmp_path, monkeypatch):
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr("hexshards.cli.publish_command.sys", SimpleNamespace(stdin=terminal, stderr=terminal))
    told = call("publish", data, tmp_path / "out", "--dry-run")
    assert "would be sent to" in told.stdout and "License that" not in told.stderr
    assert f"note: {UNLICENSED}\n" in told.stderr
    assert "License that others may use" in call("publish", data, tmp_path / "out", code=1).stderr
    assert not (tmp_path / "out").exists()


def test_a_card_that_somebody_edited_stays(data, tmp_path):
    publish(data, tmp_path / "out")
    card = tmp_path / "out" / "README.md"
    card.write_text(card.read_text().replace("## How to load it", "Made on a rainy day.\n\n## How to load it"))
    edited = card.read_bytes()
    again = publish(data, tmp_path / "out", license="mit")
    assert card.read_bytes() == edited
    assert any("README.md there is not as hexshards wrote it, and stays" in note for note in again.notes)


@pytest.fixture
def grown(tmp_path):
    """A dataset, its earlier state in the folder ``out``, and a file of games added since."""
    grown = dataset(tmp_path)
    publish(grown, tmp_path / "out")
    add(tmp_path, seed=7)
    return grown


def add(folder, *, seed, games=8):
    files = processed(folder / f"more{seed}", seed=seed, games=games)
    hexshards.convert(files, out=folder / "data", append=True)


def shards_of(folder):
    return {shard.name for split in hexshards.read_index(folder).splits.values() for shard in split.shards}


def test_a_dataset_that_grew_is_published_again_and_only_what_came_since_is_sent(grown, tmp_path):
    before = all_of(tmp_path / "out")
    new = shards_of(grown) - shards_of(tmp_path / "out")
    sent = publish(grown, tmp_path / "out")
    assert {name for name in sent.sent if name.endswith(".tar")} == new and new and sent.sent[-1] == "index.json"
    assert publish(grown, tmp_path / "out").sent == ()
    assert hexshards.verify(tmp_path / "out").problems == ()
    publish(grown, tmp_path / "afresh" / "out")
    after = all_of(tmp_path / "out")
    assert after == all_of(tmp_path / "afresh" / "out")
    assert {name for name in before if name.endswith(".tar")} <= {n for n in after if after[n] == before.get(n)}


def test_until_the_last_file_has_arrived_readers_find_the_earlier_state_whole(grown, tmp_path):
    earlier = hexshards.read_index(tmp_path / "out").fingerprint

    def stop(done, total):
        if done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(grown, tmp_path / "out", progress=stop)
    assert hexshards.read_index(tmp_path / "out").fingerprint == earlier
    assert hexshards.verify(tmp_path / "out").problems == ()
    # it grows once more before the publication goes on
    add(tmp_path, seed=8)
    publish(grown, tmp_path / "out")
    assert hexshards.read_index(tmp_path / "out").fingerprint == hexshards.read_index(grown).fingerprint
    assert hexshards.verify(tmp_path / "out").problems == ()


def test_a_first_publication_that_was_cut_off_goes_on_when_the_dataset_grew_meanwhile(tmp_path):
    grown, out = dataset(tmp_path), tmp_path / "out"

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(grown, out, progress=stop)
    arrived = {path.name for path in out.glob("*.tar")}
    add(tmp_path, seed=7)
    sent = publish(grown, out)
    assert arrived and not arrived & set(sent.sent)
    assert hexshards.verify(out).problems == ()


def test_shards_that_were_merged_since_stay_for_who_reads_them_and_are_named(grown, tmp_path):
    for seed in (8, 9):
        add(tmp_path, seed=seed, games=2)
    publish(grown, tmp_path / "out")
    earlier = shards_of(tmp_path / "out")
    call("compact", grown, "--keep", "0")
    again = publish(grown, tmp_path / "out")
    merged = earlier - shards_of(grown)
    assert merged and all((tmp_path / "out" / name).exists() for name in merged)
    assert any(f"{len(merged)} shards of the earlier state ({min(merged)} to" in note for note in again.notes)
    assert hexshards.verify(tmp_path / "out").problems == ()


def test_an_earlier_state_is_not_published_over_a_later_one(grown, tmp_path):
    earlier = dataset(tmp_path / "as_it_was")
    publish(grown, tmp_path / "out")
    with pytest.raises(FileExistsError, match="holds a later state of this dataset"):
        publish(earlier, tmp_path / "out")


def test_where_another_dataset_is_none_is_published(data, other, tmp_path):
    publish(other, tmp_path / "out")
    before = all_of(tmp_path / "out")
    with pytest.raises(FileExistsError, match="holds another dataset"):
        publish(data, tmp_path / "out")
    (tmp_path / "out" / "index.json").unlink()
    with pytest.raises(FileExistsError, match=r"holds train-000000.tar, and no dataset"):
        publish(data, tmp_path / "out")
    fingerprint = hexshards.read_index(other).fingerprint
    (tmp_path / "out" / "publishing.json").write_text(json.dumps({"fingerprint": fingerprint}))
    with pytest.raises(FileExistsError, match="holds a part of another dataset, whose publication was cut off"):
        publish(data, tmp_path / "out")
    assert {**before, "index.json": b""}.keys() >= all_of(tmp_path / "out").keys() - {"publishing.json"}


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("data", "is the dataset itself"),
        ("data/out", "lies inside the dataset"),
        ("link", "is the dataset itself"),
        ("file", "is a file"),
        ("file/out", "could not be written"),
        ("hf://datasets/me", "give hf://datasets/OWNER/NAME"),
        ("hf://me/games", "give hf://datasets/OWNER/NAME"),
        ("https://host/data", "datasets are published to s3, "),
    ],
)
def test_a_place_that_cannot_be_one_is_refused_in_a_sentence(data, tmp_path, target, fault):
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "file").touch()
    before = files_of(tmp_path / "data")
    place = target if "://" in target else tmp_path / target
    ended = call("publish", tmp_path / "data", place, "--license", "mit", code=1 if "written" in fault else 2)
    assert fault in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert files_of(tmp_path / "data") == before


@pytest.mark.parametrize("name", ["README.md", "croissant.json", "publishing.json"])
def test_a_pipe_in_the_place_of_a_text_is_refused_and_not_waited_for(data, tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(hexshards.DataError, match=rf"{name}: is no regular file. Remove it, or choose another folder"):
        publish(data, tmp_path)


def test_a_full_disk_is_told_and_leaves_nothing_half_written(data, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        ended = call("publish", data, tmp_path / "out", "--license", "mit", code=1)
    assert "could not be written (No space left on device). Look at the disk" in ended.stderr
    assert all_of(tmp_path / "out") == {}
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
        ended = call("publish", data, tmp_path / "out", "--license", "mit", code=1)
    assert "are to be written, and 0 B are free there" in ended.stderr
    publish(data, tmp_path / "out")


def test_a_shard_that_is_not_what_the_index_says_is_not_published(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    spoiled = tmp_path / "data" / "val-000000.tar"
    raw = bytearray(spoiled.read_bytes())
    raw[-1] ^= 1  # behind the last block, where no checksum of a block is
    spoiled.write_bytes(raw)
    for target in (tmp_path / "out", URL):
        with hub(), pytest.raises(hexshards.DataError, match=r"val-000000.tar: its SHA-256 is"):
            publish(tmp_path / "data", target)
    assert not (tmp_path / "out" / "val-000000.tar").exists()
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_license_must_be_given_by_a_name_that_is_known(data, tmp_path):
    assert "; none was given" in call("publish", data, tmp_path / "out", code=2).stderr
    said = call("publish", data, tmp_path / "out", "--license", "cc-by-4", code=2).stderr
    assert "Did you mean cc-by-4.0" in said
    assert "odbl" in call("publish", data, tmp_path / "out", "--license", "xyzzy", code=2).stderr
    assert not (tmp_path / "out").exists()


def test_a_license_may_be_spelled_as_spdx_spells_it_and_a_wrong_answer_is_asked_for_again():
    spelled = ["CC-BY-4.0", "MIT", "GPL-3.0-or-later", "CC BY 4.0"]
    assert [license_of(name) for name in spelled] == ["cc-by-4.0", "mit", "gpl-3.0", "cc-by-4.0"]
    assert [license_of(name.upper()) for name in LICENSES] == list(LICENSES)
    answers = typer.Typer()
    answers.command()(lambda: typer.echo(f"took {typer.prompt('License', value_proc=_license)}"))
    assert "took odbl" in CliRunner().invoke(answers, input="gnome\nODbL\n").output


def test_where_to_go_on_is_said_after_publishing(data, tmp_path):
    said = call("publish", data, tmp_path / "my data", "--license", "mit").stdout
    place = f"'{tmp_path / 'my data'}'"
    assert f"next: hexshards info {place}, or hf upload-large-folder OWNER/NAME {place} --repo-type dataset" in said


def test_no_password_comes_into_what_is_written_or_said(data, tmp_path, s3_bucket):
    page = "https://me:hunter2@host/games?token=hunter2"
    sent = publish(data, tmp_path / "out", homepage=page, creator="me", name="see https://me:hunter2@host")
    assert not any(b"hunter2" in file for file in all_of(tmp_path / "out").values())
    assert "hunter2" not in str(sent)


def test_the_hub_gets_a_card_at_its_top_and_no_metadata_that_it_makes_itself(data):
    with hub() as there:
        publish(data, URL)
        names = {name.removeprefix("me/games/") for name in there.files}
        assert names == {*files_of(data), *ADDED} - {"rejects.jsonl"}
        card = there.files["me/games/README.md"].decode()
    assert 'load_dataset("me/games", split="train")' in card
    assert f'hexshards.loader("{URL}"' in card


@pytest.mark.parametrize(("status", "attempts"), [(403, 1), (429, 2)])
def test_what_the_hub_refuses_is_told_at_once_and_what_it_may_take_later_is_tried_again(
    data, monkeypatch, status, attempts
):
    class Refused(Exception):
        response = SimpleNamespace(status_code=status)

    def refuse(self, *arguments, **options):
        asked.append(arguments)
        if len(asked) < 2 or status == 403:
            raise Refused("You do not have write access")
        return put(self, *arguments, **options)

    asked, put = [], Hub.put_file
    monkeypatch.setattr(Hub, "put_file", refuse)
    with hub():
        if status == 403:
            with pytest.raises(hexshards.DataError, match=r"could not be written, 1 attempt in .* write access"):
                publish(data, URL)
            assert len(asked) == attempts
        else:
            publish(data, URL)
            assert asked[0] == asked[1]


def test_a_place_that_is_not_there_is_named(data, monkeypatch):
    def missing(self, *arguments, **options):
        raise FileNotFoundError("me/games")

    monkeypatch.setattr(Hub, "put_file", missing)
    with (
        hub(),
        pytest.raises(hexshards.DataError, match=r"there is no place to write it. Make the bucket or the repository"),
    ):
        publish(data, URL)


def test_what_is_missing_to_publish_with_is_named(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ended = call("publish", data, tmp_path / "out", "--license", "mit", code=2)
    assert "pip install 'hexshards[publish]'" in ended.stderr
    assert not Path(tmp_path / "out").exists()
