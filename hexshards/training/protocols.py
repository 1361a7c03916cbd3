"""Protocols of training: something that learns, with four methods, and a loader that can go on from a state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, Protocol, runtime_checkable


class Trainable(Protocol):
    """Trainer protocol: what learns. It finishes a batch before it asks for the next, so a state may be saved between.

    ``train_on_batches`` and ``state_dict`` may raise errors.NonFiniteLoss. Beside, it may be one
    that ShowsLosses, or HearsEvents.
    """

    def train_on_batches(self, batches: Iterable[Any], /) -> Mapping[str, Any]:
        """Train on all of them, once, in order; metrics in plain numbers."""

    def validate(self, loader: Iterable[Any], /) -> Mapping[str, Any]:
        """Metrics over all batches; changes nothing that training depends on."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next batch's training depends on, but for torch's global random state."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from a state."""


class BatchLike(Protocol):
    """What a run needs of a batch: its number of rows."""

    @property
    def value(self) -> Sized: ...  # noqa: D102


class Fingerprinted(Protocol):
    """A dataset's index."""

    @property
    def fingerprint(self) -> str: ...  # noqa: D102


class TrainLoader(Protocol):
    """Training loader protocol: delivers an epoch at each ``iter()`` and can resume from a state, as hexshards.loader.

    ``len()`` is the batches in an epoch, ``samples`` the samples in one, of all ranks.
    """

    @property
    def index(self) -> Fingerprinted: ...  # noqa: D102
    @property
    def samples(self) -> int: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def world_size(self) -> int: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[BatchLike]: ...
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state: dict[str, Any], /) -> None: ...  # noqa: D102


@runtime_checkable
class CountsPositions(Protocol):
    """What a loader may do: say how many positions an epoch draws from; else its samples are taken for them."""

    @property
    def positions(self) -> int: ...  # noqa: D102


@runtime_checkable
class ShowsLosses(Protocol):
    """What a trainer may do: show its losses while a mini-epoch is at work."""

    def running_metrics(self) -> Mapping[str, Any]:
        """Metrics of the mini-epoch so far."""


@runtime_checkable
class HearsEvents(Protocol):
    """What a trainer may do: hear the events of its run, before any hook does."""

    def on_event(self, event: Any, /) -> None:
        """React to an event of ``hooks``, or pass it over."""


@runtime_checkable
class OnDevice(Protocol):
    """What a trainer may have: the device that it trains on, for a person to see."""

    @property
    def device(self) -> object: ...  # noqa: D102


@runtime_checkable
class HasModel(Protocol):
    """What a trainer may have: its model, whose size a person is told."""

    @property
    def model(self) -> object: ...  # noqa: D102


@runtime_checkable
class Describes(Protocol):
    """What a loader may do: say what is used of each dataset."""

    def describe(self) -> list[str]:
        """A line for each."""


class SkippedCounts(Protocol):
    """Blocks and positions that were passed over."""

    @property
    def blocks(self) -> int: ...  # noqa: D102
    @property
    def positions(self) -> int: ...  # noqa: D102


@runtime_checkable
class CountsSkipped(Protocol):
    """What a loader may do: count the damaged blocks that it passes over; None where it does not."""

    @property
    def skipped(self) -> SkippedCounts | None: ...  # noqa: D102


@runtime_checkable
class BoardBatch(Protocol):
    """What a batch may be: boards, policies and values, which can be written down."""

    @property
    def board(self) -> Any: ...  # noqa: D102
    @property
    def policy(self) -> Any: ...  # noqa: D102
    @property
    def value(self) -> Any: ...  # noqa: D102
