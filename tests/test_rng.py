from __future__ import annotations

import numpy as np
import pytest

from hexshards import rng

compiled = pytest.importorskip("hexshards.rng_compiled")


@pytest.fixture(params=["NumPy", "compiled"])
def way(request, monkeypatch):
    """NumPy alone, or compiled code in its place."""
    monkeypatch.setattr(rng, "_compiled", [])
    if request.param == "compiled":
        rng.compute_by(rng.Compiled(compiled.permute, compiled.quarter))


def slowly(words):
    """Numbers sorted by the 40 highest bits of their words; of equal ones the lower number comes first."""
    return sorted(range(len(words)), key=lambda number: (int(words[number]) >> 24, number))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100, 2047, 2049, 20_000])
def test_a_permutation_is_that_of_the_slow_way(way, count):
    for path in ((rng.ROWS, 0, 0, count), (rng.BLOCKS, 3, 1)):
        assert rng.permutation(count, 7, *path).tolist() == slowly(rng.raw(count, 7, *path))


@pytest.mark.parametrize("bits", [0xFF00_0000_0000_0000, 0x0000_07FF_FFFF_FFFF, 0xFFFF_FF00_0000, (1 << 24) - 1, 0])
def test_words_that_share_their_highest_bits_are_sorted_by_the_rest_and_by_their_numbers(bits):
    words = rng.raw(3000, 1) & np.uint64(bits)
    permuted = words.copy()
    compiled.permute(permuted)
    assert permuted.tolist() == slowly(words)


def test_words_in_order_and_against_it_are_sorted():
    for step in (1, -1):
        words = np.sort(rng.raw(3000, 2))[::step].copy()
        permuted = words.copy()
        compiled.permute(permuted)
        assert permuted.tolist() == slowly(words)


def test_a_permutation_of_too_many_numbers_is_refused(way):
    with pytest.raises(ValueError, match=r"at most 16,777,215 numbers, got 16777216"):
        rng.permutation(rng.MOST + 1, 0)


def test_each_number_draws_one_of_four_by_the_bits_of_its_hash(way):
    numbers = np.array([0, 1, 2, 97_000_000, 2**40, *range(100, 400, 7)])
    for key in rng.raw(5, 11):
        hashes = [int(rng.mix(np.array([number], np.uint64) ^ key)[0]) for number in numbers.tolist()]
        assert rng.quarter(numbers, key).tolist() == [each >> 62 for each in hashes]
        assert rng.quarter(numbers[::3], key).tolist() == [each >> 62 for each in hashes[::3]]
    drawn = rng.quarter(np.arange(40_000), np.uint64(5))
    assert drawn.dtype == np.uint8
    assert abs(np.bincount(drawn, minlength=4) - 10_000).max() < 400
