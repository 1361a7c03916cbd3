"""Export of a network in formats of others, compared with the network's own answers before the file appears.

``state-dict`` is what any PyTorch program loads into the same network; ``torchscript`` and ``onnx`` hold the network
itself and need no hexshards; ``hex_ai`` is hex_ai's checkpoint.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hexshards.arguments import LocalPath, checked
from hexshards.errors import escaped
from hexshards.interop import hex_ai_checkpoint
from hexshards.interop.options import Format
from hexshards.interop.saved_network import DEFAULT_SIDE, Network, load_network, usual_answers
from hexshards.storage.files import write_whole
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.checkpointing.run_folder import check_checkpoint
from hexshards.training.steps.heads import USUAL
from hexshards.training.steps.model_factory import random_boards

ENDINGS: dict[Format, str] = {
    "hex_ai": ".pt.gz",
    "state-dict": ".state_dict.pt",
    "torchscript": ".torchscript.pt",
    "onnx": ".onnx",
}

TOLERANCE = 1e-4
"""By how much an exported network may answer otherwise: kernels add up in another order."""

OPSET = 18
"""Of ONNX: what runtimes since 2023 read."""


@checked
def export_network(
    checkpoint: LocalPath,
    *,
    format: Format,
    out: LocalPath,
    model: str | None = None,
    model_args: str = "",
    side: int | None = None,
    ema: bool = False,
) -> Path:
    """Write the network of a checkpoint into the folder ``out``, in a format of others; the path of the file.

    The file is named by epoch and mini-epoch, as hex_ai's. It takes boards float32 (B, 3, S, S) by the name ``board``
    and answers ``policy`` (B, S * S) logits and ``value`` (B, 1), as the network does; B is free, S in torchscript too
    where the network's is. model, model_args, side, ema: as in load_network; hex_ai's format needs none of them.
    Raises DataError for a file that holds no such network, ValueError where the export answers otherwise,
    FileExistsError where another file has its name.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    check_checkpoint(checkpoint)
    if format == "hex_ai":
        if ema:
            raise ValueError("hex_ai's checkpoint holds the weights alone: leave ema out, or export a state-dict")
        return _put(hex_ai_checkpoint.of_run(checkpoint), out)
    network = load_network(checkpoint, model=model, model_args=model_args, side=side, ema=ema)
    data = _BYTES[format](network, random_boards(network.side or DEFAULT_SIDE))
    return _put((f"{_stem(checkpoint)}{ENDINGS[format]}", data), out)


def _put(file: tuple[str, bytes], out: Path) -> Path:
    """Write a file, unless another is there by its name: two runs call theirs alike."""
    name, data = file
    out.mkdir(parents=True, exist_ok=True)
    path = out / name
    if path.exists() and path.read_bytes() != data:
        raise FileExistsError(f"{escaped(path)} is there already, and differs: name another folder, or move it away")
    write_whole(path, data)
    return path


def _stem(checkpoint: Path) -> str:
    """``epoch3_mini4`` of a run's checkpoint; else what the file is called."""
    if checkpoint_file.is_sealed(checkpoint):
        counters = checkpoint_file.read(checkpoint)["counters"]
        return hex_ai_checkpoint.name_of(counters["epoch"], counters["mini_epoch"]).removesuffix(ENDINGS["hex_ai"])
    return checkpoint.name.removesuffix(".gz").removesuffix(".pt")


class _Answering(nn.Module):
    """A network that answers policy and value as a tuple, whatever it answers itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, board: Tensor) -> tuple[Tensor, ...]:
        """Policy logits and value."""
        return tuple(usual_answers(self.model, board).values())


def _state_dict(network: Network, boards: Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(network.model.state_dict(), buffer)
    return buffer.getvalue()


def _torchscript(network: Network, boards: Tensor) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch has newer formats, which C++ and older versions do not read
        traced = torch.jit.trace(_Answering(network.model), boards, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, buffer)
        buffer.seek(0)
        loaded = torch.jit.load(buffer)  # type: ignore[no-untyped-call]
    _check(lambda given: loaded(given), network, boards)
    return buffer.getvalue()


def _onnx(network: Network, boards: Tensor) -> bytes:
    try:
        import onnxruntime
        import onnxscript as onnxscript  # what torch.onnx needs
    except ImportError as error:
        raise ValueError(f"ONNX is not installed ({escaped(error)}): pip install 'hexshards[onnx]'") from None
    with warnings.catch_warnings(), _without_torchvision(), torch.no_grad():
        for old in (DeprecationWarning, FutureWarning):  # those of its own imports
            warnings.simplefilter("ignore", old)
        program = torch.onnx.export(
            _Answering(network.model).eval(),
            (boards,),
            input_names=["board"],
            output_names=[head.name for head in USUAL],
            dynamic_shapes={"board": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    _check(lambda given: session.run(None, {"board": np.asarray(given)}), network, boards)
    return data


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Let torch not warn of each operator of torchvision that, as it is not installed, is not exported: we use none."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")

    def told(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed")

    logger.addFilter(told)
    try:
        yield
    finally:
        logger.removeFilter(told)


def _check(exported: Callable[[Tensor], Sequence[Any]], network: Network, boards: Tensor) -> None:
    """Raise ValueError unless an export answers as the network does, on one board as on several."""
    for given in (boards, boards[:1]):
        with torch.no_grad():
            wanted, got = _Answering(network.model)(given), exported(given)
        for head, ours, theirs in zip(USUAL, wanted, got, strict=True):
            off = float((ours - torch.as_tensor(theirs)).abs().max())
            if not off <= TOLERANCE * max(1.0, float(ours.abs().max())):
                raise ValueError(
                    f"{escaped(network.path)}: the export answers another {escaped(head.name)}, by {off:.2g}: "
                    "what the network does depends on the board in a way that it does not hold. Export a state-dict"
                )


_BYTES: dict[str, Callable[[Network, Tensor], bytes]] = {
    "state-dict": _state_dict,
    "torchscript": _torchscript,
    "onnx": _onnx,
}
