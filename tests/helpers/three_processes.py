"""Three processes that train together: run by torchrun, this file is one of them; each writes what it found.

Global batches: rows ``r * B / processes`` and on are those of process r, as hexshards.loader deals them.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from helpers import warm, warm_worker
from helpers.steps import Bare, Batch, Drawing, Spoiled, batch, weights
from hexshards.errors import NonFiniteLoss
from hexshards.training.distributed import ProcessGroup, here, joined
from hexshards.training.options import StepSpec
from hexshards.training.steps.model import TwoHeadedResNet
from hexshards.training.steps.trainer import Trainer

PROCESSES = 3
"""Sums of three numbers depend on their order; of two they do not."""

WHOLE = [batch(seed, rows=10 if seed == 5 else 12, without_policy=5) for seed in range(6)]
"""Global batches: of the first process's rows few have a policy target."""

EVERYTHING: dict[str, Any] = {"precision": "float16", "ema": 0.9, "clip_norm": 0.1, "accumulate": 2}
DEADLINE_S = 240


def torchrun(
    processes: int, *command: str | Path, options: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """What ``torchrun OPTIONS COMMAND`` does, with workers that need not import torch anew."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *options]
    return warm.run(
        [sys.executable, *torchrun, "--", warm_worker.__file__, warm.address(), sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=Path(__file__).parents[1],
        timeout=DEADLINE_S,
    )


def answers_in(folder: Path) -> list[dict[str, Any]]:
    """What each process found, before and after the last of them was killed."""
    ended = torchrun(PROCESSES, __file__, folder)
    assert ended.returncode == 1, ended.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


def made(kind: type[nn.Module], **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = TwoHeadedResNet(channels=2, blocks=1) if kind is TwoHeadedResNet else kind()
    return Trainer(model, StepSpec(**{"warmup_samples": 0, "learning_rate": 1e-2, **options}))


def trained(kind: type[nn.Module], batches: list[Batch], **options: Any) -> dict[str, Any]:
    trainer = made(kind, **options)
    metrics = trainer.train_on_batches(batches)
    return {"train": metrics, "weights": weights(trainer.model), "val": trainer.validate(WHOLE)}


def talk(process_group: ProcessGroup) -> dict[str, Any]:
    flags = [False, process_group.rank == 2, True]
    mine = {"rank": process_group.rank, "word": "Größe" * (process_group.rank + 1), "none": None, "list": [0.1, 2]}
    return {
        "place": [process_group.rank, process_group.size, process_group.local_rank],
        "any": [process_group.any(flag) for flag in flags],
        "sum": process_group.sum([process_group.rank, 0.25, (2.0**53, 2.0, 2.0)[process_group.rank]]),
        "add": process_group.add(torch.tensor([1.0, 10.0 * process_group.rank])).tolist(),
        "same": process_group.same(mine),
        "gather": [part.tolist() for part in process_group.gather(torch.tensor([process_group.rank, 7]))],
    }


def mine(whole: Batch, process_group: ProcessGroup) -> Batch:
    low, high = (len(whole.value) * rank // process_group.size for rank in (process_group.rank, process_group.rank + 1))
    return Batch(*(column[low:high] for column in whole))


def straight_and_gone_on(batches: list[Batch]) -> dict[str, Any]:
    trainer = made(Drawing, **EVERYTHING)
    torch.manual_seed(here().rank)
    trainer.train_on_batches(batches[:3])
    drawn, half = torch.get_rng_state(), io.BytesIO()
    torch.save(trainer.state_dict(), half)
    trainer.validate(WHOLE)
    straight = trainer.train_on_batches(batches[3:]), trainer.validate(WHOLE), weights(trainer.model)
    second = made(Drawing, **EVERYTHING)
    half.seek(0)
    second.load_state_dict(torch.load(half, weights_only=True))
    torch.set_rng_state(drawn)
    gone_on = second.train_on_batches(batches[3:]), second.validate(WHOLE), weights(second.model)
    return {"straight": straight, "gone on": gone_on, "drawn": drawn.tolist()}


def spoiled(batches: list[Batch], process_group: ProcessGroup) -> list[int]:
    """How many batches were asked for, and how many ago the bad one was."""
    if process_group.rank == 1:
        batches[2].board[:, 0, 0, 0] = float("nan")
    asked = 0

    def counted() -> Iterator[Batch]:
        nonlocal asked
        for each in batches:
            asked += 1
            yield each

    try:
        made(Spoiled).train_on_batches(counted())
    except NonFiniteLoss as error:
        return [asked, error.batches_ago]
    raise AssertionError("nothing was told")


def train(process_group: ProcessGroup) -> dict[str, Any]:
    batches = [mine(whole, process_group) for whole in WHOLE]
    return {
        "bare": trained(Bare, batches, optimizer="sgd"),
        "norms": trained(TwoHeadedResNet, batches, optimizer="sgd"),
        **straight_and_gone_on(batches),
        "spoiled": spoiled([Batch(*(column.clone() for column in each)) for each in batches], process_group),
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    # torchrun ends the others with SIGTERM: here the sockets shall tell them
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    path = folder / f"{os.environ['RANK']}.pt"
    answer: dict[str, Any] = {}
    try:
        with joined() as process_group:
            answer = talk(process_group) | train(process_group)
            torch.save(answer, path)
            process_group.any(False)
            if process_group.rank == PROCESSES - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            process_group.any(False)
    except ConnectionError as error:
        torch.save({**answer, "error": str(error)}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
