"""Sizes and times as people write them: text to number and back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hexshards.errors import escaped, printable

if TYPE_CHECKING:
    from fractions import Fraction

_BINARY = {"": 1, "B": 1, **{f"{unit}iB": 1 << 10 * power for power, unit in enumerate("KMGT", start=1)}}
_UNITS = {**_BINARY, **{f"{unit}B": 1000**power for power, unit in enumerate("kMGT", start=1)}, "KB": 1000}
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?(?:[eE]\+?[0-9]{1,2})?"
"""200000, 200_000, 200,000, 1.5 and 2e5."""

MOST_DAYS = 100_000
"""The longest time. What counts nanoseconds in 64 bits, as a system's sleep does, ends at 106,751."""

_LONGEST = 40
"""No number needs more letters than this, and a hostile one may be megabytes long."""


def parse_bytes(text: str | int, *, name: str = "memory") -> int:
    """``512MiB``, ``1.5GiB``, ``2GB``, ``1e9`` or a number of bytes as a number. Raises ValueError for other text."""
    match = re.fullmatch(rf"({_NUMBER}) ?([KMGT]iB|[kKMGT]B|B|)", _short(text))
    if not match or not _number(match[1]):
        raise ValueError(f"{escaped(name)} must be a size like 512MiB or 1GiB, got {escaped(text)}")
    return int(_number(match[1]) * _UNITS[match[2]])


def parse_count(text: str, *, name: str = "it") -> int:
    """``200000``, ``200k``, ``1.5M``, ``1e6``, ``1_000_000`` or ``1,000,000`` as a number.

    Raises ValueError for anything else.
    """
    match = re.fullmatch(rf"(-?)({_NUMBER}) ?([kKmMgGbB]?)", _short(text))
    count = _number(match[2]) * _THOUSANDS[match[3].lower()] if match else None
    if not match or count is None or count.denominator != 1:
        raise ValueError(f"{escaped(name)} must be a whole number like 200000, 200k, 1.5M or 1e6, got {escaped(text)}")
    return int(count) * (-1 if match[1] else 1)


def _short(text: str | int) -> str:
    return str(text) if len(str(text)) <= _LONGEST else ""


def _number(text: str) -> Fraction:
    from fractions import Fraction  # its decimal takes a moment, and a command that is asked for help needs none

    return Fraction(text.replace(",", "").replace("_", ""))


def show_bytes(count: float) -> str:
    """A number of bytes in the largest unit that leaves at least one."""
    unit = next(unit for unit in reversed(_BINARY) if count >= _BINARY[unit] or unit == "B")
    return f"{count / _BINARY[unit]:.4g} {unit}" if unit != "B" else f"{count:.0f} B"


def show_number(number: float) -> str:
    """A number in four digits or more, a tiny one in four decimals, and none as a power of ten."""
    if abs(number) < 0.001:
        return f"{number:.4f}" if round(number, 4) else "0"
    return f"{number:,.0f}" if abs(number) >= 999.95 else f"{number:.4g}"


def show_count(count: int) -> str:
    """A count as a person types it: 8k, 1.25M, 8192. parse_count reads it to the same number."""
    for unit, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= factor and count * 100 % factor == 0:
            return f"{count // factor}.{count * 100 // factor % 100:02}".rstrip("0").rstrip(".") + unit
    return str(count)


def duration_s(text: str) -> float:
    """Seconds of a time like 90s, 30m, 12h, 2d or 11h30m. Raises ValueError for anything else."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"a time is written like 90s, 30m, 12h, 2d or 11h30m, got {escaped(text)}")
    seconds = sum(float(number) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[unit] for number, unit in parts)
    if seconds > MOST_DAYS * 86_400:
        raise ValueError(f"a time is at most {MOST_DAYS}d, got {printable(text)}")
    return seconds


def show_duration(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


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
