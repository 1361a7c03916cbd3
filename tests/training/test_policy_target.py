"""train --policy-target: what was played or what a search visited is what a network learns."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.small_data import CUT, examples, write_examples

import hexshards
from hexshards import TrainSpec
from hexshards.conversion.convert import convert
from hexshards.game.random_visits import search

SMALL = {"mini_epoch_samples": 100, "channels": 4, "blocks": 1, "batch_size": 32, "diagnose": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, entries = tmp_path_factory.mktemp("searched"), examples(20)
    free = np.array([example["board"].sum(axis=0).reshape(-1) == 0 for example in entries])
    for example, counts in zip(entries, search(free, simulations=20), strict=True):
        if example["policy"] is not None:
            example["visits"] = counts
    convert(write_examples(folder / "a_processed.pkl.gz", entries), out=folder / "data", **CUT)
    return folder / "data"


def train(data, run, **options):
    hexshards.train(TrainSpec(data=data, run=run, **SMALL, **options))


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["train"]["policy_loss"], line["val"]["policy_loss"]) for line in lines if "train" in line]


def weights_of(run):
    path = sorted((run / "checkpoints").glob("checkpoint_*.pt"))[-1]
    kept = torch.load(path, weights_only=True)
    return kept, b"".join(part.numpy().tobytes() for part in kept["model_state_dict"].values())


def test_a_run_on_visits_goes_on_bit_for_bit_and_is_recorded(data, tmp_path):
    for target in ("search", "0.5", "played"):
        train(data, run=tmp_path / target, policy_target=target, epochs=1)
    train(data, run=tmp_path / "cut", policy_target="search", max_samples=100)
    train(data, run=tmp_path / "cut", policy_target="search", epochs=1)
    kept, whole = weights_of(tmp_path / "search")
    assert weights_of(tmp_path / "cut")[1] == whole
    assert kept["options"]["policy_target"] == "search"
    by_target = {target: losses(tmp_path / target) for target in ("search", "0.5", "played")}
    assert len({json.dumps(each) for each in by_target.values()}) == 3  # validated by what is learned
    assert all(np.isfinite(each).all() for each in by_target.values())


def test_a_dataset_without_visits_is_refused_before_training(tmp_path):
    convert(write_examples(tmp_path / "a_processed.pkl.gz", examples(10)), out=tmp_path / "data", **CUT)
    with pytest.raises(ValueError, match="policy: no position here has visits of a search"):
        train(tmp_path / "data", run=tmp_path / "run", policy_target="search")
