from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import warm
from helpers.small_data import dataset

import hexshards
from hexshards.game.board import MAX_SIDE, MIN_SIDE
from hexshards.loading.expansion import expand_compiled
from hexshards.loading.expansion.expand import CHUNK_ROWS, Packed, batch_floats, expand

SIDES = range(MIN_SIDE, MAX_SIDE + 1)


def rng(*path):
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(29, spawn_key=path)))


def rows_of(side, count, *, symmetry=None, soft=False):
    """Any rows: stones on any cells, also on those of the other colour; the bits behind them are zero, as in shards."""
    random, cells = rng(side, count), side * side
    policy = random.integers(-1, cells, size=count).astype(np.int16)
    drawn = random.integers(0, 4, size=count) if symmetry is None else np.full(count, symmetry)
    return Packed(
        np.packbits(random.integers(0, 2, size=(count, 2 * cells)).astype(bool), axis=1),
        random.integers(0, 2, size=count).astype(np.uint8),
        random.random((count, cells)).astype(np.float16) if soft else policy,
        random.choice(np.array([0, 1, 0.25], dtype=np.float32), size=count),
        drawn.astype(np.uint8),
    )


def written(rows, side, by):
    """Every byte of the batch, and of the memory behind it."""
    size = batch_floats(len(rows.stones), side=side)
    memory = np.full(size + 32, 7, dtype=np.float32)
    expand(rows, side=side, out=memory[:size], by=by)
    assert (memory[size:] == 7).all()
    return memory.tobytes()


@pytest.mark.parametrize("side", SIDES)
def test_compiled_code_makes_the_same_bits_in_every_symmetry(side):
    for symmetry in (0, 1, 2, 3, None):
        for count in (1, 2, 255, 256, 257):
            rows = rows_of(side, count, symmetry=symmetry)
            assert written(rows, side, expand_compiled.fill) == written(rows, side, None)


@pytest.mark.parametrize("side", SIDES)
def test_soft_policies_are_the_same_bits(side):
    for count in (40, CHUNK_ROWS + 3):
        rows = rows_of(side, count, soft=True)
        assert written(rows, side, expand_compiled.fill) == written(rows, side, None)


@pytest.mark.parametrize("side", [3, 8, 9, 13, 16, 17, 19])
def test_each_bit_alone_comes_where_numpy_puts_it(side):
    cells = side * side
    stones = np.packbits(np.eye(2 * cells, dtype=bool), axis=1)
    for symmetry in range(4):
        rows = rows_of(side, 2 * cells, symmetry=symmetry)._replace(stones=stones)
        assert written(rows, side, expand_compiled.fill) == written(rows, side, None)


def test_rows_need_be_neither_aligned_nor_in_one_piece():
    rows = rows_of(13, 300)
    padded = np.frombuffer(b"." + rows.value.tobytes(), dtype=np.uint8)
    value = padded[1:].view(np.float32)
    assert not value.flags.aligned
    spread = Packed(*(np.repeat(column, 2, axis=0)[::2] for column in rows))._replace(value=value)
    assert written(spread, 13, expand_compiled.fill) == written(rows, 13, None)


