"""Filter game records by who played them: rated or not, ratings, people or programs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from hexshards.errors import escaped, printable

_GRAMMAR = 'Write conditions like "rated=yes, rating=1800.., bots=no"'
_YES_NO = {"yes": True, "no": False}


class Players(NamedTuple):
    """What a record says of those who played; None where it says nothing."""

    rated: bool | None = None
    ratings: tuple[float, float] | None = None
    """Of both."""
    bots: bool | None = None
    """Whether a program played."""


NOT_SAID = Players()
"""Of a record that says nothing of them."""


@dataclass(frozen=True, slots=True)
class GameFilter:
    """Conditions that a game must meet, all of them. One whose file does not say meets none."""

    rated: bool | None = None
    bots: bool | None = None
    rating: tuple[float, float | None] | None = None
    """Lowest and highest rating that both players must have; None: no highest."""

    @classmethod
    def parse(cls, text: str) -> GameFilter:
        """The filter that ``name=value`` conditions between commas describe. Raises ValueError for other text."""
        given: dict[str, str] = {}
        for condition in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = (part.strip() for part in condition.partition("="))
            if name not in ("rated", "bots", "rating") or not value or name in given:
                twice = " a second time" if name in given else ""
                raise ValueError(f"games: {printable(condition)!r} is no condition{twice}. {_GRAMMAR}")
            given[name] = value
        return cls(
            rated=_yes_or_no("rated", given.get("rated")),
            bots=_yes_or_no("bots", given.get("bots")),
            rating=_range(given.get("rating")),
        )

    def keeps(self, players: Players) -> bool:
        """Whether a game is of those that are asked for."""
        if self.rated is not None and players.rated is not self.rated:
            return False
        if self.bots is not None and players.bots is not self.bots:
            return False
        if self.rating is None:
            return True
        low, high = self.rating
        return players.ratings is not None and all(
            low <= each and (high is None or each <= high) for each in players.ratings
        )


def _yes_or_no(name: str, value: str | None) -> bool | None:
    if value is not None and value not in _YES_NO:
        raise ValueError(f"games: {escaped(name)} is yes or no, got {printable(value)!r}. {_GRAMMAR}")
    return None if value is None else _YES_NO[value]


def _range(value: str | None) -> tuple[float, float | None] | None:
    if value is None:
        return None
    bounds = re.fullmatch(r"([0-9]{1,5})\.\.([0-9]{1,5})?", value)
    if bounds is None or (bounds[2] and int(bounds[2]) < int(bounds[1])):
        raise ValueError(f"games: rating is a range like 1800.. or 1500..1800, got {printable(value)!r}. {_GRAMMAR}")
    return float(bounds[1]), float(bounds[2]) if bounds[2] else None
