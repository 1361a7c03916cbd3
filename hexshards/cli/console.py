"""What all commands share: exit codes, errors told as one line, and options taken from a spec.

Exit codes: 0 done; 1 the job failed; 2 wrong usage; 3 input was rejected beyond what was allowed; 130 interrupted.
"""

from __future__ import annotations

import codecs
import inspect
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from hexshards.arguments import hints_of
from hexshards.errors import DataError, InputRejected, WorkerDied, escaped
from hexshards.signals import ctrl_c_at_the_end

if TYPE_CHECKING:
    from hexshards.storage.files import Home

FAILED, USAGE, REJECTED, INTERRUPTED = 1, 2, 3, 130

Dataset = Annotated[str, Argument(metavar="DIR", help="A dataset made by `hexshards convert`: a folder, or a URL.")]
CacheFolder = Annotated[
    Path | None,
    Option("--cache", help="Folder that shards of a URL come down to, else hexshards in $XDG_CACHE_HOME or ~/.cache."),
]
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
    found = error.object[error.start : error.end]
    return "".join(SPELLED.get(c) or c.encode("ascii", "backslashreplace").decode() for c in found), error.end


def options_of(spec: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put an option for each field made by ``specs.option`` in the place of a command's ``**options``."""

    def change(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        kinds = hints_of(spec)
        added = [_parameter(each, kinds[each.name]) for each in fields(spec) if each.metadata]
        command.__signature__ = signature.replace(parameters=own + added)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in own + added}
        return command

    return change


def _parameter(option: Field[Any], kind: Any) -> inspect.Parameter:
    says, panel = option.metadata["says"], option.metadata["panel"]
    name = "--" + option.name.replace("_", "-")
    # a switch that is off has no second name: leaving it out says no
    names = [name] if kind is bool and not option.default else [f"{name}/--no-{name[2:]}"] if kind is bool else [name]
    annotation = Annotated[kind, Option(*names, help=says, rich_help_panel=panel)]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=annotation)


def opened(dataset: str, cache: Path | None) -> Home:
    """The home of a dataset whose shards, where it is a URL, come down to a folder."""
    from hexshards.storage.options import RemoteSpec
    from hexshards.storage.remote import home_of

    return home_of(dataset, spec=RemoteSpec(cache=cache.absolute() if cache else None))


@contextmanager
def told() -> Iterator[None]:
    """Errors as one line on stderr and an exit code, where a traceback would not help."""
    from hexshards.cli.display import warn

    try:
        yield
    except InputRejected as error:
        warn(f"rejected: {escaped(error)}")
        raise typer.Exit(REJECTED) from None
    except (DataError, MemoryError) as error:
        warn(f"error: {escaped(error) or 'out of memory'}")
        raise typer.Exit(FAILED) from None
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        warn(f"error: {escaped(error)}")
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
