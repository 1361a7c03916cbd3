from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.small_data import dataset, processed
from helpers.small_server import serving
from typer.testing import CliRunner

import hexshards
from hexshards.cli.app import app
from hexshards.conversion.convert import convert
from hexshards.errors import DataError, without_secrets
from hexshards.options import as_recorded
from hexshards.training.checkpointing.checkpoint_file import check_fits, read
from hexshards.training.options import TrainSpec

pytest.importorskip("aiohttp", reason="without aiohttp NOTHING OF READING FROM URLS IS CHECKED")

SECRET = "s3cret-canary"
TINY = ["--channels", "4", "--blocks", "1", "--diagnose", "0"]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"http://me:{SECRET}@host/d", "http://host/d"),
        (f"https://{SECRET}@host:80/d", "https://host:80/d"),
        (f"http:/me:{SECRET}@host/d", "http:/host/d"),
        (f"https://me:a/{SECRET}@host/d", "https://host/d"),
        (f"s3://k:{SECRET}@b/x?X-Amz-Signature={SECRET}: is gone", "s3://b/x?...: is gone"),
        (f"url='https://host/x?a={SECRET}&b=1'", "url='https://host/x?...'"),
        (f"https://host/d#{SECRET}", "https://host/d?..."),
        (f"http://me:{SECRET}@a/d=0.2,http://me:{SECRET}@b/e=0.1", "http://a/d=0.2,http://b/e=0.1"),
        ("hf://datasets/owner/name@main/d and s3://b/x@y", "hf://datasets/owner/name@main/d and s3://b/x@y"),
        (f"http://me:{SECRET},x@host/d", "http://host/d"),
        (f"http://me:a {SECRET}@host/d is gone", "http://host/d is gone"),
        (f"http://me:'{SECRET}\"@host/d", "http://host/d"),
        (f"http://me:12/{SECRET}@host/d", "http://host/d"),
        (f"http://me:12,{SECRET}@host/d", "http://host/d"),
        (f"http://a.org:80/d=0.2,http://me:1,{SECRET}@b/e=0.1", "http://a.org:80/d=0.2,http://b/e=0.1"),
        ("http://nas.org:80/d is gone, ask me@host", "http://nas.org:80/d is gone, ask me@host"),
        ("s3://bucket: no credentials, ask me@host", "s3://bucket: no credentials, ask me@host"),
        ("http://host:80, http://host:81: ask me@host", "http://host:80, http://host:81: ask me@host"),
        ("https://host.org:8080/a@b/c", "https://host.org:8080/a@b/c"),
        ("http://localhost:80/a@b and http://[::1]:80/a@b", "http://localhost:80/a@b and http://[::1]:80/a@b"),
        (f"//me:{SECRET}@host/d: not there", "//host/d: not there"),
        (f"'/me:a/{SECRET}@host/d' and //me:a {SECRET}@host/d", "'/host/d' and //host/d"),
        (f"B=0.2,//me:{SECRET}@host/d=0.1", "B=0.2,//host/d=0.1"),
        ("//nas.org:80/d is gone, ask me@host", "//nas.org:80/d is gone, ask me@host"),
        ("/data/a:b/c@d and /data: ask me@host", "/data/a:b/c@d and /data: ask me@host"),
        ("a folder/with@signs?", "a folder/with@signs?"),
    ],
)
def test_urls_in_any_text_lose_what_is_secret_and_nothing_else(text, clean):
    assert without_secrets(text) == clean


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    dataset(root)
    shutil.copytree(dataset(root / "b", seed=1), root / "more")
    with serving(root) as server:
        yield server


def with_user(server, name, secret=SECRET):
    return f"{server.url.replace('//', f'//me:{secret}@')}/{name}"


def assert_untold(text):
    assert SECRET not in text, text[max(0, text.index(SECRET) - 200) :][:400]


