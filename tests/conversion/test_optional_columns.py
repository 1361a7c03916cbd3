"""Optional columns: hexshards' own and a third party's go through conversion and come out everywhere."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from helpers.small_data import CUT, columns_of, examples, files_of, processed, write_examples
from typer.testing import CliRunner

import hexshards
from hexshards.cli.app import app
from hexshards.conversion.convert import convert
from hexshards.conversion.sources import Chunk, Column, formats
from hexshards.dataset.filters import Filter, Selection
from hexshards.dataset.index import read_index
from hexshards.dataset.verify import verify
from hexshards.errors import DataError, InputRejected
from hexshards.game.columns import OPTIONAL
from hexshards.storage.remote import home_of

STRENGTH = Column(
    name="x_strength", dtype=np.dtype("<f4"), merge="mean", filterable=True, low=0, doc="rating of the opponent"
)


class Rated:
    """A third party's format: a processed file of another name, and a strength for each position."""

    patterns = ("*.rated",)
    column = STRENGTH

    def read(self, data, *, name, where, spec):
        for chunk in formats()["processed"].read(data, name=name, where=where, spec=spec):
            positions = chunk.positions
            strength = (positions.ply * 10 + positions.game % 7).astype(self.column.dtype)
            yield Chunk(positions.with_optional({self.column: strength}), *chunk[1:])


@pytest.fixture
def rated(monkeypatch, tmp_path):
    """The format is installed, as a package of somebody else's."""
    package = tmp_path / "site" / "rated-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: rated\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[hexshards.sources]\nrated = {__name__}:Rated\n")
    monkeypatch.syspath_prepend(package.parent)
    formats.cache_clear()
    yield
    formats.cache_clear()


def rated_file(folder, **options):
    (path,) = processed(folder / "plain", **{"games": 20, **options})
    return shutil.copy(path, folder / "a.rated")


def shown(positions):
    return positions["ply"] * 10 + positions["game"] % 7


def test_a_third_partys_column_comes_out_of_dataset_verify_show_and_filter(tmp_path, rated):
    convert(rated_file(tmp_path), out=tmp_path / "data", **CUT)
    index, columns = read_index(tmp_path / "data"), columns_of(tmp_path / "data", "train")
    assert index.layout.optional == (STRENGTH,)
    assert json.loads((tmp_path / "data" / "index.json").read_text())["version"] == 2
    assert columns["x_strength"].tolist() == shown(columns).tolist()
    assert verify(tmp_path / "data").problems == ()
    said = CliRunner().invoke(app, ["show", str(tmp_path / "data"), "-n", "1"]).output
    assert f"x_strength {columns['x_strength'][0]:g}" in said
    selection = Selection(home_of(tmp_path / "data"), index, "train", where=Filter.parse("x_strength=55.5..100"))
    assert selection.positions == ((columns["x_strength"] >= 55.5) & (columns["x_strength"] <= 100)).sum() > 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_third_partys_column_comes_out_of_the_loader_and_the_pipeline_and_weighs_by_rule(tmp_path, rated):
    data = tmp_path / "data"
    convert(rated_file(tmp_path), out=data, **CUT)
    strength = columns_of(data, "train")["x_strength"]
    asked = {"columns": ["x_strength"], "shuffle": False, "augment": "none"}
    loader = hexshards.loader(data, **asked, weights="x_strength=55.5..100:3")
    pipeline = hexshards.pipeline([str(path) for path in sorted(data.glob("train-*.tar"))], **asked)
    for source in (loader, pipeline):
        said = np.concatenate([batch.columns["x_strength"].numpy() for batch in source])
        assert said.tolist() == strength.tolist()
    weight = np.concatenate([batch.columns["weight"].numpy() for batch in loader])
    assert weight.tolist() == np.where((strength >= 55.5) & (strength <= 100), 3, 1).tolist()


def test_equal_positions_have_the_mean_of_what_they_say(tmp_path, rated):
    path = rated_file(tmp_path)
    convert(path, out=tmp_path / "merged", dedupe="positions", **CUT)
    convert(path, out=tmp_path / "apart", **CUT)
    plain, merged = (
        {part: columns_of(tmp_path / name, part) for part in ("train", "val")} for name in ("apart", "merged")
    )
    for part in ("train", "val"):
        said = {}
        for stones, strength in zip(plain[part]["stones"], plain[part]["x_strength"], strict=True):
            said.setdefault(stones.tobytes(), []).append(float(strength))
        expected = [np.float32(np.mean(said[stones.tobytes()])) for stones in merged[part]["stones"]]
        assert merged[part]["x_strength"].tolist() == expected
        assert merged[part]["count"].tolist() == [len(said[stones.tobytes()]) for stones in merged[part]["stones"]]


def weighted(count=6):
    entries = examples(count)
    for number, example in enumerate(entries):
        if number % 3:
            example |= {"weight": 0.5 * (number % 5), "search_value": (number % 11) / 10}
    return entries


