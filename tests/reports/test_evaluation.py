"""A trained network on a split: the numbers of validation, to the bit, and those of a test beside them."""

from __future__ import annotations

import gzip
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from helpers import small_hex_ai
from helpers.cli import call
from helpers.saved_networks import saved
from helpers.small_data import CUT, dataset, examples, processed, write_examples
from helpers.small_runs import Drawing, log_lines, small_spec

import hexshards
from hexshards.conversion.compact import compact
from hexshards.conversion.convert import convert
from hexshards.dataset.index import read_index
from hexshards.errors import DataError, Misused
from hexshards.game.random_visits import search
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.run import parts_of, train

pytestmark = pytest.mark.usefixtures("one_thread")

THREE = {**CUT, "val_fraction": 0.3, "test_fraction": 0.3}

EVERYTHING = {
    "heads": "policy,value,moves_left,search_value",
    "value_target": "0.5*result+0.5*search",
    "loss_schedule": "policy=step 0:0.15 64:0.3",
    "policy_target": "linear 0:0 64:0.75",
    "weights": "ply=8..:2",
    "augment": "all",
    "ema": 0.9,
    "precision": "bfloat16",
    "val_samples": 70,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset with all that a validation may depend on: visits, values of a search, weights; and a test."""
    folder, entries = tmp_path_factory.mktemp("evaluated"), examples(40)
    free = np.array([example["board"].sum(axis=0).reshape(-1) == 0 for example in entries])
    for number, (example, counts) in enumerate(zip(entries, search(free, simulations=20), strict=True)):
        example |= {"weight": 0.5 + number % 3} | ({"search_value": (number % 11) / 10} if number % 4 else {})
        if example["policy"] is not None:
            example["visits"] = counts
    convert(write_examples(folder / "a_processed.pkl.gz", entries), out=folder / "data", **THREE)
    return folder / "data"


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated-run") / "run"
    train(small_spec(data, folder, diagnose=0))
    return folder


def best_of(run):
    return min(log_lines(run), key=lambda line: line["val"]["loss"])


def as_null(numbers):
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in numbers.items()}


@pytest.mark.parametrize(
    "options", [{}, EVERYTHING, {"model": "helpers.small_runs:Drawing"}, {"batch_size": 2_000}], ids=str
)
def test_on_val_the_numbers_of_each_checkpoint_are_to_the_bit_those_that_the_run_wrote(data, tmp_path, options):
    if "batch_size" in options:  # one batch, where a smaller one is validated in two
        data = dataset(tmp_path, val_fraction=0.9)
    train(small_spec(data, tmp_path / "run", diagnose=0, **options))
    lines, mine = log_lines(tmp_path / "run"), {name: options[name] for name in options if name == "model"}
    for line in lines:
        made = hexshards.evaluate(tmp_path / "run" / "checkpoints" / line["checkpoint"], split="val", **mine)
        assert as_null(made.metrics) == line["val"] == as_null(made.validation)
        assert made.metrics["samples"] > 60 and made.apart
    assert (
        as_null(hexshards.evaluate(tmp_path / "run", split="val", **mine).metrics) == best_of(tmp_path / "run")["val"]
    )
    if options == EVERYTHING:
        assert {"ema_search_value_error", "weighted_moves_left_loss"} <= made.metrics.keys()
        assert made.policy_target == "0.75"
        assert hexshards.evaluate(tmp_path / "run").metrics["samples"] > EVERYTHING["val_samples"]


def test_on_the_test_they_are_what_the_trainer_says_of_its_batches(data, run):
    made = hexshards.evaluate(run)
    trainer = parts_of(small_spec(data, run)).trainer
    trainer.load_state_dict(checkpoint_file.trainer_state(checkpoint_file.read(run / "best.pt")))
    test = hexshards.loader(
        data, split="test", batch_size=1024, shuffle=False, augment="none", columns=("weight", "plies_left")
    )
    assert made.metrics == trainer.validate(test)
    split = read_index(data).splits["test"]
    assert (made.split, made.games, made.metrics["samples"]) == ("test", split.games, split.positions)
    assert hexshards.evaluate(run, split="train").metrics["samples"] == read_index(data).splits["train"].positions


def test_a_run_keeps_to_the_validation_it_began_with_and_a_test_grows_with_the_dataset(tmp_path):
    first, second = processed(tmp_path / "sources", games=80, games_per_file=40)
    convert(first, out=tmp_path / "data", **{**THREE, "shard_positions": 4096})
    train(small_spec(tmp_path / "data", tmp_path / "run", diagnose=0))
    before = hexshards.evaluate(tmp_path / "run")
    convert(second, out=tmp_path / "data", append=True)
    val, test = (hexshards.evaluate(tmp_path / "run", split=split) for split in ("val", "test"))
    assert val.metrics == val.validation and val.apart
    assert test.metrics["samples"] > before.metrics["samples"] and test.apart
    now = hexshards.evaluate(tmp_path / "run", split="val", dataset=tmp_path / "data")
    assert now.metrics["samples"] > val.metrics["samples"]
    compact(tmp_path / "data", held_out=True, keep=0)
    with pytest.raises(DataError, match=r"the validation that the run began with needs it: .*--dataset DIR"):
        hexshards.evaluate(tmp_path / "run", split="val")
    merged = hexshards.evaluate(tmp_path / "run")
    assert merged.metrics == pytest.approx(test.metrics) and merged.apart


def test_on_a_dataset_that_is_named_runs_of_other_validations_are_measured_on_the_same_positions(data, run, tmp_path):
    train(small_spec(data, tmp_path / "less", diagnose=0, val_samples=40, max_samples=128))
    val, less = read_index(data).splits["val"].positions, tmp_path / "less"
    own = [hexshards.evaluate(each, split="val").metrics["samples"] for each in (run, less)]
    assert own == [val, 40]
    assert f"40 of {val} positions of " in call("evaluate", less, "--split", "val").stdout
    named = [hexshards.evaluate(each, split="val", dataset=data).metrics for each in (run, less)]
    assert [each["samples"] for each in named] == [val, val]
    # the same network on the same positions, whatever it was told to validate on
    torch.save(torch.load(less / "best.pt", weights_only=True)["model_state_dict"], tmp_path / "weights.pt")
    whole = hexshards.evaluate(tmp_path / "weights.pt", split="val", dataset=data).metrics
    assert named[1]["policy_loss"] == pytest.approx(whole["policy_loss"])


def test_a_run_that_never_validated_is_evaluated_by_its_newest_checkpoint(tmp_path):
    train(small_spec(dataset(tmp_path, val_fraction=0.0, test_fraction=0.2), tmp_path / "run"))
    made = hexshards.evaluate(tmp_path / "run")
    assert made.checkpoint.name == log_lines(tmp_path / "run")[-1]["checkpoint"]
    assert made.validation == {}


def test_a_file_of_weights_is_evaluated_by_what_its_value_is_seen_to_mean(data, run, tmp_path):
    state = torch.load(run / "best.pt", weights_only=True)["model_state_dict"]
    torch.save(state, tmp_path / "weights.pt")
    made, whole = hexshards.evaluate(tmp_path / "weights.pt", dataset=data), hexshards.evaluate(run)
    assert made.metrics["value_loss"] == pytest.approx(whole.metrics["value_loss"])
    assert whole.apart and not made.apart
    told = call("evaluate", tmp_path / "weights.pt", "--dataset", data).stderr
    assert f"{data} is not known to be what {tmp_path / 'weights.pt'} was trained on" in told


def test_hex_ais_checkpoint_is_evaluated_with_its_value_after_tanh(tmp_path):
    thirteen = dataset(tmp_path, side=13, games=6, val_fraction=0.0, test_fraction=0.5)
    torch.manual_seed(1)
    model = small_hex_ai.create_model().eval()
    with gzip.open(tmp_path / "epoch1_mini1.pt.gz", "wb") as file:
        torch.save({"epoch": 1, "model_state_dict": model.state_dict()}, file)
    factory = {"model": "helpers.small_hex_ai:create_model", "model_args": "resnet18"}
    made = hexshards.evaluate(tmp_path / "epoch1_mini1.pt.gz", dataset=thirteen, **factory)
    with torch.no_grad():
        pairs = [
            ((model(board)[1] + 1) / 2, value)
            for board, _, value in hexshards.loader(thirteen, split="test", shuffle=False, augment="none")
        ]
    red, value = (torch.cat(each) for each in zip(*pairs, strict=True))
    assert made.metrics["value_loss"] == pytest.approx(torch.nn.functional.binary_cross_entropy(red, value).item())
    assert made.metrics["value_accuracy"] == pytest.approx(((red > 0.5) == (value > 0.5)).float().mean().item())


def test_a_test_of_other_games_is_said_not_to_be_apart(run, tmp_path):
    other = dataset(tmp_path, test_fraction=0.2)
    assert not hexshards.evaluate(run, dataset=other).apart


def test_the_command_shows_the_test_beside_the_runs_validation_and_json_for_programs(run, data):
    result = call("evaluate", run)
    lines = [line.split() for line in result.stdout.splitlines()]
    made = hexshards.evaluate(run)
    assert [f"{made.metrics['loss']:.4f}", f"{made.validation['loss']:.4f}"] == next(
        rest for name, *rest in lines if name == "loss"
    )
    accuracies = [f"{numbers['value_accuracy']:.1%}" for numbers in (made.metrics, made.validation)]
    assert ["value_accuracy", *accuracies] in lines
    assert f"test has {made.games} games, and says little of the value with fewer than 200" in result.stderr
    entry = json.loads(call("evaluate", run, "--split", "val", "--json").stdout)
    assert entry["metrics"] == entry["validation"] == best_of(run)["val"]
    assert (entry["dataset"], entry["split"], entry["apart"]) == (str(data), "val", True)


def test_a_head_that_the_dataset_has_no_target_of_is_told_by_its_count(data, tmp_path):
    train(small_spec(data, tmp_path / "run", heads="policy,value,search_value", diagnose=0))
    other = dataset(tmp_path, test_fraction=0.2)
    lines = call("evaluate", tmp_path / "run", "--dataset", other).stdout.splitlines()
    assert next(line.split()[1] for line in lines if line.startswith("search_value_samples")) == "0"
    assert next(line.split()[1] for line in lines if line.startswith("search_value_error")) == "-"
    entry = json.loads(call("evaluate", tmp_path / "run", "--dataset", other, "--json").stdout)
    assert entry["metrics"]["search_value_error"] is None


def without_config(run, data, tmp_path):
    shutil.copy(run / "best.pt", tmp_path / "best.pt")
    return [tmp_path / "best.pt"]


def moved_dataset(run, data, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    config = (tmp_path / "run" / "config.toml").read_text()
    (tmp_path / "run" / "config.toml").write_text(config.replace(str(data), str(tmp_path / "gone")))
    return [tmp_path / "run"]


def no_test(run, data, tmp_path):
    return [run, "--dataset", dataset(tmp_path)]


def other_side(run, data, tmp_path):
    return [run, "--dataset", dataset(tmp_path, side=4, games=20, test_fraction=0.4)]


def broken_file(run, data, tmp_path):
    whole = (run / "best.pt").read_bytes()
    (tmp_path / "best.pt").write_bytes(whole[: len(whole) // 2] + b"?" + whole[len(whole) // 2 + 1 :])
    return [tmp_path / "best.pt", "--dataset", data]


def of_another_make(run, data, tmp_path):
    saved(tmp_path / "best.pt", Drawing(), model="os:abort")
    return [tmp_path / "best.pt", "--dataset", data]


def other_weights(run, data, tmp_path):
    return [run, "--model", "helpers.small_runs:Drawing"]


def other_options(run, data, tmp_path):
    saved(tmp_path / "best.pt", heads="policy,value,luck")
    return [tmp_path / "best.pt", "--dataset", data]


def fewer_heads(run, data, tmp_path):
    saved(tmp_path / "best.pt", heads="policy,value,moves_left")
    return [tmp_path / "best.pt", "--dataset", data]


@pytest.mark.parametrize(
    ("made", "code", "says"),
    [
        (without_config, 2, r"best\.pt: does not lie in the folder of a run, .* Name the dataset: .*--dataset DIR"),
        (
            moved_dataset,
            2,
            r"run/best\.pt: was trained on .*gone, where no dataset is now\. Name the dataset: .*--dataset DIR",
        ),
        (no_test, 2, r"data: has no split test, only train, val\. Name another .*--split val; .*--test-fraction"),
        (lambda run, data, tmp_path: [run, "--split", "tset"], 2, r"data: has no split tset, only .* --split test"),
        (lambda run, data, tmp_path: [tmp_path], 2, r"no checkpoint in this folder\. Name a run's folder, or a"),
        (
            lambda run, data, tmp_path: [run / "checkpoints"],
            2,
            r"run/checkpoints: holds checkpoints, but is no run's folder\. Name .*/run, or one .*mini0002\.pt",
        ),
        (lambda run, data, tmp_path: [tmp_path / "best.pt"], 2, r"best\.pt: no such file"),
        (lambda run, data, tmp_path: [run, "--dataset", run], 2, r"run: this is the folder of a run, not a dataset"),
        (
            other_side,
            2,
            r"was trained on boards of side 5, and those of .*data are of side 4\. Name a dataset of",
        ),
        (broken_file, 1, r"best\.pt: "),
        (
            of_another_make,
            1,
            r"another make than hexshards' own; its run says os:abort\. Name .*--model",
        ),
        (other_weights, 1, r"its weights are of another network"),
        (other_options, 1, r"has options that cannot be: heads must be"),
        (fewer_heads, 2, r"the model must answer \(policy_logits, value_logit, moves_left\)"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_cannot_be_evaluated_is_told_in_a_sentence(run, data, tmp_path, made, code, says):
    result = call("evaluate", *made(run, data, tmp_path), code=code)
    assert re.search(says, result.stderr.replace("\n", " ")), result.stderr
    assert "Traceback" not in result.stderr


def test_a_program_learns_by_the_kind_of_error_that_the_dataset_has_no_test(run, tmp_path):
    with pytest.raises(Misused, match="has no split test"):
        hexshards.evaluate(run, dataset=dataset(tmp_path))
