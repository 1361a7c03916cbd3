from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.loading import open_loader
from helpers.small_data import dataset, examples, write_examples

from hexshards import rng
from hexshards.conversion.convert import convert
from hexshards.game.board import MAX_SIDE, MIN_SIDE
from hexshards.game.columns import stone_bytes
from hexshards.loading import batching
from hexshards.loading.gather import rows as gather

compiled = pytest.importorskip("hexshards.loading.gather.rows_compiled")


@pytest.fixture(params=["NumPy", "compiled"])
def way(request, monkeypatch):
    """NumPy alone, or compiled code where rows are wide."""
    monkeypatch.setattr(gather, "_compiled", [])
    if request.param == "compiled":
        gather.copy_by(compiled.copy)


def random(*path):
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(31, spawn_key=path)))


def parts_of(dtype, shape, lengths):
    draws, size = random(*lengths), np.dtype(dtype).itemsize * int(np.prod(shape))
    return [np.frombuffer(draws.bytes(size * length), dtype).reshape(length, *shape) for length in lengths]


KINDS = [*(("u1", (stone_bytes(side),)) for side in range(MIN_SIDE, MAX_SIDE + 1)), ("<f2", (169,)), ("<i2", (2, 30))]
KINDS += [(dtype, ()) for dtype in ("u1", "<i2", "<f4", "<i8")] + [("u1", (width,)) for width in (15, 16, 17, 31, 32)]


@pytest.mark.parametrize(("dtype", "shape"), KINDS, ids=str)
@pytest.mark.parametrize("lengths", [(70,), (64, 64, 64, 9), (1, 0, 0, 130, 2, 63, 65, 0), (0, 0, 3)], ids=str)
def test_rows_are_those_of_the_parts_laid_one_after_another(way, dtype, shape, lengths):
    parts = parts_of(dtype, shape, lengths)
    whole, total = b"".join(part.tobytes() for part in parts), sum(lengths)
    width = len(whole) // total
    for rows in (np.arange(total), random(1).permutation(total), random(2).integers(0, total, 200), np.arange(0)):
        expected = b"".join(whole[row * width : (row + 1) * width] for row in rows.tolist())
        memory = np.full(len(expected) + 64, 7, dtype=np.uint8)
        out = memory[32 : 32 + len(expected)].view(dtype).reshape(len(rows), *shape)
        takes = gather.Gather()
        for place in (out, None, np.empty((len(rows) + 1, *shape), dtype), np.empty((len(rows), 3), "<c8")):
            taken = takes.take(parts, rows, place)
            assert (taken is out) == (place is out)
            assert (taken.dtype, taken.shape, taken.tobytes()) == (np.dtype(dtype), (len(rows), *shape), expected)
        assert (memory[:32] == 7).all() and (memory[len(memory) - 32 :] == 7).all()


def test_parts_and_rows_that_lie_in_no_order_of_memory_are_taken_too(way):
    (part,) = parts_of("u1", (43,), (90,))
    taken = gather.Gather().take([part[::2], part[::-1]], np.arange(130)[::3])
    assert taken.tolist() == np.concatenate([part[::2], part[::-1]])[:130:3].tolist()


@pytest.mark.parametrize("row", [-1, 90, 2**62, -(2**62)])
def test_compiled_code_copies_no_row_that_is_in_no_part(row):
    parts = parts_of("u1", (43,), (60, 30))
    with pytest.raises(IndexError, match=rf"row {row} is none of 90"):
        compiled.copy(parts, np.array([3, 89, row]), np.empty((3, 43), np.uint8))


# windows ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def soft(tmp_path_factory):
    folder = tmp_path_factory.mktemp("soft")
    entries = examples(12)
    for number, example in enumerate(entries):
        example["weight"] = float(number % 4)
        free = ~example["board"][:2].astype(bool).any(axis=0).ravel()
        if example["policy"] is not None and free.any():
            example["policy"] = (free / free.sum()).astype(np.float32)
    convert(
        write_examples(folder / "a_processed.pkl.gz", entries),
        out=folder / "data",
        shard_positions=96,
        block_positions=16,
        val_fraction=0.0,
    )
    return folder / "data"


OPTIONS = [
    {},
    {"augment": "all", "drop_last": False},
    {"augment": "cycle", "shuffle": False},
    {"where": "ply=3.."},
    {"per_game": 5},
    {"positions": 333},
    {"streams": 2},
    {"window": "keep=200"},
    {"columns": ("weight", "ply", "plies_left"), "weights": "ply=9..:2"},
]


def rows_of_all(data, options):
    """Bytes of each column of each batch of two epochs."""
    loader = open_loader(data, **options)
    return [[np.ascontiguousarray(part).tobytes() for part in batch] for _ in range(2) for batch in loader.packed()]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["plain", "soft", "mix"])
def test_windows_are_the_same_bytes_with_compiled_code_and_without(kind, options, plain, soft, monkeypatch):
    data = {"plain": plain, "soft": soft, "mix": {plain: 0.5, soft: 0.5}}[kind]
    batching.compiled()
    batching.compile_reading()
    assert gather._compiled and rng._compiled
    fast = rows_of_all(data, options)
    monkeypatch.setattr(gather, "_compiled", [])
    monkeypatch.setattr(rng, "_compiled", [])
    assert fast and fast == rows_of_all(data, options)


def test_the_first_process_of_a_machine_compiles_what_makes_batches_and_the_next_the_rest(tmp_path):
    program = (
        "from hexshards import rng; from hexshards.loading import batching as b; b.compiled(); print(rng._compiled)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert said[0].strip() == "[]"
    assert "permute" in said[1]
