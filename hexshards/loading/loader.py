"""Data loader: an epoch is one stream of samples that depends on neither workers nor ranks; a place is a number.

Global batch ``b`` is samples ``b * G`` to ``(b + 1) * G`` of the stream, G being batch_size * world_size, and rank
``r`` takes the ``r``-th slice of it. Every rank walks all windows: reading is so much cheaper than training that this
is the simple answer, and it lets a state fit any number of ranks. Its cost: every rank reads and decompresses the whole
split. With ``streams`` a rank reads its part of it, and a state fits all numbers of ranks that divide them.

Memory of one loader: ``(2 * num_workers + 3)`` windows of ``window_blocks * block_positions * row_bytes``, twice while
a window is being mixed; a row is 51 bytes at side 13, so 6.7 MB a window with the defaults. Batches on the CPU add the
memory of four, 2.7 KB a sample at side 13, a worker process about 35 MB, and an epoch's plan 8 bytes per block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, Unpack, cast

import torch
from torch.utils.data import IterableDataset, SequentialSampler

from hexshards.arguments import LocalPath, checked
from hexshards.errors import escaped, printable
from hexshards.loading.batching import StreamBuffers, compiled, on_cpu, on_device, usable_device
from hexshards.loading.device_cache import Resident
from hexshards.loading.epoch_plan import Datasets, Epochs, State
from hexshards.loading.expansion.expand import Batch, Rows, each_alone
from hexshards.loading.loader_state import decoded
from hexshards.loading.options import LOADER, LoaderOptions, LoaderSpec
from hexshards.loading.rank import rank_and_size
from hexshards.loading.shard_prefetch import check_room
from hexshards.loading.streams import RankShare, check_streams
from hexshards.loading.window import Mixed, Windows
from hexshards.loading.window_reader import read_windows
from hexshards.options import as_recorded, changed, takes
from hexshards.storage.files import Home
from hexshards.storage.options import REMOTE, RemoteSpec
from hexshards.storage.remote import home_of
from hexshards.units import counted, parse_bytes

__all__ = ["Batch", "Loader", "loader"]

log = logging.getLogger(__name__)

Made = TypeVar("Made")
Stream = Generator[Made, None, None]
WindowSource = Callable[[Windows, Sequence[int]], Generator[Rows, None, None]]
"""Rows of windows, window by window."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""What batches may be made of."""


@checked
@takes(LoaderSpec)
def loader(
    dataset: Datasets,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    resident: bool = False,
    cache: LocalPath | None = REMOTE.cache,
    cache_limit: int | str = REMOTE.cache_bytes,
    rank: int | None = None,
    world_size: int | None = None,
    **options: Unpack[LoaderOptions],
) -> Loader:
    """Data loader of a dataset, for training or validation: an iterable of ``(board, policy, value)`` batches.

    ``dataset`` is a folder or a URL (s3, gs, hf, https). Shards of a URL come down to the folder ``cache``, if it is
    None to ``hexshards`` in the user's cache folder; beyond ``cache_limit``, in bytes or as ``50GiB``, the least
    recently used leave it.

    ``{"A": 0.7, "B": 0.3}`` mixes datasets: 7 samples of A for 3 of B, wherever one looks. ``where``, ``sources``,
    ``shards``, ``window``, ``per_game`` and ``positions`` choose what is used of each (docs/selection.md). What each
    option means: LoaderSpec, or docs/options.md.

    ``policy`` is what a policy learns: ``"played"`` moves, the visits of a ``"search"``, or a mix: docs/targets.md.
    ``columns`` come as a fourth part of each batch, ``columns``: a dict of tensors of a row a sample, in the sample's
    symmetry. ``weights`` are factors of the column ``weight`` by rule: ``"ply=60..:2, tier=0:0.5"``.

    Batches are made on ``device``, of ``dtype`` (float32, float16 or bfloat16), boards in memory as PyTorch's
    channels_last on request. ``resident`` keeps what is used of one dataset there, packed: 50 bytes a position.

    ``rank`` and ``world_size`` come from torch.distributed where it is initialised, else from torchrun's environment,
    else they are 0 and 1. With ``on_error="skip"`` a damaged block is replaced by other positions of its window and
    counted in ``skipped``; a window without a sound block still raises DataError. Raises FileNotFoundError where there
    is no dataset, DataError where it is damaged or has no such split, ValueError for arguments that make no sense
    together.
    """
    limit = parse_bytes(cache_limit, name="cache_limit")
    remote = RemoteSpec(cache=Path(cache).absolute() if cache else None, cache_bytes=limit)
    return Loader(
        _homes(dataset, remote),
        LoaderSpec(**options),
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        resident=resident,
        rank=rank,
        world_size=world_size,
    )


