"""Mixture of datasets by weight: weights say which dataset gives sample i, and each gives its own endless stream.

A dataset's stream is its passes, one after another, each holding every position once. Of the first i samples of a mix a
dataset has given its weight's share, rounded, wherever i is; so over any stretch the proportions are exact to within a
sample for each dataset. An epoch ends before any dataset would give a position a second time; in the next one all
datasets go on where they were.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards import rng
from hexshards.errors import escaped, printable, without_secrets
from hexshards.loading import order
from hexshards.loading.options import LoaderSpec
from hexshards.loading.order import PASSES, Blended, EpochPlan, Walk, Window
from hexshards.loading.streams import edges
from hexshards.piecewise import Piecewise

MAX_PARTS = 1_000_000
"""Largest sum of weights as whole numbers: products with the number of a sample stay far below 2**63."""

SHARE = 10_000
"""A share that follows a schedule is rounded to so many parts: small differences of a cosine show nowhere."""

MOST_EPOCHS = 10_000
"""With a schedule the samples of all epochs before are added up to know where one begins."""

_TOGETHER = 64
"""Samples whose datasets are put into a random order, so that no dataset has fixed places in a batch."""


def whole_parts(weights: Sequence[float]) -> tuple[int, ...]:
    """Weights as whole numbers in the same proportion: 0.7 and 0.3 are 7 and 3. Raises ValueError for bad ones."""
    try:
        exact = [Fraction(str(weight)) for weight in weights]
    except ValueError:
        raise ValueError(f"weights must be numbers, got {list(weights)}") from None
    scale = lcm(*(weight.denominator for weight in exact))
    parts = [int(weight * scale) for weight in exact]
    common = int(np.gcd.reduce(np.array(parts, dtype=object))) or 1
    parts = [part // common for part in parts]
    if min(parts) < 1 or sum(parts) > MAX_PARTS:
        raise ValueError(f"weights must be positive and of few digits, such as 0.7 and 0.3, got {list(weights)}")
    return tuple(parts)


def mixed_in(dataset: str, mix: str) -> dict[str, float]:
    """Weights of a dataset and of those that ``DIR=share`` between commas mixes into it; it gives the rest.

    Raises ValueError for other text, and for shares that leave nothing for the dataset.
    """
    shares: dict[str, Fraction] = {}
    parts = list(filter(None, (part.strip() for part in mix.split(","))))
    for number, part in enumerate(parts, start=1):
        other, _, share = part.rpartition("=")
        if not other or other in shares or other == dataset or not re.fullmatch(r"0?\.[0-9]{1,6}", share):
            # half a URL may end in half a password
            shown = repr(printable(part)) if ":/" not in mix else f"part {number} of {len(parts)}"
            raise ValueError(f"mix: {escaped(shown)} is no other dataset and its share. Write it like B=0.2,C=0.1")
        shares[other] = Fraction(share)
    rest = 1 - sum(shares.values())
    if rest <= 0 or not all(shares.values()):
        shown, first = without_secrets(printable(mix, width=400)), without_secrets(dataset)
        raise ValueError(f"mix: the shares of {shown!r} must be more than 0 and leave some for {first}")
    return {dataset: float(rest), **{other: float(share) for other, share in shares.items()}}


def given(parts: Sequence[int], samples: Any) -> NDArray[np.int64]:
    """How many of the first ``samples`` samples each dataset gives: (..., datasets), adding up to ``samples``."""
    left, of, counts = np.asarray(samples, dtype=np.int64), sum(parts), []
    for part in parts:
        # the share of what the datasets before left over, rounded: never fewer for more samples, and one more at most
        counts.append((2 * left * part + of) // max(2 * of, 1))
        left, of = left - counts[-1], of - part
    return np.stack(counts, axis=-1)


def sequence(window: Blended, *, spec: LoaderSpec) -> NDArray[np.int64]:
    """The order in which a window delivers the rows of its runs, these being laid one after another."""
    counts = given(window.parts, np.arange(window.first, window.end + 1) - window.origin)
    datasets = np.diff(counts, axis=0).argmax(axis=1)
    if spec.shuffle:
        datasets = datasets[_scattered(len(datasets), spec.seed, window.first)]
    rows = np.empty(len(datasets), dtype=np.int64)
    rows[np.argsort(datasets, kind="stable")] = np.arange(len(datasets))
    return rows


def _scattered(count: int, seed: int, first: int) -> NDArray[np.int64]:
    """Permutation of 0 to count - 1, each run of ``_TOGETHER`` numbers in a random order of its own."""
    keys = rng.mix(np.arange(count + -count % _TOGETHER, dtype=np.uint64) ^ rng.raw(1, seed, rng.BLEND, first))
    keys[count:] = np.iinfo(np.uint64).max  # what only fills the last run up stays at its end
    places = keys.reshape(-1, _TOGETHER).argsort(axis=1, kind="stable")
    places += np.arange(0, len(keys), _TOGETHER)[:, None]
    return places.ravel()[:count]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blend:
    """Mixture: datasets and the weights in which they are mixed.

    With ``shares`` these follow the samples of all epochs, and are those of its first sample throughout a window.
    """

    parts: tuple[int, ...]
    shard_blocks: tuple[list[int], ...]
    """Of each dataset, as plan_epoch takes them."""
    block_rows: tuple[Callable[[int], NDArray[np.int64]], ...]
    """Of each dataset, by its own epoch, in each of which it gives as many rows in all."""
    window_rows: int
    """Samples in a window."""
    spec: LoaderSpec
    walks: tuple[Walk | None, ...] = ()
    """Of each dataset; None or nothing: over all its shards."""
    shares: tuple[Piecewise | None, ...] = ()
    """Of each dataset; None: one of those that share the rest by their weights. Nothing: all do, as ever."""

    @property
    def passes(self) -> int:
        """Times that a dataset shows a position, each time in another symmetry, before it begins anew."""
        return PASSES if self.spec.augment == "all" else 1

    @property
    def samples(self) -> int:
        """Samples in an epoch: as many as no dataset has to repeat itself for, and no more than the spec allows."""
        have = np.array([int(rows_in(0).sum()) * self.passes for rows_in in self.block_rows])
        if self.shares:
            return self._fewest(have)
        count = min(int(rows) * sum(self.parts) // part for rows, part in zip(have, self.parts, strict=True))
        count += len(have)  # rounding may favour the dataset that is used up first
        while (given(self.parts, count) > have).any():
            count -= 1
        return count if self.spec.positions is None else min(count, self.spec.positions * self.passes)

    def _fewest(self, have: NDArray[np.int64]) -> int:
        """Length of every epoch in samples, whatever the shares are by then."""
        most = np.array(self._most_parts())
        # a window's counts are rounded, each by less than one
        count = min(int(rows) * SHARE // int(part) for rows, part in zip(have, most, strict=True) if part)
        count -= len(have) * (1 + count // self.window_rows)
        count = max(count, 1)
        return count if self.spec.positions is None else min(count, self.spec.positions * self.passes)

    def _most_parts(self) -> tuple[int, ...]:
        """The largest weight that each dataset ever has, of SHARE."""
        least = sum(_parts_of(each.least) or 0 for each in self.shares if each)
        return self._with_rest([_parts_of(each.most if each else None) for each in self.shares], SHARE - least)

    def parts_at(self, sample: int) -> tuple[int, ...]:
        """The weights from a sample of all epochs on."""
        if not self.shares:
            return self.parts
        parts = [_parts_of(each.at(sample) if each else None) for each in self.shares]
        return self._with_rest(parts, SHARE - sum(part for part in parts if part is not None))

    def _with_rest(self, parts: Sequence[int | None], rest: int) -> tuple[int, ...]:
        others = [weight for weight, part in zip(self.parts, parts, strict=True) if part is None]
        shared = iter(given(others, rest).tolist())
        return tuple(next(shared) if part is None else part for part in parts)

    def _edges(self, epoch: int, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Samples that each dataset has given before each window of an epoch, and after its last."""
        if not self.shares:
            begin = epoch * self.samples if self.spec.shuffle else 0
            return given(self.parts, begin + starts)
        before = sum((self._given_in(earlier, starts).sum(axis=0) for earlier in range(epoch)), start=np.int64(0))
        counts = self._given_in(epoch, starts)
        return np.concatenate([np.zeros((1, len(self.parts)), np.int64), np.cumsum(counts, axis=0)]) + before

    def _given_in(self, epoch: int, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Samples that each dataset gives in each window of an epoch."""
        firsts = (epoch * self.samples + starts[:-1]).tolist()
        rows = np.diff(starts).tolist()
        return np.array([given(self.parts_at(first), count) for first, count in zip(firsts, rows, strict=True)])

    def given_in(self, epoch: int) -> NDArray[np.int64]:
        """Samples that each dataset gives in an epoch."""
        edges = self._edges(epoch, self._starts())
        whole: NDArray[np.int64] = edges[-1] - edges[0]
        return whole

    def _starts(self) -> NDArray[np.int64]:
        return np.concatenate([*self._windows_of_streams(), [self.samples]])

    def _windows_of_streams(self) -> list[NDArray[np.int64]]:
        """Offsets at which the windows of each stream begin."""
        return [
            np.arange(low, high, self.window_rows) for low, high in pairwise(edges(self.samples, self.spec.streams))
        ]

    @property
    def last(self) -> int:
        """The largest number of an epoch whose samples ``given`` counts without going beyond 64 bits."""
        if self.shares:
            return MOST_EPOCHS - 1
        return int(((1 << 63) - 1) // (2 * sum(self.parts) + 1) // self.samples - 1)

    def plan(self, epoch: int) -> EpochPlan:
        """The windows of an epoch. Without shuffling all epochs are the first."""
        begin, starts = (epoch * self.samples if self.spec.shuffle else 0), self._starts()
        edges = self._edges(epoch, starts)
        streams = [_Passes(self, dataset) for dataset in range(len(self.parts))]
        windows = tuple(
            Blended(
                self.parts_at(begin + int(starts[number])),
                begin + int(starts[number]),
                begin + int(starts[number + 1]),
                tuple(
                    run
                    for stream, low, high in zip(streams, *edges[number : number + 2], strict=True)
                    for run in stream.runs(int(low), int(high))
                ),
                origin=begin + int(starts[number]) if self.shares else 0,
            )
            for number in range(len(starts) - 1)
        )
        ends = np.cumsum([0, *map(len, self._windows_of_streams())]).tolist()
        return EpochPlan(windows, starts, tuple(map(range, ends, ends[1:])))


def _parts_of(share: float | None) -> int | None:
    return None if share is None else round(share * SHARE)


class _Passes:
    """Endless stream of one dataset: pass after pass."""

    def __init__(self, blend: Blend, dataset: int) -> None:
        self.dataset, self.passes, self.spec = dataset, blend.passes, blend.spec
        self.shard_blocks, self.rows_in = blend.shard_blocks[dataset], blend.block_rows[dataset]
        self.walk = blend.walks[dataset] if blend.walks else None
        self.total = int(self.rows_in(0).sum())
        self.number = -1

    def runs(self, low: int, high: int) -> Iterator[Window]:
        """Rows ``low`` to ``high`` of the stream, a run for each pass that they lie in."""
        while low < high:
            number, first = divmod(low, self.total)
            end = min(self.total, first + high - low)
            self._go_to(number)
            head, tail = np.searchsorted(self.ends, [first, end - 1], side="right")
            before = int(self.ends[head - 1]) if head else 0
            yield Window(
                *divmod(number, self.passes),
                first,
                self.blocks[head : tail + 1],
                dataset=self.dataset,
                skip=first - before,
                count=end - first,
            )
            low += end - first

    def _go_to(self, number: int) -> None:
        if number == self.number:
            return
        epoch, pass_ = divmod(number, self.passes)
        rows = self.rows_in(epoch)
        windows = order.window_blocks(self.shard_blocks, rows, epoch=epoch, pass_=pass_, spec=self.spec, walk=self.walk)
        self.number, self.blocks = number, np.concatenate(list(windows))
        self.ends = np.cumsum(rows[self.blocks])
