"""How a run computes: as asked, else as it began, else what is fastest here; and that it says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.small_data import dataset

from hexshards.cli.training_view import start_lines
from hexshards.cores import usable_cores
from hexshards.training import run
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.checkpointing.checkpoint_file import Reader
from hexshards.training.computing import settle
from hexshards.training.distributed import ProcessGroup
from hexshards.training.dry_run import rehearse
from hexshards.training.options import TrainSpec
from hexshards.training.tracking.hooks import RunStarted


def test_a_run_goes_on_with_the_threads_it_began_with_unless_others_are_asked_for(tmp_path):
    data, used = dataset(tmp_path), []
    before = torch.get_num_threads()

    def go(epochs, **options):
        spec = TrainSpec(data=data, run=tmp_path / "run", epochs=epochs, device="cpu", channels=2, blocks=1, **options)
        outcome = run.train(spec, hooks=[lambda _: used.append(torch.get_num_threads())])
        assert outcome.checkpoint is not None
        return checkpoint_file.read(outcome.checkpoint)["options"]["threads"]

    assert go(1) == min(before, usable_cores())
    assert go(2, threads=3) == 3
    assert go(3) == 3
    assert used[-1] == 3
    assert torch.get_num_threads() == before


def test_a_run_goes_on_with_the_layout_it_began_with_unless_another_is_asked_for_and_says_so(tmp_path):
    data, said, layouts = dataset(tmp_path), list[str](), list[torch.memory_format]()

    def look(event: Any) -> None:
        if isinstance(event, RunStarted):
            said.append(start_lines(event)[1].split("; ")[1])
            stem = event.run.trainer.model.stem[0].weight
            layouts.append(stem.is_contiguous(memory_format=torch.channels_last))

    def go(folder: str, epochs: int, **options: Any) -> bool:
        small = {"device": "cpu", "channels": 2, "blocks": 1, "diagnose": 0, "threads": 1}
        spec = TrainSpec(data=data, run=tmp_path / folder, epochs=epochs, **small, **options)
        outcome = run.train(spec, hooks=[look])
        return checkpoint_file.read(outcome.checkpoint)["options"]["channels_last"]

    recorded = [go("run", 1, channels_last=False), go("run", 2), go("run", 3, channels_last=True), go("new", 1)]
    assert recorded == layouts == [False, False, True, torch.backends.mkldnn.is_available()]
    assert said[:3] == [
        "planes one after another (as asked for)",
        "planes one after another (as the run began)",
        "planes channels last (as asked for)",
    ]
    dry = rehearse(TrainSpec(data=data, run=tmp_path / "other", channels=2, blocks=1, device="cpu", max_samples=64))
    assert dry.computes.endswith(said[3])


@pytest.mark.parametrize(
    ("options", "device"), [({"model": "hexshards:TwoHeadedResNet"}, "cpu"), ({}, "cuda"), ({}, "mps")]
)
def test_a_network_of_ones_own_and_a_gpu_keep_the_usual_layout(tmp_path, options, device):
    spec = TrainSpec(data=tmp_path, run=tmp_path / "run", **options)
    assert not settle(spec, ProcessGroup(), Reader(), device=device).channels_last