def _homes(dataset: Datasets, spec: RemoteSpec) -> Home | Mapping[Home, float]:
    if isinstance(dataset, Mapping):
        return {home_of(each, spec=spec): weight for each, weight in dataset.items()}
    return home_of(dataset, spec=spec)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Count of damaged blocks that a loader skipped, with other positions in their place; reread, they count again."""

    blocks: int = 0
    positions: int = 0


@dataclass(slots=True, eq=False)
class _Pass:
    """Iterator state: how far an epoch was delivered, or where the next one is to begin."""

    epoch: int
    samples: int = 0
    """Of the epoch's global stream that were delivered."""
    begun: bool = False
    loaded: bool = False
    """It is out of a state, and the next iterator goes on from it."""


class _Samples(IterableDataset[Batch]):
    """Dataset of single samples, as loops ask a DataLoader's ``dataset`` for their number, and for each alone."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return self.loader.samples

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            # the kind of batch that it is, which has a fourth part where columns were asked for
            yield from cast("Iterator[Batch]", each_alone(batch))


class _InOrder(SequentialSampler):
    """Sequential sampler: Lightning's ``overfit_batches`` takes a loader that has one, and refuses any other."""

    def __init__(self, loader: Loader) -> None:
        super().__init__(range(loader.samples))
        self.set_epoch = loader.set_epoch


