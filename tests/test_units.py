"""Counts and sizes as people write them."""

from __future__ import annotations

import pytest

from hexshards.units import parse_bytes, parse_count, show_count, show_number


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("200000", 200_000),
        ("200_000", 200_000),
        ("200,000", 200_000),
        ("200k", 200_000),
        ("0.2M", 200_000),
        ("2e5", 200_000),
        ("1b", 10**9),
        ("-3", -3),
        ("0", 0),
    ],
)
def test_a_count_is_what_a_person_means(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "k", "1.5", "1,00", "1__0", "0x10", "1 2", "1e", "nan", "1e-3", "²", "1" * 5_000])
def test_what_is_no_whole_number_is_refused(text):
    with pytest.raises(ValueError, match=r"--games must be a whole number like 200000, 200k, 1\.5M or 1e6, got "):
        parse_count(text, name="--games")


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GiB", 1 << 30), ("2GB", 2 * 10**9), ("1e9", 10**9), ("1_000", 1_000), ("64KB", 64_000), ("1.5 KiB", 1_536)],
)
def test_a_size_is_what_a_person_means(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["0", "1G", "many", "1gib", "-1", "1" * 5_000])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="must be a size like 512MiB or 1GiB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (8000, "8k"), (8192, "8192"), (8010, "8.01k"), (1_250_000, "1.25M"), (10**15, "1000000G")],
)
def test_a_count_is_shown_as_a_person_types_it_and_read_back(count, text):
    assert show_count(count) == text
    assert parse_count(text) == count


def test_a_number_is_shown_in_four_digits_or_more_and_never_as_a_power_of_ten():
    numbers = (63_530.4, 999.96, -1234.5, 10.1, 0.01235, 0.00084, -4.3e-6, 0)
    assert [*map(show_number, numbers)] == ["63,530", "1,000", "-1,234", "10.1", "0.01235", "0.0008", "0", "0"]
