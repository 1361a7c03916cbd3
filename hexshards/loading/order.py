"""Shuffle order is arithmetic: shuffle, windows, symmetries are functions of named integers. No I/O, no torch.

Random numbers are the raw output of Philox, keyed by a seed and a path, and never of a ``Generator`` method: NumPy
promises the streams of its bit generators forever, those of Generator methods only within a release. Seeds are derived
along a path and never added, so seed 1 epoch 1 is not seed 2 epoch 0.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from hexshards.loading.options import Augment, LoaderSpec
from hexshards.rng import BLOCKS, ROWS, SHARDS, SYMMETRY, permutation, quarter, raw

PASSES = 4
"""Passes over the data in an epoch with ``augment="all"``, each showing every position in another symmetry."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Shuffle window: blocks that are read and mixed together; with the epoch it determines rows and symmetries."""

    epoch: int
    pass_: int
    """Which of the passes of an epoch with ``augment="all"``, else 0."""
    number: int
    """Its place in the pass."""
    blocks: NDArray[np.int64]
    """Numbers of blocks, counted over all shards of the split in their order."""
    dataset: int = 0
    """Which of the datasets that a loader mixes."""
    skip: int = 0
    """Rows of the first block that belong to the window before."""
    count: int | None = None
    """Rows of the window; None: all that the blocks hold."""


@dataclass(frozen=True, slots=True, eq=False)
class Blended:
    """A window that several datasets fill: samples ``first`` to ``end`` of all that a mix ever delivers."""

    parts: tuple[int, ...]
    """The weights of the datasets, as whole numbers."""
    first: int
    end: int
    runs: tuple[Window, ...]
    """What each dataset gives, dataset by dataset and pass by pass."""
    origin: int = 0
    """From which sample on the datasets have shared in these weights."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Walk:
    """Chosen shards, which may be small or give few rows of a block: groups and windows are filled all the same."""

    shards: NDArray[np.int64]
    """Their numbers."""
    window_rows: int
    """Rows that fill a window."""


GROUP_WINDOWS = 16
"""Windows whose blocks a group of chosen shards has at least: those of eight shards, as conversion cuts them."""

MOST_BLOCKS = 8
"""Times ``window_blocks`` that a window has at most where its blocks give few rows: 53 MB are read for it then."""


@dataclass(frozen=True, slots=True, eq=False)
class EpochPlan:
    """All windows of an epoch, and where in its stream of samples each begins."""

    windows: tuple[Window | Blended, ...]
    starts: NDArray[np.int64]
    """One entry more than windows; the last is the number of samples in the epoch."""
    streams: tuple[range, ...] = ()
    """The windows of each of the streams that are walked side by side; where none are given, one has them all."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "streams", self.streams or (range(len(self.windows)),))

    def window_at(self, sample: int) -> int:
        """Number of the window that holds a sample, the streams being laid one after another."""
        return int(np.searchsorted(self.starts, sample, side="right")) - 1

    def stream_of(self, window: int) -> int:
        """Number of the stream that a window is of."""
        return bisect_right(self.streams, window, key=attrgetter("start")) - 1

    def sample_of(self, window: int) -> int:
        """How many samples of the epoch are delivered before a window is begun."""
        first = self.streams[self.stream_of(window)].start
        return int(self.starts[window] - self.starts[first]) * len(self.streams)


def plan_epoch(
    shard_blocks: Sequence[int],
    block_rows: NDArray[np.int64],
    *,
    epoch: int,
    spec: LoaderSpec,
    walk: Walk | None = None,
) -> EpochPlan:
    """Plan an epoch's windows over shards of so many blocks, of so many rows each; ``walk``: over some of them."""
    passes = PASSES if spec.augment == "all" else 1
    windows = [
        Window(epoch, pass_, number, blocks)
        for pass_ in range(passes)
        for number, blocks in enumerate(
            window_blocks(shard_blocks, block_rows, epoch=epoch, pass_=pass_, spec=spec, walk=walk)
        )
    ]
    rows = [int(block_rows[window.blocks].sum()) for window in windows]
    return EpochPlan(tuple(windows), np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]))


