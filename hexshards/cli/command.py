"""A command as people give it: counts as they write them, ``-q`` and ``-v``, and options from a file.

Standard term: command class. Typer parses what is left.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import typer
from typer import Option
from typer.core import TyperCommand

from hexshards.config_files import known, read_toml
from hexshards.errors import escaped, nearest
from hexshards.units import parse_count

Quiet = Annotated[bool, Option("--quiet", "-q", help="Say nothing but warnings, errors and the result.")]
Verbose = Annotated[bool, Option("--verbose", "-v", help="Say more, and where in the program an error arose.")]

ABOUT_SAYING = ("config", "quiet", "verbose", "as_json", "help")
"""Options that a file of options does not hold."""

PLAIN = (str, int, float, Path)
"""Kinds of defaults. Some releases of click have one more, which says that there is none."""


def add_command(app: typer.Typer, function: Callable[..., None]) -> None:
    """Make a function a command of an app."""
    kinds = {name: each.annotation for name, each in _signature(function).parameters.items()}
    choices = {name: _choices(kind) for name, kind in kinds.items()}
    named = {"counts": _named(kinds, int), "texts": _named(kinds, str), "choices": choices}
    own = type("Command", (Command,), named)
    app.command(cls=own, context_settings=switched_off("help"))(_loud(function))


def switched_off(*flags: str) -> dict[str, Any]:
    """Settings: typer's own flags are off where nobody gives them. It would load pydantic to convert no value."""
    return {"default_map": dict.fromkeys(flags, False)}


class Command(TyperCommand):
    """A command whose counts may be written like 200k, 1.5M, 1e6 or 1_000_000."""

    counts: frozenset[str] = frozenset()
    """Names of the parameters that take a whole number."""
    texts: frozenset[str] = frozenset()
    """Names of the parameters that take any text."""
    choices: ClassVar[Mapping[str, Sequence[str]]] = {}
    """The words that a parameter takes, by its name; none where it takes others."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.help = reflowed(self.help)
        _convert_no_more_than_needed(self.params, self.texts, self.choices)

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


def reflowed(text: str | None) -> str:
    """Paragraphs, each in one line, for the terminal to break: a source's own breaks would be broken once more."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text or "").split("\n\n"))


def _convert_no_more_than_needed(
    params: Sequence[Any], texts: Container[str], choices: Mapping[str, Sequence[str]]
) -> None:
    """Leave texts alone, and what nobody gave: to convert a value typer loads pydantic, 0.08 of a start's 0.3 s."""
    for param in params:
        convert = partial(_converted, param.process_value, choices.get(param.name, ()))
        param.process_value = partial(_value_of, param, convert, param.name in texts)


def _value_of(param: Any, convert: Callable[..., Any], takes_text: bool, ctx: Any, value: Any) -> Any:
    given = ctx.get_parameter_source(param.name).name != "DEFAULT"
    if given:
        ready = takes_text and isinstance(value, str)
    else:
        ready = isinstance(value, PLAIN) or (value is None and not param.required)
    if not ready or param.nargs != 1 or param.multiple:
        return convert(ctx, value)
    return param.callback(ctx, param, value) if param.callback else value


def _converted(convert: Callable[..., Any], choices: Sequence[str], ctx: Any, value: Any) -> Any:
    """A value as typer converts it; of a word that is none of the choices it is said which may be meant."""
    try:
        return convert(ctx, value)
    except typer.BadParameter as error:
        # the first two words are pydantic's
        said = error.message.removeprefix("Value error, ")
        meant = nearest(value, choices) if isinstance(value, str) else ""
        error.message = said.removesuffix(".") + meant if meant else said
        raise


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


def _named(kinds: Mapping[str, Any], one: type) -> frozenset[str]:
    """The parameters that take what is of one kind."""
    return frozenset(name for name, kind in kinds.items() if _takes(kind, one))


def _choices(kind: Any) -> list[str]:
    """The words that a kind takes; none where it takes others too."""
    if get_origin(kind) is Annotated:
        return _choices(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [word for each in get_args(kind) for word in _choices(each)]
    return list(get_args(kind)) if get_origin(kind) is Literal else []


def _takes(kind: Any, one: type) -> bool:
    if get_origin(kind) is Annotated:
        return _takes(get_args(kind)[0], one)
    if get_origin(kind) in (Union, UnionType):
        return any(_takes(each, one) for each in get_args(kind))
    return kind is one
