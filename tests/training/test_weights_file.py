"""Files of weights, gzipped or not, of this and other programs, read as data."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import small_hex_ai
from torch import nn

from hexshards.errors import DataError
from hexshards.training.options import TrainSpec
from hexshards.training.steps.model_factory import network
from hexshards.training.steps.weights_file import read_saved, read_weights

NUMBERS = {
    **{kind.__name__: kind(3) for kind in (np.float16, np.float32, np.float64)},
    **{kind.__name__: kind(-3) for kind in (np.int8, np.int16, np.int32, np.int64)},
    **{kind.__name__: kind(200) for kind in (np.uint8, np.uint16, np.uint32, np.uint64)},
    "bool": np.bool_(True),
    "big": np.dtype(">f8").type(0.5),
}


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def rewritten(data: bytes, old: bytes, new: bytes) -> bytes:
    """A file of torch.save with other bytes in its pickle."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            part = source.read(name)
            if name.endswith("data.pkl"):
                assert old in part
                part = part.replace(old, new)
            archive.writestr(name, part)
    return target.getvalue()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    """A checkpoint that hex_ai's trainer wrote, with NumPy scalars among its metrics."""
    path = tmp_path_factory.mktemp("theirs") / "epoch3_mini4.pt.gz"
    trainer = small_hex_ai.Trainer(small_hex_ai.create_model("resnet18"), None)
    metrics = small_hex_ai.aged(["policy_loss", "value_loss", "total_loss"])
    trainer.save_checkpoint(path, metrics, metrics)
    return path


def test_a_run_begins_with_the_weights_of_hex_ais_checkpoint(theirs):
    spec = TrainSpec(
        data="d",
        run=Path("r"),
        model="helpers.small_hex_ai:create_model",
        model_args="resnet18",
        value_weight=0.0,
        init_from=theirs,
    )
    ours, wanted = network(spec, side=13).state_dict(), small_hex_ai.loaded_network(theirs).state_dict()
    assert all(torch.equal(ours[name], part) for name, part in wanted.items())


def test_metrics_that_are_numpy_scalars_become_plain_numbers(tmp_path):
    path = tmp_path / "old.pt"
    path.write_bytes(saved(NUMBERS))
    loaded = read_saved(path)
    assert loaded == {name: number.item() for name, number in NUMBERS.items()}
    assert {type(number) for number in loaded.values()} == {int, float, bool}


def test_numpy_1_and_numpy_2_name_a_scalar_differently_and_both_are_read(tmp_path):
    data, path = saved({"loss": np.float64(0.5)}), tmp_path / "old.pt"
    new, old = b"cnumpy._core.multiarray\nscalar", b"cnumpy.core.multiarray\nscalar"
    path.write_bytes(rewritten(data, *((new, old) if new in data else (old, new))))
    assert read_saved(path) == {"loss": 0.5}


@pytest.mark.parametrize(
    "value", [np.str_("a"), np.datetime64("2026-01-01"), np.complex128(1j), np.zeros(3), np.void(b"1")]
)
def test_no_other_value_of_numpy_is_read(tmp_path, value):
    (tmp_path / "odd.pt").write_bytes(saved({"loss": value}))
    with pytest.raises(DataError, match=r"odd\.pt: is no checkpoint and no file of weights"):
        read_saved(tmp_path / "odd.pt")


@pytest.mark.parametrize("data", [b"", b"no weights at all", b"{}"])
def test_what_torch_did_not_write_is_refused_without_its_advice_to_let_it_run(tmp_path, data):
    (tmp_path / "odd.pt").write_bytes(data)
    with pytest.raises(
        DataError, match=r"odd\.pt: is no checkpoint and no file of weights: torch\.load takes it for none\. Name"
    ):
        read_saved(tmp_path / "odd.pt")


@pytest.mark.parametrize("lie", ["O8", "f4", "V8"])
def test_a_scalar_that_lies_about_its_kind_is_refused(tmp_path, lie):
    kind = b"X\x02\x00\x00\x00"
    (tmp_path / "odd.pt").write_bytes(rewritten(saved({"loss": np.float64(0.5)}), kind + b"f8", kind + lie.encode()))
    with pytest.raises(DataError, match=r"odd\.pt: is no checkpoint and no file of weights"):
        read_saved(tmp_path / "odd.pt")


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("PWNED"),)


@pytest.mark.parametrize("zipped", [gzip.compress, bytes])
def test_nothing_in_a_file_runs_whether_it_is_gzipped_or_not(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt.gz"
    for data in (pickle.dumps(Payload()), saved({"model_state_dict": Payload()}), saved({"loss": [Payload()]})):
        path.write_bytes(zipped(data))
        with pytest.raises(DataError, match=r"evil\.pt\.gz"):
            read_weights(path)
    assert not (tmp_path / "PWNED").exists()


def test_a_gzip_bomb_and_a_cut_file_are_refused_before_they_fill_memory(tmp_path):
    path, whole = tmp_path / "bomb.pt.gz", gzip.compress(saved(nn.Linear(2, 2).state_dict()))
    with zipfile.ZipFile(zipped := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    told = {
        gzip.compress(bytes(64 << 20)): "decompresses to more than",
        gzip.compress(zipped.getvalue()): "holds compressed records",
        whole[:-9]: "ends in the middle",
        whole[:-8] + bytes(8): "gzip is damaged",
    }
    for data, finding in told.items():
        path.write_bytes(data)
        with pytest.raises(DataError, match=finding):
            read_weights(path)
    path.write_bytes(whole)
    assert read_weights(path).keys() == {"weight", "bias"}
