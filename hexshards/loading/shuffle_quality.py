"""Shuffle quality is counted on the loader's own stream and compared with what a uniform shuffle would give.

The meter asks the loader's windows for other columns, in the loader's order, and cuts them where the loader cuts its
batches. A uniform shuffle of an epoch puts every position into any batch with equal chance; what it gives on average,
and how far chance takes it from that, is arithmetic on how many positions each game and each file has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.compact import has_grown, has_small_shards
from hexshards.dataset.index import Index
from hexshards.errors import escaped
from hexshards.game.columns import UNKNOWN
from hexshards.loading.loader import Loader
from hexshards.loading.options import LoaderSpec
from hexshards.loading.streams import share
from hexshards.loading.window import Windows
from hexshards.storage.files import Home
from hexshards.units import counted

SUSPECT = 4.5
"""Standard deviations beyond a uniform shuffle that are no longer taken for chance: once in 300,000 such shuffles."""

HARM = 0.05
"""Share of a batch that may be lost before batches are called bad.

How much smaller a batch is then as good, by what a mean over it strays: at worst, as if all positions of a class said
the same. A class that says little costs less. What that does was measured (28 November 2026, 8 channels, 1 block, 300
steps on 232,032 positions, six seeds): batches of 243 instead of 256, 5% less, left val.loss 0.003 +- 0.004 higher;
230, 10% less, 0.011 +- 0.003; 205, 20% less, 0.019 +- 0.004. Seeds differ by 0.021. So 5% is not seen, and 10% is.
"""

_MERGED_AT = 1 << 20

BatchColumns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure, that of a uniform shuffle, and how far apart, in standard deviations; None: not judged."""

    name: str
    measured: float
    uniform: float
    deviations: float | None = None
    lost: float = 0.0
    """The share of a batch that it costs at most: as if batches were so much smaller."""

    @property
    def more(self) -> bool:
        """Whether there is more of it than chance explains, however little."""
        return self.deviations is not None and self.deviations > SUSPECT

    @property
    def bad(self) -> bool:
        """Whether there is more of it than chance explains, and so much that it may cost something."""
        return self.more and self.lost > HARM

    @property
    def less(self) -> bool:
        """Whether there is less of it than by chance, which is never bad: it would tell of what is not spread."""
        return self.deviations is not None and self.deviations < -SUSPECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """What was measured over the full batches of an epoch."""

    positions: int
    """Those that an epoch draws."""
    held: int
    """Those of the whole split."""
    chosen: tuple[str, ...]
    """What chooses the ones from the others, a sentence each."""
    batch_size: int
    batches: int
    without_game: int
    """Positions that do not say which game they are from; no pair is counted for them."""
    measures: tuple[Measure, ...]
    remedy: str
    """What to do where the batches are not mixed."""

    @property
    def sound(self) -> bool:
        """Whether batches are as good as those of a uniform shuffle."""
        return not any(measure.bad for measure in self.measures)

    @property
    def worst(self) -> Measure | None:
        """What costs the most of what chance does not explain; None where it explains all."""
        return max((each for each in self.measures if each.more), key=lambda each: each.lost, default=None)


def mixing(
    dataset: str | Path | Home, spec: LoaderSpec, *, epoch: int = 0, progress: Callable[[int, int], None] | None = None
) -> Mixing:
    """Measure shuffle quality over an epoch, and one with ``augment="all"``: full batches. Reads the split five times.

    ``progress`` is told samples done and in all. Memory: 16 bytes a game, and a window. Raises ValueError where an
    epoch has fewer than two full batches, and whatever opening and reading the dataset raises.
    """
    loader = Loader(dataset, replace(spec, augment="none", drop_last=True), rank=0, world_size=1)
    # where every position is stored in its four symmetries, they are positions as any others
    again = None if loader.index.baked else _shown_four_times(dataset, spec)
    if len(loader) < 2:
        raise ValueError(
            f"{escaped(loader.home)}: {counted(loader.positions, 'position', verb='is/are')} fewer than two batches of "
            f"{spec.batch_size:,}"
        )
    tell, in_all = progress or (lambda *_: None), loader.samples + (again.samples if again else 0)
    tally = _Tally(spec.batch_size)
    for number, batch in enumerate(stream(loader, ("source", "game", "value"), epoch=epoch), start=1):
        tally.add(batch)
        tell(number * spec.batch_size, in_all)
    copies = 0
    for number, batch in enumerate(stream(again, ("place",), epoch=epoch) if again else (), start=1):
        copies += _pairs(np.unique(batch["place"], return_counts=True)[1])
        tell(loader.samples + number * spec.batch_size, in_all)
    measures = [*tally.measures()]
    if again:
        measures.append(_copies(copies, len(again), spec.batch_size, loader.positions))
    return Mixing(
        positions=loader.positions,
        held=sum(shard.positions for shard in loader.index.splits[spec.split].shards),
        chosen=tuple(loader.describe()),
        batch_size=spec.batch_size,
        batches=len(loader),
        without_game=tally.without_game,
        measures=tuple(measures),
        remedy=_remedy(loader.index, spec),
    )


