"""The examples run as they stand: hooks against stand-ins of the services they name, the notebook in a kernel."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.small_runs import WHOLE, train

EXAMPLES = Path(__file__).parents[2] / "examples"


class Service(ModuleType):
    """Stands in for wandb or mlflow: keeps what it is called with."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))

    def named(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


@pytest.fixture
def example(monkeypatch):
    """An example by its name, as a module, and the stand-in of the service that it imports."""

    def opened(name: str) -> tuple[ModuleType, Service]:
        service = Service(name.removesuffix("_hook"))
        monkeypatch.setitem(sys.modules, service.__name__, service)
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module, service

    return opened


def test_the_hook_for_weights_and_biases_logs_each_mini_epoch_once_and_finishes(example, tmp_path):
    module, wandb = example("wandb_hook")
    train(tmp_path / "run", hooks=[module.to_wandb])
    ((_, begun),) = wandb.named("init")
    assert begun["id"] == "run" and begun["resume"] == "allow"
    logged = wandb.named("log")
    assert [kwargs["step"] for _, kwargs in logged] == [12, 24, 26, 38, 50, 52]
    assert all("train/loss" in args[0] and "val/loss" in args[0] for args, _ in logged)
    assert wandb.calls[-1][0] == "finish"


def test_the_hook_for_mlflow_logs_options_numbers_and_the_best_checkpoint(example, tmp_path):
    module, mlflow = example("mlflow_hook")
    train(tmp_path / "run", hooks=[module.to_mlflow])
    assert mlflow.calls[0] == ("start_run", (), {"run_name": "run"}) and mlflow.calls[1][0] == "log_params"
    logged = mlflow.named("log_metrics")
    assert len(logged) == 2 * len(WHOLE) and {"train.loss", "val.loss"} <= {
        name for args, _ in logged for name in args[0]
    }
    assert mlflow.named("log_artifact") == [((str(tmp_path / "run" / "best.pt"),), {})]
    assert mlflow.calls[-1][0] == "end_run"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_notebook_runs_from_its_first_cell_to_its_last(monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(EXAMPLES / "first_look.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    nbclient.NotebookClient(notebook, timeout=280, kernel_name="python3").execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code[1:])
