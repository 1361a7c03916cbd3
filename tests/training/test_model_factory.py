"""A network of one's own, tried before a run; and first weights from a file."""

from __future__ import annotations

import math
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import small_hex_ai
from torch import Tensor, nn

from hexshards.errors import DataError
from hexshards.loading.expansion.expand import Batch
from hexshards.training.options import StepSpec, TrainSpec
from hexshards.training.steps.model import TwoHeadedResNet
from hexshards.training.steps.model_factory import arguments, network
from hexshards.training.steps.trainer import Trainer
from hexshards.training.steps.value_range import Range, check_output, seen_range

MINE = """
import torch
from torch import nn

class Mine(nn.Module):
    def __init__(self, policies=25, values=1, pair=True):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.Dropout(0.5))
        self.policy, self.value, self.pair = nn.Linear(4, policies), nn.Linear(4, values), pair

    def forward(self, board):
        seen = self.body(board)
        return (self.policy(seen), self.value(seen)) if self.pair else self.policy(seen)

def wide(): return Mine(policies=26)
def flat(): return Mine(values=3)
def lonely(): return Mine(pair=False)
def words(): return "hello"
def fails(): return nn.Linear(7, 7)
"""


def spec(**options: Any) -> TrainSpec:
    return TrainSpec(data=Path(), run=Path(), **{"channels": 2, "blocks": 1, **options})


def made(**options: Any) -> nn.Module:
    return network(spec(**options), side=5)


def same(ours: nn.Module, theirs: nn.Module | dict[str, Tensor]) -> bool:
    mine, expected = ours.state_dict(), theirs if isinstance(theirs, dict) else theirs.state_dict()
    return mine.keys() == expected.keys() and all(torch.equal(mine[name], expected[name]) for name in expected)


@pytest.fixture
def mine(tmp_path, monkeypatch) -> str:
    """A module in the current folder; its name."""
    name = f"mine_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part])
    return name


