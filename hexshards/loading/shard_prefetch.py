"""Prefetch shards in the order of their use, a bounded number at a time."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hexshards.dataset.layout import Shard
from hexshards.errors import DataError, escaped
from hexshards.loading.options import LoaderSpec
from hexshards.loading.order import GROUP_WINDOWS, per_stream
from hexshards.loading.selection.epoch_selection import EpochSelection
from hexshards.loading.window import Windows
from hexshards.storage.remote import Remote
from hexshards.units import counted, show_bytes

log = logging.getLogger(__name__)


def check_room(selections: Sequence[EpochSelection], spec: LoaderSpec) -> None:
    """Raise ValueError when the cache can't hold the shards that are walked at a time, and as many of the next."""
    for selection in selections:
        home = selection.home
        # of all streams, for the ranks of one machine share its cache
        at_hand = 2 * spec.streams * per_stream(spec.group_shards, spec)
        needed = _bytes_at_hand(selection, spec, shards=at_hand)
        if isinstance(home, Remote) and needed * len(selections) > home.spec.cache_bytes:
            raise ValueError(
                f"{escaped(home)}: shuffling needs {counted(at_hand, 'shard')} at hand, "
                f"{show_bytes(needed)}, for each of {counted(len(selections), 'dataset')}, and the cache may hold "
                f"{show_bytes(home.spec.cache_bytes)}. Raise cache_limit"
            )


def _bytes_at_hand(selection: EpochSelection, spec: LoaderSpec, *, shards: int) -> int:
    """The largest so many shards; of small ones in groups that are filled by blocks, as many as fill as many groups."""
    walk, blocks = selection.walk, selection.blocks
    used = range(len(blocks.shards)) if walk is None else walk.shards.tolist()
    sizes = sorted((blocks.shards[each].size_bytes for each in used), reverse=True)
    largest = sum(sizes[:shards])
    if walk is None:
        return largest
    block_bytes = max(blocks.shards[each].size_bytes / blocks.per_shard[each] for each in used)
    filled = GROUP_WINDOWS * per_stream(spec.window_blocks, spec) * block_bytes + sizes[0]
    return max(largest, min(sum(sizes), int(2 * spec.streams * filled)))


@contextmanager
def fetching(windows: Windows, numbers: Sequence[int]) -> Iterator[Callable[[int], None]]:
    """Prefetch while entered: threads fetch the shards that these windows read, as far as they are not here.

    Call what is yielded with the turn of the window that was reached, counted from 0: its shards, and as many more as
    are walked at a time, or as the next window reads, may come down.
    """
    if not any(isinstance(selection.home, Remote) for selection in windows.selections):
        yield lambda _: None
        return
    prefetch = _Prefetch(windows, numbers)
    try:
        yield prefetch.reached
    finally:
        prefetch.end()


class _Prefetch:
    """Shards in the order of their first use, how many of them are taken, and how many may be."""

    def __init__(self, windows: Windows, numbers: Sequence[int]) -> None:
        first_use = dict[tuple[Remote, Shard], int]()
        for turn, number in enumerate(numbers):
            for home, shard in windows.shards_of(number):
                if isinstance(home, Remote):
                    first_use.setdefault((home, shard), turn)
        self.waiting = list(first_use)
        self.first_use = list(first_use.values())
        together = windows.side_by_side(numbers) * per_stream(windows.spec.group_shards, windows.spec)
        self.depth = together * len(windows.selections)
        self.taken, self.limit, self.next, self.ended = 0, 0, 0, False
        self.changed = threading.Condition()
        threads = max((home.spec.threads for home, _ in self.waiting), default=0)
        for _ in range(min(threads, len(self.waiting))):
            # daemons: a program that ends does not wait for a download
            threading.Thread(target=self._work, daemon=True, name="hexshards-fetch").start()
        if self.waiting:
            self.reached(0)

    def reached(self, turn: int) -> None:
        with self.changed:
            self.limit = bisect_right(self.first_use, turn)
            # of small shards a window reads more than are walked at a time
            self.next = bisect_right(self.first_use, turn + 1)
            self.changed.notify_all()

    @property
    def most(self) -> int:
        """How many shards may be taken by now."""
        return max(self.limit + self.depth, self.next)

    def end(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _work(self) -> None:
        while needed := self._next():
            home, shard = needed
            try:
                home.bring(shard.name, size_bytes=shard.size_bytes, sha256=shard.sha256)
            except (DataError, OSError, ValueError) as error:
                # who needs the shard meets the same, and tells it
                log.debug("not prefetched: %s", escaped(error))

    def _next(self) -> tuple[Remote, Shard] | None:
        with self.changed:
            self.changed.wait_for(lambda: self.ended or self.taken < self.most)
            if self.ended or self.taken >= len(self.waiting):
                return None
            self.taken += 1
            return self.waiting[self.taken - 1]
