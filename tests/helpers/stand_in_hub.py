"""A stand-in for the Hugging Face hub's filesystem: fsspec's own in memory, under the protocol hf."""

from __future__ import annotations

from contextlib import contextmanager

from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from hexshards.storage import remote


class Hub(MemoryFileSystem):
    protocol = "hf"
    store: dict = {}  # noqa: RUF012  # the library's own way
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("hf://").strip("/")

    @property
    def files(self):
        return {name.removeprefix("/datasets/"): file.getvalue() for name, file in self.store.items()}


@contextmanager
def hub():
    """The hub while entered, empty."""
    before = _registry.get("hf")
    _registry["hf"] = Hub
    remote._filesystem.cache_clear()
    Hub.store.clear()
    try:
        yield Hub()
    finally:
        remote._filesystem.cache_clear()
        _registry.pop("hf")
        _registry.update({"hf": before} if before else {})