def _remedy(index: Index, spec: LoaderSpec) -> str:
    if not spec.shuffle:
        return "Leave shuffling on"
    # of 16 additions pairs of one file came 2.4 times as often as by chance; merged, 1.004 times
    if has_small_shards(index, spec.split):
        return "Merge the small shards with `hexshards compact`: they were added one after another"
    if has_grown(index, spec.split):
        return (
            "It grew, and `hexshards compact` has nothing more to merge: where nothing needs the order of time, as "
            "--window does, convert all files again into one dataset"
        )
    return "Convert again, which shuffles all positions"


def _shown_four_times(dataset: str | Path | Home, spec: LoaderSpec) -> Loader:
    return Loader(dataset, replace(spec, augment="all", drop_last=True), rank=0, world_size=1)


def stream(loader: Loader, names: tuple[str, ...], *, epoch: int) -> Iterator[BatchColumns]:
    """Any columns of the samples of each batch that a loader delivers in an epoch, in its order."""
    windows, size = loader.epochs.windows(epoch), loader.batch_size * loader.world_size
    counts = [min(size, loader.samples - first) for first in range(0, loader.samples, size)]
    streams = windows.plan.streams
    parts = [
        _cut(windows, numbers, names, [share(count, stream, len(streams)) for count in counts])
        for stream, numbers in enumerate(streams)
    ]
    for batch in zip(*parts, strict=True):
        yield batch[0] if len(batch) == 1 else {name: np.concatenate([part[name] for part in batch]) for name in names}


def _cut(windows: Windows, numbers: range, names: tuple[str, ...], counts: list[int]) -> Iterator[BatchColumns]:
    """Rebatch: so many rows of some windows, time after time."""
    held, left = list[BatchColumns](), iter(numbers)
    for count in counts:
        while sum(len(part[names[0]]) for part in held) < count:
            held.append(windows.read(next(left), names).columns)
        if len(held) > 1:
            held = [{name: np.concatenate([part[name] for part in held]) for name in names}]
        yield {name: held[0][name][:count] for name in names}
        held = [{name: held[0][name][count:] for name in names}]


class _Tally:
    """Counts over batches; positions of the same game or file by a key, label balance, and neighbours' values."""

    def __init__(self, size: int) -> None:
        self.size, self.batches, self.without_game = size, 0, 0
        self.games, self.files = _Classes(), _Classes()
        self.sums: list[float] = []
        self.squares = self.products = 0.0
        self.last: float | None = None

    def add(self, batch: BatchColumns) -> None:
        game, source, value = batch["game"], batch["source"].astype(np.int64), batch["value"].astype(np.float64)
        known = game != UNKNOWN
        self.without_game += int((~known).sum())
        self.games.add((source << 32 | game)[known])
        self.files.add(source)
        self.batches += 1
        self.sums.append(float(value.sum()))
        self.squares += float((value**2).sum())
        before = value[:-1] if self.last is None else np.concatenate([[self.last], value[:-1]])
        self.products += float((before * value[-len(before) :]).sum())
        self.last = float(value[-1])

    def measures(self) -> Iterator[Measure]:
        total, size = self.batches * self.size, self.size
        yield from self.games.measures("games", self.batches, size, total)
        yield from self.files.measures("source files", self.batches, size, total)
        mean = sum(self.sums) / total
        variance = self.squares / total - mean**2
        if variance <= 0:
            return
        of_one = variance / size * (total - size) / (total - 1)
        spread = float(np.square(np.array(self.sums) / size - mean).sum())
        yield Measure(
            name="mean value of a batch, standard deviation",
            measured=math.sqrt(spread / self.batches),
            uniform=math.sqrt(of_one),
            deviations=_deviations(spread, of_one * self.batches, 2 * of_one**2 * self.batches),
            lost=_lost(of_one, spread / self.batches),
        )
        neighbours = (self.products / (total - 1) - mean**2) / variance
        yield Measure(
            name="serial correlation of the value",
            measured=neighbours,
            uniform=-1 / total,
            deviations=abs(neighbours + 1 / total) * math.sqrt(total),
            lost=_lost(1, 1 + 2 * abs(neighbours)),  # each position of a batch has a neighbour on either side
        )


