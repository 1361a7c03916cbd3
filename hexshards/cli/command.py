"""A command as people give it: counts as they write them, ``-q`` and ``-v``, and options from a file.

Standard term: command class. Typer parses what is left.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from typer import Option
from typer.core import TyperCommand

from hexshards.config_files import known, read_toml
from hexshards.errors import escaped
from hexshards.units import parse_count

Quiet = Annotated[bool, Option("--quiet", "-q", help="Say nothing but warnings, errors and the result.")]
Verbose = Annotated[bool, Option("--verbose", "-v", help="Say more, and where in the program an error arose.")]

ABOUT_SAYING = ("config", "quiet", "verbose", "as_json", "help")
"""Options that a file of options does not hold."""


def add_command(app: typer.Typer, function: Callable[..., None]) -> None:
    """Make a function a command of an app."""
    kinds = {name: each.annotation for name, each in _signature(function).parameters.items()}
    own = type("Command", (Command,), {"counts": frozenset(name for name, kind in kinds.items() if _counts(kind))})
    app.command(cls=own)(_loud(function))


class Command(TyperCommand):
    """A command whose counts may be written like 200k, 1.5M, 1e6 or 1_000_000."""

    counts: frozenset[str] = frozenset()
    """Names of the parameters that take a whole number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what was given, counts first."""
        return super().parse_args(ctx, list(self._plain(args)))

    def _plain(self, args: Sequence[str]) -> Iterator[str]:
        named = {spelled: each for each in self.params for spelled in each.opts if spelled.startswith("-")}
        awaited = None
        for place, word in enumerate(args):
            if awaited is not None:
                yield _count(word, awaited) if awaited in self.counts else word
                awaited = None
                continue
            if word == "--":
                yield from args[place:]
                return
            name, equals, value = word.partition("=")
            option = named.get(name)
            if option is None or getattr(option, "is_flag", False):
                yield word
            elif equals:
                yield f"{name}={_count(value, option.name) if option.name in self.counts else value}"
            else:
                awaited = option.name
                yield word


def _count(word: str, name: str | None) -> str:
    try:
        return str(parse_count(word, name=f"--{name}".replace("_", "-")))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def from_file(ctx: typer.Context, config: Path | None) -> Path | None:
    """Take options from a TOML file where the command line does not give them. For an eager option's callback."""
    if config is not None and not ctx.resilient_parsing:
        try:
            ctx.default_map = {**(ctx.default_map or {}), **_options(ctx, config)}
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    return config


def _options(ctx: typer.Context, config: Path) -> dict[str, Any]:
    names = {"data" if each.name == "dataset" else each.name: each.name for each in ctx.command.params}
    offered = [name for name in names if name not in ABOUT_SAYING]
    counts, options = getattr(ctx.command, "counts", ()), {}
    for name, value in read_toml(config).items():
        known(name, offered, of=f"{config}: no option of `hexshards {ctx.command.name}`: ")
        if isinstance(value, (dict, list)):
            raise ValueError(f"{escaped(config)}: {escaped(name)} must be a number, a text, true or false")
        if name in counts and isinstance(value, str):
            value = parse_count(value, name=f"{config}: {name}")
        options[str(names[name])] = value
    return options


def _loud(function: Callable[..., None]) -> Callable[..., None]:
    """A command that takes ``-q`` and ``-v`` besides."""
    signature = _signature(function)
    added = {"quiet": Quiet, "verbose": Verbose}

    @wraps(function)
    def command(*args: Any, quiet: bool, verbose: bool, **options: Any) -> None:
        from hexshards.cli import display

        with display.manner(quiet=quiet, verbose=verbose):
            function(*args, **options)

    own = [each.replace(kind=each.KEYWORD_ONLY) for each in signature.parameters.values()]
    new = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in added.items()
    ]
    command.__signature__ = signature.replace(parameters=[*own, *new])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in [*own, *new]}
    return command


def _signature(function: Callable[..., None]) -> inspect.Signature:
    return inspect.signature(function, eval_str=True)


def _counts(kind: Any) -> bool:
    """Whether a parameter of a kind takes a whole number."""
    if get_origin(kind) is Annotated:
        return _counts(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return any(map(_counts, get_args(kind)))
    return kind is int
