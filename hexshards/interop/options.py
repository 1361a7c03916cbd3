"""Formats that networks leave hexshards in."""

from __future__ import annotations

from typing import Literal

Format = Literal["hex_ai", "state-dict", "torchscript", "onnx"]
"""hex_ai's checkpoint; the weights alone; or the network itself, for TorchScript's or ONNX's runtimes."""

AlsoSaved = Literal["hex_ai"]
"""Formats that a run writes checkpoints in beside its own."""
