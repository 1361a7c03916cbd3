"""The benchmark of a card runs through without one: each table has a line for each of its sizes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from helpers.small_data import dataset

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import gpu

CPU = torch.device("cpu")
SMALL = gpu.Scale(
    batches=(64, 128),
    expanded=(64,),
    networks=(("tiny", 4, 1, 32), ("small", 8, 1, 32)),
    most_s=0,
    workers=0,
    precisions=("float32",),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("gpu"), side=13, games=10)


def lines_of(table):
    """The lines of a table under its two of heading, each as numbers."""
    return [[float(each.replace(",", "")) for each in re.findall(r"\| ([\d.,]+)", line)] for line in list(table)[2:]]


def test_each_part_measures_each_of_its_sizes_on_the_cpu(data):
    clock = gpu.Clock(CPU)
    across, within = 1e9, 2e9
    loaded = lines_of(gpu.loading(data, CPU, clock, across, SMALL))
    expanded = lines_of(gpu.expansion(data, CPU, clock, within, SMALL))
    trained = lines_of(gpu.training(data, CPU, clock, SMALL))
    assert [line[0] for line in loaded] == list(SMALL.batches)
    assert [line[0] for line in expanded] == list(SMALL.expanded)
    assert len(trained) == len(SMALL.networks)
    assert all(number > 0 for line in (*loaded, *expanded, *trained) for number in line[:2])


def test_its_quick_way_has_one_of_each():
    quick = gpu.CARD.quick()
    assert (len(quick.batches), len(quick.networks), len(quick.precisions)) == (1, 1, 1)
    assert len(gpu.CARD.networks) == len(gpu.CPU.networks) == 3
