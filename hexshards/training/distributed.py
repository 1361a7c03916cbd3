"""Distributed training: the process group through which the processes that train together learn of each other.

Each process of a group calls the same methods in the same order. A group of one talks to nobody.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from hexshards.errors import escaped
from hexshards.loading.rank import grouped, rank_and_size

TIMEOUT_S = 600.0
"""How long a process waits for the others before it gives up: longer than any of them is busy alone, with a checkpoint
on a slow disk for one. Those that died are noticed at once where sockets tell (gloo), and by torchrun."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Process group: the place of this process, ``rank``, among the ``size`` processes that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Its number among those of this machine, and that of the GPU it uses."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in one of the processes: all get the same answer."""
        if self.size == 1:  # asked before every batch
            return flag
        return bool(self._reduced(torch.tensor(int(flag)), distributed.ReduceOp.MAX))

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """The sum over the processes of each number, in float64; the same bits in all."""
        total = self._reduced(torch.tensor(numbers, dtype=torch.float64), distributed.ReduceOp.SUM)
        return [float(number) for number in total]

    def same(self, value: Any) -> Any:
        """Rank 0's value, in all: numbers, text, None, and lists and dicts of these, as JSON keeps them."""
        if self.size == 1:
            return value
        data = bytearray(json.dumps(value).encode())
        length = torch.tensor(len(data))
        distributed.broadcast(length, src=0)
        text = torch.frombuffer(data, dtype=torch.uint8) if self.rank == 0 else torch.empty(int(length)).byte()
        distributed.broadcast(text, src=0)
        return json.loads(bytes(text.tolist()))

    def gather(self, part: Tensor) -> list[Tensor]:
        """Each process's tensor, by rank, in all; of one shape and dtype, on the CPU."""
        if self.size == 1:
            return [part]
        parts = [torch.empty_like(part) for _ in range(self.size)]
        distributed.all_gather(parts, part)
        return parts

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Put rank 0's tensors in the place of everybody's."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def add(self, part: Tensor) -> Tensor:
        """The sum over the processes of a tensor, on its own device; a GPU does not wait for it."""
        return self._reduced(part.clone(), distributed.ReduceOp.SUM) if self.size > 1 else part

    def _reduced(self, tensor: Tensor, operation: Any) -> Tensor:
        if self.size > 1:
            distributed.all_reduce(tensor, op=operation)
        return tensor


def here() -> ProcessGroup:
    """The process group of torch.distributed, where there is one; else this process alone."""
    if not grouped():
        return ProcessGroup()
    return ProcessGroup(*rank_and_size(), local_rank=int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def joined(*, timeout_s: float = TIMEOUT_S) -> Iterator[ProcessGroup]:
    """The process group that torchrun started this process for, while entered; without torchrun, this process alone.

    Gloo carries what is on the CPU, NCCL what is on a GPU. Raises ConnectionError, in place of whatever
    torch.distributed raised, when another process is gone or does not answer for ``timeout_s`` seconds.
    """
    with _told_when_lost():
        if grouped() or rank_and_size()[1] == 1:
            yield here()
            return
        timeout = timedelta(seconds=timeout_s)
        rank, size = rank_and_size()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, store=_store(timeout), rank=rank, world_size=size, timeout=timeout)
        try:
            yield here()
        finally:
            distributed.destroy_process_group()


def _store(timeout: timedelta) -> Any:
    """Rendezvous store, where the processes of one start find each other."""
    from torch.distributed.rendezvous import rendezvous  # missing where torch was built without

    store, _, _ = next(rendezvous("env://", timeout=timeout))
    # torchrun's store outlives the processes that it starts again, and would give them the addresses of the dead
    start = f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    return distributed.PrefixStore(start, store)  # type: ignore[attr-defined]


@contextmanager
def _told_when_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # gloo's errors are plain RuntimeErrors that begin with a file of its own
        if not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise
        rank, size = rank_and_size()
        problem = f"process {rank} of {size} lost another, which ended or did not answer ({error})"
        raise ConnectionError(f"{escaped(problem)}. Look for the first error among their messages") from error
