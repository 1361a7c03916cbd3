"""Model factory: the network is ours or yours, is tried on a board before a run, and begins with seed or file.

The seed's weights depend on nothing drawn before, and leave torch's random state as it was.
"""

from __future__ import annotations

import ast
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hexshards.errors import DataError, escaped, printable
from hexshards.training.checkpointing.run_folder import check_checkpoint
from hexshards.training.options import TrainSpec
from hexshards.training.steps.heads import Head, heads_of
from hexshards.training.steps.model import PLANES, TwoHeadedResNet
from hexshards.training.steps.value_range import ROWS, check_output
from hexshards.training.steps.weights_file import bare, read_weights

TRIED_ROWS = 2
"""Boards in the batch that a network is tried on."""

STONES = 0.3
"""Share of the cells with a stone of a colour, on the boards that a network's value is looked at with."""

_SHOWN = 3
"""Names of weights in a message."""


def network(spec: TrainSpec, *, side: int) -> nn.Module:
    """Make the network that a spec names, on the CPU: tried on empty boards of a side, with its initial weights.

    Raises ValueError for a network that cannot be made or does not answer as it should, DataError for weights that
    do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = _made(spec)
        check_answers(model, heads_of(spec), side)
        if spec.value_weight:
            check_output(model, random_boards(side), spec.value_output, name=spec.model or "the model")
    if spec.init_from:
        _load_weights(model, spec.absolute(spec.init_from))
    return model


def _made(spec: TrainSpec) -> nn.Module:
    if spec.model:
        return yours(spec.model, spec.model_args, folder=str(spec.absolute("")))
    if spec.model_args:
        raise ValueError(f"model_args {printable(spec.model_args)!r} are for a model of your own: name it with model")
    return TwoHeadedResNet(channels=spec.channels, blocks=spec.blocks, dropout=spec.dropout, heads=spec.heads)


def yours(name: str, given: str = "", *, folder: str) -> nn.Module:
    """What the factory ``package.module:factory`` returns, called with the arguments that ``given`` says.

    Python looks for it in a folder too. Raises ValueError where there is no network.
    """
    args, kwargs = arguments(given)
    # as `python -m` does; the command `hexshards` does not
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        factory = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"model {escaped(name)} cannot be found: {escaped(error)}. Name it as package.module:factory"
        ) from error
    try:
        model = factory(*args, **kwargs) if callable(factory) and not isinstance(factory, nn.Module) else factory
    except Exception as error:
        called = f"with model_args {given}" if given else "without arguments (give some with model_args)"
        raise ValueError(
            f"model {escaped(name)} fails when it is called {escaped(called)}: {printable(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model {escaped(name)} is a {type(model).__name__}, not a torch.nn.Module. Name what makes one"
        )
    return model


def arguments(given: str) -> tuple[list[Any], dict[str, Any]]:
    """Arguments as a call has them: ``resnet18, dropout_prob=0.1``. What is no number, list or the like is text."""
    source = f"f({given}\n)"
    try:
        call = ast.parse(source, mode="eval").body
        assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        args = [_literal(each, source) for each in call.args if not isinstance(each, ast.Starred)]
        kwargs = {each.arg: _literal(each.value, source) for each in call.keywords if each.arg}
        assert (len(args), len(kwargs)) == (len(call.args), len(call.keywords))
    except (SyntaxError, ValueError, AssertionError, RecursionError, MemoryError):
        example = "resnet18,dropout_prob=0.1"
        raise ValueError(f"model_args must be arguments, such as {example}, got {printable(given)}") from None
    return args, kwargs


def _literal(node: ast.expr, source: str) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.get_source_segment(source, node)


@torch.no_grad()
def check_answers(model: nn.Module, heads: Sequence[Head], side: int) -> None:
    """Raise ValueError unless it answers a batch of boards with what the heads are: a logit for each cell, ..."""
    board, was_training = torch.zeros(TRIED_ROWS, PLANES, side, side), model.training
    model.eval()
    try:
        answer = model(board)
    except Exception as error:
        raise ValueError(f"the model fails on a board of shape {tuple(board.shape)}: {escaped(error)}") from error
    finally:
        model.train(was_training)
    expected = [(TRIED_ROWS, head.width(side)) for head in heads]
    if isinstance(answer, Mapping):
        answer = [answer.get(head.name) for head in heads]
    shapes = [_shape(part) for part in answer] if isinstance(answer, (tuple, list)) else _shape(answer)
    if shapes != expected:
        parts = ", ".join(["policy_logits", "value_logit", *(head.name for head in heads[2:])])
        raise ValueError(
            f"given boards of shape {tuple(board.shape)}, the model must answer ({escaped(parts)}) of shapes "
            f"{expected}; it answers {escaped(shapes)}"
        )


def random_boards(side: int) -> Tensor:
    """Boards (ROWS, 3, S, S) that a network's value is looked at with, the same each time."""
    drawn = torch.rand(ROWS, PLANES, side, side, generator=torch.Generator().manual_seed(0))
    return (drawn < STONES).float()


def _shape(part: object) -> object:
    return tuple(part.shape) if isinstance(part, Tensor) and part.is_floating_point() else type(part).__name__


def _load_weights(model: nn.Module, path: Path) -> None:
    """Put a file's weights into a model; all of them must fit. Raises DataError."""
    check_checkpoint(path)
    weights = read_weights(path)
    if weights.keys() != model.state_dict().keys():
        weights = {bare(name): part for name, part in weights.items()}
    check_weights(model, weights, path)
    model.load_state_dict(weights)


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Raise DataError, naming the file, unless weights are those of a model: all of them, in its shapes."""
    wanted = model.state_dict()
    problems = _told("lacks", sorted(wanted.keys() - weights.keys()))
    problems += _told("has unknown", sorted(weights.keys() - wanted.keys()))
    shapes = [
        f"{name} {tuple(weights[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    problems += _told("has of another shape", shapes)
    if problems:
        refusal = f"its weights are of another network: it {'; it '.join(problems)}"
        raise DataError(refusal, where=str(path), fix="Build the network they were trained in, or name another file")


def _told(says: str, names: list[str]) -> list[str]:
    shown = ", ".join(printable(name) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{says} {shown}{more}"] if names else []