class _Classes:
    """How positions of the same class, a game or a file, fall into the same batches."""

    def __init__(self) -> None:
        self.pairs = self.distinct = 0
        self.keys, self.counts = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self.waiting: list[NDArray[np.int64]] = []

    def add(self, keys: NDArray[np.int64]) -> None:
        counts = np.unique(keys, return_counts=True)[1]
        self.pairs += _pairs(counts)
        self.distinct += len(counts)
        self.waiting.append(keys)
        if sum(map(len, self.waiting)) > _MERGED_AT:
            self._merge()

    def measures(self, name: str, batches: int, size: int, total: int) -> Iterator[Measure]:
        """Over so many batches of a size, which hold so many positions in all."""
        self._merge()
        if not len(self.keys):
            return
        # how many positions the classes have, and how many classes have so many
        sizes, times = (column.tolist() for column in np.unique(self.counts, return_counts=True))
        mean, variance = _pairs_by_chance(sizes, times, size, total)
        yield Measure(
            name=f"pairs of the same {name.rstrip('s')} per batch",
            measured=self.pairs / batches,
            uniform=mean / batches,
            deviations=_deviations(self.pairs, mean, variance),
            lost=_lost_by_pairs(self.pairs / batches, mean / batches, size),
        )
        distinct = sum(count * (1 - _absent(each, size, total)) for each, count in zip(sizes, times, strict=True))
        yield Measure(name=f"{name} per batch", measured=self.distinct / batches, uniform=distinct)

    def _merge(self) -> None:
        if not self.waiting:
            return
        keys, counts = np.unique(np.concatenate(self.waiting), return_counts=True)
        keys, place = np.unique(np.concatenate([self.keys, keys]), return_inverse=True)
        counts = np.bincount(place, weights=np.concatenate([self.counts, counts])).astype(np.int64)
        self.keys, self.counts, self.waiting = keys, counts, []


def _pairs_by_chance(sizes: list[int], times: list[int], size: int, total: int) -> tuple[float, float]:
    """Mean and variance of the pairs of a class that a uniform shuffle puts into the same batch, over all batches.

    Exact, by the chances that two, three, or twice two positions meet; as fractions, for their differences are tiny.
    """
    pairs = sum(n * (n - 1) // 2 * count for n, count in zip(sizes, times, strict=True))
    sharing = sum(n * (n - 1) * (n - 2) * count for n, count in zip(sizes, times, strict=True))
    two = Fraction(size - 1, total - 1)
    three = two * Fraction(size - 2, max(total - 2, 1))
    rest = (size - 2) * (size - 3) + (total - size) * (size - 1)
    four = two * Fraction(rest, max((total - 2) * (total - 3), 1))
    variance = pairs * two + sharing * three + (pairs**2 - pairs - sharing) * four - (pairs * two) ** 2
    return float(pairs * two), float(variance)


def _absent(members: int, size: int, total: int) -> float:
    """Probability that none of a class is in a batch."""
    if total - members < size:
        return 0.0
    lgamma = math.lgamma
    ways = lgamma(total - members + 1) - lgamma(total - members - size + 1)
    return math.exp(ways - lgamma(total + 1) + lgamma(total - size + 1))


def _deviations(observed: float, mean: float, variance: float) -> float | None:
    """How far beyond its mean a sum of chances is, as deviations of a normal variable; None where nothing is chance.

    A gamma variable of the same mean and variance, made normal by its cube root (Wilson and Hilferty, 1931): a plain
    quotient calls rare pairs suspicious that are not.
    """
    if mean <= 0 or variance <= 1e-9 * mean:
        return None
    freedom = 2 * mean**2 / variance
    return float((math.cbrt(observed / mean) - 1 + 2 / (9 * freedom)) / math.sqrt(2 / (9 * freedom)))


def _copies(observed: int, batches: int, size: int, positions: int) -> Measure:
    """Pairs of images of one position in the same batch, of an epoch that shows four of each."""
    uniform = 6 * positions * (size - 1) / (4 * positions - 1)
    return Measure(
        name='copies of a position per batch, augment="all"',
        measured=observed / batches,
        uniform=uniform / batches,
        deviations=_deviations(observed, uniform, uniform),
        lost=_lost_by_pairs(observed / batches, uniform / batches, size),
    )


def _lost_by_pairs(pairs: float, uniform: float, size: int) -> float:
    """The share of a batch that pairs cost, were both positions of each to say the same.

    Of n classes of which a batch has c_i positions a mean strays as that of (sum c_i)^2 / sum c_i^2 positions (Kish,
    1965), and sum c_i^2 is the size and twice the pairs.
    """
    return _lost(size + 2 * uniform, size + 2 * pairs)


def _lost(variance: float, measured: float) -> float:
    """How much smaller a batch is whose mean strays with one variance instead of the other."""
    return 1 - variance / measured if measured > variance else 0.0


def _pairs(counts: NDArray[np.int64]) -> int:
    return int((counts * (counts - 1) // 2).sum())