def window_blocks(
    shard_blocks: Sequence[int],
    block_rows: NDArray[np.int64],
    *,
    epoch: int,
    pass_: int,
    spec: LoaderSpec,
    walk: Walk | None = None,
) -> Iterator[NDArray[np.int64]]:
    """Shuffle blocks: shards are permuted and walked in groups, the blocks of a group permuted and cut into windows."""
    first = np.concatenate([[0], np.cumsum(shard_blocks, dtype=np.int64)])
    shards = walk.shards if walk else np.arange(len(shard_blocks))
    if spec.shuffle:
        shards = shards[permutation(len(shards), spec.seed, SHARDS, epoch, pass_)]
    filled = np.array([np.count_nonzero(block_rows[first[each] : first[each + 1]]) for each in shards.tolist()])
    in_window = per_stream(spec.window_blocks, spec)
    least = GROUP_WINDOWS * in_window if walk else 0
    for group, end in _groups(filled, shards=per_stream(spec.group_shards, spec), blocks=least):
        blocks = np.concatenate([np.arange(first[shard], first[shard + 1]) for shard in shards[group:end]])
        blocks = blocks[block_rows[blocks] > 0]
        if spec.shuffle:
            blocks = blocks[permutation(len(blocks), spec.seed, BLOCKS, epoch, pass_, group)]
        yield from _windows(blocks, block_rows[blocks], in_window, walk)


def per_stream(count: int, spec: LoaderSpec) -> int:
    """What each stream has of what is mixed at a time: its part, and at least one."""
    return max(1, count // spec.streams)


def _windows(
    blocks: NDArray[np.int64], rows: NDArray[np.int64], size: int, walk: Walk | None
) -> Iterator[NDArray[np.int64]]:
    """Blocks cut into windows of so many; of chosen ones as many more as give the rows of a window."""
    start, ends = 0, np.cumsum(rows)
    while start < len(blocks):
        end = start + size
        if walk:
            before = int(ends[start - 1]) if start else 0
            full = int(np.searchsorted(ends, before + walk.window_rows)) + 1
            end = min(max(end, full), start + MOST_BLOCKS * size)
        yield blocks[start:end]
        start = end


def _groups(filled: NDArray[np.int64], *, shards: int, blocks: int) -> Iterator[tuple[int, int]]:
    """First and end of groups that hold at least so many shards and blocks, as far as there are."""
    start, ends = 0, np.cumsum(filled)
    while start < len(filled):
        full = int(np.searchsorted(ends, blocks + (ends[start - 1] if start else 0))) + 1
        end = min(max(start + shards, full), len(filled))
        yield start, end
        start = end


def window_rows(window: Window, count: int, *, spec: LoaderSpec) -> NDArray[np.int64]:
    """Shuffle rows: the order in which a window of ``count`` rows delivers them."""
    if not spec.shuffle:
        return np.arange(count, dtype=np.int64)
    return permutation(count, spec.seed, ROWS, window.epoch, window.pass_, window.number)


def symmetries(positions: NDArray[np.int64], window: Window, *, augment: Augment, seed: int) -> NDArray[np.uint8]:
    """Augmentation: which symmetry each position shows, numbered over the whole split: (P,) uint8 of 0 to 3."""
    if augment == "none":
        return np.zeros(len(positions), dtype=np.uint8)
    path = (SYMMETRY, window.epoch) if augment == "random" else (SYMMETRY,)
    drawn = quarter(positions, raw(1, seed, *path)[0])
    turn = {"random": 0, "cycle": window.epoch, "all": window.pass_}[augment]
    return (drawn + np.uint8(turn % 4)) & np.uint8(3)
