from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.small_data import columns_of, dataset, examples, write_examples

import hexshards
from hexshards.conversion.convert import convert
from hexshards.game.board import symmetry_cells
from hexshards.game.columns import Column
from hexshards.loading.expansion.expand import Batch, BatchWithColumns, Packed, PackedWithColumns
from hexshards.loading.expansion.extra_columns import ExtraColumns, as_bytes


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def weighted(tmp_path_factory):
    folder, entries = tmp_path_factory.mktemp("weighted"), examples(12)
    for number, example in enumerate(entries):
        example |= {"weight": float(number % 4), "search_value": (number % 11) / 10}
    path = write_examples(folder / "a_processed.pkl.gz", entries)
    convert(path, out=folder / "data", shard_positions=96, block_positions=16, val_fraction=0.0)
    return folder / "data"


OPTIONS = {"batch_size": 32, "shuffle": False}


def test_columns_that_are_asked_for_come_as_a_fourth_part_in_the_order_of_the_rows(weighted):
    loader = hexshards.loader(weighted, columns=("weight", "plies_left", "generation"), augment="none", **OPTIONS)
    batches, held = list(loader), columns_of(weighted, "train")
    columns = {name: np.concatenate([batch.columns[name].numpy() for batch in batches]) for name in batches[0].columns}
    assert list(columns) == ["weight", "plies_left", "generation"]
    assert columns["weight"].tolist() == held["weight"].tolist()
    assert columns["plies_left"].tolist() == (held["plies"] - held["ply"]).tolist()
    assert set(columns["generation"].tolist()) == {-1}


def test_what_a_search_said_is_shown_in_the_symmetry_of_its_row(weighted):
    shown = list(hexshards.loader(weighted, columns=("search_value",), augment="random", **OPTIONS))
    plain = list(hexshards.loader(weighted, columns=("search_value",), augment="none", **OPTIONS))
    turned = 0
    for one, other in zip(shown, plain, strict=True):
        swapped = (one.value != other.value)[:, 0].numpy()
        said, before = one.columns["search_value"].numpy(), other.columns["search_value"].numpy()
        assert said.tolist() == np.where(swapped, 1 - before, before).tolist()
        turned += swapped.sum()
    assert turned


def test_packed_rows_have_a_sixth_part_only_where_columns_were_asked_for(weighted):
    plain = list(hexshards.loader(weighted, **OPTIONS).packed())
    asked = list(hexshards.loader(weighted, columns=("weight", "ply"), **OPTIONS).packed())
    assert {type(rows) for rows in plain} == {Packed}
    assert {type(rows) for rows in asked} == {PackedWithColumns}
    assert np.concatenate([rows.columns["weight"] for rows in asked]).tolist() == (
        columns_of(weighted, "train")["weight"].tolist()
    )
    expanded = [hexshards.expand(rows, side=5) for rows in asked]
    assert all(
        (one.board == hexshards.expand(rows, side=5).board).all() for one, rows in zip(expanded, plain, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_the_same_with_and_without_other_columns(data, workers):
    plain = list(hexshards.loader(data, batch_size=100, num_workers=workers))
    more = list(hexshards.loader(data, batch_size=100, num_workers=workers, columns=["ply", "source"]))
    for one, other in zip(plain, more, strict=True):
        assert type(one) is Batch
        assert type(other) is BatchWithColumns
        assert all((a == b).all() for a, b in zip(one, other[:3], strict=True))
        stones = other.board[:, :2].sum(dim=(1, 2, 3))
        assert other.columns["ply"].tolist() == stones.tolist()


def test_weights_by_rule_multiply_the_column(weighted):
    rules = "ply=10..:2, tier=0:0.5, ply=3, tier=0..1:7"
    ruled = hexshards.loader(weighted, weights=rules, augment="none", **OPTIONS)
    weights, held = np.concatenate([b.columns["weight"].numpy() for b in ruled]), columns_of(weighted, "train")
    expected = held["weight"] * np.where(held["ply"] >= 10, 2, 1) * np.where(held["tier"] == 0, 0.5, 1)
    expected *= np.where((held["ply"] == 3) & (held["tier"] >= 0) & (held["tier"] <= 1), 7, 1)
    assert weights.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["x_strength"]}, r"columns: there is no x_strength\. There are weight, "),
        ({"columns": ["policy"]}, "policy is in every batch already"),
        ({"weights": "ply=10"}, "weights: 'ply=10' has no factor"),
        (
            {"weights": "ply=10..:-2"},
            r"factor of 'ply=10\.\.:-2' must be 0 or more, and with 0 a position does not count",
        ),
        ({"weights": "ply=10..:two"}, r"factor of 'ply=10\.\.:two' must be a number such as 2 or 0\.5; got two"),
        ({"weights": "x_strength=3:2"}, "weights: no position can be told by x_strength. There are weight, "),
        ({"weights": "colour=3:2"}, "weights: 'colour=3' is no condition"),
        ({"columns": ["ply"], "resident": True}, "Leave resident or columns out"),
    ],
)
def test_what_cannot_come_is_refused_in_a_sentence(data, options, message):
    with pytest.raises(ValueError, match=message):
        hexshards.loader(data, **options)


def test_cells_of_a_column_go_where_the_boards_cells_go():
    side, symmetry = 4, np.arange(4, dtype=np.uint8)
    kinds = (
        Column(name="x_cell", dtype=np.dtype("<i2"), symmetry="cells move", unknown=-1, low=-1),
        Column(name="x_each", dtype=np.dtype("<f2"), size=("cells",), symmetry="cells move"),
        Column(name="x_odd", dtype=np.dtype("|u1"), unknown=0),  # what follows it lies at odd bytes
        Column(name="x_none", dtype=np.dtype("<i2"), symmetry="cells move", unknown=-1, low=-1),
        Column(name="x_player", dtype=np.dtype("<f4"), symmetry="colours swap"),
    )
    each = np.random.default_rng(0).integers(0, 100, (4, side * side)).astype("<f2")
    held = {
        "x_cell": np.full(4, 6),
        "x_each": each,
        "x_odd": np.arange(4),
        "x_none": np.full(4, -1),
        "x_player": [0, 0.25, 0.25, 1],
    }
    extra = ExtraColumns(kinds, side)
    records = extra.packed({name: np.asarray(column) for name, column in held.items()})
    rows = PackedWithColumns(*[np.zeros(4)] * 4, symmetry, records)
    tensors = PackedWithColumns(*[torch.zeros(4)] * 4, torch.from_numpy(symmetry), torch.from_numpy(as_bytes(records)))
    cells = symmetry_cells(side)
    turned = np.empty_like(each)
    for row in range(4):
        for cell in range(side * side):
            turned[row, cells[row][cell]] = each[row, cell]
    for shown in (extra.shown(rows), extra.shown(tensors)):
        assert shown["x_cell"].tolist() == [cells[row][6] for row in range(4)]
        assert shown["x_each"].tolist() == turned.tolist()
        assert shown["x_odd"].tolist() == [0, 1, 2, 3]
        assert shown["x_none"].tolist() == [-1] * 4
        assert shown["x_player"].tolist() == [0, 0.25, 0.75, 0]
