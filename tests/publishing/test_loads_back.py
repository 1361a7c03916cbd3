from __future__ import annotations

import json
import re

import numpy as np
import pytest
from helpers.small_data import columns_of, dataset, rows_of
from helpers.stand_in_hub import hub

import hexshards

pytest.importorskip("pyarrow", reason="without pyarrow NOTHING OF PUBLISHING IS CHECKED")

# webdataset leaves the tars it has read to the garbage collector, where "error" finds them
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)

URL = "hf://datasets/me/games"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def out(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("published") / "games"
    hexshards.publish(data, out, license="mit", creator="Me", homepage="https://example.org")
    return out


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """The library, without a network and with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    library = pytest.importorskip(
        "datasets", reason="without datasets IT IS NOT CHECKED that load_dataset reads a card"
    )
    monkeypatch.setattr(library.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    library.disable_progress_bars()
    return library


def code_of(out, title):
    """The lines of Python on a card under a title."""
    return re.search(rf"^{title}.*?```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL | re.MULTILINE)[1]


def ran(code, monkeypatch, folder):
    monkeypatch.chdir(folder)
    names = {}
    exec(code, names)
    return names


def test_the_loader_reads_it_from_the_hub_in_the_order_of_the_folder(data, tmp_path):
    with hub():
        hexshards.publish(data, URL, license="mit")
        there = [rows_of(batch) for batch in hexshards.loader(URL, batch_size=64, cache=tmp_path / "cache")]
    assert there == [rows_of(batch) for batch in hexshards.loader(data, batch_size=64)]


def test_the_cards_config_is_the_default_and_has_the_splits_that_it_names(out, datasets):
    assert datasets.get_dataset_config_names(str(out)) == ["positions"]
    assert datasets.get_dataset_default_config_name(str(out)) == "positions"
    loaded = datasets.load_dataset(str(out))
    assert {split: len(part) for split, part in loaded.items()} == {"train": 1117, "val": 192}
    assert set(loaded["val"]["split"]) == {"val"}
    assert len(loaded["train"][0]["cells"]) == 25


def test_the_cards_lines_for_datasets_run_as_they_are(data, out, datasets, monkeypatch):
    preview = ran(code_of(out, "datasets: the preview"), monkeypatch, out.parent)["positions"]
    assert len(preview) == 1117
    blocks = ran(code_of(out, "datasets: all positions"), monkeypatch, out.parent)["blocks"]["train"]
    values = np.concatenate([np.asarray(block["value.npy.zst"]) for block in blocks])
    assert values.tolist() == columns_of(data, "train")["value"].tolist()


def test_the_cards_lines_for_hexshards_and_webdataset_run_as_they_are(data, out, monkeypatch):
    names = ran(code_of(out, "hexshards: shuffled"), monkeypatch, out.parent)
    assert names["board"].shape[1:] == (3, 5, 5)
    blocks = ran(code_of(out, "webdataset: all"), monkeypatch, out.parent)["blocks"]
    values = np.concatenate([block["value.npy.zst"] for block in blocks])
    assert values.tolist() == columns_of(data, "train")["value"].tolist()


def test_shards_without_compression_need_nothing_of_hexshards(tmp_path, monkeypatch):
    hexshards.publish(dataset(tmp_path, codec="none"), tmp_path / "out", license="mit")
    lines = code_of(tmp_path / "out", "webdataset: all")
    assert "hexshards" not in lines
    assert sum(len(block["value.npy"]) for block in ran(lines, monkeypatch, tmp_path)["blocks"]) == 1117


def test_mlcroissant_finds_no_fault_and_reads_the_preview(out):
    library = pytest.importorskip(
        "mlcroissant", reason="without mlcroissant CROISSANT IS CHECKED by its required names alone"
    )
    read = library.Dataset(str(out / "croissant.json"))
    assert not read.metadata.ctx.issues.errors
    first = next(iter(read.records("val")))
    assert len(first["val/cells"]) == 25
    assert json.loads((out / "croissant.json").read_text())["name"] == "games"


def test_the_card_names_no_files_but_those_of_the_preview(out):
    # datasets takes one builder for all configs, by the files of the first: tars in a second one cannot be read
    head = (out / "README.md").read_text().split("---\n")[1]
    assert re.findall(r"path: (.*)", head) == ['"preview/train.parquet"', '"preview/val.parquet"']
