"""MosaicML Streaming: an MDS record of packed bytes per position, collated and expanded a batch at a time.

The library imports torchvision for its image datasets, which nothing here uses and which would bring a torch of its
own: empty stand-ins take the place of the three names that it asks for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers.feature_extraction_utils  # noqa: F401  # looks for torchvision, so it comes before the stand-ins
from harness.rows import Dense, Resumable, Source, expand, from_bytes, one_after_another
from torch.utils.data import DataLoader


def _stand_in(name: str, *classes: str) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update({each: type(each, (), {}) for each in classes})
    sys.modules[name] = module


_stand_in("torchvision")
_stand_in("torchvision.datasets", "VisionDataset")
_stand_in("torchvision.transforms")
_stand_in("torchvision.transforms.functional", "to_tensor")

import streaming  # noqa: E402

PREDOWNLOAD, HASH = 1 << 24, "xxh64"


def prepare(source: Source, folder: Path) -> int:
    """Uncompressed shards of 64 MiB, the default, and hashes that a download can be compared with."""
    with streaming.MDSWriter(out=str(folder / "mds"), columns={"row": "bytes"}, hashes=[HASH]) as out:
        for row in source.rows:
            out.write({"row": row.tobytes()})
    return len(source.rows)


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> Iterator[Dense]:
    """Batches epoch after epoch."""
    # all is here: threads that only look so far ahead would wake up for every batch
    dataset = streaming.StreamingDataset(
        local=str(folder / "mds"), shuffle=True, batch_size=batch, predownload=PREDOWNLOAD
    )
    loader = DataLoader(
        dataset, batch_size=batch, num_workers=workers, collate_fn=_joined, persistent_workers=workers > 0
    )
    return one_after_another(loader, epochs)


def _joined(samples: list[dict[str, bytes]]) -> Dense:
    return expand(from_bytes([sample["row"] for sample in samples]))


def resumable(folder: Path, *, batch: int, workers: int, rank: int, world_size: int, states: Any) -> Resumable:
    """Its own loader counts what was handed over; rank 0's state is that of all. What it downloads it compares."""
    dataset = streaming.StreamingDataset(
        remote=str(folder / "mds"),
        local=str(folder.parent / "downloaded"),
        validate_hash=HASH,
        shuffle=True,
        batch_size=batch,
        num_canonical_nodes=2,
        shuffle_seed=1,
    )
    loader = streaming.StreamingDataLoader(dataset, batch_size=batch, num_workers=workers, collate_fn=_rows)
    if states:
        loader.load_state_dict(states[0])
    return Resumable(loader, loader.state_dict)


def _rows(samples: list[dict[str, bytes]]) -> torch.Tensor:
    # a tensor, for its loader counts the samples of a batch by what it is
    return torch.from_numpy(from_bytes([sample["row"] for sample in samples]).copy())
