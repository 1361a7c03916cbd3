"""Arguments are checked when they are given, and mean the same wherever the process goes later."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_data import dataset, rows_of

import hexshards
from hexshards.game.options import SynthSpec
from hexshards.storage.options import RemoteSpec
from hexshards.sweeps.options import SweepSpec
from hexshards.training.checkpointing.retention import Retention
from hexshards.training.early_stopping import EarlyStopping
from hexshards.training.options import StepSpec, TrainSpec
from hexshards.training.orchestrator import MiniEpochOrchestrator
from hexshards.training.run import train
from hexshards.training.settings import RunSettings
from hexshards.training.steps.trainer import Trainer


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
    pipe = hexshards.pipeline(Path("data/train-000000.tar"), shuffle=False, augment="none")
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
    with pytest.raises(ValueError, match=r"model torch.nn:Linear fails when it is called without arguments .*missing"):
        train(TrainSpec(model="torch.nn:Linear", **options))
    assert train(TrainSpec(**options)).checkpoint.is_relative_to(home / "text")


REFUSED = [
    (lambda home: hexshards.loader(["a", "b"]), "dataset"),
    (lambda home: hexshards.loader({home / "data": "0.5"}), "dataset"),
    (lambda home: hexshards.loader(home / "data", batch_size="256"), "batch_size must be a whole number, got '256'"),
    (lambda home: hexshards.loader(home / "data", batch_size=1000.5), "batch_size must be a whole number, got 1000.5"),
    (lambda home: hexshards.loader(home / "data", batch_size=True), "batch_size"),
    (lambda home: hexshards.loader(home / "data", batch_size=None), "batch_size"),
    (lambda home: hexshards.loader(home / "data", shuffle="no"), "shuffle must be True or False, got 'no'"),
    (lambda home: hexshards.loader(home / "data", augment=["none"]), "augment must be one of"),
    (lambda home: hexshards.loader(home / "data", split=3), "split"),
    (lambda home: hexshards.loader(home / "data", where={"ply": 3}), "where"),
    (lambda home: hexshards.loader(home / "data", dtype="float16"), "dtype must be a torch.dtype, got 'float16'"),
    (lambda home: hexshards.loader(home / "data", cache=3), "cache"),
    (lambda home: hexshards.loader(home / "data", cache_limit=None), "cache_limit"),
    (lambda home: hexshards.loader(home / "data", rank="0", world_size=1), "rank"),
    (lambda home: hexshards.loader(home / "data").set_epoch("1"), "epoch"),
    (lambda home: hexshards.convert(home / "processed", out=None), "out"),
    (lambda home: hexshards.convert([3], out=home / "no"), r"sources\[0\]"),
    (lambda home: hexshards.convert(home / "processed", out=home / "no", workers="2"), "workers"),
    (lambda home: hexshards.convert(home / "processed", out=home / "no", max_rejects=0.5), "max_rejects"),
    (lambda home: hexshards.convert(home / "processed", out=home / "no", val_fraction="0.1"), "val_fraction"),
    (lambda home: hexshards.convert(home / "processed", out=home / "no", keep_duplicates="no"), "keep_duplicates"),
    (lambda home: hexshards.convert(home / "processed", out=home / "no", progress=True), "progress"),
    (lambda home: TrainSpec(data=home, run=home, batch_size="256"), "batch_size"),
    (lambda home: TrainSpec(data=home, run=home, learning_rate="1e-3"), "learning_rate must be a number, got '1e-3'"),
    (lambda home: TrainSpec(data=home, run=home, learning_rate=float("nan")), "learning_rate"),
    (lambda home: TrainSpec(data=home, run=home, learning_rate=float("inf")), "learning_rate"),
    (lambda home: TrainSpec(data=home, run=home, device=0), "device"),
    (lambda home: TrainSpec(data=home, run=home, threads=1e9), "threads must be 1 to 1,024"),
    (lambda home: TrainSpec(data=home, run=home, seed=2**70), "seed must be less than"),
    (lambda home: TrainSpec(data=3, run=home), "data"),
    (lambda home: TrainSpec(data=home, run=None), "run"),
    (lambda home: train("data"), "spec must be a TrainSpec, got 'data'"),
    (lambda home: train(TrainSpec(data=home / "data", run=home / "no", **SMALL), hooks=print), "hooks must be a list"),
    (lambda home: train(TrainSpec(data=home / "data", run=home / "no", **SMALL), hooks=[3]), r"hooks\[0\]"),
    (lambda home: hexshards.sweep(home / "data", 3, out=home / "no"), "config"),
    (lambda home: hexshards.sweep(home / "data", {"search": {}}, out=home / "no", trials="2"), "trials"),
    (lambda home: SweepSpec(search={"seed": (1, 2)}, trials="2"), "trials"),
    (lambda home: hexshards.verify(["a"]), "dataset"),
    (lambda home: hexshards.verify(home / "data", progress=3), "progress"),
    (lambda home: hexshards.read_index(None), "dataset"),
    (lambda home: hexshards.pipeline(3), "urls"),
    (lambda home: hexshards.pipeline(str(home / "data/train-000000.tar"), batch_size="8"), "batch_size"),
    (lambda home: hexshards.pipeline([]), "urls"),
    (lambda home: hexshards.pipeline("a.tar", seed=-1), "seed must be at least 0, got -1"),
    (lambda home: hexshards.pipeline("a.tar", buffer_positions=0), "buffer_positions must be at least 1, got 0"),
    (lambda home: hexshards.pipeline("a.tar", augment="all"), "augment must be one of"),
    (lambda home: hexshards.TwoHeadedResNet(channels="8"), "channels must be a whole number, got '8'"),
    (lambda home: hexshards.TwoHeadedResNet(channels=0), "channels must be at least 1"),
    (lambda home: Trainer("resnet18"), "model must be a torch.nn.Module"),
    (lambda home: Trainer(network(), device="gpu"), "device"),
    (lambda home: Trainer(network(), device="cuda:99"), "device"),
    (lambda home: Trainer(network(), {"learning_rate": 1}), "spec must be a StepSpec, got a dict"),
    (lambda home: StepSpec(accumulate=1.5), "accumulate"),
    (lambda home: MiniEpochOrchestrator(network(), None, None, run=home / "no"), "trainer must be a Trainable"),
    (lambda home: driven(home, run=None), "run"),
    (lambda home: driven(home, mini_epoch_samples="200"), "mini_epoch_samples"),
    (lambda home: RunSettings(max_time_s="12h"), "max_time_s"),
    (lambda home: RunSettings(early=3), "early must be an EarlyStopping, got 3"),
    (lambda home: driven(home, settings=3), "settings must be a RunSettings, got 3"),
    (lambda home: driven(home, hooks=[None]), r"hooks\[0\]"),
    (lambda home: EarlyStopping(patience="3"), "patience"),
    (lambda home: EarlyStopping(metric=None), "metric"),
    (lambda home: Retention(last=1.5), "last"),
    (lambda home: RemoteSpec(threads="4"), "threads"),
    (lambda home: SynthSpec(games="10"), "games"),
]


def network():
    return hexshards.TwoHeadedResNet(channels=2, blocks=1)


def driven(home, **options):
    loader = hexshards.loader(home / "data", batch_size=200)
    return MiniEpochOrchestrator(Trainer(network()), loader, None, **{"run": home / "no", **options})


@pytest.mark.parametrize(
    ("call", "says"), REFUSED, ids=[says.split(" ")[0] + str(n) for n, (_, says) in enumerate(REFUSED)]
)
def test_an_argument_of_a_wrong_kind_is_refused_by_name_when_it_is_given(home, call, says):
    with pytest.raises(ValueError, match=f"^{says}") as refused:
        call(home)
    assert "\n" not in str(refused.value)
    assert not (home / "no").exists()


def test_a_torch_data_loader_in_place_of_ours_is_refused_with_what_it_lacks(home):
    loader = torch.utils.data.DataLoader([1, 2])
    with pytest.raises(ValueError, match=r"^train_loader must be a TrainLoader, and DataLoader has no .*state_dict"):
        MiniEpochOrchestrator(Trainer(network()), loader, None, run=home / "no")


def test_numbers_and_paths_mean_the_same_in_whatever_kind_they_are_given(home, tmp_path):
    expected = [rows_of(batch) for batch in hexshards.loader(home / "data", batch_size=100, seed=3, num_workers=0)]
    for number in (1e2, np.int64(100), np.float32(100), np.array(100), torch.tensor(100)):
        same = hexshards.loader(str(home / "data"), batch_size=number, seed=np.uint8(3), num_workers=0.0)
        assert type(same.spec.batch_size) is int
        assert [rows_of(batch) for batch in same] == expected
    spec = TrainSpec(
        data=str(home / "data"), run=str(tmp_path), batch_size=1e3, learning_rate=np.float64(1e-3), seed=np.int64(3)
    )
    assert (type(spec.run), spec.batch_size, spec.seed) == (type(tmp_path), 1000, 3)
    assert [type(each) for each in (spec.batch_size, spec.learning_rate, spec.seed)] == [int, float, int]
    assert TrainSpec(data=home, run=home, compile=np.bool_(True)).compile is True
    assert EarlyStopping(patience=3.0).patience == 3
    assert RemoteSpec(cache=str(tmp_path)).cache == tmp_path


def test_the_bytes_of_a_dataset_do_not_depend_on_the_kind_of_the_numbers(home, tmp_path):
    plain = hexshards.convert(
        [home / "processed"], out=tmp_path / "plain", val_fraction=0.25, shard_positions=512, block_positions=64
    )
    other = hexshards.convert(
        (home / "processed").glob("*.gz"),
        out=str(tmp_path / "other"),
        val_fraction=np.float64(0.25),
        shard_positions=512.0,
        block_positions=np.int32(64),
        workers=1.0,
    )
    assert (tmp_path / "plain/index.json").read_bytes() == (tmp_path / "other/index.json").read_bytes()
    assert plain.positions == other.positions


def test_every_argument_of_every_public_name_is_checked():
    # by hand would be forgotten: the next function that is made public must be one of them
    functions = [getattr(hexshards, name) for name in hexshards.__all__]
    made = {hexshards.Trainer, hexshards.MiniEpochOrchestrator, hexshards.TwoHeadedResNet}
    calls = [each.__init__ if each in made else each for each in functions if each in made or inspect.isfunction(each)]
    assert [each.__qualname__ for each in calls if not hasattr(each, "__wrapped__")] == [
        "decode_column",
        "expand",  # of what a loader handed out, a batch at a time
    ]
