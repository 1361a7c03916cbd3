"""The loader under the loops of others: torchdata, PyTorch Lightning and Fabric, Accelerate, Ignite, hex_ai."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec

import pytest
import torch
from helpers import warm
from helpers.small_data import dataset, rows_of

import hexshards

BATCHES = 12
"""In an epoch of 1,117 positions, 100 to a batch."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("protocols"))


def open_loader(data, **options):
    return hexshards.loader(data, batch_size=100, **options)


@pytest.fixture(scope="module")
def epochs(data):
    """Three epochs of an uninterrupted loader, batch by batch."""
    loader = open_loader(data)
    return [[rows_of(batch) for batch in loader] for _ in range(3)]


def optional(name, request):
    """A package that need not be there; without it the test is skipped, saying what is then not proved."""
    extra = name.partition(".")[0]
    if find_spec(extra) is None:
        asked = request.node.name.replace("_", " ")
        needed = {"accelerate": "accelerate", "ignite": "pytorch-ignite"}.get(extra, f"'hexshards[{extra}]'")
        pytest.skip(f"no {name} here (pip install {needed}), so this is NOT CHECKED: {asked}")
    return importlib.import_module(name)


def test_who_counts_batches_and_never_asks_for_one_more_still_gets_the_next_epoch(data, epochs):
    loader = open_loader(data)
    seen = []
    for _ in range(3):
        batches = iter(loader)
        seen.append([rows_of(next(batches)) for _ in range(len(loader))])
    assert seen == epochs
    # a state of that last batch is still one of the epoch's end
    resumed = open_loader(data)
    resumed.load_state_dict(loader.state_dict())
    assert list(resumed) == []
    assert resumed.epoch == 3


def test_an_epoch_set_after_iter_and_before_the_first_batch_is_the_one_delivered(data, epochs):
    loader = open_loader(data)
    batches = iter(loader)
    loader.sampler.set_epoch(2)
    assert [rows_of(batch) for batch in batches] == epochs[2]


# torchdata ----------------------------------------------------------------------------------------------------------


def states_after_each_batch(loader, epochs):
    """States of a loader in two epochs, whose batches are those that they should be."""
    states = []
    for epoch in range(2):
        seen = []
        for batch in loader:
            seen.append(rows_of(batch))
            states.append(loader.state_dict())
        assert seen == epochs[epoch]
    return states


@pytest.mark.filterwarnings("ignore")  # its own imports
def test_a_torchdata_node_over_the_loader_resumes_anywhere(data, epochs, request):
    nodes = optional("torchdata.nodes", request)

    def opened(**options):
        return nodes.Loader(nodes.IterableWrapper(open_loader(data, **options)))

    states = states_after_each_batch(opened(), epochs)
    for at in (0, 6, 10, 12, 22):
        again = opened(num_workers=int(at % 4 == 2))
        again.load_state_dict(states[at])
        epoch, batch = divmod(at, BATCHES)
        assert [rows_of(batch) for batch in again] == epochs[epoch][batch + 1 :]
    # it takes the end of an epoch for the beginning of the next
    again = opened()
    again.load_state_dict(states[BATCHES - 1])
    assert [rows_of(batch) for batch in again] == epochs[1]


@pytest.mark.filterwarnings("ignore")  # it calls a function of torch that is deprecated
def test_a_stateful_data_loader_around_the_loader_resumes_anywhere(data, epochs, request):
    torchdata = optional("torchdata.stateful_dataloader", request)

    class Stream(torch.utils.data.IterableDataset):
        """As docs/mixing.md shows it."""

        def __init__(self, loader):
            self.loader = loader

        def __iter__(self):
            return iter(self.loader)

        def state_dict(self):
            return self.loader.state_dict()

        def load_state_dict(self, state):
            self.loader.load_state_dict(state)

    def opened(**options):
        return torchdata.StatefulDataLoader(Stream(open_loader(data, **options)), batch_size=None)

    assert isinstance(open_loader(data), torchdata.stateful.Stateful)
    states = states_after_each_batch(opened(), epochs)
    for at in (0, 6, 11, 12, 22):
        again = opened(num_workers=int(at % 4 == 2))
        again.load_state_dict(states[at])
        epoch, batch = divmod(at, BATCHES)
        assert [rows_of(batch) for batch in again] == epochs[epoch][batch + 1 :]
        assert [rows_of(batch) for batch in again] == epochs[epoch + 1]


# Lightning ----------------------------------------------------------------------------------------------------------

FIT = """
import hashlib, logging, sys, warnings
from pathlib import Path

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
import lightning.pytorch as lightning
import torch
import hexshards


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(75, 1), []

    def training_step(self, batch, number):
        self.seen.append((self.current_epoch, hashlib.sha256(batch.board.numpy().tobytes()).hexdigest()))
        logit = self.layer(batch.board.flatten(1))
        return torch.nn.functional.binary_cross_entropy_with_logits(logit, batch.value)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.01)


def fit(data, folder, *, saves=(), resume=None, num_workers=0):
    torch.manual_seed(0)
    model = Model()
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=bool(saves), callbacks=list(saves), default_root_dir=folder, limit_val_batches=2,
    )
    loader = hexshards.loader(data, batch_size=100, num_workers=num_workers)
    val = hexshards.loader(data, split="val", shuffle=False, augment="none")
    trainer.fit(model, loader, val, ckpt_path=resume)
    return model


data, folder = sys.argv[1], Path(sys.argv[2])
save = lightning.callbacks.ModelCheckpoint
by_step = dict(dirpath=folder / "steps", every_n_train_steps=6, save_top_k=-1, filename="{step}")
by_epoch = dict(dirpath=folder / "epochs", every_n_epochs=1, save_on_train_epoch_end=True, save_top_k=-1,
                filename="{step}")
whole = fit(data, folder, saves=[save(**by_step), save(**by_epoch)])
assert [epoch for epoch, _ in whole.seen] == 12 * [0] + 12 * [1] + 12 * [2], "an epoch has other batches"
assert len({digest for _, digest in whole.seen}) == 36, "an epoch was shown twice"
checkpoints = sorted(folder.glob("*/*.ckpt"))
assert len(checkpoints) == 9, checkpoints
for number, path in enumerate(checkpoints):
    at = int(path.stem.partition("=")[2])
    again = fit(data, folder, resume=path, num_workers=number % 2)
    assert again.seen == whole.seen[at:], f"{path} went on with other batches"
    for one, other in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other), f"{path} ended with other weights"
print("resumed", len(checkpoints))
"""


