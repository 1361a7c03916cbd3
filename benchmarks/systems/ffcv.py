"""FFCV: packed stones in a beton file, expanded by compiled code in threads, of which there is at least one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from ffcv.fields import FloatField, IntField, NDArrayField
from ffcv.fields.decoders import FloatDecoder, IntDecoder, NDArrayDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.operation import Operation
from ffcv.pipeline.state import State
from ffcv.transforms import ToTensor
from ffcv.writer import DatasetWriter
from harness.rows import TAIL, Dense, Source, cells, one_after_another, row_side, tail
from numba import njit


class Samples:
    """Stones and player, move, and value by number."""

    def __init__(self, source: Source) -> None:
        self.rows = np.array(source.rows)
        self.moves, self.values = tail(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int, float]:
        return self.rows[number, : 1 - TAIL].copy(), int(self.moves[number]), float(self.values[number])


def prepare(source: Source, folder: Path) -> int:
    """A field per output."""
    samples = Samples(source)
    board = NDArrayField(np.dtype(np.uint8), (samples.rows.shape[1] + 1 - TAIL,))
    fields = {"board": board, "policy": IntField(), "value": FloatField()}
    DatasetWriter(str(folder / "rows.beton"), fields, num_workers=1).from_indexed_dataset(samples)
    (folder / "side").write_text(str(row_side(samples.rows)))
    return len(samples)


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[Dense]:
    """Batches epoch after epoch."""
    return one_after_another(_loader(folder, batch, max(workers, 1)), epochs)


@cache  # each compiles its pipelines anew, and numba fails at that after it has let go of one
def _loader(folder: Path, batch: int, threads: int) -> Loader:
    side = int((folder / "side").read_text())
    pipelines = {
        "board": [NDArrayDecoder(), Shown(_board(side), (3, side, side)), ToTensor()],
        "policy": [IntDecoder(), Shown(_policy(side), (side * side,)), ToTensor()],
        "value": [FloatDecoder(), Shown(_value(), (1,)), ToTensor()],
    }
    return Loader(
        str(folder / "rows.beton"),
        batch_size=batch,
        num_workers=threads,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=False,
        pipelines=pipelines,
    )


class Shown(Operation):
    """A compiled step that writes float32."""

    def __init__(self, code: Callable, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.code, self.shape = code, shape

    def generate_code(self) -> Callable:
        """The step, to be compiled."""
        self.code.with_indices = True
        return self.code

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """Memory for a batch."""
        dtype = np.dtype(np.float32)
        return replace(previous_state, jit_mode=True, shape=self.shape, dtype=dtype), AllocationQuery(self.shape, dtype)


@njit(inline="always")
def _symmetry(indices, row):
    # pipelines share nothing but the samples' numbers: those of the batch's first two make it another draw every epoch
    mixed = np.uint64(indices[row]) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(indices[0]) * np.uint64(
        0xBF58476D1CE4E5B9
    )
    mixed += np.uint64(indices[-1]) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    return (mixed >> np.uint64(33)) & np.uint64(3)


def _board(side: int) -> Callable:
    each, table, size = Compiler.get_iterator(), cells(side), side * side

    def board(stones, out, indices):
        for row in each(stones.shape[0]):
            symmetry = _symmetry(indices, row)
            swaps = symmetry >= 2
            bits = np.empty(2 * size + 8, np.float32)  # of uint8, numba takes it for read-only in a second loader
            for at in range((2 * size + 7) // 8):
                for shift in range(8):
                    bits[8 * at + shift] = stones[row, at] >> (7 - shift) & 1
            flat = out[row].reshape(3 * size)
            blue, red = (size, 0) if swaps else (0, size)
            for cell in range(size):
                home = table[symmetry, cell]
                flat[cell] = bits[blue + home]
                flat[size + cell] = bits[red + home]
            flat[2 * size :] = stones[row, -1] ^ swaps
        return out[: stones.shape[0]]

    return board


def _policy(side: int) -> Callable:
    each, table = Compiler.get_iterator(), cells(side)

    def policy(moves, out, indices):
        for row in each(moves.shape[0]):
            out[row] = 0
            if moves[row, 0] >= 0:
                out[row, table[_symmetry(indices, row), moves[row, 0]]] = 1
        return out[: moves.shape[0]]

    return policy


def _value() -> Callable:
    each = Compiler.get_iterator()

    def value(values, out, indices):
        for row in each(values.shape[0]):
            out[row, 0] = 1 - values[row, 0] if _symmetry(indices, row) >= 2 else values[row, 0]
        return out[: values.shape[0]]

    return value
