"""The command line, called in this process."""

from __future__ import annotations

from typer.testing import CliRunner

from hexshards.cli.app import app


def call(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result