class Loader:
    """Data loader: batches of one split, epoch after epoch; made by ``hexshards.loader``.

    Each ``iter`` is a pass of its own through the epoch that is current then: from the start, or, the first one after a
    state was loaded, from where that left off. Several at once do not disturb one another. ``epoch`` and
    ``state_dict`` are of the iterator that was made, or handed over a batch, last; when that is exhausted the loader
    moves on to the next epoch.
    """

    @checked
    def __init__(
        self,
        dataset: Datasets,
        spec: LoaderSpec,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        resident: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.epochs = Epochs(dataset, spec)
        self.index, self.home = self.epochs.index, self.epochs.home
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(map(str, DTYPES))}, got {dtype}")
        self.spec, self.device, self.dtype, self.channels_last = spec, usable_device(device), dtype, channels_last
        self.rank, self.world_size = _rank_and_size(rank, world_size)
        self._check_size()
        check_room(self.epochs.selections, spec)
        if resident and len(self.epochs.selections) > 1:
            raise ValueError("resident keeps one dataset on the device, and this is a mix")
        self.resident = resident
        self.extra = self.epochs.windows(0).extra
        if resident and self.epochs.windows(0).target:
            raise ValueError("resident keeps no visits of a search. Leave resident out, or policy played")
        if resident and self.extra:
            raise ValueError(
                "resident keeps what a batch is made of, and no other columns. Leave resident or columns out"
            )
        self._compiled = compiled() if self.device.type == "cpu" and not resident else None
        self._store: Resident | None = None
        self.skipped, self._damage = Skipped(), set[str]()
        self._at = _Pass(0)

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 0."""
        return self._at.epoch

    @property
    def batch_size(self) -> int:
        """Samples in a full batch of this rank."""
        return self.spec.batch_size

    @property
    def positions(self) -> int:
        """Positions that are used, over all datasets."""
        return self.epochs.positions

    @property
    def ages(self) -> range | None:
        """Which positions epochs draw from, of those that filters leave, by age; None for a mix, or what is no range.

        Additions never change the number of a position that was there, nor does merging: see EpochSelection.
        """
        selection, *others = self.epochs.selections
        return None if others else selection.ages

    @property
    def shards(self) -> int:
        """Shards that positions are drawn from, over all datasets."""
        return sum(
            len(each.walk.shards if each.walk else each.index.splits[self.spec.split].shards)
            for each in self.epochs.selections
        )

    @property
    def samples(self) -> int:
        """Samples that an epoch delivers, over all ranks: positions, times 4 with ``augment="all"``.

        Of a mix: as many as there are before a dataset would have to repeat a position.
        """
        total = self.epochs.samples
        return total - total % self._global_batch if self.spec.drop_last else total

    def __repr__(self) -> str:
        """What a person is shown of it, in one line."""
        homes = " and ".join(escaped(each.home) for each in self.epochs.selections)
        used = f"{counted(self.positions, 'position')} of {self.spec.split}"
        return f"<Loader of {homes}: {used}, batch_size {self.batch_size:,}, epoch {self.epoch:,}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from hexshards.drawing.tables import facts, summary

        title = f"{counted(self.samples, 'sample')} an epoch in {counted(len(self), 'batch')} of {self.batch_size:,}"
        used = f"{self.positions:,} of {self.spec.split}"
        rows = {"dataset": str(self.home), "positions": used, "epoch": f"{self.epoch:,}", "device": str(self.device)}
        rows["rank"] = f"{self.rank} of {self.world_size}"
        given = changed(LOADER, as_recorded(self.spec))
        rows |= {name: printable(value) for name, value in given.items() if name not in rows}
        return summary(title, facts(rows.items()))

    def __len__(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return -(-self.samples // self._global_batch)

    def __iter__(self) -> Iterator[Batch]:
        if self.resident and self._store is None:
            self._store = Resident(self.epochs.selections[0], self.device)
        return self._deliver(self.batches_of, self._store.draw if self._store else self._read)

    def packed(self) -> Stream[Rows]:
        """Packed batches: the same rows, not expanded, NumPy arrays in the CPU's memory; a state counts them too.

        51 bytes a row at side 13, for those who expand them elsewhere: ``Packed``, or ``PackedWithColumns`` where
        columns were asked for, which then are as in the dataset, in no row's symmetry. An array is a view of a window
        of rows, and keeps it in memory. With workers that memory is shared: a process that is forked must copy the rows
        it goes on looking at, for nobody sees that it does.
        """
        return self._deliver(lambda rows: rows, self._read)

    def fingerprint(self, epoch: int) -> str:
        """Fingerprint (hash) of an epoch's order: runs that show the same one see the same samples, one after another.

        How the samples are cut into batches, and by how many ranks and workers, changes nothing.
        """
        return self.epochs.fingerprint(epoch)

    def describe(self) -> list[str]:
        """What is used of each dataset, a line each; none where a whole dataset is used alone."""
        return self.epochs.describe()

    def state_dict(self) -> State:
        """State for a checkpoint: the samples already delivered of the current epoch, and what fixes their order."""
        return {**self._identity(), "epoch": self._at.epoch, "samples": self._at.samples}

    def load_state_dict(self, state: Mapping[str, int | str]) -> None:
        """Resume right after the last batch that a state had seen; ranks and workers may be others than then.

        Raises ValueError, naming the field, for a state of another dataset, order or global batch size, and for
        anything that no such loader wrote.
        """
        saved = decoded(state, identity=self._identity(), samples=self.samples, last_epoch=self.epochs.last)
        self._at = _Pass(saved.epoch, saved.samples, loaded=True)

    @checked
    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that begins with the next first batch. To set the current one changes nothing: it goes on.

        The newest iterator is of that epoch too, if it has not begun: PyTorch Lightning tells the epoch after ``iter``.
        """
        if epoch < 0:
            raise ValueError(f"epoch must not be negative, got {epoch}")
        if epoch > self.epochs.last:
            raise ValueError(f"epoch must be at most {self.epochs.last}")
        if epoch == self._at.epoch:
            return
        if self._at.begun:
            self._at = _Pass(epoch)
        else:
            self._at.epoch, self._at.samples, self._at.loaded = epoch, 0, False

    # --- what loops that know torch's DataLoader ask for ---

    @property
    def dataset(self) -> IterableDataset[Batch]:
        """The samples, one by one; its length is that of an epoch over all ranks."""
        return _Samples(self)

    @property
    def sampler(self) -> Loader | SequentialSampler:
        """What PyTorch Lightning tells the epoch; one of torch's own where the order is the dataset's."""
        return self if self.spec.shuffle else _InOrder(self)

    @property
    def batch_sampler(self) -> None:
        """There is none: batches are what comes out."""
        return None

    @property
    def _global_batch(self) -> int:
        return self.spec.batch_size * self.world_size

    def _identity(self) -> State:
        """Identity of the order: what the samples and their batches follow from, for a state to name."""
        cut = {"global_batch": self._global_batch, "drop_last": int(self.spec.drop_last)}
        return {**self.epochs.identity(), **cut}

    def _check_size(self) -> None:
        check_streams(
            self.spec, positions=self.positions, samples=self.samples, world_size=self.world_size, where=self.home
        )
        if self.samples == 0:
            raise ValueError(
                f"{escaped(self.home)}: split {self.spec.split} has {counted(self.positions, 'position')}, not one "
                f"full batch of {self._global_batch:,}. Lower batch_size, or leave drop_last off"
            )
        last = self.samples % self._global_batch
        if 0 < last < self.world_size:
            raise ValueError(
                f"{escaped(self.home)}: the last batch of an epoch would hold {counted(last, 'sample')} for "
                f"{counted(self.world_size, 'rank')}. Turn drop_last on, or choose another batch_size"
            )

    def _deliver(self, make: Callable[[Stream[Rows]], Stream[Made]], read: WindowSource) -> Stream[Made]:
        """Iterate what is made of the rows of each batch, from where the loader stands to the end of the epoch."""
        at = self._at
        if at.loaded:
            self._at = _Pass(at.epoch, at.samples)
        else:
            # who counts batches need not ask for the one after the last
            self._at = _Pass(at.epoch + (at.samples >= self.samples))
        return self._counted(self._at, make, read)

    def _counted(self, own: _Pass, make: Callable[[Stream[Rows]], Stream[Made]], read: WindowSource) -> Stream[Made]:
        # only now, at the first batch: Lightning sets the epoch after it has called iter
        own.begun, start = True, own.samples
        with closing(self._packed(own.epoch, start, read)) as rows, closing(make(rows)) as made:
            for first in range(start, self.samples, self._global_batch):
                batch = next(made)
                # what is prefetched does not count: a state is about the batches that were handed over
                own.samples = min(first + self._global_batch, self.samples)
                self._at = own
                yield batch
        if self._at is own:
            self._at = _Pass(own.epoch + 1)

    def _packed(self, epoch: int, start: int, read: WindowSource) -> Stream[Rows]:
        """Packed rows of this rank for each batch, from sample ``start`` of the global stream on."""
        windows = self.epochs.windows(epoch)
        own = RankShare(windows.plan, self.rank, self.world_size)
        needed = own.windows_from(start)
        with closing(read(windows, [number for _, number in needed])) as drawn:
            rows = StreamBuffers(drawn, streams=[stream for stream, _ in needed], starts=own.starts(needed))
            for first in range(start, self.samples, self._global_batch):
                yield rows.take(own.rows(first, min(self._global_batch, self.samples - first)))

    def _read(self, windows: Windows, numbers: Sequence[int]) -> Stream[Rows]:
        with closing(read_windows(windows, numbers, num_workers=self.spec.num_workers)) as in_order:
            for window in in_order:
                self._count(window)
                yield window.rows

    def batches_of(self, rows: Stream[Rows]) -> Stream[Batch]:
        """Batches on the loader's device, of its dtype and layout, out of packed rows."""
        side, dtype, channels_last = self.index.side, self.dtype, self.channels_last
        if self.device.type == "cpu" and not self.resident:
            made = on_cpu(
                rows, side=side, by=self._compiled, dtype=dtype, channels_last=channels_last, extra=self.extra
            )
        else:
            made = on_device(
                rows, side=side, device=self.device, dtype=dtype, channels_last=channels_last, extra=self.extra
            )
        return cast("Stream[Batch]", made)

    def _count(self, window: Mixed) -> None:
        for error in window.damage:
            if str(error) not in self._damage:  # each epoch meets it again, and each validation
                self._damage.add(str(error))
                log.warning("skipped a damaged block: %s", escaped(error))
        before = self.skipped
        self.skipped = Skipped(before.blocks + len(window.damage), before.positions + int(window.lost))


def _rank_and_size(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and world size of this process among those that train together."""
    if (rank is None) != (world_size is None):
        raise ValueError(f"give both rank and world_size or neither, got {rank} and {world_size}")
    if rank is None or world_size is None:
        return rank_and_size()
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be 0 to world_size - 1, got {rank} of {world_size}")
    return rank, world_size
