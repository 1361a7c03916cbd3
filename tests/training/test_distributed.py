"""Processes that talk to each other, over real sockets."""

from __future__ import annotations

import pytest
import torch

from hexshards.training.distributed import ProcessGroup, here, joined
from hexshards.training.steps.model import TwoHeadedResNet
from hexshards.training.steps.trainer import Trainer


def test_each_process_knows_its_place(answers):
    assert [answer["place"] for answer in answers] == [[0, 3, 0], [1, 3, 1], [2, 3, 2]]


def test_what_is_true_in_one_process_is_true_in_all(answers):
    assert [answer["any"] for answer in answers] == [[False, True, True]] * 3


def test_sums_are_over_all_processes(answers):
    assert [answer["sum"] for answer in answers] == [[3.0, 0.75, 2.0**53 + 4]] * 3
    assert [answer["add"] for answer in answers] == [[3.0, 30.0]] * 3


def test_all_processes_get_the_value_of_the_first(answers):
    assert [answer["same"] for answer in answers] == [{"rank": 0, "word": "Größe", "none": None, "list": [0.1, 2]}] * 3


def test_all_processes_get_the_tensors_of_all_by_rank(answers):
    assert [answer["gather"] for answer in answers] == [[[0, 7], [1, 7], [2, 7]]] * 3


def test_a_process_without_others_talks_to_nobody():
    with joined() as process_group:
        assert process_group == here() == ProcessGroup(rank=0, size=1)
    assert (process_group.any(False), process_group.any(True)) == (False, True)
    assert process_group.sum([1, 0.1]) == [1.0, 0.1]
    assert process_group.same({"a": 1}) == {"a": 1}
    part = torch.arange(2)
    assert process_group.gather(part) == [part] and process_group.add(part) is part


def test_a_killed_process_ends_the_others_with_an_error_that_says_so(answers):
    for rank in (0, 1):
        assert answers[rank]["error"].startswith(f"process {rank} of 3 lost another, which ended or did not answer (")
    assert "error" not in answers[2]


def test_the_group_may_be_given_by_its_name_in_version_0_1():
    group = ProcessGroup()
    assert Trainer(TwoHeadedResNet(channels=2, blocks=1), team=group).process_group is group


def test_an_error_of_ones_own_is_left_as_it_is():
    with pytest.raises(RuntimeError, match="mine"), joined():
        raise RuntimeError("mine")
