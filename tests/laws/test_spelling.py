"""What a command says reaches any terminal and any file: escaped where it must be, and a line stays a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer import Exit

from hexshards.cli import display
from hexshards.cli.console import told
from hexshards.errors import DataError, WorkerDied, escaped

HOSTILE = os.fsdecode(b"caf\xe9\x1b[31m\n")
SHOWN = r"caf\udce9\x1b[31m\n"

COMMANDS = """
import json, sys
from hexshards.cli.app import main
expected, commands = json.loads(sys.argv[1])
codes = []
for command in commands:
    sys.argv = ["hexshards", *command]
    try:
        main()
    except SystemExit as end:
        codes.append(end.code)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        stream.buffer.write(b"\\0")
        stream.buffer.flush()
sys.exit(0 if codes == expected else f"exit codes {codes}")
"""
"""Many commands in one process, as each of them would import torch."""

SMALL = ["--channels", "4", "--blocks", "1", "--batch-size", "64", "--mini-epoch-samples", "128"]
SHORT = ["--max-samples", "256", "--threads", "1"]
SWEEP = """
trials = 1
[search]
channels = [4]
[fixed]
blocks = 1
batch_size = 64
max_samples = 128
mini_epoch_samples = 128
diagnose = 0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("spelling") / HOSTILE
    try:
        made.mkdir()
    except OSError:
        pytest.skip("this filesystem takes no names that are not UTF-8, so what they do is NOT CHECKED")
    return made


def said(encoding, commands):
    """What commands write to stdout and to stderr, as text: a list of pairs; their exit codes are as given."""
    expected, given = zip(*commands, strict=True)
    arguments = json.dumps([expected, [list(map(str, command)) for command in given]])
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", COMMANDS, arguments], env=environment, capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")
    out, err = (
        [each.decode(encoding.partition(":")[0]) for each in stream.split(b"\0")]
        for stream in (ended.stdout, ended.stderr)
    )
    return list(zip(out[:-1], err[:-1], strict=True))


def everything(folder):
    """Commands by what they are for, with the exit codes they have in a folder with a plain name."""
    data, run, config = folder / "data", folder / "run", folder / "sweep.toml"
    config.write_text(SWEEP)
    broken = folder / f"{HOSTILE}.pkl.gz"
    broken.write_bytes(b"nothing")
    train = ["train", data, "--run", run, *SMALL, *SHORT]
    return {
        "synth": (0, ["synth", "--out", folder / "games", "--games", "30", "--side", "5"]),
        "convert": (0, ["convert", folder / "games", "--out", data, "--val-fraction", "0.3", "--workers", "1"]),
        "estimate": (0, ["convert", folder / "games", "--out", folder / "other", "--dry-run"]),
        "estimate as JSON": (0, ["convert", folder / "games", "--out", folder / "other", "--dry-run", "--json"]),
        "info": (0, ["info", data]),
        "info as JSON": (0, ["info", data, "--json"]),
        "verify": (0, ["verify", data]),
        "show": (0, ["show", data, "-n", "1"]),
        "train": (0, [*train, "--tensorboard"]),
        "train that is over": (0, train),
        "rehearsal": (0, ["train", data, "--run", folder / "new", "--dry-run", "--threads", "1", *SMALL]),
        "plot": (0, ["plot", run, "--out", folder / "plot.png"]),
        "sweep": (0, ["sweep", data, "--config", config, "--out", folder / "sweep"]),
        "a file that is damaged": (3, ["convert", broken, "--out", folder / "other"]),
        "no dataset": (2, ["info", folder / "none"]),
        "no files": (2, ["convert", folder / "none", "--out", folder / "other"]),
        "a folder that is not empty": (2, ["demo", "--out", folder]),
        "no option": (2, ["info", data, f"--{HOSTILE}"]),
        "a word too many": (2, ["info", data, HOSTILE]),
    }


@pytest.fixture(scope="module")
def everything_said(folder):
    """What each command says where no more than ASCII can be shown."""
    commands = everything(folder)
    return dict(zip(commands, said("ascii", commands.values()), strict=True))


