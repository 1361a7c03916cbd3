"""Saved network: the one in a checkpoint, in evaluation mode, asked for probabilities. What a program that plays needs.

A file's weights say how large hexshards' own network is. A network of another make is built by a factory that the
caller names: one that only the file names is never imported.

Legend of shapes: B boards, S side, C = S * S cells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hexshards.arguments import LocalPath, checked
from hexshards.errors import DataError, Misused, escaped, printable
from hexshards.game.board import check_side
from hexshards.game.positions import Positions
from hexshards.loading.batching import usable_device
from hexshards.loading.expansion.expand import Packed, expand
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.checkpointing.checkpoint_file import newest_first
from hexshards.training.checkpointing.run_folder import RunFolder, check_checkpoint
from hexshards.training.options import STEP, ValueOutput
from hexshards.training.steps.heads import HEADS, POLICY, RED, USUAL, VALUE
from hexshards.training.steps.losses import answers_by_head
from hexshards.training.steps.model import PLANES, TwoHeadedResNet
from hexshards.training.steps.model_factory import check_weights, random_boards, yours
from hexshards.training.steps.value_range import seen_range
from hexshards.training.steps.weights_file import bare, read_saved, weights_of

BOARDS_AT_ONCE = 1024
"""Boards that go through a network together."""


class Prediction(NamedTuple):
    """What a network says of boards, float32 on the CPU.

    policy (B, C): the probability of each move; 0 on cells that are taken. red (B,): the probability that RED wins.
    """

    policy: Tensor
    red: Tensor


class Network:
    """A trained network in evaluation mode; made by ``hexshards.load_network``.

    model: the module itself. side: that of the boards it was trained on, None where its file does not say.
    value_output: what it answers as the value (see StepSpec). path: its file.
    """

    def __init__(
        self, model: nn.Module, *, side: int | None, value_output: ValueOutput, path: Path, device: torch.device
    ) -> None:
        self.model, self.side, self.value_output = model.to(device).eval(), side, value_output
        self.path, self.device = path, device

    @torch.inference_mode()
    def predict(self, boards: Positions | Tensor | NDArray[Any]) -> Prediction:
        """What the network says of positions, or of boards (B, 3, S, S): planes BLUE, RED, to move (0 BLUE, 1 RED).

        Raises ValueError for what is no boards, or boards of another side than the network's.
        """
        parts = [self._predicted(part) for part in self._parts(boards)]
        policy, red = zip(*parts, strict=True)
        return Prediction(torch.cat(policy), torch.cat(red))

    def _parts(self, boards: Positions | Tensor | NDArray[Any]) -> Iterator[Tensor]:
        rows = len(boards)
        for first in range(0, max(rows, 1), BOARDS_AT_ONCE):
            part = slice(first, min(first + BOARDS_AT_ONCE, rows))
            yield self._checked(_boards_of(boards, part))

    def _checked(self, boards: Tensor) -> Tensor:
        side = self.side or boards.shape[-1]
        if boards.ndim != 4 or boards.shape[1:] != (PLANES, side, side):
            wanted = self.side or "S"
            raise ValueError(f"boards must be of shape (B, 3, {wanted}, {wanted}), got {tuple(boards.shape)}")
        return boards.float()

    def _predicted(self, boards: Tensor) -> Prediction:
        answers = usual_answers(self.model, boards.to(self.device))
        logits, red = answers[POLICY.name].cpu(), RED[self.value_output](answers[VALUE.name]).squeeze(1)
        taken = (boards[:, 0] + boards[:, 1] > 0).flatten(1).cpu()
        # a full board has no move: all of its cells are 0
        policy = logits.masked_fill(taken, -torch.inf).softmax(dim=1).nan_to_num(0.0)
        return Prediction(policy, red.cpu())


def usual_answers(model: nn.Module, boards: Tensor) -> dict[str, Tensor]:
    """Policy and value by their names, whatever else a network answers."""
    answer = model(boards)
    return answers_by_head(USUAL, answer if isinstance(answer, Mapping) else answer[: len(USUAL)])


def _boards_of(boards: Positions | Tensor | NDArray[Any], part: slice) -> Tensor:
    if not isinstance(boards, Positions):
        return torch.as_tensor(boards[part])
    untouched = np.zeros(part.stop - part.start, dtype=np.uint8)
    stones, player, policy, value = (getattr(boards, name)[part] for name in ("stones", "player", "policy", "value"))
    return expand(Packed(stones, player, policy, value, untouched), side=boards.side).board


@checked
def load_network(
    path: LocalPath,
    *,
    model: str | None = None,
    model_args: str = "",
    value_output: ValueOutput | None = None,
    side: int | None = None,
    device: str | torch.device = "cpu",
    ema: bool = False,
) -> Network:
    """The network in a checkpoint of a run, such as ``RUN/best.pt``, or of hex_ai, or in a file of a state_dict.

    Of a run's folder it is the newest checkpoint, also while the run goes on and removes older ones.

    model, model_args: ``package.module:factory`` and its arguments, for a network of your own; whoever gives them lets
    them be imported. value_output, side: where the file does not say; a value that nobody tells the meaning of is
    looked at. ema: the moving average of the weights. Raises DataError for a file that is no such network, ValueError
    for a factory that is none, Misused for the folder of a run's checkpoints, FileNotFoundError where no file, or no
    checkpoint yet, is.
    """
    saved = newest_of(Path(path)) if Path(path).is_dir() else saved_in(Path(path))
    return network_of(
        saved, model=model, model_args=model_args, value_output=value_output, side=side, device=device, ema=ema
    )


class Saved(NamedTuple):
    """What a file with a network holds."""

    path: Path
    content: object

    @property
    def options(self) -> Mapping[str, Any]:
        """What a run recorded of itself; nothing in other files."""
        return self.under("options")

    def under(self, name: str) -> Mapping[str, Any]:
        """What stands in it under a name; nothing where that is no dict."""
        part = self.content.get(name) if isinstance(self.content, Mapping) else None
        return part if isinstance(part, Mapping) else {}


def network_of(
    saved: Saved,
    *,
    model: str | None = None,
    model_args: str = "",
    value_output: ValueOutput | None = None,
    side: int | None = None,
    device: str | torch.device = "cpu",
    ema: bool = False,
) -> Network:
    """The network in what a file holds; see load_network."""
    path = saved.path
    weights = {bare(name): part for name, part in _weights(saved, ema=ema).items()}
    made = _made(weights, saved.options, path, model=model, model_args=model_args)
    recorded = _recorded(saved)
    found_side = check_side(side) if side is not None else recorded.side
    output = value_output or recorded.value_output or _looked_at(made, found_side)
    return Network(made, side=found_side, value_output=output, path=path, device=usable_device(device))


def saved_in(path: Path) -> Saved:
    """What a file holds that somebody named."""
    check_checkpoint(path)
    return _read(path)


def newest_of(run: Path) -> Saved:
    """The newest checkpoint of a run and what it holds; one that is removed while it is opened is no longer newest."""
    while newest := newest_first(RunFolder(run).checkpoints):
        try:
            return _read(newest[0])
        except (OSError, DataError):
            if os.path.lexists(newest[0]):
                raise
    if here := newest_first(run):
        of = f"the run's folder {run.parent}" if run.name == RunFolder(run).checkpoints.name else "a run's folder"
        fix = f"Name {of}, or one of them, such as {here[0]}"
        raise Misused("holds checkpoints, but is no run's folder", where=str(run), fix=fix)
    raise FileNotFoundError(f"{escaped(run)}: no checkpoint in this folder. Name a run's folder, or a checkpoint")


def _read(path: Path) -> Saved:
    """What a file holds; a checkpoint of hexshards is compared with its checksum."""
    return Saved(path, checkpoint_file.read(path) if checkpoint_file.is_sealed(path) else read_saved(path))


def _weights(saved: Saved, *, ema: bool) -> dict[str, Tensor]:
    path, content = saved
    if ema:
        content = content.get("ema_state_dict") if isinstance(content, Mapping) else None
        if content is None:
            raise DataError("holds no moving average", where=str(path), fix="Leave ema out, or train with --ema")
    return weights_of(content, path)


class _Recorded(NamedTuple):
    side: int | None
    value_output: ValueOutput | None


def _recorded(saved: Saved) -> _Recorded:
    path, options = saved.path, saved.options
    side, usual = options.get("side"), STEP.value_output if "optimizer" in options else None
    output = options.get("value_output", usual)
    if output is not None and output not in get_args(ValueOutput):
        raise DataError(f"has value_output {printable(output)}", where=str(path), fix="Name a checkpoint of a run")
    try:
        return _Recorded(None if side is None else check_side(side), output)
    except (ValueError, TypeError):
        raise DataError(f"has side {printable(side)}", where=str(path), fix="Name a checkpoint of a run") from None


def _made(
    weights: dict[str, Tensor], options: Mapping[str, Any], path: Path, *, model: str | None, model_args: str
) -> nn.Module:
    if model is not None:
        made = yours(model, model_args, folder=str(Path.cwd()))
        check_weights(made, weights, path)
        made.load_state_dict(weights)
        return made
    # its size is what the file says: nothing is allocated before all shapes fit the weights that are there
    with torch.device("meta"):
        bare_network = _as_large_as(weights)
    if bare_network is None or bare_network.state_dict().keys() != weights.keys():
        name, args = (printable(options.get(each) or "") for each in ("model", "model_args"))
        said = f"; its run says {name}{f' with model_args {args}' if args else ''}" if name else ""
        refusal = f"holds a network of another make than hexshards' own{said}"
        raise DataError(refusal, where=str(path), fix="Name what makes it: model='package.module:factory' (--model)")
    check_weights(bare_network, weights, path)
    bare_network.load_state_dict(weights, assign=True)
    return bare_network


def _as_large_as(weights: Mapping[str, Tensor]) -> TwoHeadedResNet | None:
    stem = weights.get("stem.0.weight")
    if stem is None or stem.ndim != 4 or not len(stem):
        return None
    blocks = {name.split(".")[1] for name in weights if name.startswith("tower.")}
    others = {name.split(".")[1] for name in weights if name.startswith("others.")}
    heads = [head.name for head in HEADS if head in USUAL or head.name in others]
    return TwoHeadedResNet(channels=len(stem), blocks=len(blocks), heads=",".join(heads))


def _looked_at(model: nn.Module, side: int | None) -> ValueOutput:
    return seen_range(model, random_boards(side or DEFAULT_SIDE)).output


DEFAULT_SIDE = 13
"""Of the boards that a network is looked at with, where nobody says."""
