"""Tables of options in docs/*.md are written from the options classes: ``python docs/tables.py``.

A page marks the place: ``<!-- options: package.module:Spec -->``, then a line ``<!-- end -->``. What stands between
is written anew.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field
from importlib import import_module
from pathlib import Path
from typing import Any

from hexshards.options import About, about, options_in

DOCS = Path(__file__).parent

MARKED = re.compile(r"(<!-- options: ([\w.]+):(\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)

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
    return MARKED.sub(lambda marked: marked[1] + table(getattr(import_module(marked[2]), marked[3])) + marked[4], page)


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
