"""Replay window: how many of the newest positions an epoch draws from, a pure function of how many there are.

A fixed number, or the power law of KataGo: with N positions there, of which the first ``minimum`` are all used,

    window(N) = minimum + expand * ((N - minimum + scale)^exponent - scale^exponent) / (exponent * scale^(exponent - 1))

so that window(minimum) = minimum, each position more widens it by ``expand`` there, and far out it grows as
N^exponent. KataGo's ``python/shuffle.py`` (https://github.com/lightvector/KataGo) calls these min-rows,
expand-window-per-row, taper-window-scale (by default min-rows) and taper-window-exponent, with 250k, 0.4 and 0.65 for
its main runs, and what is drawn of the window keep-target-rows. With the scale left out it is the window of the paper
(Wu, 2019, arXiv:1902.10565, section 2, c = 250,000, alpha = 0.75, beta = 0.4): 22 million at the end of its run of 241
million. The numbers are decimal, rounded down: the same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Literal, get_args

from hexshards.errors import escaped, nearest, printable
from hexshards.units import parse_count, show_count

Time = Literal["addition", "generation"]
"""What tells old from new: the order in which shards came to the dataset; or the column ``generation``."""

MOST = 10**15
"""Largest count in a window: far beyond any dataset."""

_KEYS = ("min", "exponent", "expand", "scale", "max", "keep", "by")
_LAW = ("min", "exponent", "expand", "scale", "max")
_FRACTION = re.compile(r"[01]|[01]?\.[0-9]{1,6}")
_GRAMMAR = 'Write it like "500k", or "min=250k exponent=0.65 expand=0.4" for KataGo\'s power law'

_DIGITS = Context(prec=40)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLaw:
    """KataGo's power law: how the window grows with the data."""

    minimum: int = 250_000
    exponent: Decimal = Decimal("0.65")
    expand: Decimal = Decimal("0.4")
    scale: int | None = None
    """None: as the minimum."""
    maximum: int | None = None

    def size(self, total: int) -> int:
        """Positions in the window once there are so many."""
        if total <= self.minimum:
            return total
        scale, power = Decimal(self.scale or self.minimum), _DIGITS.power
        grown = power(total - self.minimum + scale, self.exponent) - power(scale, self.exponent)
        slope = _DIGITS.multiply(self.exponent, power(scale, self.exponent - 1))
        size = self.minimum + int(_DIGITS.divide(_DIGITS.multiply(grown, self.expand), slope))
        return min(size, total, self.maximum or total)

    def text(self, count: Callable[[int], str]) -> str:
        """The law in words that ``ReplayWindow.parse`` reads."""
        parts = [f"min={count(self.minimum)}", f"exponent={self.exponent}", f"expand={self.expand}"]
        parts += [f"scale={count(self.scale)}"] if self.scale else []
        return " ".join(parts + ([f"max={count(self.maximum)}"] if self.maximum else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayWindow:
    """Which of the newest positions an epoch draws from, and how many of these."""

    newest: int | PowerLaw | None = None
    """None: all positions."""
    keep: int | None = None
    """Drawn in one epoch, others in the next; None: the whole window."""
    by: Time = "addition"

    @classmethod
    def parse(cls, text: str) -> ReplayWindow:
        """Parse a number of positions or a power law, and what else is said. Raises ValueError for other text."""
        words = text.replace(",", " ").split()
        newest = _count("window", words.pop(0)) if words and "=" not in words[0] else None
        given: dict[str, str] = {}
        for word in words:
            key, equals, value = word.partition("=")
            if key not in _KEYS or not equals or key in given or (newest is not None and key in _LAW):
                twice = " a second time" if key in given else ""
                hint = "." if key in _KEYS else nearest(key, _KEYS) or "."
                raise ValueError(f"window: {printable(word)!r} says nothing of a window{twice}{hint} {_GRAMMAR}")
            given[key] = value
        by = given.get("by", "addition")
        if by not in get_args(Time):
            raise ValueError(f"window: by={printable(by)!r} is neither addition nor generation. {_GRAMMAR}")
        return cls(
            newest=_law(given) if given.keys() & {*_LAW} else newest,
            keep=_count("keep", given["keep"]) if "keep" in given else None,
            by="generation" if by == "generation" else "addition",
        )

    def size(self, total: int) -> int:
        """Positions in the window once there are so many."""
        if self.newest is None:
            return total
        return self.newest.size(total) if isinstance(self.newest, PowerLaw) else min(self.newest, total)

    def __str__(self) -> str:
        """What states and digests of the order hold: counts in digits."""
        return self._text(str)

    @property
    def shown(self) -> str:
        """The same for a person: counts as one types them."""
        return self._text(show_count)

    def _text(self, count: Callable[[int], str]) -> str:
        newest = self.newest.text(count) if isinstance(self.newest, PowerLaw) else self.newest and count(self.newest)
        parts = [newest, self.keep and f"keep={count(self.keep)}", "by=generation" if self.by == "generation" else ""]
        return " ".join(part for part in parts if part)


def _law(given: Mapping[str, str]) -> PowerLaw:
    law, counts = PowerLaw(), {name: _count(name, given[name]) for name in ("min", "scale", "max") if name in given}
    law = PowerLaw(
        minimum=counts.get("min", law.minimum),
        exponent=_fraction("exponent", given, law.exponent),
        expand=_fraction("expand", given, law.expand),
        scale=counts.get("scale"),
        maximum=counts.get("max"),
    )
    if not law.exponent:
        raise ValueError(f"window: exponent must be more than 0. {_GRAMMAR}")
    if law.maximum is not None and law.maximum < law.minimum:
        raise ValueError(f"window: max={law.maximum} is less than min={law.minimum}")
    return law


def _count(name: str, text: str) -> int:
    try:
        count = parse_count(text)
    except ValueError:
        count = 0
    if not 1 <= count <= MOST:
        raise ValueError(f"window: {escaped(name)} {printable(text)!r} is no number of positions from 1 on. {_GRAMMAR}")
    return count


def _fraction(name: str, given: Mapping[str, str], default: Decimal) -> Decimal:
    text = given.get(name, str(default))
    if not _FRACTION.fullmatch(text) or Decimal(text) > 1:
        raise ValueError(f"window: {escaped(name)}={printable(text)!r} is no number from 0 to 1. {_GRAMMAR}")
    return Decimal(text)
