"""The loader under the loops of others: torchdata's protocol of state, and a fit of PyTorch Lightning."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from small_data import dataset, rows_of

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
        pytest.skip(f"no {name} here (pip install 'hexshards[{extra}]'), so this is NOT CHECKED: {asked}")
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


@pytest.mark.filterwarnings("ignore")  # its own imports
def test_a_torchdata_node_over_the_loader_resumes_anywhere(data, epochs, request):
    nodes = optional("torchdata.nodes", request)

    def opened(**options):
        return nodes.Loader(nodes.IterableWrapper(open_loader(data, **options)))

    loader, states = opened(), []
    for epoch in range(2):
        seen = []
        for batch in loader:
            seen.append(rows_of(batch))
            states.append(loader.state_dict())
        assert seen == epochs[epoch]
    for at in (0, 6, 10, 12, 22):
        again = opened(num_workers=at % 4 == 2)
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
    loader, states = opened(), []
    for epoch in range(2):
        seen = []
        for batch in loader:
            seen.append(rows_of(batch))
            states.append(loader.state_dict())
        assert seen == epochs[epoch]
    for at in (0, 6, 11, 12, 22):
        again = opened(num_workers=at % 4 == 2)
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
found = sorted(folder.glob("*/*.ckpt"))
assert len(found) == 9, found
for number, path in enumerate(found):
    at = int(path.stem.partition("=")[2])
    again = fit(data, folder, resume=path, num_workers=number % 2)
    assert again.seen == whole.seen[at:], f"{path} went on with other batches"
    for one, other in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other), f"{path} ended with other weights"
print("resumed", len(found))
"""


def test_a_lightning_fit_goes_on_from_each_of_its_checkpoints_bit_for_bit(data, tmp_path, request):
    optional("lightning.pytorch", request)
    # steps 6, 12, ..., so in the middle of an epoch and after its last batch; and at the end of each epoch
    ended = subprocess.run(
        [sys.executable, "-c", FIT, data, tmp_path], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "resumed 9"
