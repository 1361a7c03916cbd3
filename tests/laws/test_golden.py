"""What hex_ai's own dataset class yields, row by row and bit by bit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from hexshards.converters.processed import ProcessedFiles
from hexshards.game.positions import concat
from hexshards.loading.expansion import expand_compiled
from hexshards.loading.expansion.expand import Packed, expand, expand_on_device

ROWS = {"golden_aug": 1600, "golden_noaug": 400, "golden_shuffled_aug": 800, "golden_shuffled_noaug": 200}


@cache
def positions_of(path):
    """All examples of a real file; none is rejected, so that row and example have the same number."""
    chunks = list(ProcessedFiles().read(path.read_bytes(), name=path.name, where=str(path)))
    assert not any(chunk.rejects for chunk in chunks)
    return concat([chunk.positions for chunk in chunks])


def source_path(real, source):
    return real / ("shuffled" if source.startswith("shuffled") else "processed") / source


def rows_of(real, source, example, symmetry):
    """Examples of a source file as they would travel, each to be shown in its symmetry."""
    positions = positions_of(source_path(real, source)).take(example)
    return Packed(positions.stones, positions.player, positions.policy, positions.value, symmetry.astype(np.uint8))


def by_numpy(rows):
    return expand(rows, side=13)


def by_compiled_code(rows):
    return expand(rows, side=13, by=expand_compiled.fill)


def by_torch(rows):
    return expand_on_device(Packed(*(torch.from_numpy(np.array(column)) for column in rows)), side=13)


@pytest.mark.parametrize("spread", [by_numpy, by_compiled_code, by_torch])
@pytest.mark.parametrize("name", ROWS)
def test_every_golden_row_is_made_bit_for_bit(real, name, spread):
    with np.load(real / "golden" / f"{name}.npz") as golden:
        golden = dict(golden)
    compared = 0
    for source in np.unique(golden["source"]).tolist():
        mine = np.flatnonzero(golden["source"] == source)
        batch = spread(rows_of(real, source, golden["example"][mine], golden["aug"][mine]))
        for row, board, policy, value in zip(mine.tolist(), *(part.numpy() for part in batch), strict=True):
            for column, made in (("board", board), ("policy", policy), ("value", value)):
                expected = golden[column][row]
                assert (made.dtype, made.shape) == (expected.dtype, expected.shape)
                assert made.tobytes() == expected.tobytes(), f"{name} row {row}: {column}"
            compared += 1
    assert compared == ROWS[name]


def test_golden_rows_cover_every_symmetry_and_positions_without_a_target(real):
    with np.load(real / "golden" / "golden_aug.npz") as golden:
        assert np.bincount(golden["aug"]).tolist() == [400] * 4
        assert set(golden["value"].ravel().tolist()) == {0.0, 1.0}
        assert not golden["policy"].any(axis=1).all()
        assert set(golden["board"][:, 2].ravel().tolist()) == {0.0, 1.0}
