"""What a released version wrote stays readable: the same order, the same bits, and runs that go on.

The fixtures in ``released/VERSION`` were written by that version (``released/make.py``) and are never made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch
import zstandard

import hexshards
from hexshards import TrainSpec
from hexshards.game.columns import OPTIONAL, column_of

RELEASED = Path(__file__).parent / "released"
VERSIONS = sorted(path.parent for path in RELEASED.glob("*/made.json"))
MADE = {folder: json.loads((folder / "made.json").read_text()) for folder in VERSIONS}


def each(part):
    return [
        pytest.param(folder, name, id=f"{folder.name}-{name}") for folder in VERSIONS for name in MADE[folder][part]
    ]


def digest(batches):
    total = hashlib.sha256()
    for batch in batches:
        for part in batch:
            total.update(part.numpy().tobytes())
    return total.hexdigest()


def weights_of(path):
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state_dict"]
    return {
        name: float((tensor.double().flatten() * torch.arange(1, tensor.numel() + 1)).sum())
        for name, tensor in state.items()
    }


def test_there_is_a_fixture_of_every_released_version():
    assert [folder.name for folder in VERSIONS] == ["0.1"]


@pytest.mark.parametrize(("folder", "name"), each("streams"))
def test_a_dataset_is_streamed_in_the_same_order_with_the_same_bits(folder, name):
    for stream, made in MADE[folder]["streams"][name].items():
        loader = hexshards.loader(folder / name, **{"batch_size": 64, **made["options"]})
        assert digest(loader) == made["epoch0"], stream
        assert digest(islice(loader, 1)) == made["begun"], stream


@pytest.mark.parametrize(("folder", "name"), each("streams"))
def test_the_state_of_a_loader_goes_on_where_it_was(folder, name):
    for stream, made in MADE[folder]["streams"][name].items():
        loader = hexshards.loader(folder / name, **{"batch_size": 64, **made["options"]})
        loader.load_state_dict(made["state"])
        assert digest(loader) == made["rest"], stream


@pytest.mark.parametrize(("folder", "name"), each("streams"))
def test_a_dataset_verifies_sound(folder, name):
    assert hexshards.verify(folder / name).problems == ()


@pytest.mark.parametrize(("folder", "name"), each("datasets"))
def test_the_same_sources_are_converted_to_the_same_bytes(folder, name, tmp_path):
    made = MADE[folder]["datasets"][name]
    hexshards.convert(folder / "sources" / made["source"], out=tmp_path / "again", workers=1, **made["options"])
    shards = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "again").glob("*.tar")}
    if made["options"].get("codec") != "none" and list(zstandard.ZSTD_VERSION) != MADE[folder]["zstd"]:
        pytest.skip(f"another release of zstd compresses to other bytes: {zstandard.ZSTD_VERSION}")
    assert shards == MADE[folder]["shards"][name]


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_a_dataset_is_added_to_as_the_version_itself_did(folder, tmp_path):
    grown = tmp_path / "grown"
    grown.mkdir()
    shutil.copy(folder / "grown5" / "index-before.json", grown / "index.json")
    for name in json.loads((grown / "index.json").read_text())["splits"]:
        for path in (folder / "grown5").glob(f"{name}-*.tar"):
            if path.name in (grown / "index.json").read_text():
                shutil.copy(path, grown)
    hexshards.convert(folder / "sources" / "more5", out=grown, workers=1, append=True)
    assert hexshards.read_index(grown).fingerprint == hexshards.read_index(folder / "grown5").fingerprint


FORMAT_2 = RELEASED / "format-2"


def test_a_dataset_with_optional_columns_is_read_with_the_same_bits():
    made = json.loads((FORMAT_2 / "expected.json").read_text())
    sums = {name: hashlib.sha256() for name in made["digests"]}
    for batch in hexshards.loader(FORMAT_2 / "rich5", **made["read"]):
        for name, part in {**dict(zip(("board", "policy", "value"), batch, strict=False)), **batch.columns}.items():
            sums[name].update(part.contiguous().numpy().tobytes())
    assert {name: each.hexdigest() for name, each in sums.items()} == made["digests"]
    assert hexshards.verify(FORMAT_2 / "rich5").problems == ()


def test_a_file_with_optional_keys_is_converted_to_the_same_bytes(tmp_path):
    made = json.loads((FORMAT_2 / "expected.json").read_text())
    hexshards.convert(FORMAT_2 / "rich_processed.pkl.gz", out=tmp_path / "again", workers=1, **made["options"])
    shards = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "again").glob("*.tar")}
    assert shards == made["shards"]


def test_a_column_is_the_same_one_whatever_words_an_older_index_has_for_it():
    listed = json.loads((FORMAT_2 / "rich5" / "index.json").read_text())["layout"]["optional"]
    assert [column_of({**each, "doc": "as it was said"}) for each in listed] == [
        each for each in OPTIONAL if each.name in {entry["name"] for entry in listed}
    ]


@pytest.mark.parametrize(("folder", "name"), each("runs"))
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(folder, name, tmp_path, monkeypatch):
    made = MADE[folder]["runs"][name]
    shutil.copytree(folder / name, tmp_path / name)
    shutil.copytree(folder / made["data"], tmp_path / made["data"])
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        outcome = hexshards.train(TrainSpec(data=Path(made["data"]), run=Path(name), **made["options"]))
    finally:
        torch.set_num_threads(threads)
    assert outcome.resumed_from is not None
    assert outcome.resumed_from.name.endswith("_partial.pt")
    assert outcome.samples_seen == made["samples_seen"]
    assert outcome.checkpoint.name == made["checkpoints"][-1]
    lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    assert [line["checkpoint"] for line in lines][-len(made["checkpoints"]) :] == made["checkpoints"][-len(lines) :]
    # another kind of processor rounds otherwise in the last bits
    assert weights_of(outcome.checkpoint) == pytest.approx(made["weights"], rel=1e-4, abs=1e-4)
