"""The command line as people give it: counts, options from a file, little or much said, what a slip may have meant."""

from __future__ import annotations

import json
import tomllib

import pytest
from helpers.cli import call
from helpers.small_data import CUT, processed
from typer.testing import CliRunner

import hexshards
from hexshards.cli.app import app
from hexshards.conversion.convert import convert

SMALL = ("--channels", 4, "--blocks", 1, "--batch-size", 64, "--warmup-samples", 0, "--diagnose", 0, "--threads", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    convert(processed(folder / "files", games=30), out=folder / "data", **CUT)
    return folder / "data"


def text_of(result):
    """What a person reads, without the lines of a box and its breaks."""
    return " ".join(result.output.replace("│", " ").split())


def test_the_version_is_said():
    assert call("--version").output == f"hexshards {hexshards.__version__}\n"


def test_shells_complete_commands_and_options():
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "--install-completion" in shown and "--show-completion" in shown


@pytest.mark.parametrize("written", ["20", "0.02k", "2e1", "2_0"])
def test_a_count_is_taken_as_people_write_it(written, tmp_path):
    assert "20 games in" in call("synth", "--games", written, "--side", 4, "--out", tmp_path / "a").output
    assert "20 games in" in call("synth", f"--games={written}", "--side=4", "--out", tmp_path / "b").output


@pytest.mark.parametrize("written", ["twenty", "20x", "0.5", "1,00"])
def test_what_is_no_count_is_refused_with_how_it_is_written(written, tmp_path):
    ended = call("synth", "--games", written, "--out", tmp_path, code=2)
    assert f"--games must be a whole number like 200000, 200k, 1.5M or 1e6, got {written}" in text_of(ended)


def test_text_that_looks_like_a_count_stays_as_it_is(data, tmp_path):
    ended = call("info", "1e3", code=2)
    assert "1e3" in ended.output and "1000" not in ended.output


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        (["trian"], "train"),
        (["train", "x", "--run", "r", "--lerning-rate", "1"], "--learning-rate"),
        (
            ["convert", "x", "--out", "o", "--codec", "zst"],
            "'--codec': 'zst' is not one of 'zstd', 'none'. Did you mean zstd?",
        ),
        (["train", "x", "--run", "r", "--grow", "4"], "--grow': '4' is not one of"),
    ],
)
def test_a_slip_is_answered_with_what_may_be_meant(slip, meant):
    assert meant in text_of(call(*slip, code=2))


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        (["info", "{}/dta"], "Did you mean data?"),
        (["plot", "{}/rnu"], "Did you mean run?"),
        (["convert", "{}/flies", "--out", "{}/out"], "Did you mean files?"),
        (["train", "{}/data", "--run", "{}/new", "--where", "plly=3..4"], "Did you mean ply?"),
        (["info", "{}/nothing-like-it"], "Make one with `hexshards convert`"),
    ],
)
def test_a_path_or_a_name_that_is_not_there_is_answered_with_the_nearest(command, meant, data):
    (data.parent / "run").mkdir(exist_ok=True)
    (data.parent / "run" / "metrics.jsonl").touch()
    ended = call(*(word.format(data.parent) for word in command), code=2)
    assert meant in ended.output


A_FOLDER_OF_CHECKPOINTS = " is a folder: name a checkpoint in it, such as checkpoint_epoch0001_mini0002.pt"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("train {0}/data --run {1}/new --resume {1}/bets.pt", "{1}/bets.pt: no such file. Did you mean best.pt?"),
        ("train {0}/data --run {1}/new --resume {1}", "{1} is a folder: name a checkpoint in it, such as best.pt"),
        ("train {0}/data --run {1}/new --init-from {1}/no.pt", "{1}/no.pt: no such file"),
        ("train {0}/data --run {1}/new --init-from {1}", "{1} is a folder: name a checkpoint in it, such as best.pt"),
        (
            "train {0}/data --run {1}/new --init-from {0}",
            "{0} is a folder: it holds no checkpoint; name a file",
        ),
        ("train {0}/data --run {1}/new --init-from {1}/checkpoints", "{1}/checkpoints" + A_FOLDER_OF_CHECKPOINTS),
        ("train {0}/data --run {1}/new --resume {1}/checkpoints", "{1}/checkpoints" + A_FOLDER_OF_CHECKPOINTS),
        ("export {1}/checkpoints --format hex_ai --out {1}", "{1}/checkpoints" + A_FOLDER_OF_CHECKPOINTS),
        ("train {0}/data --run {1}/new --model no:network", "model no:network cannot be found: No module named 'no'"),
        ("export {1}/bets.pt --format hex_ai --out {1}", "{1}/bets.pt: no such file. Did you mean best.pt?"),
        ("export {1} --format state-dict --out {1}", "{1} is a folder: name a checkpoint in it, such as best.pt"),
        ("show {0}/data --split test", "{0}/data: has no split 'test'. It has train, val"),
        ("mixing {0}/data --split test", "{0}/data: has no split 'test' (only train, val). Name one of these"),
        ("convert {0}/files --out {1}/best.pt", "is a file, where a folder is needed"),
        ("report {0}/data --out {1}/folder.html", "{1}/folder.html is a folder, where a file is needed"),
    ],
)
def test_a_path_of_another_kind_than_is_asked_for_is_wrong_usage(command, told, data, tmp_path):
    (tmp_path / "best.pt").touch()
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "checkpoints").mkdir()
    for number in (1, 2):
        (tmp_path / "checkpoints" / f"checkpoint_epoch0001_mini000{number}.pt").touch()
    ended = call(*command.format(data.parent, tmp_path).split(), code=2)
    assert f"error: {told.format(data.parent, tmp_path)}" in ended.output or told in ended.output
    # but for a checkpoint, which is looked for in the run, all is refused before anything is written
    assert not (tmp_path / "new").exists() or "--resume" in command