BETWEEN_WALLS = """
import ctypes, mmap, sys
import numpy as np
from hexshards.dataset import validation_compiled
from hexshards.loading.expansion import expand_compiled
from hexshards.loading.expansion.expand import Packed, batch_floats, expand

PAGE = mmap.PAGESIZE
walled = mmap.mmap(-1, 5 * PAGE)
start = ctypes.addressof(ctypes.c_char.from_buffer(walled))
for wall in (0, 4 * PAGE):
    assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(start + wall), PAGE, 0) == 0
inside = np.frombuffer(walled, np.uint8)[PAGE : 4 * PAGE]
for side in range(3, 20):
    width = (2 * side * side + 7) // 8
    for count in (1, 2, 3, 7):
        for symmetry in range(4):
            for place in (0, len(inside) - count * width):
                stones = inside[place : place + count * width].reshape(count, width)
                zeros = [np.zeros(count, kind) for kind in (np.uint8, np.int16, np.float32)]
                expand(Packed(stones, *zeros, np.full(count, symmetry, np.uint8)), side=side, by=expand_compiled.fill)
                assert validation_compiled.sound(stones, side)
# what no reader lets through: each column by itself, from the first byte behind a wall and up to the one before another
sound = Packed(*(np.zeros(shape, kind) for shape, kind in
                 [((3, 43), "u1"), (3, "u1"), (3, "i2"), (3, "f4"), (3, "u1")]))
illegal = {"policy": [169, 32767, -2, -32768], "player": [2, 255], "value": [np.nan, np.inf, -1, 2],
           "symmetry": [4, 255], "stones": [255]}
refused = 0
for name, numbers in illegal.items():
    for number in numbers:
        for row in range(3):
            spoilt = getattr(sound, name).copy()
            spoilt[row] = number
            for place in (0, len(inside) - spoilt.nbytes):
                inside[place : place + spoilt.nbytes] = spoilt.view(np.uint8).reshape(-1)
                column = inside[place : place + spoilt.nbytes].view(spoilt.dtype).reshape(spoilt.shape)
                memory = np.full(batch_floats(3, side=13) + 64, 7, np.float32)
                try:
                    expand(sound._replace(**{name: column}), side=13, out=memory[32:-32], by=expand_compiled.fill)
                except IndexError:
                    refused += 1
                assert (memory[:32] == 7).all() and (memory[-32:] == 7).all(), (name, number)
assert refused == 2 * 3 * 4, refused
print("nothing else was read")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="walls around memory are put up by Linux's mprotect")
def test_nothing_beside_the_rows_is_read_or_written_whatever_they_hold():
    ended = subprocess.run([sys.executable, "-c", BETWEEN_WALLS], capture_output=True, text=True)
    assert ended.stdout == "nothing else was read\n", (ended.returncode, ended.stderr)


def test_no_rows_are_an_empty_batch():
    rows = Packed(*(column[:0] for column in rows_of(5, 3)))
    assert [tuple(part.shape) for part in expand(rows, side=5, by=expand_compiled.fill)] == [
        (0, 3, 5, 5),
        (0, 25),
        (0, 1),
    ]


@pytest.mark.parametrize("by", [None, expand_compiled.fill], ids=["NumPy", "compiled"])
@pytest.mark.parametrize(("column", "beyond"), [("policy", 25), ("symmetry", 4)])
def test_what_is_beyond_the_board_is_an_error_and_writes_nothing_elsewhere(by, column, beyond):
    rows = rows_of(5, 4)
    getattr(rows, column)[2] = beyond
    size = batch_floats(4, side=5)
    memory = np.full(size + 200, 7, dtype=np.float32)
    with pytest.raises(IndexError):
        expand(rows, side=5, out=memory[:size], by=by)
    assert (memory[size:] == 7).all()


# where there is no compiled code ------------------------------------------------------------------------------------

BATCHES = """
import hashlib, sys
{before}
import hexshards
loader = hexshards.loader(sys.argv[1], batch_size=32, seed=3)
seen = hashlib.sha256()
for batch in loader:
    for part in batch:
        seen.update(part.numpy().tobytes())
print(loader._compiled is not None, seen.hexdigest())
"""


def batches_in_a_process(data, before="", *, run=warm.run, **environment):
    command = [sys.executable, "-c", BATCHES.format(before=before), data]
    # python -c imports from where it is first
    ended = run(command, env={**os.environ, **environment}, cwd=data)
    assert ended.returncode == 0, ended.stderr
    compiled, digest = ended.stdout.split()
    return compiled == "True", digest, ended.stderr


def test_a_loader_delivers_the_same_where_numba_is_missing_or_can_write_nowhere(tmp_path):
    data = dataset(tmp_path / "data")
    compiled, digest, told = batches_in_a_process(data)
    assert compiled and told == ""
    assert batches_in_a_process(data, before="sys.modules['numba'] = None") == (False, digest, "")
    # a copy whose __pycache__ is a file, and no other folder to write to
    home = tmp_path / "copy" / "hexshards"
    shutil.copytree(Path(hexshards.__file__).parent, home, ignore=shutil.ignore_patterns("__pycache__"))
    (home / "loading" / "expansion" / "__pycache__").touch()
    nowhere = {"PYTHONPATH": str(home.parent), "XDG_CACHE_HOME": os.devnull, "HOME": os.devnull}
    cold = partial(subprocess.run, capture_output=True, text=True)
    compiled, other, told = batches_in_a_process(data, run=cold, PYTHONDONTWRITEBYTECODE="1", **nowhere)
    assert (compiled, other) == (False, digest)
    assert "batches are expanded by NumPy" in told and "Set NUMBA_CACHE_DIR" in told
