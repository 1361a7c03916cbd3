"""hexshards: Hex training positions in WebDataset shards, streamed shuffled and augmented into PyTorch.

The names below are loaded when they are first used, so that importing the package imports neither torch nor webdataset.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hexshards.conversion.convert import convert as convert
    from hexshards.conversion.options import ConvertSpec as ConvertSpec
    from hexshards.conversion.report import Report as Report
    from hexshards.conversion.trmph_writer import SearchedGame as SearchedGame
    from hexshards.conversion.trmph_writer import write_trmph as write_trmph
    from hexshards.dataset.index import Index as Index
    from hexshards.dataset.index import read_index as read_index
    from hexshards.dataset.verify import verify as verify
    from hexshards.errors import DataError as DataError
    from hexshards.errors import InputRejected as InputRejected
    from hexshards.errors import NonFiniteLoss as NonFiniteLoss
    from hexshards.errors import WorkerDied as WorkerDied
    from hexshards.interop.export import export_network as export_network
    from hexshards.interop.hex_ai_checkpoint import HexAiCheckpoints as HexAiCheckpoints
    from hexshards.interop.hex_ai_metrics import HexAiMetrics as HexAiMetrics
    from hexshards.interop.hex_ai_trainer import HexAiTrainer as HexAiTrainer
    from hexshards.interop.saved_network import Network as Network
    from hexshards.interop.saved_network import load_network as load_network
    from hexshards.loading.expansion.expand import expand as expand
    from hexshards.loading.loader import Batch as Batch
    from hexshards.loading.loader import Loader as Loader
    from hexshards.loading.loader import loader as loader
    from hexshards.loading.options import LoaderSpec as LoaderSpec
    from hexshards.loading.webdataset_pipeline import decode_column as decode_column
    from hexshards.loading.webdataset_pipeline import pipeline as pipeline
    from hexshards.publishing.publish import Publication as Publication
    from hexshards.publishing.publish import publish as publish
    from hexshards.reports.evaluation import Evaluation as Evaluation
    from hexshards.reports.evaluation import evaluate as evaluate
    from hexshards.sweeps.sweep import sweep as sweep
    from hexshards.training.options import StepSpec as StepSpec
    from hexshards.training.options import TrainSpec as TrainSpec
    from hexshards.training.orchestrator import MiniEpochOrchestrator as MiniEpochOrchestrator
    from hexshards.training.run import train as train
    from hexshards.training.settings import RunSettings as RunSettings
    from hexshards.training.steps.model import TwoHeadedResNet as TwoHeadedResNet
    from hexshards.training.steps.trainer import Trainer as Trainer
    from hexshards.training.tracking.hooks import Event as Event
    from hexshards.training.tracking.hooks import Hook as Hook
    from hexshards.training.tracking.hooks import MiniEpochBegun as MiniEpochBegun
    from hexshards.training.tracking.hooks import MiniEpochTrained as MiniEpochTrained
    from hexshards.training.tracking.hooks import Noticed as Noticed
    from hexshards.training.tracking.hooks import Progressed as Progressed
    from hexshards.training.tracking.hooks import RunEnded as RunEnded
    from hexshards.training.tracking.hooks import RunStarted as RunStarted
    from hexshards.training.tracking.hooks import Saved as Saved
    from hexshards.training.tracking.hooks import Validated as Validated
    from hexshards.training.tracking.hooks import Validating as Validating

_HOMES = {
    "Batch": "loading.loader",
    "ConvertSpec": "conversion.options",
    "DataError": "errors",
    "Evaluation": "reports.evaluation",
    "Event": "training.tracking.hooks",
    "HexAiCheckpoints": "interop.hex_ai_checkpoint",
    "HexAiMetrics": "interop.hex_ai_metrics",
    "HexAiTrainer": "interop.hex_ai_trainer",
    "Hook": "training.tracking.hooks",
    "Index": "dataset.index",
    "InputRejected": "errors",
    "Loader": "loading.loader",
    "LoaderSpec": "loading.options",
    "MiniEpochBegun": "training.tracking.hooks",
    "MiniEpochOrchestrator": "training.orchestrator",
    "MiniEpochTrained": "training.tracking.hooks",
    "NonFiniteLoss": "errors",
    "Noticed": "training.tracking.hooks",
    "Progressed": "training.tracking.hooks",
    "Publication": "publishing.publish",
    "Report": "conversion.report",
    "RunEnded": "training.tracking.hooks",
    "RunSettings": "training.settings",
    "RunStarted": "training.tracking.hooks",
    "Saved": "training.tracking.hooks",
    "SearchedGame": "conversion.trmph_writer",
    "StepSpec": "training.options",
    "TrainSpec": "training.options",
    "Trainer": "training.steps.trainer",
    "TwoHeadedResNet": "training.steps.model",
    "Validated": "training.tracking.hooks",
    "Validating": "training.tracking.hooks",
    "WorkerDied": "errors",
    "Network": "interop.saved_network",
    "convert": "conversion.convert",
    "decode_column": "loading.webdataset_pipeline",
    "evaluate": "reports.evaluation",
    "expand": "loading.expansion.expand",
    "export_network": "interop.export",
    "load_network": "interop.saved_network",
    "loader": "loading.loader",
    "pipeline": "loading.webdataset_pipeline",
    "publish": "publishing.publish",
    "read_index": "dataset.index",
    "sweep": "sweeps.sweep",
    "train": "training.run",
    "verify": "dataset.verify",
    "write_trmph": "conversion.trmph_writer",
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
