from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest

from hexshards.dataset.shard_range import shards_in


def chosen(text, count=10):
    return shards_in(text, count).tolist()


def test_numbers_count_from_0_and_the_last_is_among_them():
    assert chosen("3..7") == [3, 4, 5, 6, 7]
    assert chosen(" 4 ") == [4]
    assert chosen("8..99") == [8, 9]
    assert chosen("") == list(range(10))


@pytest.mark.parametrize("count", [1, 3, 7, 10, 97])
def test_percents_share_no_shard_and_leave_none_out(count):
    for edges in ([0, 50, 100], [0, 33.3, 66.6, 100], [0, 12.5, 99.9, 100]):
        parts = []
        for low, high in pairwise(edges):
            expected = [i for i in range(count) if Fraction(str(low)) <= Fraction(100 * i, count) < Fraction(str(high))]
            if expected:
                assert chosen(f"{low}%..{high}%", count) == expected
                parts += expected
        assert parts == list(range(count))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("7..3", r"'7\.\.3' is no range of shards"),
        ("a..b", "is no range of shards"),
        ("-1", "is no range of shards"),
        ("40..50%", "is no range of shards"),
        ("50%..40%", r"'50%\.\.40%' does not go up to at most 100%"),
        ("50%..101%", "does not go up to at most 100%"),
        ("40%..40%", "does not go up"),
        ("41%..49%", "holds no shard of 10 shards: take more percent"),
        ("10..12", r"'10\.\.12' begins behind the last shard, which is 9"),
        ("9" * 10_000, "is no range of shards"),
    ],
)
def test_what_is_no_range_is_refused_in_one_sentence(text, fault):
    with pytest.raises(ValueError, match=fault) as refused:
        chosen(text)
    assert "\n" not in str(refused.value)
