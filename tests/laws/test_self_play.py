"""The loop of self-play in examples/: games, dataset, network, and games by that network."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from helpers.small_runs import log_lines

from hexshards.conversion.watch import watch
from hexshards.dataset.verify import verify
from hexshards.training.options import TrainSpec
from hexshards.training.run import train

PLAYER = Path(__file__).parents[2] / "examples" / "self_play" / "player.py"


@pytest.fixture
def player():
    spec = importlib.util.spec_from_file_location("self_play_player", PLAYER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_games_become_a_network_that_plays_the_next_ones(player, tmp_path, monkeypatch):
    inbox, data, run = tmp_path / "inbox", tmp_path / "growing", tmp_path / "run"
    inbox.mkdir()
    small = {"mini_epoch_batches": 2, "batch_size": 16, "channels": 2, "blocks": 1, "val_samples": 16, "diagnose": 0}
    small |= {"epochs": 9, "grow": "mini-epoch", "device": "cpu", "threads": 1}
    for turn in (1, 2):
        # each part ends and begins anew, as after a kill
        monkeypatch.setattr(sys, "argv", ["player", str(inbox), str(run), "--side=4", "--games=8", "--files=1"])
        player.main()
        watch(inbox, dataset=data, every_s=0, once=True, tell=lambda event: None, val_fraction=0.2, block_positions=64)
        train(TrainSpec(data=data, run=run, max_samples=32 * turn, **small))
    heads = [path.read_text().split("\n")[1] for path in sorted(inbox.glob("*.trmph"))]
    assert heads == ["# model: random", "# model: checkpoint_epoch0001_mini0001"]
    lines = log_lines(run)
    assert [line["samples_seen"] for line in lines] == [32, 64]
    assert lines[0]["dataset"] != lines[1]["dataset"]
    assert verify(data).problems == ()
    assert not (inbox / "refused").exists()
