"""A loader with small windows, and its stream as digests or as rows."""

from __future__ import annotations

import hashlib
from collections import Counter

import torch

from helpers.small_data import rows_of
from hexshards.loading.loader import Loader
from hexshards.loading.options import LoaderSpec


def open_loader(data, *, rank=0, world_size=1, **options):
    spec = LoaderSpec(**{"batch_size": 32, "window_blocks": 3, "group_shards": 2, "seed": 7, **options})
    return Loader(data, spec, rank=rank, world_size=world_size)


def digest(*batches):
    """One batch, or the slices of one batch in the order of their ranks."""
    parts = [torch.cat(columns) for columns in zip(*batches, strict=True)]
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()[:24]


def stream(loader):
    return [digest(batch) for batch in loader]


def all_rows(loader):
    return Counter(row for batch in loader for row in rows_of(batch))
