"""What all commands share: exit codes, errors told as one line, and options taken from a spec.

Exit codes: 0 done; 1 the job failed; 2 wrong usage; 3 input was rejected beyond what was allowed; 130 interrupted.
"""

from __future__ import annotations

import codecs
import inspect
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer import Argument, Option

from hexshards.arguments import hints_of
from hexshards.errors import DataError, InputRejected, Misused, WorkerDied, escaped
from hexshards.loading.options import LoaderSpec
from hexshards.options import about, offered_in, options_in
from hexshards.signals import ctrl_c_at_the_end
from hexshards.storage.files import of_path
from hexshards.storage.options import RemoteSpec
from hexshards.training.options import TrainSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from hexshards.storage.files import Home

FAILED, USAGE, REJECTED, INTERRUPTED = 1, 2, 3, 130

Dataset = Annotated[str, Argument(metavar="DIR", help=about(TrainSpec)["data"].says)]
AsJson = Annotated[bool, Option("--json", help="Print the result as one JSON object.")]


SPELLED = {"·": ".", "—": "-", "…": "...", "→": "->", **dict(zip("▁▂▃▄▅▆▇█", "12345678", strict=True))}
"""What stands for signs of our own on a terminal, or in a file, that cannot show them. Boards keep their shape."""


def spell_what_cannot_be_encoded() -> None:
    """Let no command end because stdout or stderr cannot encode what it says: the rest stands as backslash escapes."""
    codecs.register_error("hexshards.spelled", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="hexshards.spelled")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(SPELLED.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters), error.end


def options_of(
    spec: type[DataclassInstance], *, only: Sequence[str] = (), after: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put the options that a spec offers to commands in the place of a command's ``**options``.

    ``only``: those alone. ``after``: behind the command's own option of this name in ``--help``, else behind all.
    """

    def change(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [
            each.replace(kind=each.KEYWORD_ONLY)
            for each in signature.parameters.values()
            if each.kind is not each.VAR_KEYWORD
        ]
        added = [_parameter(spec, name) for name in only or offered_in(spec, "command")]
        place = 1 + [each.name for each in own].index(after) if after else len(own)
        whole = [*own[:place], *added, *own[place:]]
        command.__signature__ = signature.replace(parameters=whole)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in whole}
        return command

    return change


def _parameter(spec: type[DataclassInstance], name: str) -> inspect.Parameter:
    kind: Any = hints_of(spec)[name]
    default, annotation = options_in(spec)[name].default, Annotated[kind, shown(spec, name)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def shown(spec: type[DataclassInstance], name: str, *, least: float | None = None, unset: str | None = None) -> Any:
    """An option of a spec as a command shows it: its names, help, bounds and panel.

    ``least``: what this command needs at least. ``unset``: what it takes where nothing is given.
    """
    each, kind, default = about(spec)[name], hints_of(spec)[name], options_in(spec)[name].default
    named = "--" + name.replace("_", "-")
    if bool in (kind, *get_args(kind)) and default is not False:
        named += f"/--no-{named[2:]}"  # a switch that is off has no second name: leaving it out says no
    bounds = {"min": each.least if least is None else least, "max": each.most}
    more: dict[str, Any] = {word: bound for word, bound in bounds.items() if bound is not None}
    if said := unset or each.unset:
        more["show_default"] = said
    return Option(named, help=each.says, rich_help_panel=each.panel, **more)


CacheFolder = Annotated[Path | None, shown(RemoteSpec, "cache")]
Split = Annotated[str, shown(LoaderSpec, "split")]


def opened(dataset: str, cache: Path | None) -> Home:
    """The home of a dataset whose shards, where it is a URL, come down to a folder."""
    from hexshards.storage.remote import home_of

    return home_of(dataset, spec=RemoteSpec(cache=cache.absolute() if cache else None))


@contextmanager
def _traced(wanted: bool) -> Iterator[None]:
    """Where in the program an error arose, for a person who asked."""
    try:
        yield
    except Exception as error:
        if wanted and not isinstance(error, typer.Exit):
            from traceback import format_exc

            from hexshards.cli.display import warn

            warn(format_exc().rstrip())
        raise


@contextmanager
def told() -> Iterator[None]:
    """Errors as one line on stderr and an exit code, where a traceback would not help."""
    from hexshards.cli.display import verbose, warn

    try:
        with _traced(verbose()):
            yield
    except InputRejected as error:
        warn(f"rejected: {escaped(error)}")
        raise typer.Exit(REJECTED) from None
    except (Misused, ValueError) as error:
        warn(f"error: {escaped(error)}")
        raise typer.Exit(USAGE) from None
    except (DataError, MemoryError) as error:
        warn(f"error: {escaped(error) or 'out of memory'}")
        raise typer.Exit(FAILED) from None
    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        warn(f"error: {escaped(of_path(error))}")
        raise typer.Exit(USAGE) from None
    except (OSError, WorkerDied) as error:
        warn(f"error: {escaped(error)}")
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        said = False
        while not said:
            # another may come at any moment, and this one is answered all the same
            with suppress(KeyboardInterrupt), ctrl_c_at_the_end():
                warn("interrupted; give the same command again to go on")
                said = True
        raise typer.Exit(INTERRUPTED) from None
