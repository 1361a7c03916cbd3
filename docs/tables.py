"""Tables of options and commands in docs/*.md are written from the options classes: ``python docs/tables.py``.

A page marks the place: ``<!-- options: package.module:Spec -->`` or, for all commands, ``<!-- commands -->``, then a
line ``<!-- end -->``. What stands between is written anew.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption

from hexshards.cli.app import app
from hexshards.options import About, about, options_in

DOCS = Path(__file__).parent

MARKED = re.compile(r"(<!-- options: ([\w.]+):(\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)

COMMANDS = re.compile(r"(<!-- commands -->\n).*?(<!-- end -->\n)", re.DOTALL)

IN_ALL = ("help", "quiet", "verbose")
"""What every command takes; the page says it once."""

CHANGES = {
    "bytes": "bytes",
    "order": "order",
    "weights": "weights",
    "records": "mini-epochs",
    "rounding": "last bits",
    "end": "its end",
    "nothing": "",
}
"""What another value of an option changes, in a table's words."""


def written(page: str) -> str:
    """A page with its tables as the options are now."""
    page = COMMANDS.sub(lambda marked: marked[1] + commands() + marked[2], page)
    return MARKED.sub(lambda marked: marked[1] + table(getattr(import_module(marked[2]), marked[3])) + marked[4], page)


def commands() -> str:
    """Every command: how it is called, what its help says, and what it takes."""
    return "\n" + "".join(_command(name, each) for name, each in typer.main.get_command(app).commands.items())


def _command(name: str, command: TyperCommand) -> str:
    taken = [each for each in command.params if each.name not in IN_ALL]
    arguments = " ".join(str(each.metavar or each.name) for each in taken if isinstance(each, TyperArgument))
    needed = "".join(f" {each.opts[-1]} ..." for each in taken if isinstance(each, TyperOption) and each.required)
    usage = f"hexshards {name} {arguments}".rstrip() + needed + " [OPTIONS]"
    rows = [["", "Default", "Meaning"], ["---"] * 3, *map(_taken, taken)]
    table = "".join(f"|{_joined(row)}|\n" for row in rows)
    return f"## {name}\n\n`{usage}`\n\n{command.help}\n\n{table}\n"


def _taken(each: Any) -> list[str]:
    name = each.metavar if isinstance(each, TyperArgument) else "/".join([each.opts[-1], *each.secondary_opts])
    return [f"`{name}`", _taken_default(each), _cell(each.help or "")]


def _taken_default(each: Any) -> str:
    if each.required:
        return "must be given"
    if isinstance(each.show_default, str):
        return each.show_default
    if isinstance(each.default, bool):
        return "on" if each.default else "off"
    return "none" if each.default in (None, "") else f"`{each.default}`"


def table(spec: type) -> str:
    """The options of a spec as a table in Markdown; what they change, where any of them changes something."""
    rows = [["Option", "Default", "Meaning", "Changes"], ["---"] * 4, *_rows(spec)]
    if not any(CHANGES[each.shapes] for each in about(spec).values()):
        rows = [row[:-1] for row in rows]
    return "\n" + "".join(f"|{_joined(row)}|\n" for row in rows) + "\n"


def _joined(row: list[str]) -> str:
    return "|".join(cell if cell == "---" else f" {cell} ".replace("  ", " ") for cell in row)


def _rows(spec: type) -> Iterator[list[str]]:
    said = about(spec)
    for name, each in options_in(spec).items():
        yield [f"`{name}`", _default(each, said[name]), _cell(said[name].says), CHANGES[said[name].shapes]]


def _default(each: Field[Any], said: About) -> str:
    if each.default is MISSING:
        return "must be given"
    if each.default is None:
        return said.unset or "none"
    if isinstance(each.default, bool):
        return "on" if each.default else "off"
    if each.default == "":
        return "none"
    return f"{each.default:,}" if isinstance(each.default, int) else f"`{each.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the tables of all pages."""
    for path in sorted(DOCS.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        if (now := written(page)) != page:
            path.write_text(now, encoding="utf-8")
            sys.stdout.write(f"{path.name}: its tables are written anew\n")


if __name__ == "__main__":
    main()