def test_every_run_writes_the_file_that_repeats_it(data, tmp_path, monkeypatch):
    one, again = tmp_path / "one", tmp_path / "again"
    monkeypatch.chdir(data.parent)
    call("train", "data", "--run", one, *SMALL, "--max-samples", "0.2k", "--seed", 3)
    config = tomllib.loads((one / "config.toml").read_text())
    assert (config["data"], config["seed"], config["max_samples"]) == (str(data), 3, 200)
    assert not {"run", "resume"} & config.keys()
    monkeypatch.chdir(one)
    call("train", "--config", "config.toml", "--run", again)
    assert losses(one) == losses(again)


def losses(run):
    return [json.loads(line)["train"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_command_line_wins_over_the_file_of_options(data, tmp_path):
    options = tmp_path / "options.toml"
    options.write_text(f'data = "{data}"\nmax_samples = "0.1k"\nchannels = 4\nblocks = 1\nseed = 5\ndiagnose = 0\n')
    call("train", "--config", options, "--run", tmp_path / "run", "--seed", 6, "--batch-size", 64, "--threads", 1)
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (config["seed"], config["channels"], config["max_samples"]) == (6, 4, 100)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("lerning_rate = 1", "no option of `hexshards train`: lerning_rate. Did you mean learning_rate"),
        ("quiet = true", "no option of `hexshards train`: quiet"),
        ("seed = [1]", "seed must be a number, a text, true or false"),
        ('epochs = "many"', "epochs must be a whole number like"),
        ("seed =", "is not TOML"),
        (None, "no such file"),
    ],
)
def test_a_file_of_options_that_is_wrong_is_refused_by_name(held, said, tmp_path):
    options = tmp_path / "o.toml"
    if held is not None:
        options.write_text(held)
    ended = call("train", "--config", options, "--run", tmp_path / "run", code=2)
    assert said.replace(" ", "") in text_of(ended).replace(" ", "")
    assert not (tmp_path / "run").exists()


def test_quiet_leaves_the_result_and_the_log_has_every_line(data, tmp_path):
    run = tmp_path / "run"
    ended = call("train", data, "--run", run, *SMALL, "--max-samples", 200, "-q")
    assert ended.output.startswith("ended after 256 samples")
    log = (run / "log.txt").read_text()
    assert f"hexshards {hexshards.__version__}: " in log and "mini-epoch 1" in log and "parameters" in log
    assert "ended after 256 samples" in log
    more = call("train", data, "--run", run, *SMALL, "--max-samples", 300)
    assert "mini-epoch 2" in more.output
    assert (run / "log.txt").read_text().startswith(log)


def test_a_run_that_fails_has_its_error_in_the_log(data, tmp_path):
    told = call("train", data, "--run", tmp_path, *SMALL, "--learning-rate", "1e30", code=1)
    assert "Lower the learning rate" in told.output
    assert "Lower the learning rate" in (tmp_path / "log.txt").read_text()


def test_verbose_shows_where_an_error_arose(tmp_path):
    assert "Traceback" not in call("info", tmp_path, code=2).output
    assert "Traceback" in call("info", tmp_path, "-v", code=2).output


def test_a_folder_that_another_run_uses_gets_no_lines_of_this_one(data, tmp_path):
    from hexshards.training.checkpointing.run_folder import RunFolder

    with RunFolder(tmp_path / "run").held():
        call("train", data, "--run", tmp_path / "run", *SMALL, code=2)
    assert not (tmp_path / "run" / "log.txt").exists() and not (tmp_path / "run" / "config.toml").exists()
