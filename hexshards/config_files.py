"""TOML files of options: read with names that are known, or refused with the nearest; and written so that they read."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hexshards.errors import escaped, nearest, printable


def read_toml(path: str | Path, *, hint: str = "") -> dict[str, Any]:
    """What a TOML file holds. Raises ValueError, with a hint where the file is missing."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ValueError(f"{escaped(path)}: no such file{escaped(hint)}") from None
    except OSError as error:
        raise ValueError(f"{escaped(path)}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{escaped(path)}: is not TOML ({printable(error)})") from None


def known(name: str, names: Iterable[str], *, of: str = "not known: ") -> None:
    """Raise ValueError where a name is none of those that are known, with the nearest of them."""
    names = list(names)
    if name not in names:
        hint = nearest(name.replace("-", "_"), names) or f". There are {', '.join(names)}"
        raise ValueError(f"{escaped(of)}{printable(name)}{escaped(hint)}")


def toml_text(values: Mapping[str, str | int | float | bool | None]) -> str:
    """Values as lines of TOML, but for those that are None; text that no file can hold is a comment."""
    return "".join(_line(name, value) for name, value in values.items() if value is not None)


def _line(name: str, value: str | int | float | bool) -> str:
    # JSON's numbers, words and strings are TOML's too, but for one control character and for infinity
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f").replace("Infinity", "inf")
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"# {name}: its bytes are no text\n"
    return f"{name} = {text}\n"
