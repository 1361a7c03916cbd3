"""Sizes and times as people write them: text to number and back."""

from __future__ import annotations

import re

_UNITS = {"": 1, "B": 1, **{f"{unit}iB": 1 << 10 * power for power, unit in enumerate("KMGT", start=1)}}


def parse_bytes(text: str | int, *, name: str = "memory") -> int:
    """``512MiB``, ``1.5GiB`` or a number of bytes as a number. Raises ValueError for anything else."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]iB|B|)", str(text))
    if not match or not float(match[1]):
        raise ValueError(f"{name} must be a size like 512MiB or 1GiB, got {text}")
    return int(float(match[1]) * _UNITS[match[2]])


def show_bytes(count: float) -> str:
    """A number of bytes in the largest unit that leaves at least one."""
    unit = next(unit for unit in reversed(_UNITS) if count >= _UNITS[unit] or unit == "B")
    return f"{count / _UNITS[unit]:.4g} {unit}" if unit != "B" else f"{count:.0f} B"


def duration_s(text: str) -> float:
    """Seconds of a time like 90s, 30m, 12h, 2d or 11h30m. Raises ValueError for anything else."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"a time is written like 90s, 30m, 12h, 2d or 11h30m, got {text}")
    return sum(float(number) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[unit] for number, unit in parts)


def plural(noun: str) -> str:
    """Several of a noun, the last of its words changed: games, batches, plies."""
    if noun.endswith(("s", "x", "tch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def counted(count: float, noun: str, *, verb: str = "", width: int = 0) -> str:
    """So many of a noun, and the form of a verb that goes with them, given as ``is/are``.

    ``width`` is that of the number in a table, whose words are made equally long.
    """
    whole = round(count)
    words = noun if whole == 1 else plural(noun)
    one, _, many = verb.partition("/")
    padding = " " * (len(plural(noun)) - len(words)) if width else ""
    return f"{whole:>{width},} {words}{padding}" + (f" {one if whole == 1 else many}" if verb else "")