def test_weights_of_a_processed_file_are_kept_and_missing_ones_are_the_default(tmp_path):
    entries = weighted()
    path = write_examples(tmp_path / "a_processed.pkl.gz", entries)
    convert(path, out=tmp_path / "data", **{**CUT, "val_fraction": 0.0})
    stated = {
        (e["metadata"]["game_id"][1], e["metadata"]["position_in_game"]): (
            np.float32(e.get("weight", 1)),
            np.float32(e.get("search_value", np.nan)),
        )
        for e in entries
    }
    columns = columns_of(tmp_path / "data", "train")
    assert len(columns["ply"]) == len(entries)
    for game, ply, *said in zip(*(columns[n] for n in ("game", "ply", "weight", "search_value")), strict=True):
        np.testing.assert_array_equal(said, stated[int(game), int(ply)])
    assert "policy_weight" not in columns
    assert verify(tmp_path / "data").problems == ()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("weight", -1.0, "weight below 0 or not finite"),
        ("weight", float("inf"), "weight is not a finite number"),
        ("policy_weight", float("nan"), "policy_weight is not a finite number"),
        ("weight", "heavy", "weight is not a finite number"),
        ("weight", 1e300, "weight below 0 or not finite"),
        ("search_value", 1.5, "search_value outside 0 to 1"),
    ],
)
def test_what_is_no_weight_is_rejected_in_words(tmp_path, name, value, reason):
    entries = examples(2)
    entries[3][name] = value
    path = write_examples(tmp_path / "a_processed.pkl.gz", entries)
    with pytest.raises(InputRejected, match=rf"1 example was rejected \({reason}: 1\)"):
        convert(path, out=tmp_path / "data", **CUT)


def test_files_with_weights_are_added_to_a_dataset_without_and_the_other_way_round(tmp_path):
    plain = processed(tmp_path / "plain", games=20)
    rich = write_examples(tmp_path / "rich_processed.pkl.gz", weighted())
    convert(plain, out=tmp_path / "a", **CUT)
    before = files_of(tmp_path / "a")
    convert(rich, out=tmp_path / "a", append=True)
    convert(rich, out=tmp_path / "b", **CUT)
    convert(plain, out=tmp_path / "b", append=True)
    assert all(files_of(tmp_path / "a")[name] == data for name, data in before.items() if name.endswith(".tar"))
    for folder in ("a", "b"):
        assert verify(tmp_path / folder).problems == ()
        assert [each.name for each in read_index(tmp_path / folder).layout.optional] == ["weight", "search_value"]
    assert set(columns_of(tmp_path / "b", "train")["weight"].tolist()) == {0, 0.5, 1, 1.5, 2}


def test_without_optional_columns_a_dataset_is_of_format_1(tmp_path):
    convert(processed(tmp_path / "plain", games=10), out=tmp_path / "data", **CUT)
    entry = json.loads((tmp_path / "data" / "index.json").read_text())
    assert entry["version"] == 1
    assert "optional" not in entry["layout"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "has format version 1, and what is in it is of version 2"),
        ({"layout": {"optional": []}}, "Expected `array` of length >= 1"),
        ({"layout": {"optional": ["weight", "weight"]}}, "not in their order, each once"),
        ({"layout": {"optional": [{"dtype": "<f8"}]}}, "weight is not as hexshards declares it"),
        ({"layout": {"optional": [{"name": "colour"}]}}, "column 'colour' is none of hexshards' own"),
    ],
)
def test_an_index_that_lists_what_is_no_column_is_refused(tmp_path, change, message):
    path = write_examples(tmp_path / "a_processed.pkl.gz", weighted())
    convert(path, out=tmp_path / "data", **CUT)
    entry = json.loads((tmp_path / "data" / "index.json").read_text())
    own = entry["layout"]["optional"][0]
    listed = change.get("layout", {}).get("optional")
    if listed is not None:
        entry["layout"]["optional"] = [own if each == "weight" else {**own, **each} for each in listed]
    entry["version"] = change.get("version", 2)
    (tmp_path / "data" / "index.json").write_text(json.dumps(entry))
    with pytest.raises(DataError, match=message):
        read_index(tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "strength"}, "is none of hexshards' own"),
        ({"dtype": np.dtype("<f8")}, "is of dtype float64"),
        ({"dtype": np.dtype("<i4"), "merge": "first"}, "needs one of them for unknown"),
        ({"low": 50}, "x_strength"),
    ],
)
def test_a_converter_that_declares_no_column_or_breaks_its_word_is_told_so(
    tmp_path, rated, monkeypatch, change, message
):
    from dataclasses import replace

    monkeypatch.setattr(Rated, "column", replace(STRENGTH, **change))
    with pytest.raises(InputRejected, match=f"a.rated: .*{message}.* Mend the converter"):
        convert(rated_file(tmp_path), out=tmp_path / "data", **CUT)


def test_every_optional_column_is_one_that_an_index_may_list():
    from hexshards.game.columns import column_of, entry_of

    for each in (*OPTIONAL, STRENGTH):
        assert column_of(json.loads(json.dumps(entry_of(each)))) == each
