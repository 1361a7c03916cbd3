"""Command line entry point: every command by its name."""

from __future__ import annotations

import signal
from typing import Annotated

import typer
from typer import Option

from hexshards import __version__, signals
from hexshards.cli import dataset_commands, growing_commands, publish_command, report_command, training_commands
from hexshards.cli.command import add_command, switched_off
from hexshards.cli.console import spell_what_cannot_be_encoded

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=switched_off("help", "install_completion", "show_completion"),
    help="Repack Hex training positions into WebDataset shards, look at them, and train on them in mini-epochs.\n\n"
    "First steps: `hexshards demo`, or `hexshards convert YOUR_FILES --out DIR` and "
    "`hexshards train DIR --run RUN`.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 input rejected, 130 interrupted (state saved).",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"hexshards {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What all commands share; its help is the app's."""


for command in (
    dataset_commands.convert,
    growing_commands.watch,
    growing_commands.compact,
    dataset_commands.info,
    dataset_commands.verify,
    dataset_commands.mixing,
    dataset_commands.bench,
    dataset_commands.show,
    report_command.report,
    publish_command.publish,
    training_commands.train,
    training_commands.evaluate,
    training_commands.sweep,
    training_commands.plot,
    training_commands.runs,
    training_commands.export,
    dataset_commands.synth,
    training_commands.demo,
):
    add_command(app, command)


def main() -> None:
    """Run the command line."""
    signals.remember_ctrl_c()
    spell_what_cannot_be_encoded()
    try:
        app()
    finally:
        # everything is said and saved: Python's own end takes a moment, in which there is nothing to interrupt
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
