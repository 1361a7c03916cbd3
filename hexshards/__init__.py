"""hexshards: Hex training positions in WebDataset shards, streamed shuffled and augmented into PyTorch.

The names below are loaded when they are first used, so that importing the package imports neither torch nor webdataset.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hexshards.batches import Batch as Batch
    from hexshards.batches import Loader as Loader
    from hexshards.batches import loader as loader
    from hexshards.conversion import Report as Report
    from hexshards.conversion import convert as convert
    from hexshards.errors import DataError as DataError
    from hexshards.errors import InputRejected as InputRejected
    from hexshards.hooks import Hook as Hook
    from hexshards.index import Index as Index
    from hexshards.index import read_index as read_index
    from hexshards.model import TwoHeadedResNet as TwoHeadedResNet
    from hexshards.orchestrator import MiniEpochOrchestrator as MiniEpochOrchestrator
    from hexshards.runs import train as train
    from hexshards.settings import RunSettings as RunSettings
    from hexshards.specs import ConvertSpec as ConvertSpec
    from hexshards.specs import LoaderSpec as LoaderSpec
    from hexshards.specs import TrainSpec as TrainSpec
    from hexshards.sweeps import sweep as sweep
    from hexshards.trainer import Trainer as Trainer
    from hexshards.verification import verify as verify
    from hexshards.wds import decode_column as decode_column
    from hexshards.wds import pipeline as pipeline

_HOMES = {
    "Batch": "batches",
    "ConvertSpec": "specs",
    "DataError": "errors",
    "Hook": "hooks",
    "Index": "index",
    "InputRejected": "errors",
    "Loader": "batches",
    "LoaderSpec": "specs",
    "MiniEpochOrchestrator": "orchestrator",
    "Report": "conversion",
    "RunSettings": "settings",
    "TrainSpec": "specs",
    "Trainer": "trainer",
    "TwoHeadedResNet": "model",
    "convert": "conversion",
    "decode_column": "wds",
    "loader": "batches",
    "pipeline": "wds",
    "read_index": "index",
    "sweep": "sweeps",
    "train": "runs",
    "verify": "verification",
}

_HERE = os.path.dirname(__file__)
if not os.path.isdir(os.path.join(_HERE, "converters")):
    # in a checkout converters/ stands beside the package: Python started there takes this folder for the package, also
    # where a wheel is installed, and would find none
    __path__.append(os.path.dirname(_HERE))

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'hexshards' has no attribute {name!r}")
    return getattr(import_module(f"hexshards.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
