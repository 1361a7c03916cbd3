from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.cli import call
from helpers.small_data import CUT, columns_of, examples, files_of, games_of, processed, samples_of, write_examples
from test_leakage import boards
from test_torn_games import slow_torn

import hexshards
from hexshards.conversion.convert import convert
from hexshards.dataset.index import read_index
from hexshards.dataset.leakage import leakage
from hexshards.dataset.split import in_test, in_val
from hexshards.dataset.torn_games import TornGames
from hexshards.dataset.verify import verify

THREE = {**CUT, "test_fraction": 0.3}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return processed(tmp_path_factory.mktemp("sources"), games=80)


@pytest.fixture(scope="module")
def three(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("three") / "data"
    convert(sources[:3], out=out, **THREE)
    return out


def test_a_test_is_cut_from_training_and_validation_keeps_every_bit(sources, three, tmp_path):
    convert(sources[:3], out=tmp_path / "two", **CUT)
    two, cut = files_of(tmp_path / "two"), files_of(three)
    for name in two:
        assert name.startswith(("train-", "index")) or two[name] == cut[name]
    assert games_of(three, "val") == games_of(tmp_path / "two", "val")
    train, test = games_of(three, "train"), games_of(three, "test")
    assert train | test == games_of(tmp_path / "two", "train")
    assert not train & test
    assert 8 <= len(test) <= 28


def test_a_larger_test_only_adds_games_and_never_one_of_validation():
    words = np.arange(20_000, dtype=np.uint64)
    val, before = in_val(words, val_fraction=0.4), np.zeros(len(words), dtype=bool)
    for fraction in (0.0, 0.01, 0.1, 0.6):
        test = in_test(words, test_fraction=fraction)
        assert abs(test.mean() - fraction) < 0.01
        assert not (before & ~test).any()
        assert not (test & val).any()
        before = test
    assert (before | val).all()
    with pytest.raises(ValueError, match="val_fraction and test_fraction must be at most 1 together"):
        convert("x", out="y", val_fraction=0.6, test_fraction=0.5)


def test_what_is_added_keeps_to_the_three_splits_that_are_recorded(sources, three, tmp_path):
    convert(sources[:2], out=tmp_path / "grown", **THREE)
    convert(sources[2:], out=tmp_path / "grown", append=True)
    convert(sources, out=tmp_path / "together", **THREE)
    for split in ("train", "val", "test"):
        assert games_of(tmp_path / "grown", split) == games_of(tmp_path / "together", split)
    assert verify(tmp_path / "grown").problems == ()
    convert(sources[:2], out=tmp_path / "two", **CUT)
    assert "test_fraction" not in read_index(tmp_path / "two").options
    with pytest.raises(ValueError, match=r"was made with test_fraction 0.0, so files can't be added"):
        convert(sources[2:], out=tmp_path / "two", append=True, test_fraction=0.3)


def test_a_loader_and_the_commands_take_the_test_for_a_split_like_the_others(three):
    batches = hexshards.loader(three, split="test", batch_size=32, shuffle=False, augment="none")
    boards_there = [board.numpy().tobytes() for batch in batches for board in batch.board]
    assert boards_there == [board.tobytes() for board, _, _ in samples_of(three, "test")]
    positions = read_index(three).splits["test"].positions
    assert f"test {positions:,} positions" in " ".join(call("info", three).stdout.split())
    assert call("show", three, "--split", "test", "-n", 1).stdout
    assert json.loads(call("mixing", three, "--split", "test", "--batch-size", 32, "--json").stdout)["positions"] > 0


def test_leakage_is_told_of_every_pair_of_splits(three):
    told = json.loads(call("verify", three, "--leakage", "--json").stdout)
    for name, of, against in (
        ("leakage", "val", "train"),
        ("leakage_of_test", "test", "train"),
        ("leakage_of_test_in_validation", "test", "val"),
    ):
        measured = leakage(three, of=of, against=against)
        assert told[name] == {"validation": [*measured.validation], "leaked": [*measured.leaked]}
        assert sum(measured.validation) == len([*boards(three, of)])
    assert told["leakage_of_test"]["leaked"][0] > 0
    said = call("verify", three, "--leakage").stdout
    assert "test positions that training shows too" in said
    assert "test positions that validation shows too" in said


def test_verify_finds_a_game_in_any_two_splits(tmp_path):
    entries = examples(12)
    for entry in entries[::9]:  # under another name, which may lie in another split
        entry["metadata"] = {**entry["metadata"], "source_file": "other.trmph"}
    write_examples(tmp_path / "shuffled_0000.pkl.gz", entries)
    out = tmp_path / "out"
    convert(tmp_path / "shuffled_0000.pkl.gz", out=out, val_fraction=0.3, test_fraction=0.4, block_positions=64)
    pairs = [("train", "val"), ("train", "test"), ("val", "test")]
    torn = {pair: slow_torn(out, pair) for pair in pairs}
    assert sum(torn.values()) > 0
    expected = sorted(f"{count} position" for count in torn.values() if count)
    assert (
        sorted(problem.problem.split(" is ")[0].split(" are ")[0].rstrip("s") for problem in verify(out).problems)
        == expected
    )
    assert TornGames("test", "val").count == 0


def test_the_report_and_the_notebook_show_three_splits(three, tmp_path):
    call("report", three, "--out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Leakage of test" in page
    assert "No game is in two splits, by name or by board." in page
    assert "test" in read_index(three)._repr_html_()
    assert len(columns_of(three, "test")["value"]) == read_index(three).splits["test"].positions
