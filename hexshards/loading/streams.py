"""Canonical streams: an epoch is cut into S equal parts, walked side by side; every global batch has as much of each.

Stream ``s`` is samples ``N * s // S`` to ``N * (s + 1) // S`` of an epoch of N, laid one after another as shards are
walked, and batch ``b`` of G has its rows ``b * G / S`` to ``(b + 1) * G / S``. A rank of W has S / W streams and reads
no others; its rows of a batch are theirs. So what is in a batch is the same for every W that divides S; and as streams
end where ranks would, ``N * rank // W``, ranks share an epoch's last batch evenly too. One stream is all there is: each
rank walks it and takes its slice.

What is mixed at a time is shared out: a stream has ``1 / S`` of a window's blocks and of the shards that are walked
together, at least one. No I/O, no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hexshards.errors import escaped
from hexshards.loading.options import LoaderSpec
from hexshards.loading.order import PASSES, EpochPlan, Walk, Window, per_stream, window_blocks
from hexshards.units import counted


def edges(samples: int, streams: int, *, passes: int = 1, pass_: int = 0) -> list[int]:
    """Where streams begin in one of several passes of so many samples, and where the last ends.

    What passes give a stream adds up to its part of them all.
    """
    return [(pass_ + 1) * samples * each // streams - pass_ * samples * each // streams for each in range(streams + 1)]


def share(count: int, stream: int, streams: int) -> int:
    """Rows that a stream has of a batch of so many: of any but an epoch's last, as many as the others."""
    return count * (stream + 1) // streams - count * stream // streams


def plan_streams(
    shard_blocks: Sequence[int],
    block_rows: NDArray[np.int64],
    *,
    epoch: int,
    spec: LoaderSpec,
    walk: Walk | None = None,
) -> EpochPlan:
    """Plan an epoch's windows as ``plan_epoch`` does, stream by stream, and in each pass by pass."""
    passes = PASSES if spec.augment == "all" else 1
    passed = [
        np.concatenate(list(window_blocks(shard_blocks, block_rows, epoch=epoch, pass_=pass_, spec=spec, walk=walk)))
        for pass_ in range(passes)
    ]
    ends = [np.cumsum(block_rows[walked]) for walked in passed]
    total = int(block_rows.sum())
    cuts = [edges(total, spec.streams, passes=passes, pass_=pass_) for pass_ in range(passes)]
    windows, streams = list[Window](), list[range]()
    for stream in range(spec.streams):
        first = len(windows)
        for pass_, walked in enumerate(passed):
            low, high = cuts[pass_][stream : stream + 2]
            for blocks, skip, count in _cut(walked, ends[pass_], low, high, per_stream(spec.window_blocks, spec)):
                windows.append(Window(epoch, pass_, len(windows), blocks, skip=skip, count=count))
        streams.append(range(first, len(windows)))
    rows = [window.count or 0 for window in windows]
    return EpochPlan(tuple(windows), np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]), tuple(streams))


def _cut(
    walked: NDArray[np.int64], ends: NDArray[np.int64], low: int, high: int, together: int
) -> Iterator[tuple[NDArray[np.int64], int, int]]:
    """Windows of so many blocks over rows ``low`` to ``high``: blocks, rows of the first left out, rows taken.

    walked: the blocks of a pass in their order. ends: rows of the pass up to the end of each.
    """
    head, last = np.searchsorted(ends, [low, high - 1], side="right").tolist()
    for first in range(head, last + 1 if low < high else head, together):
        end = min(first + together, last + 1)
        begin = int(ends[first - 1]) if first else 0
        skip = max(low - begin, 0)
        yield walked[first:end], skip, min(int(ends[end - 1]), high) - begin - skip


@dataclass(frozen=True, slots=True)
class RankShare:
    """A rank's share of an epoch: which windows it reads, in which order, and which rows of streams are its own."""

    plan: EpochPlan
    rank: int = 0
    world_size: int = 1

    @property
    def streams(self) -> range:
        """The streams that the rank reads; one alone is read by all."""
        count = len(self.plan.streams)
        if count == 1:
            return range(1)
        return range(count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size)

    def windows_from(self, sample: int) -> list[tuple[int, int]]:
        """Stream and window of all that is read from a sample of the epoch on, in the order in which it is needed."""
        starts, needed = self.plan.starts, list[tuple[int, int, int]]()
        for stream in self.streams:
            windows = self.plan.streams[stream]
            begin = int(starts[windows.start])
            head = self.plan.window_at(begin + sample // len(self.plan.streams))
            needed += [(int(starts[number]) - begin, stream, number) for number in range(head, windows.stop)]
        return [(stream, number) for _, stream, number in sorted(needed)]

    def starts(self, needed: Sequence[tuple[int, int]]) -> dict[int, int]:
        """Of each stream the first row of the first of these windows of it."""
        first = {stream: windows.stop for stream, windows in enumerate(self.plan.streams) if stream in self.streams}
        first |= dict(reversed(needed))
        starts = self.plan.starts
        return {
            stream: int(starts[number] - starts[self.plan.streams[stream].start]) for stream, number in first.items()
        }

    def rows(self, first: int, count: int) -> list[tuple[int, int, int]]:
        """The rank's rows of the global batch of ``count`` samples from ``first`` on: stream, from where, to where."""
        streams = len(self.plan.streams)
        if streams == 1:
            low, high = (first + count * rank // self.world_size for rank in (self.rank, self.rank + 1))
            return [(0, low, high)]
        begin = first // streams
        return [(stream, begin, begin + share(count, stream, streams)) for stream in self.streams]


def check_streams(spec: LoaderSpec, *, positions: int, samples: int, world_size: int, where: object) -> None:
    """Raise ValueError where streams cannot be shared evenly: by ranks, by a batch, or by an epoch's last batch."""
    streams, batch = spec.streams, spec.batch_size * world_size
    if streams == 1:
        return
    if streams % world_size:
        raise ValueError(
            f"streams is {streams}, which {world_size} ranks cannot share evenly. Choose a multiple of {world_size}"
        )
    if batch % streams:
        step = streams // world_size
        low = spec.batch_size // step * step
        fitting = f"{low:d} or {low + step:d}" if low else f"{step:d}"
        raise ValueError(
            f"streams is {streams}, and a global batch of {batch:,} has no equal share of each. Choose a batch_size "
            f"that is a multiple of {step:d}, such as {fitting}"
        )
    if spec.mix_schedule:
        raise ValueError(
            "streams walk an epoch's parts side by side, and mix_schedule follows it. Leave one of them out"
        )
    if positions < streams:
        raise ValueError(f"{escaped(where)} has {counted(positions, 'position')} for {streams} streams. Choose fewer")
    last = samples % batch
    if 0 < last < streams:
        raise ValueError(
            f"{escaped(where)}: the last batch of an epoch would hold {counted(last, 'sample')} for {streams} streams. "
            "Turn drop_last on, or choose another batch_size"
        )
