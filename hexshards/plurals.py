"""A count in words: ``1 game``, ``2 games``, ``1,204 batches``. Every number of things that is told is written here."""

from __future__ import annotations


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
    padding = " " * (len(plural(noun)) - len(words)) * bool(width)
    return f"{whole:>{width},} {words}{padding}" + (f" {one if whole == 1 else many}" if verb else "")