def test_a_lightning_fit_goes_on_from_each_of_its_checkpoints_bit_for_bit(data, tmp_path, request):
    optional("lightning.pytorch", request)
    # steps 6, 12, ..., so in the middle of an epoch and after its last batch; and at the end of each epoch
    ended = warm.run([sys.executable, "-c", FIT, data, tmp_path], cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "resumed 9"


@pytest.fixture
def lightning(request):
    return optional("lightning", request)


@pytest.fixture
def model(lightning):
    """Keeps the rows of each batch that it is shown, by stage."""

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = torch.nn.Linear(75, 1), {}

        def answer(self, batch, stage):
            self.seen.setdefault(stage, []).append(rows_of(batch))
            return self.layer(batch[0].flatten(1))

        def training_step(self, batch, number):
            return torch.nn.functional.binary_cross_entropy_with_logits(self.answer(batch, "fit"), batch[2])

        def validation_step(self, batch, number):
            self.answer(batch, "validate")

        def test_step(self, batch, number):
            self.answer(batch, "test")

        def predict_step(self, batch, number):
            return self.answer(batch, "predict")

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    return Model()


@pytest.fixture
def trainer(lightning, tmp_path):
    def made(**options):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return lightning.Trainer(
            accelerator="cpu", enable_checkpointing=False, default_root_dir=tmp_path, **quiet, **options
        )

    return made


def validation(data, **options):
    return hexshards.loader(data, split="val", batch_size=10, augment="none", **options)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers
@pytest.mark.parametrize("shuffle", [False, True])
def test_lightning_fits_with_validation_validates_tests_and_predicts(data, epochs, model, trainer, shuffle):
    val = validation(data, shuffle=shuffle)
    rows = sorted(row for batch in validation(data, shuffle=shuffle) for row in rows_of(batch))
    trainer(max_epochs=2, num_sanity_val_steps=2).fit(model, open_loader(data), val)
    assert model.seen["fit"] == epochs[0] + epochs[1]
    assert len(model.seen["validate"]) == 2 + 2 * len(val)
    model.seen.clear()
    trainer().validate(model, val, verbose=False)
    trainer().test(model, val, verbose=False)
    answers = trainer().predict(model, val)
    assert len(answers) == len(val)
    for stage in ("validate", "test", "predict"):
        assert sorted(row for batch in model.seen[stage] for row in batch) == rows


@pytest.mark.filterwarnings("ignore")
def test_lightning_overfits_the_same_batches_of_a_loader_that_does_not_shuffle(data, model, trainer):
    loader = open_loader(data, shuffle=False, augment="none")
    trainer(overfit_batches=2, max_epochs=3).fit(model, loader, validation(data, shuffle=False))
    first = model.seen["fit"][:2]
    assert model.seen["fit"] == 3 * first and first[0] != first[1]


# others -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_fabric_needs_no_setup_for_a_loader_that_makes_batches_where_fabric_is(data, epochs, lightning):
    fabric = lightning.Fabric(accelerator="cpu", devices=1)
    loader = open_loader(data, device=fabric.device)
    assert [rows_of(batch) for batch in loader] == epochs[0]


@pytest.mark.filterwarnings("ignore")
def test_accelerate_takes_a_loader_as_it_is(data, epochs, request):
    accelerator = optional("accelerate", request).Accelerator(cpu=True)
    model = torch.nn.Linear(75, 1)
    model, prepared = accelerator.prepare(model, open_loader(data))
    assert [[rows_of(batch) for batch in prepared] for _ in range(2)] == epochs[:2]


@pytest.mark.filterwarnings("ignore")
def test_an_engine_of_ignite_runs_over_epochs_of_a_loader(data, epochs, request):
    engines = optional("ignite.engine", request)
    seen = []
    engine = engines.Engine(lambda engine, batch: seen.append(rows_of(batch)))
    engine.run(open_loader(data), max_epochs=3)
    assert seen == [batch for epoch in epochs for batch in epoch]
    assert engine.state.epoch_length == BATCHES


def test_what_loops_ask_of_a_data_loader_has_an_answer(data):
    loader = open_loader(data)
    assert (loader.batch_size, len(loader.dataset), loader.batch_sampler) == (100, loader.samples, None)
    assert isinstance(loader.dataset, torch.utils.data.IterableDataset)
    first = next(iter(loader.dataset))
    again = next(iter(open_loader(data)))
    assert all(torch.equal(one, many[0]) for one, many in zip(first, again, strict=True))
    (board, policy, value), *_ = torch.utils.data.DataLoader(loader.dataset, batch_size=7)
    assert (board.shape, policy.shape, value.shape) == ((7, 3, 5, 5), (7, 25), (7, 1))
