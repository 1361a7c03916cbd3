"""The registry declares every column once; others walk it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hexshards.game import columns
from hexshards.game.columns import COUNT, MOVE, OPTIONAL, SOFT, declared

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("counted", [False, True])
def test_names_dtypes_and_order_are_those_of_the_first_release(soft, counted):
    listed = [(each.name, each.dtype.str, each.shape(5)) for each in declared(soft=soft, counted=counted)]
    assert listed == [
        ("stones", "|u1", (7,)),
        ("policy", "<f2", (25,)) if soft else ("policy", "<i2", ()),
        ("player", "|u1", ()),
        ("value", "<f4", ()),
        ("source", "<u4", ()),
        ("game", "<i4", ()),
        ("ply", "<i2", ()),
        ("plies", "<i2", ()),
        ("tier", "|i1", ()),
        *([("count", "<u4", ())] if counted else []),
    ]


def test_the_page_on_formats_names_every_required_column_with_its_dtype():
    rows = [line.split("|")[1:3] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    table = {
        name: (re.findall(r"\bu?int\d+|\bfloat\d+", kinds), place)
        for names, kinds in rows
        for place, name in enumerate(names.replace(" ", "").split(","))
    }
    for each in {*declared(soft=False), SOFT} - {MOVE, SOFT}:
        kinds, place = table[each.name]
        assert kinds[place] == each.dtype.name, each.name
    assert table["policy"][0] == [MOVE.dtype.name, SOFT.dtype.name]


def test_every_column_says_what_it_is():
    for each in (*declared(soft=False), SOFT, COUNT, *OPTIONAL):
        assert each.doc
        assert each.low is None or each.high is None or each.low <= each.high


def test_no_two_columns_share_a_name():
    names = [each.name for each in (*declared(soft=True, counted=True), *OPTIONAL)]
    assert len(names) == len(set(names))
    assert columns.FILTERABLE[:3] == ("ply", "plies", "tier")
