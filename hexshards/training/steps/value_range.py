"""Whether a network's value can be a logit is seen in what it answers under other weights, not in what it is called.

A logit leaves -1 to 1 under some weights. What ends in tanh, a sigmoid, a softmax or a clamp saturates and stays
within, whatever the weights are; as a logit it keeps probabilities in 0.27 to 0.73, and training is silently wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

ValueOutput = Literal["logit", "tanh", "probability"]
"""What a network answers as the value: any number; within -1 to 1; within 0 to 1."""

ROWS = 4
"""Boards that a network is looked at with."""

ALONE = 16
"""Tensors that are moved alone: those of the fewest outputs, as the value's last layer has one."""

SCALES = (1.0, 30.0, 1000.0)
"""Spread of what is added to weights: the softest of the usual bounds, x / (1 + |x|), is at 0.99 for x = 100."""

_SLACK, _SATURATED = 1e-3, 0.98

Weights = dict[str, Tensor]


def value_output(model: nn.Module, board_B3SS: Tensor) -> ValueOutput:
    """What a network's value is, as far as it shows; where nothing shows, a logit.

    The network is asked in evaluation mode and left as it is, with torch's random state. Boards: as in training.
    """
    # what wraps a network would compile it, or talk to other processes, each time it is asked
    while isinstance(inner := getattr(model, "_orig_mod", getattr(model, "module", None)), nn.Module):
        model = inner
    board, modes = board_B3SS[:ROWS], {part: part.training for part in model.modules()}
    model.eval()
    try:
        with torch.random.fork_rng(devices=[board.device] if board.is_cuda else []):
            return _seen(lambda weights: _values(model, weights, board), dict(model.named_parameters()))
    finally:
        for part, mode in modes.items():
            part.training = mode


def check_logit(model: nn.Module, board_B3SS: Tensor, *, name: str) -> None:
    """Raise ValueError for a network whose value is bounded."""
    found = value_output(model, board_B3SS)
    if found != "logit":
        within, by = ("-1 to 1", "tanh") if found == "tanh" else ("0 to 1", "a sigmoid")
        raise ValueError(
            f"{name} answers a value that stays within {within} whatever its weights are, as after {by}, where the "
            f"loss takes a logit and would train it wrong without a word: let it answer what goes into {by}"
        )


def _seen(answer: Callable[[Weights], Tensor], weights: Weights) -> ValueOutput:
    low, high = float("inf"), -float("inf")
    for others in _moved(weights):
        values = answer(others)
        values = values[~values.isnan()]  # sums of infinities show nothing; an infinity itself does
        if not values.numel():
            continue
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        if max(-low, high) > 1 + _SLACK:
            return "logit"
    if max(-low, high) < _SATURATED:
        return "logit"
    return "tanh" if low < -_SLACK else "probability"


def _moved(weights: Weights) -> Iterator[Weights]:
    """Other weights: all moved at once, which shows most logits at the first look; then each tensor alone.

    Alone as well, for what lies before a tensor may be dead, or infinite, when all are moved.
    """
    random = torch.Generator().manual_seed(0)
    floats = {name: weight.detach() for name, weight in weights.items() if weight.is_floating_point()}
    few = sorted(reversed(floats), key=lambda name: floats[name].shape[:1])[:ALONE]
    for scale in SCALES:
        yield from _both_ways(floats, scale, random)
    for name in few:
        for scale in SCALES[1:]:
            yield from _both_ways({name: floats[name]}, scale, random)


def _both_ways(weights: Weights, scale: float, random: torch.Generator) -> Iterator[Weights]:
    noise = {name: scale * torch.randn(weight.shape, generator=random) for name, weight in weights.items()}
    for sign in (1, -1):
        yield {name: weight + sign * noise[name].to(weight.device, weight.dtype) for name, weight in weights.items()}


@torch.no_grad()
def _values(model: nn.Module, weights: Weights, board: Tensor) -> Tensor:
    try:
        # a network may count what it sees, in place
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        value: Tensor = functional_call(model, {**buffers, **weights}, (board,))[1]
    except Exception:  # a network may check what goes through it, or not take other weights; then nothing shows
        return torch.empty(0)
    return value.detach().float().cpu()
