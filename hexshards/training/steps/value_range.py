"""Range of a network's value (logit, probability, tanh), seen in its answers under other weights, not in its name.

A logit leaves -1 to 1 under some weights. What ends in tanh, a sigmoid, a softmax or a clamp saturates and stays
within, whatever the weights are; as a logit it keeps probabilities in 0.27 to 0.73, and training is silently wrong.
So it is trained as what ``value_output`` says, and refused where what is seen contradicts that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hexshards.errors import escaped
from hexshards.training.options import ValueOutput

ROWS = 4
"""Boards that a network is looked at with."""

ALONE = 16
"""Tensors that are moved alone: those of the fewest outputs, as the value's last layer has one."""

SCALES = (1.0, 30.0, 1000.0)
"""Spread of what is added to weights: the softest of the usual bounds, x / (1 + |x|), is at 0.99 for x = 100."""

_SLACK, _SATURATED = 1e-3, 0.98

Weights = dict[str, Tensor]


class Range(NamedTuple):
    """The least and the most that a network was seen to answer as the value."""

    low: float
    high: float

    @property
    def output(self) -> ValueOutput:
        """What it is, as far as it shows; where nothing shows, a logit."""
        if not _SATURATED <= max(-self.low, self.high) <= 1 + _SLACK:
            return "logit"
        return "tanh" if self.low < -_SLACK else "probability"

    def contradicts(self, output: ValueOutput) -> bool:
        """Whether the value cannot be what it is said to be; a half of tanh's range that nothing leaves is another."""
        if output == "logit":
            return self.output != "logit"
        beyond = self.high > 1 + _SLACK or self.low < -(1 + _SLACK if output == "tanh" else _SLACK)
        return beyond or (output == "tanh" and self.output == "probability")


def seen_range(model: nn.Module, board_B3SS: Tensor) -> Range:
    """The range of a network's value, as far as it shows.

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


def check_output(model: nn.Module, board_B3SS: Tensor, output: ValueOutput, *, name: str) -> None:
    """Raise ValueError for a network whose value is not what ``value_output`` says."""
    seen = seen_range(model, board_B3SS)
    if seen.contradicts(output):
        right = seen.output
        also = "; hex_ai's loss is value_loss mse (--value-loss mse)" if right == "tanh" else ""
        raise ValueError(
            f"{escaped(name)} answers a value that {_SHOWS[right]}, which value_output {escaped(output)} would train "
            f"wrong without a word: give value_output {escaped(right)} (--value-output {escaped(right)}){also}"
        )


_SHOWS: dict[ValueOutput, str] = {
    "logit": "leaves what is said to bound it under some weights, as a logit does",
    "tanh": "stays within -1 to 1 whatever its weights are, as after tanh",
    "probability": "stays within 0 to 1 whatever its weights are, as after a sigmoid",
}


def _seen(answer: Callable[[Weights], Tensor], weights: Weights) -> Range:
    low, high = math.inf, -math.inf
    for others in _moved(weights):
        values = answer(others)
        values = values[~values.isnan()]  # sums of infinities show nothing; an infinity itself does
        if values.numel():
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        if max(-low, high) > 1 + _SLACK:
            break
    return Range(low, high)


def _moved(weights: Weights) -> Iterator[Weights]:
    """Perturbed weights: all moved at once, which shows most logits at the first look; then each tensor alone.

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
        answer = functional_call(model, {**buffers, **weights}, (board,))
        value: Tensor = answer["value" if isinstance(answer, Mapping) else 1]
    except Exception:  # a network may check what goes through it, or not take other weights; then nothing shows
        return torch.empty(0)
    return value.detach().float().cpu()
