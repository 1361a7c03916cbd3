"""The loop that one writes by hand: steps of hexshards' network on batches that are already there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import hexshards
from hexshards.training.options import STEP

BATCH, HELD = 256, 8
"""Samples of a step, and batches that lie in memory."""

Dense = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Way:
    """How a step is taken; PyTorch's own defaults, but for one thread."""

    channels_last: bool = False
    fused: bool = False
    bfloat16: bool = False
    compiled: bool = False
    threads: int = 1


@dataclass(frozen=True)
class Taken:
    """Seconds of a sample, and the mean loss of the last half of the steps."""

    processor_s: float
    clock_s: float
    loss: float


def held_batches(data: Path) -> list[Dense]:
    """A handful of batches, copied."""
    return [tuple(part.clone() for part in batch) for batch in islice(hexshards.loader(data, batch_size=BATCH), HELD)]


def bare_loop(batches: list[Dense], network: str, *, steps: int, way: Way = Way()) -> Taken:
    """Take a first step, and then so many which are timed, of a new network of ``channels x blocks``."""
    torch.set_num_threads(way.threads)
    torch.manual_seed(0)
    channels, blocks = map(int, network.split("x"))
    layout = torch.channels_last if way.channels_last else torch.contiguous_format
    model: nn.Module = hexshards.TwoHeadedResNet(channels=channels, blocks=blocks).to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(groups(model), lr=STEP.learning_rate, fused=way.fused or None)
    run = torch.compile(model) if way.compiled else model
    losses = list[torch.Tensor]()
    clock = processor = 0.0
    for number, (board, policy, value) in enumerate(_each(batches, steps + 1)):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=way.bfloat16):
            logits, winner = run(board.to(memory_format=layout))
        policy_loss = functional.cross_entropy(logits.float(), policy)
        value_loss = functional.binary_cross_entropy_with_logits(winner.float(), value)
        loss = STEP.policy_weight * policy_loss + STEP.value_weight * value_loss
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if number == 0:
            clock, processor = time.perf_counter(), time.process_time()
    ends, samples = (time.process_time(), time.perf_counter()), steps * BATCH
    late = float(torch.stack(losses[-max(1, steps // 2) :]).mean())
    torch.set_num_threads(1)
    return Taken((ends[0] - processor) / samples, (ends[1] - clock) / samples, late)


def _each(batches: list[Dense], count: int) -> Iterator[Dense]:
    return islice(cycle(batches), count)


def groups(model: nn.Module) -> list[dict[str, object]]:
    """Weights decay; biases and norms do not."""
    parts: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for weight in model.parameters():
        parts[weight.ndim > 1].append(weight)
    return [{"params": part, "weight_decay": STEP.weight_decay * decays} for decays, part in enumerate(parts)]


def table_head(networks: Sequence[str]) -> list[str]:
    """The first two lines of a table with a column for each network of ``channels x blocks``."""
    names = ["", *(f"{' channels, '.join(network.split('x'))} blocks" for network in networks)]
    return ["| " + " | ".join(names) + " |", "|---|" + "---:|" * len(networks)]
