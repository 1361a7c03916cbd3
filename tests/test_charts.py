from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from hexshards.drawing.charts import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series, bar_list, chart, counted_short, ticks
from hexshards.drawing.svg import markup


def drawn(*series, **options):
    return ElementTree.fromstring(markup(chart(series, title="t", below="x", **options)))


def texts(picture):
    return [each.text for each in picture.iter() if each.tag.endswith("text")]


def lines(picture):
    return [each.get("points") for each in picture.iter() if each.tag.endswith("polyline")]


def test_a_line_goes_from_edge_to_edge_and_as_high_as_its_numbers():
    (line,) = lines(drawn(Series(x=np.array([0, 1, 2]), y=np.array([0.0, 5.0, 10.0])), high=10))
    places = [tuple(map(float, place.split(","))) for place in line.split()]
    assert places[0][0] == LEFT
    assert places[-1] == (WIDTH - RIGHT, TOP)
    assert places[1][1] == pytest.approx((places[0][1] + places[2][1]) / 2)


def test_a_missing_number_is_a_gap():
    y = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    assert [len(line.split()) for line in lines(drawn(Series(x=np.arange(5), y=y)))] == [2, 2]


@pytest.mark.parametrize("y", [[], [np.nan], [np.inf, np.nan]])
def test_nothing_to_draw_is_said(y):
    assert texts(drawn(Series(x=np.arange(len(y)), y=np.array(y)))) == ["No numbers to draw."]


@pytest.mark.parametrize("y", [[0.0, 0.0], [3.0, 3.0], [1e-9, 1e9], [-5.0, -1.0]])
@pytest.mark.parametrize("kind", ["line", "bars", "dots", "dashed"])
def test_any_numbers_stay_on_the_picture(y, kind):
    picture = drawn(Series(x=np.array([7, 8]), y=np.array(y), kind=kind))
    coordinates = [
        float(value)
        for each in picture.iter()
        for name in ("cx", "cy", "x1", "x2", "y1", "y2", "x", "y")
        if (value := each.get(name))
    ]
    assert min(coordinates) >= 0
    assert max(coordinates) <= max(WIDTH, HEIGHT)


def test_ticks_are_round_and_percents_have_as_many_digits_as_tell_them_apart():
    assert ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert ticks(0.3, 1.1) == pytest.approx([0.4, 0.6, 0.8, 1.0])
    assert ticks(5, 5) == [5]
    shown = texts(drawn(Series(x=np.arange(2), y=np.array([0, 0.02])), percent=True, low=0))
    assert shown[:3] == ["0.0%", "0.5%", "1.0%"]
    assert [counted_short(each) for each in (0, 12, 1500, 2e6, 0.25, 5e-4, 2e-6)] == [
        *("0", "12", "1.5k", "2M", "0.25", "5e-4", "2e-6")
    ]


def test_a_logarithmic_axis_has_powers_of_ten():
    picture = drawn(Series(x=np.arange(3), y=np.array([1.0, 50.0, 3000.0])), log=True, low=1)
    assert texts(picture)[:4] == ["1", "10", "100", "1k"]


def test_bars_in_a_list_are_as_long_as_their_numbers():
    picture = ElementTree.fromstring(markup(bar_list([("a" * 50, 4.0, "4", 0), ("b", 1.0, "1", 0)], title="t")))
    wide = [float(each.get("width")) for each in picture.iter() if each.tag.endswith("rect")]
    assert wide[0] == pytest.approx(4 * wide[1])
    assert texts(picture)[0] == "a" * 19 + "…"