def test_no_command_tells_logs_or_keeps_a_secret(served, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    caplog.set_level("DEBUG")
    data, more, nothing = (with_user(served, name) for name in ("data", "more", "nothing"))
    in_bucket = f"s3://me:{SECRET}@bucket/d"
    signed, squeezed = f"https://host/d?X-Amz-Signature={SECRET}", f"https:/me:{SECRET}@host/d"
    bare, rooted = f"//me:{SECRET}@host/d", f"/me:{SECRET}@host/d"
    (tmp_path / "sweep.toml").write_text("trials = 1\n[search]\nlearning_rate = [0.1]\n[fixed]\nchannels = 4\n")
    train = ["train", data, "--run", "run", *TINY]
    commands = [
        ["info", data],
        ["info", data, "--json"],
        ["verify", data, "--leakage", "--cache", "mine"],
        ["mixing", data, "--batch-size", "64"],
        ["show", data],
        [*train, "--dry-run"],
        [*train, "--mix", f"{more}=0.2", "--tensorboard"],
        [*train, "--mix", f"{more}=0.2", "--epochs", "2"],
        ["sweep", nothing, "sweep.toml", "--out", "sweep"],
        ["convert", data, "--out", "out"],
        ["convert", str(processed(tmp_path / "games", games=3)), "--out", data],
        ["convert", str(tmp_path / "games"), "--out", in_bucket, "--append"],
        ["convert", str(tmp_path / "games"), "--out", in_bucket],
        ["synth", "--games", "2", "--out", data],
        ["convert", str(tmp_path / "games"), "--out", signed, "--dry-run"],
        ["plot", data],
    ]
    commands += [["train", data, "--run", "other", "--mix", mix] for mix in (more, f"{more}=2", f"{signed}=0.1,{more}")]
    looking = ("info", "verify", "mixing", "show", "bench")
    commands += [[name, url] for name in looking for url in (nothing, signed, squeezed, in_bucket, bare, rooted)]
    for path in (bare, rooted):
        commands += [["convert", path, "--out", "out"], ["plot", path], ["train", path, "--run", "other"]]
    said = [CliRunner().invoke(app, command) for command in commands]
    for result in said:
        assert_untold(result.output)
        assert result.exit_code in (0, 1, 2), (result.output, result.exception)
    assert [result.exit_code for result in said[:8]] == [0] * 8, [result.output for result in said[:8]]
    assert_untold(caplog.text)
    for path in tmp_path.rglob("*"):
        assert SECRET not in str(path.relative_to(tmp_path))
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    options = read(max(tmp_path.glob("run/checkpoints/*.pt")))["options"]
    assert options["data"] == f"{served.url}/data"
    assert options["mix"] == f"{served.url}/more=0.2"

    # the credential changes, and the run goes on
    again = ["train", with_user(served, "data", "new"), "--run", "run", *TINY, "--epochs", "3"]
    result = CliRunner().invoke(app, [*again, "--mix", f"{with_user(served, 'more', 'new')}=0.2"])
    assert result.exit_code == 0, result.output
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_run_of_version_0_1_that_kept_a_password_goes_on(tmp_path):
    options = as_recorded(TrainSpec(data=tmp_path, run=tmp_path, mix="http://host/b=0.2"))
    old = {**options, "mix": f"http://me:{SECRET}@host/b=0.2"}
    check_fits({"format": 1, "dataset": "d", "options": old}, dataset="d", options=options, where=tmp_path)
    with pytest.raises(DataError) as caught:
        given = {**options, "mix": "http://host/c=0.2"}
        check_fits({"format": 1, "dataset": "d", "options": old}, dataset="d", options=given, where=tmp_path)
    assert_untold(str(caught.value))


@pytest.mark.parametrize(
    "call",
    [
        lambda url, folder: hexshards.loader(url),
        lambda url, folder: hexshards.loader({url: 1.0, str(folder): 1.0}),
        lambda url, folder: hexshards.verify(url),
        lambda url, folder: hexshards.read_index(url),
        lambda url, folder: hexshards.train(TrainSpec(data=url, run=folder / "run")),
        lambda url, folder: convert([url], out=folder / "out"),
        lambda url, folder: convert([folder], out=url),
        lambda url, folder: convert([folder], out=url, append=True),
    ],
)
@pytest.mark.parametrize("place", ["nothing", "squeezed", "signed", "s3"])
def test_no_call_raises_a_secret(served, tmp_path, monkeypatch, call, place):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = {
        "nothing": with_user(served, "nothing"),
        "squeezed": f"http:/me:{SECRET}@host/d",
        "signed": f"https://me:{SECRET}@host/d?sig={SECRET}",
        "s3": f"ftp://me:{SECRET}@bucket/d",
    }[place]
    with pytest.raises((ValueError, OSError, DataError)) as caught:
        call(url, tmp_path)
    # as a traceback shows it, with what it came from
    assert_untold("".join(caught.value.__class__.__mro__[0].__name__) + str(caught.value))
    import traceback

    shown = traceback.format_exception(caught.value)
    assert_untold("".join(line for line in shown if not line.startswith("  File")))


def test_neither_the_loader_nor_its_home_shows_a_secret(served, tmp_path):
    loader = hexshards.loader(with_user(served, "data"), cache=Path(tmp_path))
    assert_untold(f"{loader.home} {loader.home!r} {loader.state_dict()} {loader.describe()}")


def test_a_folder_to_write_to_is_no_url_and_nothing_is_made_of_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = f"https://me:{SECRET}@host/d"
    (tmp_path / "sweep.toml").write_text("[search]\nseed = [1]\n")
    commands = [
        ["train", "data", "--run", url],
        ["train", "data", "--run", "run", "--cache", url],
        ["sweep", "data", "sweep.toml", "--out", url],
        ["synth", "--out", url],
        ["demo", "--out", url],
    ]
    commands[2].insert(2, "--config")
    for command in commands:
        result = CliRunner().invoke(app, command)
        assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
        assert "on this machine" in result.output and "host/d is a URL" in result.output
        assert_untold(result.output)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.toml"]


def test_a_database_of_a_sweep_that_cannot_be_opened_is_one_line_without_its_password(tmp_path, monkeypatch):
    pytest.importorskip("optuna", reason="without optuna THE PASSWORD OF A SWEEP'S DATABASE IS NOT CHECKED")
    from hexshards.sweeps import trials
    from hexshards.sweeps.options import SweepSpec

    monkeypatch.setattr(trials, "_WAIT_S", 0)
    url = f"sqlite:////nowhere/{SECRET}/sweep.db"
    data = dataset(tmp_path)
    with pytest.raises(ConnectionError, match="the sweep's database cannot be opened") as caught:
        hexshards.sweep(data, {"search": {"seed": [1]}, "storage": url}, out=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert_untold(repr(SweepSpec(search={"seed": (1,)}, storage=url)))
    words = trials._without_password("denied to s3cr t-canary at s3cr%20t-canary", "mysql://me:s3cr%20t-canary@host/db")
    assert words == "denied to ... at ..."
