from __future__ import annotations

import math

import pytest

from hexshards.piecewise import named, parsed


def at(text, *samples):
    return [parsed(text, name="x").at(each) for each in samples]


def test_between_two_points_a_number_is_what_its_kind_says():
    assert at("constant 0:0.3", 0, 10**12) == [0.3, 0.3]
    assert at("linear 100:1 200:3 1k:0", 0, 100, 150, 200, 600, 1000, 5000) == [1, 1, 2, 3, 1.5, 0, 0]
    assert at("step 0:1 100:2 0.2k:3", 0, 99, 100, 199, 200, 10**9) == [1, 1, 2, 2, 3, 3]
    cosine = at("cosine 0:1 1M:0", 0, 250_000, 500_000, 1_000_000)
    assert cosine == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, 0])


def test_a_schedule_says_itself_so_that_it_is_read_back():
    for text in ("constant 0:0.3", "linear 0:0.000000001 500000:1.5", "step 7:0.1 8:0.2"):
        assert str(parsed(text, name="x")) == text
    assert str(parsed("cosine 0:1 1.5M:.5", name="x")) == "cosine 0:1 1500000:0.5"


def test_schedules_have_the_names_before_the_last_equals_sign():
    schedules = named("a=linear 0:1 5:2, s3://b/x=y=constant 0:0.1", name="x")
    assert {name: str(each) for name, each in schedules.items()} == {
        "a": "linear 0:1 5:2",
        "s3://b/x=y": "constant 0:0.1",
    }


@pytest.mark.parametrize(
    "text",
    [
        *("", "linear", "line 0:1", "linear 0:1 0:2", "linear 5:1 4:2", "linear 0:-1", "linear 0:nan", "linear 0"),
        *("0:1", "constant 0:1 5:2", "linear 0:1e9", "linear " + " ".join(f"{n}:1" for n in range(65)), "linear x:1"),
    ],
)
def test_what_is_no_schedule_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"x: '.*' is no schedule: write one of constant, .* such as linear 0:0\.1"):
        parsed(text, name="x")


@pytest.mark.parametrize("text", ["linear 0:1", "=linear 0:1", "a=linear 0:1, a=linear 0:2"])
def test_a_schedule_of_no_name_or_of_one_twice_is_refused(text):
    with pytest.raises(ValueError, match="is no name and schedule"):
        named(text, name="x")
