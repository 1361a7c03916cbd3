from __future__ import annotations

import math
from collections import defaultdict

import pytest
from helpers.small_data import SIDE, columns_of, dataset, planes_of

from hexshards.dataset.index import read_index
from hexshards.reports.openings import opening_figures, openings_of
from hexshards.reports.options import ReportSpec
from hexshards.reports.sample import read_sample
from hexshards.storage.remote import home_of


@pytest.mark.parametrize("baked", [False, True])
def test_openings_are_those_that_one_counts_by_hand(tmp_path, baked):
    data = dataset(tmp_path, games=40, val_fraction=0, bake_symmetries=baked)
    sample = read_sample(home_of(data), read_index(data), "train", ReportSpec())
    train, winners = columns_of(data, "train"), defaultdict(list)
    for row, ply in enumerate(train["ply"].tolist()):
        if ply == 1:
            blue, red = planes_of(train["stones"][row])
            # a first stone of RED's is a picture with swapped colours: mirrored, it is BLUE's
            stone, value = (blue, train["value"][row]) if blue.any() else (red.T, 1 - train["value"][row])
            winners[int(stone.argmax())].append(float(value))
    openings = openings_of(sample)
    for cell in range(SIDE * SIDE):
        assert openings.games[cell] == len(winners[cell])
        red = sum(winners[cell]) / len(winners[cell]) if winners[cell] else math.nan
        assert openings.red[cell] == pytest.approx(red, nan_ok=True)
    assert len([*opening_figures(sample, openings)]) == 2
    assert openings.rows(SIDE)[0][1] == f"{openings.games.max() / openings.games.sum():.1%}"
