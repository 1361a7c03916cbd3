"""Lookahead over a pickle: which dicts of known kinds lie one after another from a place on.

NumPy looks for bytes that all dicts of a kind share, some megabytes at a time, and compares what lies around them.
Where there is much to read and numba is installed, compiled code goes from dict to dict instead (lookahead_compiled).
Both find the same dicts.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

from hexshards.conversion.pickles.templates import Anchor, Bytes, Numbers, Template, bytes_at
from hexshards.errors import escaped
from hexshards.game.validation import pack_first

log = logging.getLogger(__name__)

LOOK_AHEAD_BYTES = 4 << 20
"""Looked through at a time for dicts of the known kinds, while it is in the cache."""

COMPILED_FROM_BYTES = 256 << 20
"""Compiled code is loaded once so much was looked through: loading it takes about as long as it saves there, 0.3 s."""

Run = tuple[Numbers, Numbers]
"""Where dicts begin that lie one after another without a gap, and which kind each is."""


class Lookahead(Protocol):
    """Finds dicts of kinds that it is told of."""

    def add(self, template: Template, at: int) -> None:
        """Take up a new kind, to be found from a place on."""
        ...

    def run(self, at: int) -> Run:
        """The dicts that lie one after another from a place on, some of them where there are many."""
        ...


_looked_through = 0
"""Bytes in which this process looked for dicts."""


def lookahead_for(data: Bytes) -> Lookahead:
    """What finds the dicts of a pickle."""
    return compiled(data) if (compiled := compiled_for(len(data))) else NumPyLookahead(data)


def compiled_for(size: int) -> Callable[[Bytes], Lookahead] | None:
    """The compiled way for so many bytes more; None where there is little to look through, and where there is none."""
    global _looked_through
    _looked_through += size
    return _compiled() if _looked_through >= COMPILED_FROM_BYTES else None


@cache
def _compiled() -> Callable[[Bytes], Lookahead] | None:
    """The compiled way; None where numba is not installed or has no folder for what it compiles."""
    try:
        from hexshards.conversion.pickles.lookahead_compiled import CompiledLookahead
        from hexshards.game.packing_compiled import pack
    except ImportError:
        return None
    except RuntimeError as error:
        log.warning(
            "pickles are read by NumPy: %s. Set NUMBA_CACHE_DIR to a folder that can be written", escaped(error)
        )
        return None
    if sys.byteorder == "little":
        pack_first(pack)
    return CompiledLookahead


class NumPyLookahead:
    """Looks through the pickle for bytes that dicts share."""

    def __init__(self, data: Bytes) -> None:
        self.bytes = data
        self.templates: list[Template] = []
        self.counts: list[int] = []  # of dicts found of each kind, the most frequent of which is looked for first
        self.marks: dict[bytes, Numbers] = {}  # where a text is that no known kind has there, before ``horizon``
        self.horizon = self.known = 0  # what is looked through, and before which place no dict is missed
        self.dicts = _Dicts.none()

    def add(self, template: Template, at: int) -> None:
        """Take up a new kind, and find the dicts of it behind a place."""
        self.templates.append(template)
        self.counts.append(0)
        marks = self.marks.get(template.anchor.text)
        # what lies behind was read
        self.marks[template.anchor.text] = self._all(template.anchor, at) if marks is None else marks[marks >= at]
        self._join([self._find(len(self.templates) - 1)])

    def run(self, at: int) -> Run:
        """The dicts found that lie one after another from a place on."""
        if at >= self.known:
            self._scan_forward(at)
        return self.dicts.run(at)

    def _scan_forward(self, at: int) -> None:
        low, self.horizon = max(at, self.horizon), max(at, self.horizon) + LOOK_AHEAD_BYTES
        self.known = self.horizon - max(template.anchor.offset for template in self.templates)
        for anchor in {template.anchor.text: template.anchor for template in self.templates}.values():
            self.marks[anchor.text] = self._all(anchor, low)
        self.dicts = self.dicts.after(at)
        self._join(map(self._find, sorted(range(len(self.templates)), key=lambda kind: -self.counts[kind])))

    def _find(self, kind: int) -> _Dicts:
        template = self.templates[kind]
        marks = self.marks[template.anchor.text]
        starts = marks - template.anchor.offset
        fits = template.matching(self.bytes, starts)
        starts = starts[fits]
        self.marks[template.anchor.text] = marks[~fits]
        self.counts[kind] += len(starts)
        return _Dicts(starts, np.full(len(starts), kind), starts + len(template.data))

    def _join(self, more: Iterable[_Dicts]) -> None:
        self.dicts = _Dicts.joined([self.dicts, *more])

    def _all(self, anchor: Anchor, low: int) -> Numbers:
        """All places of an anchor before the horizon."""
        text, window = anchor.text, self.bytes[low : self.horizon + len(anchor.text) - 1]
        possible = window[anchor.rarest :][: max(0, len(window) - len(text) + 1)]
        places = np.flatnonzero(possible == text[anchor.rarest])
        equal = bytes_at(window, places, len(text)) == np.frombuffer(text, dtype=np.uint8)
        return np.asarray(places[equal.all(axis=1)] + low)


@dataclass(frozen=True, slots=True, eq=False)
class _Dicts:
    """Dicts that were found and not leapt over yet, in their order."""

    starts: Numbers
    kinds: Numbers
    ends: Numbers

    @staticmethod
    def none() -> _Dicts:
        return _Dicts(*np.zeros((3, 0), dtype=np.int64))

    @staticmethod
    def joined(parts: Iterable[_Dicts]) -> _Dicts:
        """All of them."""
        each = [part for part in parts if len(part.starts)]
        if not each:
            return _Dicts.none()
        starts = np.concatenate([part.starts for part in each])
        order = np.argsort(starts)
        kinds, ends = (np.concatenate([getattr(part, name) for part in each]) for name in ("kinds", "ends"))
        return _Dicts(starts[order], kinds[order], ends[order])

    def after(self, at: int) -> _Dicts:
        """Those that begin at a place or behind it."""
        rows = slice(int(np.searchsorted(self.starts, at)), None)
        return _Dicts(self.starts[rows], self.kinds[rows], self.ends[rows])

    def run(self, at: int) -> Run:
        """Those that lie one after another without a gap, the first at a place."""
        first = int(np.searchsorted(self.starts, at))
        if first == len(self.starts) or self.starts[first] != at:
            return self.starts[:0], self.kinds[:0]
        gaps = np.flatnonzero(self.ends[first:-1] != self.starts[first + 1 :])
        rows = slice(first, first + int(gaps[0]) + 1 if len(gaps) else None)
        return self.starts[rows], self.kinds[rows]
