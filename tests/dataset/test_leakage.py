from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.small_data import CUT, dataset, images, processed, samples_of
from typer.testing import CliRunner

from hexshards.cli.app import app
from hexshards.conversion.convert import convert
from hexshards.dataset.leakage import leakage
from hexshards.errors import DataError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("leakage"), games=120)


def boards(folder, split):
    """Boards with the player to move, and their stones, read without hexshards."""
    for board, _policy, _value in samples_of(folder, split):
        yield board, int(board[:2].sum())


def by_hand(folder):
    """Validation positions by ply, and those that equal some image of some training position. The slow twin."""
    nothing = np.zeros((5, 5), dtype=np.float32), np.float32(0)

    def shown(board):
        # the boards of the four images: policy and value are no part of what is compared
        return [image[: 3 * 25 * 4] for image in images(board, *nothing)]

    training = {image for board, _ in boards(folder, "train") for image in shown(board)}
    validation, leaked = np.zeros(26, dtype=int), np.zeros(26, dtype=int)
    for board, ply in boards(folder, "val"):
        validation[ply] += 1
        leaked[ply] += shown(board)[0] in training
    return tuple(validation.tolist()), tuple(leaked.tolist())


def test_what_leaks_is_what_training_shows_in_some_symmetry(data):
    measured = leakage(data)
    assert (measured.validation, measured.leaked) == by_hand(data)
    assert measured.leaked[0] == measured.validation[0] > 0
    assert 0 < sum(measured.leaked) < sum(measured.validation)


def test_a_dataset_that_shows_all_symmetries_leaks_the_same_share(data, tmp_path):
    source = processed(tmp_path / "processed", games=120)
    convert(source, out=tmp_path / "baked", bake_symmetries=True, **CUT)
    baked, plain = leakage(tmp_path / "baked"), leakage(data)
    assert (baked.validation, baked.leaked) == by_hand(tmp_path / "baked")
    assert baked.leaked == tuple(4 * count for count in plain.leaked)


def test_progress_ends_with_every_position(data):
    told = list[tuple[int, int]]()
    leakage(data, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]


def test_without_validation_positions_the_error_says_so(tmp_path):
    with pytest.raises(DataError, match=r"no validation positions to compare \(only train\)"):
        leakage(dataset(tmp_path, games=20, val_fraction=0))


def test_verify_tells_what_leaks_by_ply(data):
    told = CliRunner().invoke(app, ["verify", str(data), "--leakage"])
    assert told.exit_code == 0, told.output
    measured = leakage(data)
    assert f"training shows too: {sum(measured.leaked):,} of {sum(measured.validation):,} (" in told.stdout
    assert f"0 stones: {measured.leaked[0]} of {measured.leaked[0]} (100.0%)" in told.stdout
    asked = CliRunner().invoke(app, ["verify", str(data), "--leakage", "--json"])
    assert json.loads(asked.stdout)["leakage"] == {
        "validation": list(measured.validation),
        "leaked": list(measured.leaked),
    }
    assert "leakage" not in json.loads(CliRunner().invoke(app, ["verify", str(data), "--json"]).stdout)