def test_first_weights_follow_from_the_seed_and_take_nothing_from_what_is_drawn_later():
    torch.rand(3)
    before = torch.get_rng_state()
    first = made(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert same(made(seed=1), first) and not same(made(seed=2), first)


def test_a_network_of_ones_own_is_found_by_name_in_the_current_folder(mine):
    model = made(model=f"{mine}:Mine")
    assert type(model).__name__ == "Mine" and model.training
    assert same(made(model=f"{mine}:Mine"), model)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "wide",
            r"boards of shape \(2, 3, 5, 5\), the model must answer \(policy_logits, value_logit\) of shapes "
            r"\[\(2, 25\), \(2, 1\)\]; it answers \[\(2, 26\), \(2, 1\)\]",
        ),
        ("flat", r"it answers \[\(2, 25\), \(2, 3\)\]"),
        ("lonely", r"it answers \(2, 25\)"),
        ("words", "is a str, not a torch.nn.Module"),
        ("fails", "the model fails on a board of shape"),
        ("missing", "cannot be found: .*missing.*Name it as package.module:factory"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_before_the_run(mine, name, told):
    with pytest.raises(ValueError, match=told):
        made(model=f"{mine}:{name}")


def test_a_network_may_answer_a_dict_with_the_names_of_heads_in_place_of_a_tuple(mine):
    source = "\nclass Named(Mine):\n    def forward(self, board):\n"
    source += "        policy, value = super().forward(board)\n        return {'value': value, 'policy': policy}\n"
    Path(f"{mine}.py").write_text(MINE + source)
    batch = Batch(BOARDS, torch.zeros(4, 25), torch.zeros(4, 1))
    validated = [Trainer(made(model=f"{mine}:{name}")).validate([batch]) for name in ("Named", "Mine")]
    assert validated[0] == validated[1]


class Bounded(nn.Module):
    """hex_ai's kind of network: what it answers as the value went through something."""

    def __init__(self, net: nn.Module, end: Any) -> None:
        super().__init__()
        self.net, self.end = net, end

    def forward(self, board: Tensor) -> tuple[Tensor, Tensor]:
        policy, value = self.net(board)
        return policy, self.end(value)


BOARDS = (torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.3).float()
BOUNDS = {
    "tanh": [torch.tanh, lambda v: 2 * torch.sigmoid(v) - 1, lambda v: v.clamp(-1, 1), nn.functional.softsign],
    "probability": [torch.sigmoid, nn.functional.hardsigmoid, lambda v: torch.cat([v, -v], 1).softmax(1)[:, :1]],
    "logit": [lambda v: v, lambda v: v / 100, lambda v: 5 * torch.tanh(v), torch.relu],
}


@pytest.mark.parametrize(("output", "end"), [(output, end) for output, ends in BOUNDS.items() for end in ends])
def test_a_bounded_value_shows_in_what_a_network_answers_and_a_logit_is_never_taken_for_one(output, end):
    torch.manual_seed(4)
    model = Bounded(TwoHeadedResNet(channels=4, blocks=1), end)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    drawn = torch.get_rng_state()
    assert seen_range(model, BOARDS).output == output
    assert same(model, before) and model.training and torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize("change", [lambda w: w, torch.zeros_like, lambda w: w * 1e-4, lambda w: w * 30])
def test_no_weights_make_a_logit_look_bounded(change):
    for seed in range(5):
        torch.manual_seed(seed)
        model = TwoHeadedResNet(channels=2, blocks=1)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(change(weight))
        assert seen_range(model, BOARDS).output == "logit"


def boards(rows, seed=0, side=5):
    drawn = torch.rand(rows, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return (drawn < 0.3).float()


def trained(model, loss, *, side=5, steps=20):
    """The model after steps on who has more stones, which a small network learns soon."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        board = boards(32, step, side)
        blue, red = board[:, 0].sum((1, 2)), board[:, 1].sum((1, 2))
        optimizer.zero_grad()
        loss(model(board)[1], (red > blue).float()[:, None]).backward()
        optimizer.step()
    return model


HEADS = {
    "of a network without a head of its own": None,
    "after a layer norm": lambda: nn.Sequential(nn.LayerNorm(75), nn.Linear(75, 1)),
    "with a tanh inside": lambda: nn.Sequential(nn.Linear(75, 4), nn.Tanh(), nn.Linear(4, 1)),
    "before a batch norm": lambda: nn.Sequential(nn.Linear(75, 1), nn.BatchNorm1d(1)),
    "of a norm that is held": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(75, 1)),
}


class Headed(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.policy, self.head = TwoHeadedResNet(channels=2, blocks=1), head

    def forward(self, board):
        return self.policy(board)[0], self.head(board.flatten(1))


@pytest.mark.parametrize("head", HEADS)
def test_no_trained_network_is_taken_for_a_bounded_one(head):
    for seed in range(2):
        torch.manual_seed(seed)
        model = Headed(HEADS[head]()) if HEADS[head] else TwoHeadedResNet(channels=2, blocks=1)
        trained(model, nn.functional.binary_cross_entropy_with_logits)
        assert seen_range(model, BOARDS).output == "logit"


def squared_error(value, target):
    return (((value + 1) / 2 - target) ** 2).mean()


@pytest.mark.parametrize("steps", [0, 12])
@pytest.mark.parametrize("look", ["train_on_batches", "validate"])
def test_our_trainer_refuses_the_network_of_hex_ai_by_name_before_a_weight_moves(look, steps):
    torch.manual_seed(1)
    model = trained(small_hex_ai.TwoHeadedResNet(), squared_error, side=13, steps=steps).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    board = boards(8, side=13)
    batch = Batch(board, torch.zeros(8, 169), torch.zeros(8, 1))
    with pytest.raises(
        ValueError, match=r"^TwoHeadedResNet answers a value that stays within -1 to 1 .* as after tanh"
    ):
        getattr(Trainer(model), look)([batch])
    assert same(model, before)
    assert Trainer(model, StepSpec(value_weight=0.0)).validate([batch])["samples"] == 8


RANGES = {"logit": Range(-1.2, 0.3), "tanh": Range(-1.0, 0.99), "probability": Range(0.0, 1.0)}


@pytest.mark.parametrize("shown", RANGES)
@pytest.mark.parametrize("said", RANGES)
def test_a_value_that_shows_itself_as_another_than_is_said_contradicts_it(said, shown):
    assert RANGES[shown].contradicts(said) == (said != shown)


@pytest.mark.parametrize("said", ["logit", "tanh", "probability"])
def test_a_value_that_shows_nothing_is_believed(said):
    assert not Range(math.inf, -math.inf).contradicts(said)
    assert not Range(0.2, 0.8).contradicts(said)


@pytest.mark.parametrize(("said", "told"), [("logit", "tanh"), ("probability", "tanh"), ("tanh", None)])
def test_the_refusal_of_a_bounded_value_names_the_option_that_takes_it(said, told):
    model = Bounded(TwoHeadedResNet(channels=2, blocks=0), torch.tanh)
    if told is None:
        return check_output(model, BOARDS, said, name="Net")
    with pytest.raises(ValueError, match=rf"^Net answers a value that .*: give value_output {told} \(--value-output"):
        check_output(model, BOARDS, said, name="Net")


class Counting(TwoHeadedResNet):
    """Counts in place what it sees, draws while it answers, and has a part that stays in evaluation mode."""

    def __init__(self):
        super().__init__(channels=2, blocks=1)
        self.register_buffer("seen", torch.zeros(()))
        self.stem.eval()

    def forward(self, board):
        self.seen += len(board)
        return super().forward(board + 0.01 * torch.rand(()))


@pytest.mark.parametrize("wrapped", [lambda model: model, torch.nn.DataParallel])
def test_a_network_that_changes_as_it_answers_is_left_as_it_was_when_it_is_looked_at(wrapped):
    model = Counting()
    drawn = torch.get_rng_state()
    assert seen_range(wrapped(model), BOARDS).output == "logit"
    assert model.seen == 0 and torch.equal(torch.get_rng_state(), drawn)
    assert model.training and not model.stem.training


def test_a_network_whose_value_went_through_tanh_is_refused_before_the_run(mine):
    Path(f"{mine}.py").write_text(MINE + "\nclass Tanh(Mine):\n    def forward(self, board):\n")
    with open(f"{mine}.py", "a") as file:
        file.write("        policy, value = super().forward(board)\n        return policy, torch.tanh(value)\n")
    with pytest.raises(ValueError, match="stays within -1 to 1 whatever its weights are, as after tanh"):
        made(model=f"{mine}:Tanh")


@pytest.mark.parametrize("name", ["nowhere.at.all:net", "torch.nn:", "a b"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match=r"cannot be found|not a torch.nn.Module"):
        made(model=name)


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("key", [None, "model_state_dict", "state_dict"])
def test_weights_come_from_a_checkpoint_or_a_plain_state_dict(tmp_path, key, wrapper):
    weights = TwoHeadedResNet(channels=2, blocks=1).state_dict()
    saved: Any = {wrapper + name: value for name, value in weights.items()}
    torch.save({key: saved, "epoch": 3} if key else saved, tmp_path / "weights.pt")
    assert same(made(init_from=tmp_path / "weights.pt"), weights)


def test_weights_of_another_network_are_refused_in_words(tmp_path):
    torch.save(TwoHeadedResNet(channels=3, blocks=2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(DataError) as raised:
        made(init_from=tmp_path / "other.pt")
    told = str(raised.value)
    assert told.startswith(f"{tmp_path / 'other.pt'}: its weights are of another network: it has unknown tower.1.")
    assert "stem.0.weight (3, 3, 3, 3), not (2, 3, 3, 3)" in told
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(DataError, match=r"it lacks policy\.0\.weight.* and \d+ more"):
        made(init_from=tmp_path / "empty.pt")


@pytest.mark.parametrize(
    ("given", "args", "kwargs"),
    [
        ("", [], {}),
        ("resnet18", ["resnet18"], {}),
        ("resnet18, dropout_prob=0.1,", ["resnet18"], {"dropout_prob": 0.1}),
        ("res-net/18, '1', 1, widths=[8, 16], pair=False", ["res-net/18", "1", 1], {"widths": [8, 16], "pair": False}),
        ("__import__('os').abort()", ["__import__('os').abort()"], {}),
    ],
)
def test_arguments_of_a_factory_are_read_as_a_call_has_them_and_nothing_in_them_runs(given, args, kwargs):
    assert arguments(given) == (args, kwargs)


@pytest.mark.parametrize("given", ["a b", "x=1, x=2", "*a", "**a", "1)(2", ")", "1) + f(2", "(" * 5_000])
def test_what_is_no_arguments_is_refused_in_words(given):
    with pytest.raises(ValueError, match=r"^model_args must be arguments, such as resnet18"):
        arguments(given)


def test_a_factory_is_called_with_its_arguments():
    model = network(
        spec(model="helpers.small_hex_ai:create_model", model_args="resnet18,dropout_prob=0.25", value_weight=0.0),
        side=13,
    )
    assert model.dropout.p == 0.25
    with pytest.raises(ValueError, match=r"fails when it is called with model_args vgg: unknown model type: vgg"):
        made(model="helpers.small_hex_ai:create_model", model_args="vgg")
    with pytest.raises(ValueError, match=r"fails when it is called without arguments \(give some with model_args\)"):
        made(model="torch.nn:Linear")
    with pytest.raises(ValueError, match=r"model_args 'resnet18' are for a model of your own: name it with model"):
        made(model_args="resnet18")


def test_the_refusal_of_hex_ais_network_proposes_its_loss_too():
    with pytest.raises(
        ValueError, match=r"give value_output tanh \(--value-output tanh\); hex_ai's loss is value_loss mse"
    ):
        network(spec(model="helpers.small_hex_ai:create_model", model_args="resnet18"), side=13)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("PWNED"),)


def test_a_file_of_weights_is_never_trusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Payload()))
    torch.save({"model_state_dict": Payload()}, tmp_path / "evil_too.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"model_state_dict": {"a": "b"}}, tmp_path / "text.pt")
    for name in ("evil.pt", "evil_too.pt", "list.pt", "text.pt"):
        with pytest.raises(DataError, match=name):
            made(init_from=tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"missing\.pt: no such file"):
        made(init_from=tmp_path / "missing.pt")
    assert not (tmp_path / "PWNED").exists()


def test_weights_to_begin_with_come_from_regular_files_that_do_not_inflate(tmp_path):
    pipe, bomb = tmp_path / "pipe.pt", tmp_path / "bomb.pt"
    os.mkfifo(pipe)
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(64 << 20))
    for path, finding in ((pipe, "no regular file"), (bomb, "holds compressed records")):
        with pytest.raises(DataError, match=finding):
            network(TrainSpec(data="d", run=Path("r"), channels=4, blocks=1, init_from=path), side=5)
