"""Arguments are checked when they are given, and mean the same wherever the process goes later."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_data import dataset, rows_of

import hexshards
from hexshards.runs import train
from hexshards.specs import TrainSpec
from hexshards.trainer import Trainer


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a dataset, another, and its sources."""
    folder = tmp_path_factory.mktemp("arguments")
    dataset(folder)
    dataset(folder / "more", games=20)
    return folder


@pytest.fixture
def elsewhere(home, tmp_path, monkeypatch):
    """Begin in the folder; what is returned goes away from it."""
    monkeypatch.chdir(home)
    return lambda: monkeypatch.chdir(tmp_path)


SMALL = {"mini_epoch_samples": 600, "channels": 2, "blocks": 1, "batch_size": 200, "diagnose": 0, "device": "cpu"}


# paths --------------------------------------------------------------------------------------------------------------


def test_a_loader_reads_where_it_was_opened_wherever_the_process_goes(home, elsewhere):
    expected = [rows_of(batch) for batch in hexshards.loader(home / "data")]
    one = hexshards.loader("data")
    two = hexshards.loader({"data": 1, Path("more/data"): 1})
    count = len(list(two))
    elsewhere()
    assert [rows_of(batch) for batch in one] == expected
    assert len(list(two)) == count


def test_a_run_is_saved_where_its_spec_was_made_and_records_paths_as_they_were_given(home, elsewhere, tmp_path):
    torch.save(hexshards.TwoHeadedResNet(channels=2, blocks=1).state_dict(), home / "weights.pt")
    spec = TrainSpec(data="data", run=Path("run"), mix="more/data=0.25", init_from=Path("weights.pt"), **SMALL)
    elsewhere()
    done = train(spec)
    assert done.checkpoint == home / "run" / "checkpoints" / done.checkpoint.name
    assert list(tmp_path.iterdir()) == []
    options = torch.load(done.checkpoint, weights_only=True)["options"]
    given = {"data": "data", "run": "run", "mix": "more/data=0.25", "init_from": "weights.pt", "resume": "auto"}
    assert {name: options[name] for name in given} == given
    assert "relative_to" not in options
    assert train(spec).resumed_from == done.checkpoint


def test_an_orchestrator_saves_and_resumes_where_it_was_made(home, elsewhere, tmp_path):
    def driven(run, **options):
        trainer = Trainer(hexshards.TwoHeadedResNet(channels=2, blocks=1))
        return hexshards.MiniEpochOrchestrator(trainer, hexshards.loader("data"), None, run=run, **options)

    first = driven("driven")
    elsewhere()
    done = first.run()
    assert done.checkpoint.is_relative_to(home / "driven")
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_reads_and_writes_where_it_was_asked_to(home, elsewhere, tmp_path):
    report = hexshards.convert("processed", out="converted", progress=lambda now: elsewhere())
    assert report.positions == 1117 + 192
    assert not hexshards.verify(home / "converted").problems
    assert list(tmp_path.iterdir()) == []


def test_a_mix_that_names_a_dataset_twice_in_two_spellings_is_refused(home, elsewhere):
    with pytest.raises(ValueError, match="names a dataset twice"):
        train(TrainSpec(data="data", run=Path("twice"), mix=f"{home / 'data'}=0.5", **SMALL))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
def test_a_pipeline_reads_where_it_was_opened(home, elsewhere):
    pipe = hexshards.pipeline("data/train-000000.tar", shuffle=False, augment="none")
    rows = [rows_of(batch) for batch in pipe]
    again = hexshards.pipeline(["data/train-000000.tar"], shuffle=False, augment="none")
    elsewhere()
    assert [rows_of(batch) for batch in again] == rows


# checked when they are given ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu", "cuda:99", 1.5])
def test_a_device_that_is_not_here_is_refused_when_it_is_given(home, name):
    with pytest.raises(ValueError, match="device"):
        hexshards.loader(home / "data", device=name)
    with pytest.raises(ValueError, match="device"):
        train(TrainSpec(data=home / "data", run=home / "no", **{**SMALL, "device": name}))
    assert not (home / "no").exists()


def test_a_factory_that_needs_arguments_and_a_run_given_as_text_are_understood(home):
    options = {"data": home / "data", "run": str(home / "text"), **SMALL}
    with pytest.raises(ValueError, match=r"model torch.nn:Linear fails when it is called without arguments: .*missing"):
        train(TrainSpec(model="torch.nn:Linear", **options))
    assert train(TrainSpec(**options)).checkpoint.is_relative_to(home / "text")
