"""Range of shards: some of a split's shards in their order, by number or by percent; percents never overlap."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hexshards.errors import printable
from hexshards.units import counted

_RANGE = re.compile(r"([0-9]{1,6})(?:\.\.([0-9]{1,6}))?")
_PERCENTS = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%\.\.([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_GRAMMAR = 'Write shards like "40%..50%", or by their numbers from 0 on, the last among them, like "3..7"'


def shards_in(text: str, count: int) -> NDArray[np.int64]:
    """Numbers, in their order, of those of ``count`` shards that a text names; all of them for no text.

    ``3..7`` are five shards. ``40%..50%`` are those that begin at or after 40% of their number and before 50%, so that
    ``0%..50%`` and ``50%..100%`` share none and leave none out. Raises ValueError for other text, and for no shard.
    """
    text = text.replace(" ", "")
    shards = np.arange(count)
    if not text:
        return shards
    if percents := _PERCENTS.fullmatch(text):
        low, high = (Fraction(each) for each in percents.groups())
        if not low < high <= 100:
            raise ValueError(f"shards: {printable(text)!r} does not go up to at most 100%. {_GRAMMAR}")
        chosen = [shard for shard in range(count) if low * count <= shard * 100 < high * count]
        if not chosen:
            raise ValueError(
                f"shards: {printable(text)!r} holds no shard of {counted(count, 'shard')}: take more percent"
            )
        return np.array(chosen)
    numbers = _RANGE.fullmatch(text)
    first, last = (int(numbers[1]), int(numbers[2] or numbers[1])) if numbers else (0, -1)
    if last < first:
        raise ValueError(f"shards: {printable(text)!r} is no range of shards. {_GRAMMAR}")
    if first >= count:
        raise ValueError(f"shards: {printable(text)!r} begins behind the last shard, which is {count - 1}")
    return shards[first : last + 1]
