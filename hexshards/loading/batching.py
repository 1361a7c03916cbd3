"""Batch and collate packed rows in their order; no batch changes while anybody holds it."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hexshards import rng
from hexshards.dataset.validation import look_first
from hexshards.errors import escaped
from hexshards.loading.buffers import Buffers
from hexshards.loading.expansion.expand import (
    Batch,
    BatchWithColumns,
    Fill,
    Rows,
    batch_floats,
    expand,
    expand_on_device,
    like,
    parts_of,
    split,
)
from hexshards.loading.expansion.extra_columns import ExtraColumns, as_bytes, with_columns
from hexshards.loading.gather.rows import copy_by

log = logging.getLogger(__name__)

BUFFERS = 4
"""Batches whose memory is used in turn: the caller's, the one before, and the next. NumPy takes 280 ns a row into
memory that is still in cache, 510 ns into that of eight batches in turn (side 13, 1,024 rows)."""

PREFETCHED_BATCHES = 2
"""Batches that wait on a device."""

DEVICE_ROWS = 16_384
"""Batches cross to a device, and are expanded there, so many rows at a time: 45 MB as float32 at side 13. On an H200
the kernels of an expansion take as long for 1,024 rows as for 16,384 (benchmarks/results/gpu.md)."""


class RowBuffer:
    """Buffer of rows between windows and batches: runs of them in their order; what lies before a run is let go."""

    def __init__(self, windows: Iterator[Rows], start: int) -> None:
        self.windows, self.end = windows, start
        self.held: deque[tuple[int, Rows]] = deque()

    def take(self, low: int, high: int) -> Rows:
        """Rows ``low`` to ``high`` of the stream; where one window holds them all, views of it."""
        self._let_go(low)
        while self.end < high:
            window = next(self.windows)
            self.held.append((self.end, window))
            self.end += len(window.stones)
            self._let_go(low)
        runs = [
            like(window, (column[max(low - start, 0) : high - start] for column in window))
            for start, window in self.held
            if start < high
        ]
        return runs[0] if len(runs) == 1 else like(runs[0], map(_joined, zip(*runs, strict=True)))

    def _let_go(self, low: int) -> None:
        while self.held and self.held[0][0] + len(self.held[0][1].stones) <= low:
            self.held.popleft()


class StreamBuffers:
    """Row buffers of streams that are walked side by side, filled by windows in the order in which they are needed.

    ``numbered`` says of each window that ``windows`` gives its stream; ``starts``: where each stream goes on.
    """

    def __init__(self, windows: Iterator[Rows], *, streams: Iterable[int], starts: Mapping[int, int]) -> None:
        waiting: dict[int, deque[Rows]] = {stream: deque() for stream in starts}
        numbers = iter(streams)
        self._buffers = {
            stream: RowBuffer(_windows_of(stream, windows, numbers, waiting), start) for stream, start in starts.items()
        }

    def take(self, runs: Sequence[tuple[int, int, int]]) -> Rows:
        """Rows of streams, each from where to where, one run after another; views where one window holds them all."""
        parts = [self._buffers[stream].take(low, high) for stream, low, high in runs]
        return parts[0] if len(parts) == 1 else like(parts[0], map(_joined, zip(*parts, strict=True)))


def _windows_of(
    stream: int, windows: Iterator[Rows], streams: Iterator[int], waiting: Mapping[int, deque[Rows]]
) -> Iterator[Rows]:
    """Windows of one stream; those of others that come before them wait.

    It does not know the buffers that it fills: in a circle they would keep the memory of an epoch's windows until
    Python looks for circles, and the next epoch would begin in fresh pages.
    """
    while True:
        while not waiting[stream]:
            # no name for a window: its memory is used again once nothing refers to it
            waiting[next(streams)].append(next(windows))
        yield waiting[stream].popleft()


def _joined(parts: tuple[NDArray[np.generic], ...] | tuple[torch.Tensor, ...]) -> NDArray[np.generic] | torch.Tensor:
    return torch.cat(parts) if isinstance(parts[0], torch.Tensor) else np.concatenate(parts)


def compiled() -> Fill | None:
    """The compiled twin of ``expand.fill``; None where numba is not installed or has no folder for what it compiles.

    From then on windows are read by compiled code too, as far as it is there. Compiling takes a second, once on a
    machine, and loading it again some tenths of one.
    """
    try:
        from hexshards.loading.expansion.expand_compiled import fill, was_there

        # a machine's first process does not wait for both
        if was_there() or "hexshards.rng_compiled" in sys.modules:
            compile_reading()
    except ImportError:
        return None
    except (RuntimeError, OSError) as error:
        log.warning(
            "batches are expanded by NumPy: %s. Set NUMBA_CACHE_DIR to a folder that can be written", escaped(error)
        )
        return None
    return fill


def compile_reading() -> None:
    """Let compiled code look at stones, permute, draw symmetries and gather rows; half a second, once on a machine."""
    from hexshards.dataset.validation_compiled import sound
    from hexshards.loading.gather.rows_compiled import copy
    from hexshards.rng_compiled import permute, quarter

    look_first(sound)
    copy_by(copy)
    rng.compute_by(rng.Compiled(permute, quarter))


def on_cpu(
    rows: Iterable[Rows],
    *,
    side: int,
    by: Fill | None,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    extra: ExtraColumns | None = None,
) -> Generator[Batch | BatchWithColumns, None, None]:
    """Batches in CPU memory, expanded in the caller's thread ``by`` compiled code, or by NumPy where that is None.

    A thread of its own would cost more than it saves: compiled code already leaves Python to the thread that reads the
    next window, and each of NumPy's some fifty calls a batch would wait for Python's lock.
    """
    buffers = Buffers(keep=BUFFERS)
    as_made = dtype == torch.float32 and not channels_last
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for packed in rows:
        out = buffers.lend(batch_floats(len(packed.stones), side=side))
        batch = expand(packed, side=side, out=out, by=by)
        if not as_made:
            board, policy, value = batch
            batch = Batch(board.to(dtype, memory_format=layout), policy.to(dtype), value.to(dtype))
        yield with_columns(batch, packed, extra)


def on_device(
    rows: Iterable[Rows],
    *,
    side: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    extra: ExtraColumns | None = None,
) -> Generator[Batch | BatchWithColumns, None, None]:
    """Batches on a device: rows cross packed, and copies and expansion overlap the step that runs there.

    A batch is a part of what crossed together, whose memory lasts as long as one of its batches is held. On CUDA they
    run on a stream of their own. The stream on which the caller works waits for a batch when it is handed over, and its
    memory is not used again before that stream has come past what was asked of it by then.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    if stream:
        stream.wait_stream(torch.cuda.current_stream(device))
    begun: deque[tuple[Batch | BatchWithColumns, torch.cuda.Event | None]] = deque()
    groups = _groups(iter(rows))
    try:
        while True:
            while len(begun) <= PREFETCHED_BATCHES:
                with torch.cuda.stream(stream):  # None: the current one
                    if (group := next(groups, None)) is None:
                        break
                    there = _sent_together(group, device)
                    made_there = expand_on_device(there, side=side, dtype=dtype, channels_last=channels_last)
                    batch = with_columns(made_there, there, extra)
                    made = stream.record_event() if stream else None
                counts = [len(packed.value) for packed in group]
                begun.extend((part, made) for part in split(batch, counts))
            if not begun:
                return
            yield _handed_over(*begun.popleft())
    finally:
        if stream:  # what was begun may still read what its owner is about to free
            torch.cuda.current_stream(device).wait_stream(stream)


