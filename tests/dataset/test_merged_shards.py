from __future__ import annotations

import hashlib

import numpy as np

from hexshards.dataset.layout import Part
from hexshards.dataset.merged_shards import ages

PARTS = [Part(hashlib.sha256(name).hexdigest(), positions) for name, positions in ((b"a", 3), (b"b", 500), (b"c", 97))]


def slow_ages(parts):
    """The keys of each part by NumPy alone, and sorted as Python sorts pairs."""
    keys = []
    for part in parts:
        path = [int(part.sha256[8 * step : 8 * step + 8], 16) for step in range(8)]
        drawn = np.random.Philox(np.random.SeedSequence(0, spawn_key=(11, *path))).random_raw(part.positions)
        keys += [(int(key), len(keys) + number) for number, key in enumerate(drawn)]
    return [age for _, age in sorted(keys)]


def test_rows_of_a_merged_shard_stand_in_the_order_of_keys_that_their_parts_name():
    assert ages(PARTS).tolist() == slow_ages(PARTS)
    assert sorted(ages(PARTS).tolist()) == [*range(600)]
    assert ages(PARTS[1:2]).tolist() == [*range(500)]


def test_the_order_is_the_same_for_good():
    digest = hashlib.sha256(ages(PARTS).astype("<i8").tobytes()).hexdigest()
    assert digest == "ea147777924716fc50a13ec3400749126967b8e1c852027fa359524762ac47d0"
