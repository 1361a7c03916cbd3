"""Trainer: turns batches into better weights, and knows nothing of epochs, mini-epochs or files.

Several processes that train together (``process_group``) take the steps of one that sees all their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hexshards.arguments import checked
from hexshards.errors import NonFiniteLoss
from hexshards.loading.batching import usable_device
from hexshards.training.checkpointing.state_fit import check_like, check_optimizer, with_own_flags
from hexshards.training.distributed import ProcessGroup, here
from hexshards.training.options import STEP, StepSpec
from hexshards.training.steps.heads import Head, Target, heads_of, judges_of, scheduled
from hexshards.training.steps.losses import (
    BatchSums,
    Samples,
    Sums,
    answers_by_head,
    counted_weights,
    loss_sums,
    losses,
    metric_sums,
    sound_columns,
    targets_of,
    total,
    wide,
)
from hexshards.training.steps.schedules import Schedule
from hexshards.training.steps.value_range import check_output

LOOK_BATCHES = 32
"""How often a loss on a GPU is looked at: the GPU must be waited for."""


class Trainer:
    """Trainer: an optimizer step per batch on the weighted sum of its heads' losses, as ``spec`` says.

    A state taken between two batches of ``train_on_batches`` holds the sums of that call so far: a trainer
    that loads it continues them in its next call, whose metrics are then those of the whole, bit for bit.

    Where weights of losses or what the value learns follow a schedule, a step's are those at the samples seen before
    it; metrics weigh losses as at its end.

    The model answers as the value what ``spec.value_output`` says; one that is seen to answer another thing, as a
    logit after a tanh, is refused at the first batch with ValueError, unless ``value_weight`` is 0.

    process_group: the processes that train together, by default those of torch.distributed's. Their batches are the
    parts of one: each step, and each metric, is that of all rows, but for batch norm, whose statistics are of a
    process's own rows, and those kept are rank 0's. team: its name in version 0.1.
    """

    @checked
    def __init__(
        self,
        model: nn.Module,
        spec: StepSpec = STEP,
        *,
        device: str | torch.device = "cpu",
        process_group: ProcessGroup | None = None,
        team: ProcessGroup | None = None,
    ) -> None:
        self.spec, self.device = spec, usable_device(device)
        self.process_group = process_group or team or here()
        self.heads, self.judges = heads_of(spec), judges_of(spec)
        self._layout = torch.channels_last if spec.channels_last else torch.preserve_format
        self.model = model.to(self.device).to(memory_format=self._layout)  # type: ignore[call-overload]
        self.optimizer = _optimizer(model, spec)
        self.scheduler = Schedule(self.optimizer, spec)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=spec.precision == "float16")
        self._ddp = _shared(model, self.device) if self.process_group.size > 1 else None
        self._settled = self._ddp is None
        self._net = torch.compile(self._ddp or model) if spec.compile else self._ddp or model
        self.average = _average(model, spec.ema) if spec.ema else None
        self._looked_at = not spec.value_weight
        self._sums = Sums(self.device, self.judges)
        self._newest = _NewestLosses(1 if self.device.type == "cpu" else LOOK_BATCHES)

    def train_on_batches(self, batches: Iterable[Samples]) -> dict[str, float]:
        """Train: a step per batch, finished before the next batch is asked for. Returns means over all samples.

        Metrics, over all processes: samples, policy_samples (rows with a policy target), batches, loss, policy_loss,
        value_loss, learning_rate (of the last step). Where batches have the column ``weight`` or ``policy_weight``,
        weighted_loss, which training minimizes, weighted_policy_loss and so on as well; those without the word count
        all rows alike. Raises NonFiniteLoss, in all processes.
        """
        self.model.train()
        for batch in batches:
            self._step(batch)
        self._newest.look()
        metrics = self.running_metrics()
        self._sums = Sums(self.device, self.judges)
        return metrics | {"learning_rate": float(self.optimizer.param_groups[0]["lr"])}

    def running_metrics(self) -> dict[str, float]:
        """Metrics of ``train_on_batches`` so far, while it is at work."""
        return self._sums.losses()

    @torch.no_grad()
    def validate(self, loader: Iterable[Samples]) -> dict[str, float]:
        """Validate: losses and accuracies over all samples, however they are batched; no weight changes.

        Every process is given the same batches, and they share them. Metrics: those of ``train_on_batches`` less the
        rate, and policy_top1, policy_top5 (over the rows with a policy target; the target move is its row's largest),
        value_accuracy; the same with ``ema_`` before them of the moving average, if one is kept. An accuracy over
        nothing is NaN.
        """
        nets = {"": self.model} if self.average is None else {"": self.model, "ema_": self.average.module}
        for net in nets.values():
            self.process_group.share(net.buffers())
        sums = {name: Sums(self.device, self.judges) for name in nets}
        with _evaluating(self.model):
            for number, batch in enumerate(loader):
                if number % self.process_group.size == self.process_group.rank:
                    sample = self._sample(batch, self.judges)
                    for name, net in nets.items():
                        self._score(net, sample, sums[name])
        return {f"{name}{key}": value for name, each in sums.items() for key, value in self._validation(each).items()}

    @torch.no_grad()
    def answer(self, board_B3SS: Tensor) -> dict[str, Tensor]:
        """Predict: the network's output for each head (B, ...), by its name, as in validation; changes nothing.

        Other than ``validate``, this is for one process alone.
        """
        with _evaluating(self.model):
            return self._answers(self.model, board_B3SS.to(self.device, memory_format=self._layout))

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint: all that the next step depends on, but for torch's random state.

        It fits any number of processes; rank 0's is that of the group. Raises NonFiniteLoss rather than hand out
        weights that are no numbers.
        """
        self._newest.look()
        self._check_weights()
        return self._state()

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "model_state_dict": self.model.state_dict(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scheduler_state_dict": self.scheduler.state_dict(),
            "running_sums": self._sums.by_name(),
        }
        if self.scaler.is_enabled():
            state["scaler_state_dict"] = self.scaler.state_dict()
        if self.average is not None:
            state["ema_state_dict"] = self.average.module.state_dict()
            state["ema_steps"] = int(self.average.n_averaged)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state and go on as if never stopped.

        Raises ValueError for one that another network, optimizer or trainer made, before anything is changed.
        """
        if not isinstance(state, Mapping):
            raise ValueError(f"the trainer's state is no dict, it is of type {type(state).__name__}")
        fresh = self._state()
        check_optimizer(state.get("optimizer_state_dict"), self.optimizer, "optimizer_state_dict")
        # checked for themselves: the sums of an older version may be fewer
        del fresh["optimizer_state_dict"], fresh["running_sums"]
        check_like({name: part for name, part in state.items() if name in fresh}, fresh, "the trainer's state")
        sums = Sums(self.device, self.judges, _sums_by_name(state.get("running_sums")))
        self.model.load_state_dict(state["model_state_dict"])
        self.optimizer.load_state_dict(with_own_flags(state["optimizer_state_dict"], self.optimizer))
        self.scheduler.load_state_dict(state["scheduler_state_dict"])
        self._sums = sums
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler_state_dict"])
        if self.average is not None:
            self.average.module.load_state_dict(state["ema_state_dict"])
            self.average.n_averaged.fill_(state["ema_steps"])

    # --- a step ---

    def _step(self, batch: Samples) -> None:
        if scheduled(self.spec):
            self.heads = heads_of(self.spec, samples=self.scheduler.samples)
        sample = self._sample(batch, self.heads)
        if not self._settled:
            self._settle(sample.board[:1])
        rows = int(self.process_group.sum([len(sample.board)])[0])
        counts = {name: self._count(target, rows) for name, target in sample.targets.items()}
        self.optimizer.zero_grad()
        parts = sample.parts(self.spec.accumulate)
        part_sums = [self._backward(part, counts, last=part is parts[-1]) for part in parts]
        sums = total(part_sums, self.process_group)
        minimized = {head.name: sums.get(head.weighted_name, sums[head.loss_name]) for head in self.heads}
        self._newest.add(self._weighted(minimized, counts))
        self.scheduler.advance(rows)
        self._move_weights()
        self._sums.add_batch(sums)

    def _count(self, target: Target, rows: int) -> int | Tensor:
        """Rows of all processes that have a target, or their weights; 1 where there are none."""
        weight_B = counted_weights(target)
        if weight_B is not None:
            counted = self.process_group.add(weight_B.to(wide(self.device)).sum())
            return counted.where(counted > 0, 1).float()
        return rows if target.known_B is None else self.process_group.add(target.known_B.sum()).clamp(min=1)

    def _backward(self, part: _Sample, counts: Mapping[str, int | Tensor], *, last: bool) -> BatchSums:
        """Add the part's gradients, of its share in the mean over all processes' rows; its sums."""
        with self._alone(unless=last):
            row_losses = losses(self.heads, self._answers(self._net, part.board), part.targets)
            loss = self._weighted({name: each.minimized() for name, each in row_losses.items()}, counts)
            # DistributedDataParallel takes the mean over processes, where the sum is wanted
            self.scaler.scale(loss * self.process_group.size).backward()  # type: ignore[no-untyped-call]
        return loss_sums(self.heads, row_losses)

    def _weighted(self, sums: Mapping[str, Tensor], counts: Mapping[str, int | Tensor]) -> Tensor:
        means = [head.weight * (sums[head.name] / counts[head.name]) for head in self.heads]
        return reduce(add, means)

    def _settle(self, board: Tensor) -> None:
        """Let DistributedDataParallel have its first pass before the first step.

        After its first pass it lays out anew in which order it adds up gradients. A run that goes on would otherwise
        take its first step in another order than the run that never stopped: from three processes on, other bits.
        """
        assert self._ddp is not None
        with _evaluating(self._ddp):  # so that no buffer moves, and nothing is drawn
            answers = self._answers(self._ddp, board)
            reduce(add, [each.sum() for each in answers.values()]).backward()  # type: ignore[no-untyped-call]
        self._settled = True

    def _move_weights(self) -> None:
        if self.spec.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def _alone(self, *, unless: bool) -> AbstractContextManager[None]:
        """Processes exchange gradients once, after a batch's last part."""
        return nullcontext() if unless or self._ddp is None else self._ddp.no_sync()

    # --- what a network answers ---

    def _answers(self, net: Callable[[Tensor], Any], board: Tensor) -> dict[str, Tensor]:
        dtype = getattr(torch, self.spec.precision)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            answer = net(board)
        return answers_by_head(self.heads, answer)

    def _score(self, net: nn.Module, sample: _Sample, sums: Sums) -> None:
        answers = self._answers(net, sample.board)
        batch_sums = loss_sums(self.judges, losses(self.judges, answers, sample.targets))
        sums.add_batch(batch_sums | metric_sums(self.judges, answers, sample.targets))

    def _validation(self, sums: Sums) -> dict[str, float]:
        total = sums.over(self.process_group)
        return total.losses() | total.metrics()

    def _sample(self, batch: Samples, heads: Sequence[Head]) -> _Sample:
        board = batch.board.to(self.device, memory_format=self._layout)
        if not self._looked_at:
            check_output(self.model, board, self.spec.value_output, name=type(self.model).__name__)
            self._looked_at = True
        columns = {name: column.to(self.device) for name, column in sound_columns(batch).items()}
        moved = _Moved(board, batch.policy.to(self.device), batch.value.to(self.device), columns)
        return _Sample(board, targets_of(heads, moved))

    def _check_weights(self) -> None:
        # gradients may be infinite where the loss is not
        norms = torch.stack([weight.detach().norm() for weight in self.model.parameters()])
        if not norms.isfinite().all():
            raise NonFiniteLoss(float("nan"))


RELEASED_SUMS = (
    *("batches", "samples", "policy_samples", "policy_loss", "value_loss"),
    *("policy_top1", "policy_top5", "value_accuracy"),
)
"""Names of the running sums in a checkpoint of version 0.1, where they are a list."""


def _sums_by_name(saved: object) -> dict[str, float]:
    if isinstance(saved, list) and len(saved) == len(RELEASED_SUMS):
        saved = dict(zip(RELEASED_SUMS, saved, strict=True))
    if not isinstance(saved, Mapping):
        raise ValueError("running_sums is no dict of numbers")
    check_like(saved, dict.fromkeys(saved, 0.0), "running_sums")
    return dict(saved)


class _Moved(NamedTuple):
    board: Tensor
    policy: Tensor
    value: Tensor
    columns: dict[str, Tensor]


class _Sample(NamedTuple):
    """A batch on its device, and what it says of each head."""

    board: Tensor
    targets: dict[str, Target]

    def parts(self, count: int) -> list[_Sample]:
        """The rows in so many parts, fewer where there are fewer rows; cut as a loader deals rows to processes."""
        rows, count = len(self.board), min(count, len(self.board))
        cuts = [rows * number // count for number in range(1, count)]
        targets = {name: target.split(cuts) for name, target in self.targets.items()}
        return [
            _Sample(board, {name: each[number] for name, each in targets.items()})
            for number, board in enumerate(self.board.tensor_split(cuts))
        ]


class _NewestLosses:
    """The losses of the newest batches, looked at every so many."""

    def __init__(self, every: int) -> None:
        self._every, self._losses = every, list[Tensor]()

    def add(self, loss: Tensor) -> None:
        self._losses.append(loss)
        if len(self._losses) >= self._every:
            self.look()

    def look(self) -> None:
        """Raise NonFiniteLoss for the first that is infinite or no number."""
        if not self._losses:
            return
        values, self._losses = torch.stack(self._losses), []
        if not values.isfinite().all():
            bad = int(values.isfinite().logical_not().nonzero()[0])
            raise NonFiniteLoss(float(values[bad]), batches_ago=len(values) - 1 - bad)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _optimizer(model: nn.Module, spec: StepSpec) -> torch.optim.Optimizer:
    """Weights decay; biases and norms, which have one dimension, do not."""
    value = _value_head(model, spec)
    groups: list[dict[str, Any]] = []
    for parts, rate, decay in (
        ([p for p in model.parameters() if id(p) not in value], 1.0, 1.0),
        ([*value.values()], spec.value_learning_rate_factor, spec.value_weight_decay_factor),
    ):
        both = ([p for p in parts if p.ndim > 1], decay * spec.weight_decay), ([p for p in parts if p.ndim <= 1], 0.0)
        groups += [
            {"params": params, "weight_decay": decays, "lr": rate * spec.learning_rate}
            for params, decays in both
            if params
        ]
    if spec.optimizer == "sgd":
        nesterov = spec.momentum > 0
        return torch.optim.SGD(groups, lr=spec.learning_rate, momentum=spec.momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=spec.learning_rate)


VALUE_HEADS = ("value", "value_head")
"""What the value head is called, in hexshards' network and in hex_ai's."""


def _value_head(model: nn.Module, spec: StepSpec) -> dict[int, nn.Parameter]:
    """Weights of the value head by identity, where they have a rate or a decay of their own. Raises ValueError."""
    if spec.value_learning_rate_factor == spec.value_weight_decay_factor == 1:
        return {}
    head = {id(part): part for name, part in model.named_parameters() if name.split(".")[0] in VALUE_HEADS}
    if not head:
        names = ", ".join(VALUE_HEADS)
        raise ValueError(
            f"value_learning_rate_factor and value_weight_decay_factor need a part of the network: {names}"
        )
    return head


def _average(model: nn.Module, share: float) -> AveragedModel:
    kept = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(share), use_buffers=True)  # type: ignore[no-untyped-call]
    return kept.eval()


def _shared(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
