"""Networks in the formats of others, which answer as they do here."""

from __future__ import annotations

import json
import logging
import os
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import small_hex_ai
from helpers.saved_networks import boards, saved
from helpers.small_runs import train
from torch import nn
from typer.testing import CliRunner

from hexshards import export_network
from hexshards.cli.app import app
from hexshards.errors import DataError
from hexshards.interop.export import _check, _without_torchvision
from hexshards.interop.hex_ai_checkpoint import HexAiCheckpoints
from hexshards.training.checkpointing.retention import Retention
from hexshards.training.steps.model import TwoHeadedResNet


def test_hex_ais_programs_find_a_run_that_was_exported_and_load_it_strictly(tmp_path):
    model = saved(tmp_path / "best.pt", small_hex_ai.create_model("resnet18"), value_output="tanh", best_by="val.loss")
    results = tmp_path / "checkpoints" / "experiment"
    path = export_network(tmp_path / "best.pt", format="hex_ai", out=results)
    assert small_hex_ai.found_checkpoints(tmp_path / "checkpoints") == {(2, 3): path}
    loaded, given = small_hex_ai.loaded_network(path), boards(2, side=13)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model(given), loaded(given), strict=True))
    held = small_hex_ai.load_checkpoint(path)
    losses = {"total_loss": 0.5, "policy_loss": 2.0, "value_loss": 0.25}
    assert (held["train_metrics"], held["val_metrics"]) == (losses, losses)
    assert (held["epoch"], held["best_val_loss"], held["mixed_precision"]) == (2, 0.4, False)


def test_an_export_is_a_function_of_its_checkpoint_and_whole_or_not_there(tmp_path, monkeypatch):
    saved(tmp_path / "best.pt", precision="bfloat16")
    paths = [export_network(tmp_path / "best.pt", format="hex_ai", out=tmp_path / out) for out in ("a", "b")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert small_hex_ai.load_checkpoint(paths[0])["mixed_precision"] is True
    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="no room"):
        export_network(tmp_path / "best.pt", format="hex_ai", out=tmp_path / "c")
    assert [*(tmp_path / "c").iterdir()] == []


def test_hex_ais_trainer_goes_on_from_an_exports_weights_with_an_optimizer_of_its_own_and_not_otherwise(tmp_path):
    model = saved(tmp_path / "best.pt", small_hex_ai.create_model("resnet18"), value_output="tanh")
    path = export_network(tmp_path / "best.pt", format="hex_ai", out=tmp_path / "out")
    theirs = small_hex_ai.Trainer(small_hex_ai.create_model("resnet18"), None)
    with pytest.raises(ValueError, match="parameter group"):
        theirs.load_checkpoint(path)
    theirs.load_checkpoint(path, override_checkpoint_hyperparameters=True)
    assert all(torch.equal(part, theirs.model.state_dict()[name]) for name, part in model.state_dict().items())
    assert theirs.optimizer.state_dict()["state"] == {}


def test_two_runs_exported_into_one_folder_do_not_overwrite_each_other(tmp_path):
    saved(tmp_path / "one.pt")
    saved(tmp_path / "two.pt", TwoHeadedResNet(channels=2, blocks=1))
    for format in ("hex_ai", "state-dict"):
        path = export_network(tmp_path / "one.pt", format=format, out=tmp_path / "out")
        before = path.read_bytes()
        with pytest.raises(FileExistsError, match="is there already, and differs: name another folder"):
            export_network(tmp_path / "two.pt", format=format, out=tmp_path / "out")
        assert export_network(tmp_path / "one.pt", format=format, out=tmp_path / "out").read_bytes() == before


def broken(*_: Any) -> None:
    raise OSError("no room")


def test_only_a_runs_checkpoint_becomes_one_of_hex_ais(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=r"weights\.pt: ends without its checksum"):
        export_network(tmp_path / "weights.pt", format="hex_ai", out=tmp_path)
    saved(tmp_path / "best.pt")
    with pytest.raises(ValueError, match="leave ema out, or export a state-dict"):
        export_network(tmp_path / "best.pt", format="hex_ai", out=tmp_path, ema=True)


