"""Engines by name: processes of this machine, or a Ray cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from hexshards.conversion.executors.processes import local
from hexshards.conversion.executors.ray_cluster import cluster
from hexshards.conversion.executors.runner import Runner
from hexshards.conversion.options import Engine
from hexshards.errors import escaped


def start(engine: Engine, *, workers: int, folder: Path) -> AbstractContextManager[Runner]:
    """An engine by name; ``folder`` is where its tasks write, and must exist when the engine is entered.

    Raises ValueError for an engine that does not exist or is not installed.
    """
    if engine not in get_args(Engine):
        raise ValueError(f"engine must be one of {get_args(Engine)}, got {escaped(engine)}")
    return local(workers) if engine == "local" else cluster(workers, folder=folder, ray=_import_ray())


def _import_ray() -> Any:
    try:
        return import_module("ray")
    except ModuleNotFoundError:
        raise ValueError("engine ray is not installed. Run: pip install 'hexshards[ray]'") from None
