"""What the commands take: every option by its name, with its default."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import typer
from typer.testing import CliRunner

from hexshards.cli.app import app

COMMANDS = typer.main.get_command(app).commands

SURFACE = {
    "convert": "SOURCES; --out!; --val-fraction=0.02; --test-fraction=0.0; --seed=0; --shard-positions=262144; "
    "--block-positions=8192; --codec=zstd; --positions=all; --unfinished=reject; --side; --games=; --v1-value=check; "
    "--keep-duplicates; "
    "--bake-symmetries; --dedupe=none; --workers; --engine=local; --max-rejects=0; --memory=2GiB; --generation; "
    "--shard-ranges=; --append; --dry-run; --json",
    "watch": "INBOX; --dataset!; --every=30s; --once; --val-fraction=0.02; --test-fraction=0.0; --seed=0; "
    "--shard-positions=262144; --block-positions=8192; --codec=zstd; --positions=all; --unfinished=reject; --side; "
    "--games=; --v1-value=check; "
    "--keep-duplicates; --bake-symmetries; --dedupe=none; --workers; --max-rejects=0; --memory=2GiB; --json",
    "compact": "DATASET; --keep=1; --held-out; --dry-run; --json",
    "info": "DATASET; --where=; --sources=; --shards=; --window=; --per-game; --json",
    "verify": "DATASET; --leakage; --cache; --json",
    "mixing": "DATASET; --batch-size=1024; --split=train; --seed=0; --shuffle/--no-shuffle=True; --streams=1; "
    "--where=; --sources=; --shards=; --window=; --per-game; --cache; --json",
    "bench": "DATASET; --batch-size=256; --device=auto; --channels; --blocks; --threads; --cache; --json",
    "show": "DATASET; -n=3; --split=train; --svg; --cache",
    "report": "DATASET; runs; --out=report.html; --sample=400000; --seed=0; --cache; --json",
    "publish": "DATASET; TARGET; --license=; --name; --creator; --homepage; --preview=10000; --dry-run; --json",
    "train": "DATASET; --run!; --dry-run; --overfit-batch; --tensorboard; --also-save; --config; "
    "--optimizer=adamw; --learning-rate=0.001; --momentum=0.9; --weight-decay=0.0001; "
    "--value-learning-rate-factor=1.0; --value-weight-decay-factor=1.0; --clip-norm=0.0; "
    "--policy-weight=0.15; --value-weight=0.85; --moves-left-weight=0.1; --search-value-weight=0.3; "
    "--value-target=result; --loss-schedule=; --value-target-schedule=; --value-loss=bce; "
    "--heads=policy,value; --value-output=logit; --ema=0.0; --schedule=constant; "
    "--warmup-samples=20000; --schedule-samples=0; --schedule-factor=0.1; --precision=float32; "
    "--accumulate=1; --compile; --channels-last/--no-channels-last; --mini-epoch-samples=200000; --mini-epoch-batches; "
    "--cross-epochs; --grow=epoch; --samples-per-position; --val-every=1; --val-samples; --diagnose=8192; --epochs=1; "
    "--max-samples; "
    "--max-time; --patience; --best-by=val.loss; --min-improvement=0.0; --keep-last; --keep-every; "
    "--batch-size=256; --channels=32; --blocks=4; --dropout=0.0; --model; --model-args=; --init-from; "
    "--augment=random; --policy-target=played; --seed=0; --num-workers=0; --threads; --streams=1; --drop-last; --mix=; "
    "--mix-schedule=; --where=; --positions; --window=; --per-game; --sources=; --shards=; --weights=; "
    "--on-error=raise; --cache; --device=auto; "
    "--resume=auto",
    "evaluate": "CHECKPOINT; --dataset; --split=test; --model; --model-args=; --device=auto; --cache; --json",
    "sweep": "DATASET; --config!; --out!; --trials; --json",
    "plot": "RUNS; --out",
    "runs": "FOLDERS; --json",
    "export": "CHECKPOINT; --format!; --out!; --model; --model-args=; --side; --ema",
    "synth": "--out!; --games=2000; --format=processed; --side=13; --seed=0",
    "demo": "--out=demo",
}
"""Every command and what it takes: REQUIRED, --option=default, --option where it is left out or a switch that is off.

A change here is a change for every user."""


IN_ALL = ["--quiet", "--verbose"]
"""What every command takes at its end."""


def taken(parameter):
    """A parameter of a command as SURFACE has it."""
    name = "/".join([parameter.opts[0], *parameter.secondary_opts])
    if parameter.required:
        return name.upper() if not name.startswith("-") else f"{name}!"
    return name if parameter.default is None or parameter.default is False else f"{name}={parameter.default}"


def help_of(*command, columns=200):
    width = str(columns)
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": width, "TERMINAL_WIDTH": width})
    assert result.exit_code == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", result.output)


def test_the_commands_their_options_and_defaults_are_those_users_know():
    surface = {
        name: [taken(each) for each in command.params if each.name != "help"] for name, command in COMMANDS.items()
    }
    assert surface == {name: [*options.split("; "), *IN_ALL] for name, options in SURFACE.items()}


@pytest.mark.parametrize("name", SURFACE)
def test_an_option_left_out_is_as_if_its_default_were_given(name):
    command = COMMANDS[name]
    told = [each for each in command.params if each.default is not None and not each.is_flag]
    words = [word for each in told for word in (each.opts[0], str(each.default))]
    given, left_out = (command.make_context(name, line, resilient_parsing=True).params for line in (words, []))
    assert [(each.name, repr(given[each.name])) for each in told] == [
        (each.name, repr(left_out[each.name])) for each in told
    ]


@pytest.mark.parametrize("command", SURFACE)
def test_every_command_has_help_that_names_and_explains_its_options(command):
    shown = help_of(command)
    for each in COMMANDS[command].params:
        if each.opts[-1].startswith("-"):
            assert each.opts[-1] in shown
            assert each.help, f"{command} {each.opts[-1]} has no help"


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", ["", *SURFACE])
def test_paragraphs_of_help_are_broken_by_the_terminal_alone(command, columns, monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", columns)
    shown = help_of(*command.split(), columns=columns).partition("╭")[0]
    for line, following in pairwise(shown.splitlines()):
        if line.strip() and following.strip():
            assert len(line.rstrip()) + 1 + len(following.split()[0]) > columns - 1, line


def test_help_lists_every_command_and_the_exit_codes():
    shown = help_of()
    assert all(command in shown for command in SURFACE)
    assert "130 interrupted" in shown
