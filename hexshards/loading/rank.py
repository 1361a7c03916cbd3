"""Rank and world size of this process, as torch.distributed or torchrun's environment say."""

from __future__ import annotations

import os

from torch import distributed


def rank_and_size() -> tuple[int, int]:
    """(rank, size) by torch.distributed, else by torchrun's environment, else (0, 1).

    Raises ValueError where the environment says that there are others, and not which of them this is: all would be the
    first, and see the same samples.
    """
    if grouped():
        return distributed.get_rank(), distributed.get_world_size()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and "RANK" not in os.environ:
        raise ValueError(
            f"WORLD_SIZE is {size} and RANK is not set. Make the loader once the process group is there (with PyTorch "
            "Lightning: in train_dataloader), or give rank and world_size"
        )
    return int(os.environ.get("RANK", "0")), size


def grouped() -> bool:
    """Whether torch.distributed has a process group, which says who this process is."""
    return distributed.is_available() and distributed.is_initialized()
