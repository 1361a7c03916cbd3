"""Growing data: what is added during a run is seen from the next epoch on; the epoch at work keeps what it began with.

The run's folder keeps the index of each state of the dataset that the run has seen. Additions leave old shards alone,
so with an old index the old dataset is there, whole, whatever was added since. Where small shards were merged, the old
ones stay for a while (hexshards.conversion.compact); an epoch whose shards are gone is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from hexshards.dataset.earlier import extends
from hexshards.dataset.index import NAME, Index, read_index
from hexshards.errors import DataError
from hexshards.loading.loader import Loader
from hexshards.storage.files import Home
from hexshards.storage.remote import Unreachable, home_of
from hexshards.training.checkpointing.checkpoint_file import other_dataset
from hexshards.training.options import STATES, VALIDATION
from hexshards.training.protocols import TrainLoader
from hexshards.units import counted

_GONE = "is gone, and {} needs it: `hexshards compact` merged it since"
_RETRY = "{}; `compact --keep 2` keeps such shards longer"
_EPOCH = (
    _GONE.format("the dataset as it was when this epoch began"),
    _RETRY.format("Begin another run, with --init-from CHECKPOINT to keep its weights"),
)
_HELD = (
    _GONE.format("the validation that the run began with"),
    _RETRY.format("Begin another run, or evaluate this one on what is there now with dataset='DIR' (--dataset DIR)"),
)


class ShardsGone(Unreachable):
    """A shard that a run still needs was merged into others, and removed."""

    @property
    def held_out(self) -> bool:
        """Whether it is one of validation, which a run needs to its end."""
        return Path(self.where).name.startswith("val-")


class GrowingData(Protocol):
    """A dataset that may grow: where a run finds it again."""

    def newest(self, fingerprint: str, /, *, larger: bool = False) -> str:
        """The fingerprint of the dataset as it is now. Raises DataError when it is not the one given, grown.

        ``larger``: the given one, unless there are more positions now.
        """

    def grown(self, fingerprint: str, before: TrainLoader, /, *, later: int = 0) -> TrainLoader:
        """A loader of the dataset with that fingerprint, at the epoch at which another one is, or so many later."""

    def positions(self, fingerprint: str, /, *, now: bool = False) -> int:
        """Training positions of the dataset with that fingerprint; ``now``: as it is now, which must be it, grown."""

    def as_it_was(self, fingerprint: str, /, *, where: Path) -> TrainLoader:
        """A loader of the dataset as a checkpoint knows it. Raises DataError when what is there now is another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What an epoch draws from that begins on another state of the dataset than the one before it; for a person."""

    epoch: int
    more: int
    """Samples that it has more; negative: fewer."""
    before: range | None = None
    """Positions that the epoch before drew from, by age (hexshards.loading.loader.Loader.ages), where that is known."""
    now: range | None = None

    @classmethod
    def between(cls, before: TrainLoader, now: TrainLoader, *, epoch: int) -> Growth:
        """From one loader to the next."""
        ages = [each.ages if isinstance(each, Loader) else None for each in (before, now)]
        return cls(epoch=epoch, more=now.samples - before.samples, before=ages[0], now=ages[1])

    def __str__(self) -> str:
        if self.before is None or self.now is None:
            return self._counted("which may be of other positions")
        kept = len(range(max(self.before.start, self.now.start), min(self.before.stop, self.now.stop)))
        new, gone = len(self.now) - kept, len(self.before) - kept
        if not gone:
            return self._counted("in another order" if not new else "some of other positions")
        drawn = f"epoch {self.epoch} draws from {counted(len(self.now), 'position')}"
        return f"the window has moved: {drawn}, {new:,} new and {kept:,} as before; {gone:,} of those before left it"

    def _counted(self, others: str) -> str:
        if self.more > 0:
            return f"the dataset has grown: epoch {self.epoch} has {counted(self.more, 'sample')} more"
        told = f"{counted(-self.more, 'sample')} fewer" if self.more else f"as many samples, {others}"
        return f"the dataset has other shards: epoch {self.epoch} has {told}"


def has_grown(data: GrowingData, fingerprint: str) -> bool:
    """Whether a dataset that had that fingerprint has more training positions now; not if it is gone, or another."""
    with suppress(OSError, DataError):
        return data.positions(fingerprint, now=True) > data.positions(fingerprint)
    return False


class Few(NamedTuple):
    """Games that a run validates on to its end, so few that what they say of the value is off by chance."""

    games: int
    now: int
    """Those that the dataset has by now."""


def few_games(train_loader: object, val_loader: object) -> Few | None:
    """The games of validation, where they are few; None where they are not, or loaders do not tell."""
    if not isinstance(val_loader, Loader) or (games := val_loader.index.few_val_games) is None:
        return None
    split = train_loader.index.splits.get("val") if isinstance(train_loader, Loader) else None
    return Few(games, max(games, split.games if split else 0))


@dataclass(frozen=True, slots=True)
class Earlier:
    """A dataset as it was: its files, and an index that was put aside."""

    home: Home
    index: Path
    held: bool = False
    """Whether it is what a run validates on."""

    def __str__(self) -> str:
        return str(self.home)

    def where(self, file: str) -> str:
        """A file of the dataset as a person names it."""
        return str(self.index) if file == NAME else self.home.where(file)

    def read(self, file: str) -> bytes:
        """The index that was put aside, or a file of the dataset."""
        return self.index.read_bytes() if file == NAME else self.home.read(file)

    def open(self, file: str, *, size_bytes: int, sha256: str) -> BinaryIO:
        """A shard. Raises ShardsGone where it is gone, for those merged since are others."""
        try:
            return self.home.open(file, size_bytes=size_bytes, sha256=sha256)
        except FileNotFoundError:
            problem, fix = _HELD if self.held else _EPOCH
            raise ShardsGone(problem, where=self.home.where(file), fix=fix) from None

    def renewed(self, file: str, *, sha256: str) -> bool:
        """Whether a damaged copy of a shard is now forgotten."""
        return self.home.renewed(file, sha256=sha256)


def validated_on(home: Home, run: Path) -> Home:
    """The dataset as a run validates on it; as it is now, where the run's folder does not say."""
    index = run / STATES / VALIDATION / NAME
    return Earlier(home, index, held=True) if index.exists() else home


