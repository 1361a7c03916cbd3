"""A network is ours or yours; before a run it is tried on a board, and its first weights follow from seed or file.

The seed's weights depend on nothing drawn before, and leave torch's random state as it was.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hexshards.errors import DataError, printable
from hexshards.storage.files import inflating, open_regular
from hexshards.training.options import TrainSpec
from hexshards.training.steps.heads import HEADS
from hexshards.training.steps.model import PLANES, TwoHeadedResNet
from hexshards.training.steps.value_range import ROWS, check_output

WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before the names of weights."""

TRIED_ROWS = 2
"""Boards in the batch that a network is tried on."""

STONES = 0.3
"""Share of the cells with a stone of a colour, on the boards that a network's value is looked at with."""

_SHOWN = 3
"""Names of weights in a message."""


def network(spec: TrainSpec, *, side: int) -> nn.Module:
    """The network that a spec names, on the CPU, tried on empty boards of a side and with the weights to begin with.

    Raises ValueError for a network that cannot be made or does not answer as it should, DataError for weights that
    do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = _made(spec)
        _try(model, side)
        if spec.value_weight:
            check_output(model, _boards(side), spec.value_output, name=spec.model or "the model")
    if spec.init_from:
        _load_weights(model, spec.absolute(spec.init_from))
    return model


def _made(spec: TrainSpec) -> nn.Module:
    if spec.model:
        return _yours(spec.model, folder=str(spec.absolute("")))
    return TwoHeadedResNet(channels=spec.channels, blocks=spec.blocks)


def _yours(name: str, *, folder: str) -> nn.Module:
    # as `python -m` does; the command `hexshards` does not
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        factory = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"model {name} cannot be found: {error}. Name it as package.module:factory") from error
    try:
        model = factory() if callable(factory) and not isinstance(factory, nn.Module) else factory
    except Exception as error:
        raise ValueError(f"model {name} fails when it is called without arguments: {printable(error)}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name} is a {type(model).__name__}, not a torch.nn.Module. Name what makes one")
    return model


@torch.no_grad()
def _try(model: nn.Module, side: int) -> None:
    """Raise ValueError unless it answers a batch of boards with a logit for each cell and one for the winner."""
    board, was_training = torch.zeros(TRIED_ROWS, PLANES, side, side), model.training
    model.eval()
    try:
        answer = model(board)
    except Exception as error:
        raise ValueError(f"the model fails on a board of shape {tuple(board.shape)}: {error}") from error
    finally:
        model.train(was_training)
    expected = [(TRIED_ROWS, head.width(side)) for head in HEADS]
    if isinstance(answer, Mapping):
        answer = [answer.get(head.name) for head in HEADS]
    shapes = [_shape(part) for part in answer] if isinstance(answer, (tuple, list)) else _shape(answer)
    if shapes != expected:
        raise ValueError(
            f"given boards of shape {tuple(board.shape)}, the model must answer (policy_logits, value_logit) of shapes "
            f"{expected}; it answers {shapes}"
        )


def _boards(side: int) -> Tensor:
    drawn = torch.rand(ROWS, PLANES, side, side, generator=torch.Generator().manual_seed(0))
    return (drawn < STONES).float()


def _shape(part: object) -> object:
    return tuple(part.shape) if isinstance(part, Tensor) and part.is_floating_point() else type(part).__name__


def _load_weights(model: nn.Module, path: Path) -> None:
    """Put a file's weights into a model; all of them must fit. Raises DataError."""
    weights, wanted = _weights(path), model.state_dict()
    if weights.keys() != wanted.keys():
        weights = {_bare(name): part for name, part in weights.items()}
    problems = _told("lacks", sorted(wanted.keys() - weights.keys()))
    problems += _told("has unknown", sorted(weights.keys() - wanted.keys()))
    shapes = [
        f"{name} {tuple(weights[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    problems += _told("has of another shape", shapes)
    if problems:
        problem = f"its weights are of another network: it {'; it '.join(problems)}"
        raise DataError(
            problem, where=str(path), fix="Build the network they were trained in, or leave out --init-from"
        )
    model.load_state_dict(weights)


def _weights(path: Path) -> dict[str, Tensor]:
    """The state_dict in a file, or under ``model_state_dict`` or ``state_dict`` in it."""
    try:
        with open_regular(path) as file:
            problem = inflating(file) if file.peek(2)[:2] == b"PK" else None
            loaded: Any = None if problem else torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path), fix="Name a checkpoint") from None
    except Exception as error:  # torch.load raises a dozen kinds for what it does not take
        refusal = f"torch.load takes nothing but weights, and this for none ({printable(error)})"
        raise DataError(refusal, where=str(path), fix="Save the network's state_dict() alone, and name that") from error
    if problem:
        raise DataError(problem, where=str(path), fix="Name a checkpoint, or a file that torch.save wrote")
    for name in ("model_state_dict", "state_dict"):
        loaded = loaded.get(name, loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(loaded, Mapping) or not all(isinstance(part, Tensor) for part in loaded.values()):
        raise DataError("holds no state_dict", where=str(path), fix="Name a checkpoint or a file with a state_dict")
    return {str(name): part for name, part in loaded.items()}


def _bare(name: str) -> str:
    while wrapper := next((each for each in WRAPPERS if name.startswith(each)), ""):
        name = name.removeprefix(wrapper)
    return name


def _told(says: str, names: list[str]) -> list[str]:
    shown = ", ".join(printable(name) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{says} {shown}{more}"] if names else []