def assert_one_line_each(told_by):
    for name, (out, err) in told_by.items():
        assert "Traceback" not in out + err, name
        assert "\x1b" not in out + err, name
        for line in () if name.endswith("JSON") else (out + err).splitlines():
            # typer escapes in its own way
            assert line.count("caf") == line.replace(r"\x0a", r"\n").count(SHOWN), (name, line)


def test_every_command_goes_on_in_ascii_in_a_folder_whose_name_is_neither_utf8_nor_one_line(folder, everything_said):
    assert_one_line_each(everything_said)
    assert f"dataset: {folder.parent}/{SHOWN}/data" in everything_said["convert"][0].splitlines()
    assert f"best {folder.parent}/{SHOWN}/run/best.pt" in everything_said["train"][0].splitlines()
    ended = f"nothing left to train: the run ended with {folder.parent}/{SHOWN}/run/checkpoints/"
    assert ended in everything_said["train that is over"][1]


def test_what_is_written_in_such_a_folder_is_there(folder, everything_said):
    for made in ("data/index.json", "run/metrics.jsonl", "plot.png", "sweep/sweep.db", "sweep/sweep.png"):
        assert (folder / made).stat().st_size, made
    assert [each.stat().st_size > 100 for each in (folder / "run" / "tensorboard").iterdir()] == [True]


def test_results_for_programs_stay_json_and_name_the_folder_as_it_is(folder, everything_said):
    assert json.loads(everything_said["estimate as JSON"][0])["out"] == str(folder / "other")
    assert json.loads(everything_said["info as JSON"][0])["layout"]["side"] == 5


@pytest.mark.parametrize(("encoding", "empty", "lowest"), [("cp1252", "·", "1"), ("utf-8:strict", "·", "▁")])
def test_what_a_terminal_cannot_show_is_spelled_out(folder, everything_said, encoding, empty, lowest):
    commands = everything(folder)
    some = ["info", "show", "plot", "a file that is damaged", "no option"]
    told_by = dict(zip(some, said(encoding, [commands[name] for name in some]), strict=True))
    assert_one_line_each(told_by)
    assert lowest in told_by["plot"][0].splitlines()[1]
    # a board keeps its shape
    there = told_by["show"][0]
    assert empty in there
    assert there.replace(empty, ".") == everything_said["show"][0]


# the parts -----------------------------------------------------------------------------------------------------------


def test_an_error_is_one_line_whatever_it_names():
    error = DataError(f"found {HOSTILE}", where=f"/data/{HOSTILE}", fix=f"Rename {HOSTILE}")
    assert str(error) == f"/data/{SHOWN}: found {SHOWN}. Rename {SHOWN}"
    assert error.where == f"/data/{SHOWN}"


def test_what_is_escaped_once_stays_as_it_is():
    assert escaped(HOSTILE) == SHOWN == escaped(SHOWN)
    assert escaped(Path("/plain/naïve folder")) == "/plain/naïve folder"


@pytest.mark.parametrize(("say", "stream"), [(display.say, "out"), (display.warn, "err")])
def test_what_is_said_has_no_control_characters_but_its_own_breaks(capsys, say, stream):
    say("first\x1b[2J\nsecond\r")
    assert getattr(capsys.readouterr(), stream) == "first\\x1b[2J\nsecond\\r\n"


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, OSError, WorkerDied, MemoryError])
def test_an_error_of_any_kind_is_told_in_one_line(capsys, error):
    with pytest.raises(Exit), told():
        raise error(f"{HOSTILE}: is none. Name another")
    assert capsys.readouterr().err == f"error: {SHOWN}: is none. Name another\n"


def test_a_result_for_programs_stays_json_whatever_is_in_it(capsys):
    result = {"name": "".join(map(chr, range(256))) + HOSTILE}
    display.say(display.json_line(result))
    assert json.loads(capsys.readouterr().out) == result
