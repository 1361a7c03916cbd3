"""Markdown of text that is not ours: a name out of a file stays text, whatever signs are in it."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from typing import Any

from hexshards.errors import printable, without_secrets

_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}

_PLAIN = " ,-.%'()/;?+=\"^"
"""Signs that mean nothing within a line, as long as brackets are escaped."""

_SIGNS = {ord(sign): _HTML.get(sign, f"\\{sign}") for sign in string.punctuation if sign not in _PLAIN}


def text(said: object, *, width: int = 200) -> str:
    """Text in a line of Markdown, as text: no link, no HTML, no cell of a table ends in it."""
    line = printable(without_secrets(str(said)), width=width).translate(_SIGNS)
    return re.sub("(www)[.]", r"\1\.", line, flags=re.IGNORECASE)  # it would be a link


def name(said: object) -> str:
    """A name as code, which a person can read in the file too; one with signs that could end that, as text."""
    line = printable(without_secrets(str(said)), width=200)
    return text(said) if set(line) & set("`|\\") or not line.strip() else f"`{line}`"


def table(
    heads: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[int] = (), names: Sequence[int] = ()
) -> str:
    """A table; ``numbers`` are the columns that are aligned on the right, ``names`` those that hold names."""
    lines = [heads, ["---:" if at in numbers else "---" for at in range(len(heads))]]
    shown = [*lines, *([name(cell) if at in names else text(cell) for at, cell in enumerate(row)] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in shown)


def yaml(value: Any, *, indent: int = 0) -> str:
    """Dicts, lists and text as YAML: text as JSON has it, which YAML reads as the same."""
    pad = " " * indent
    if isinstance(value, dict):
        return "".join(f"{pad}{key}:{_nested(each, indent)}" for key, each in value.items())
    return (
        "".join(f"{pad}- {yaml(each, indent=indent + 2).lstrip()}" for each in value)
        if isinstance(value, list)
        else _scalar(value)
    )


def _nested(value: Any, indent: int) -> str:
    return f"\n{yaml(value, indent=indent)}" if isinstance(value, (dict, list)) else f" {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return f"{str(value).lower()}\n"
    return json.dumps(printable(without_secrets(str(value)), width=300), ensure_ascii=False) + "\n"