def test_any_pytorch_program_loads_the_weights_alone(tmp_path):
    model = saved(tmp_path / "best.pt")
    path = export_network(tmp_path / "best.pt", format="state-dict", out=tmp_path / "out")
    assert path.name == "epoch2_mini3.state_dict.pt"
    weights = torch.load(path, weights_only=True)
    assert all(torch.equal(part, weights[name]) for name, part in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("heads", ["policy,value", "policy,value,moves_left"])
def test_torchscript_answers_as_the_network_does_on_any_side_and_number_of_boards(tmp_path, heads):
    model = saved(tmp_path / "best.pt", TwoHeadedResNet(channels=2, blocks=1, heads=heads))
    path = export_network(tmp_path / "best.pt", format="torchscript", out=tmp_path / "out")
    loaded = torch.jit.load(path)
    for given in (boards(1), boards(3, side=9)):
        answers = dict(zip(heads.split(","), model(given), strict=True))
        for name, theirs in zip(("policy", "value"), loaded(given), strict=True):
            assert torch.allclose(theirs, answers[name], atol=1e-6)


def test_onnx_answers_as_the_network_does(tmp_path):
    saved(tmp_path / "best.pt")
    if not (find_spec("onnxruntime") and find_spec("onnxscript")):
        with pytest.raises(ValueError, match=r"ONNX is not installed .*pip install 'hexshards\[onnx\]'"):
            export_network(tmp_path / "best.pt", format="onnx", out=tmp_path / "out")
        pytest.skip("hexshards[onnx] is not installed: not proved that an ONNX runtime reads what is exported")
    told = list[str]()
    listener = logging.Handler()
    listener.emit = lambda record: told.append(record.getMessage())
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addHandler(listener)
    try:
        path = export_network(tmp_path / "best.pt", format="onnx", out=tmp_path / "out")
        logger.warning("torchvision is not installed: said by another")
    finally:
        logger.removeHandler(listener)
    assert path.name == "epoch2_mini3.onnx" and path.stat().st_size > 1000
    # what torch says of operators of others is kept back while it exports, and not afterwards
    assert told == ["torchvision is not installed: said by another"]


def test_of_what_torch_tells_in_an_export_only_what_it_says_of_torchvision_is_kept_back(caplog):
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addHandler(caplog.handler)
    try:
        with _without_torchvision():
            logger.warning("torchvision is not installed. Skipping torchvision::nms")
            logger.warning("an operator is missing")
    finally:
        logger.removeHandler(caplog.handler)
    # twice where torch has its loggers tell the root's too
    assert {record.getMessage() for record in caplog.records} == {"an operator is missing"}


def test_hex_ais_own_checkpoint_is_exported_too_by_its_own_name(tmp_path):
    path = tmp_path / "epoch3_mini4.pt.gz"
    small_hex_ai.Trainer(small_hex_ai.create_model("resnet18"), None).save_checkpoint(path, {}, {})
    command = ["export", str(path), "--format", "state-dict", "--out", str(tmp_path / "out")]
    factory = ["--model", "helpers.small_hex_ai:create_model", "--model-args", "resnet18"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 1 and "Name what makes it" in ran.stderr
    ran = CliRunner().invoke(app, [*command, *factory])
    assert (ran.exit_code, ran.stdout) == (0, f"network {tmp_path / 'out' / 'epoch3_mini4.state_dict.pt'}\n")


def test_an_export_that_answers_otherwise_is_refused_in_words():
    model = nn.Module()
    model.forward = lambda given: (given.flatten(1)[:, :25], given.flatten(1)[:, :1])
    network = SimpleNamespace(model=model, path=Path("best.pt"))
    _check(model, network, boards())
    with pytest.raises(ValueError, match=r"best\.pt: the export answers another value, by 1.*Export a state-dict"):
        _check(lambda given: (model(given)[0], model(given)[1] + 1), network, boards())
    with pytest.raises(ValueError, match="answers another policy"):
        _check(lambda given: (model(given)[0] * torch.nan, model(given)[1]), network, boards())


def run(folder: Path, *, epochs: int = 1, last: int | None = None) -> None:
    train(folder, num_epochs=epochs, hooks=[HexAiCheckpoints()], retention=Retention(last=last))


def test_a_run_saves_hex_ais_checkpoints_too_and_keeps_no_more_of_them_than_of_its_own(tmp_path):
    run(tmp_path)
    held = small_hex_ai.found_checkpoints(tmp_path)
    assert {*held} == {(1, 1), (1, 2), (1, 3)}
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for record in lines:
        theirs = small_hex_ai.load_checkpoint(held[record["epoch"], record["mini_epoch"]])
        assert theirs["val_metrics"]["total_loss"] == record["val"]["loss"]
    run(tmp_path, epochs=2, last=2)
    best = min(range(6), key=lambda place: all_records(tmp_path)[place]["val"]["loss"])
    kept = {(each["epoch"], each["mini_epoch"]) for each in all_records(tmp_path)[-2:]}
    assert {*small_hex_ai.found_checkpoints(tmp_path)} == kept, best


def all_records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