class GrowingDataset:
    """The growing data of a run in ``run`` on the dataset ``home``, whose loaders ``open`` makes."""

    def __init__(self, home: str | Path | Home, run: Path, open: Callable[[Home], Loader]) -> None:
        self._home, self._folder, self._open = home_of(home), run / STATES, open

    def newest(self, fingerprint: str, /, *, larger: bool = False) -> str:
        """The fingerprint of the dataset as it is now, whose index is put aside; or if it is not larger, that given."""
        index = read_index(self._home)
        if index.fingerprint != fingerprint:
            before = self._check_extends(index, fingerprint, where=str(self._home))
            if larger and _positions(index) <= _positions(before):
                return fingerprint
        self.put_aside(index)
        return index.fingerprint

    def grown(self, fingerprint: str, before: TrainLoader, /, *, later: int = 0) -> Loader:
        """A loader of the dataset with that fingerprint, at the epoch at which another one is, or so many later."""
        loader = self._open(Earlier(self._home, self._path(fingerprint)))
        loader.set_epoch(int(before.state_dict()["epoch"]) + later)
        return loader

    def positions(self, fingerprint: str, /, *, now: bool = False) -> int:
        """Training positions of the dataset with that fingerprint, or of it as it is now."""
        if not now:
            return read_index(Earlier(self._home, self._path(fingerprint))).splits["train"].positions
        index = read_index(self._home)
        if index.fingerprint != fingerprint:
            self._check_extends(index, fingerprint, where=str(self._home))
        return index.splits["train"].positions

    def as_it_was(self, fingerprint: str, /, *, where: Path) -> Loader:
        """A loader of the dataset as a checkpoint knows it, which may be of a run in another folder."""
        self.put_aside(self.known(fingerprint, where=where))
        return self._open(Earlier(self._home, self._path(fingerprint)))

    def known(self, fingerprint: str, /, *, where: Path) -> Index:
        """The index of the dataset as a checkpoint knows it. Raises Misused where what is there now is another."""
        return self._check_extends(read_index(self._home), fingerprint, where=str(where), kept=_kept_beside(where))

    def first(self, name: str, *, anew: bool, of: Path | None = None) -> Home:
        """The dataset as it was when this was first asked under a name, or is now, if ``anew``.

        of: a checkpoint that is gone on from; where it is of a run in another folder, as it was for that one.
        """
        path = self._folder / name / NAME
        if anew or not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            index = read_index(self._home)
            (self._beside(of, name, index) or index).write(path.parent)
        return Earlier(self._home, path, held=True)

    def _beside(self, checkpoint: Path | None, name: str, index: Index) -> Index | None:
        """What the run of a checkpoint keeps under a name, where the dataset extends that."""
        for folder in _kept_beside(checkpoint):
            path = folder / name / NAME
            kept = read_index(Earlier(self._home, path)) if path.exists() else None
            if kept and extends(index, kept):
                return kept
        return None

    def put_aside(self, index: Index) -> None:
        """Keep an index: written once, for all processes to read."""
        path = self._path(index.fingerprint)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            index.write(path.parent)

    def _path(self, fingerprint: str) -> Path:
        return _place(self._folder, fingerprint)

    def _check_extends(self, index: Index, fingerprint: str, *, where: str, kept: Sequence[Path] = ()) -> Index:
        """The state of the dataset with that fingerprint, which ``index`` extends, or Misused. kept: other folders."""
        for folder in (self._folder, *kept):
            path = _place(folder, fingerprint)
            known = read_index(Earlier(self._home, path)) if path.exists() else None
            if known and known.fingerprint == fingerprint and extends(index, known):
                return known
        raise other_dataset(fingerprint, index.fingerprint, where=where)


def _place(folder: Path, fingerprint: str) -> Path:
    return folder / fingerprint[:16] / NAME


def _kept_beside(checkpoint: Path | None) -> Sequence[Path]:
    """Where the run of a checkpoint, RUN/best.pt or one of RUN/checkpoints, keeps states of its dataset."""
    return [folder / STATES for folder in (checkpoint.parent, checkpoint.parent.parent)] if checkpoint else []


def _positions(index: Index) -> int:
    return sum(split.positions for split in index.splits.values())