def _groups(rows: Iterator[Rows]) -> Iterator[list[Rows]]:
    """Group consecutive batches: up to DEVICE_ROWS rows together, or one batch that has more."""
    group, held = list[Rows](), 0
    for packed in rows:
        if group and held + len(packed.value) > DEVICE_ROWS:
            yield group
            group, held = [], 0
        group.append(packed)
        held += len(packed.value)
    if group:
        yield group


def _sent_together(group: Sequence[Rows], device: torch.device) -> Rows:
    """Transfer several batches to the device at once: their rows one after another."""
    columns = [_joined(parts) if len(parts) > 1 else parts[0] for parts in zip(*group, strict=True)]
    return like(group[0], (sent(as_bytes(column), device) for column in columns))


def usable_device(name: str | torch.device) -> torch.device:
    """The device of a name. Raises ValueError where there is no such device here."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise ValueError(f"device {name!r} is none that torch knows. Name cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {escaped(name)}: torch finds {torch.cuda.device_count()} CUDA devices here. Name cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {escaped(device)}: torch finds no GPU of Apple's here. Name cpu")
    return device


def chosen_device(name: str) -> str:
    """The device of a name, ``auto``: the first there is of cuda, mps and cpu. Raises ValueError as usable_device."""
    if name == "auto":
        present: dict[str, Callable[[], bool]] = {
            "cuda": torch.cuda.is_available,
            "mps": torch.backends.mps.is_available,
        }
        name = next((kind for kind, is_here in present.items() if is_here()), "cpu")
    return str(usable_device(name))


def sent(column: NDArray[np.generic] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """A column on its way to a device; work that is asked for on the same stream finds it there."""
    tensor = column if isinstance(column, torch.Tensor) else torch.from_numpy(column)
    # "cuda" without a number is the current one, and no tensor says so of itself
    if tensor.device == device or (device.index is None and tensor.device.type == device.type):
        return tensor
    if device.type == "cuda":
        # only a copy out of pinned memory overlaps anything; torch keeps that memory until the copy is done
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _handed_over(batch: Batch | BatchWithColumns, made: torch.cuda.Event | None) -> Batch | BatchWithColumns:
    if made is not None:
        current = torch.cuda.current_stream(batch.board.device)
        current.wait_event(made)
        for part in parts_of(batch):
            part.record_stream(current)
    return batch
