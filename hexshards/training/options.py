"""Options of training: a network's steps, its mini-epochs, its ends."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from hexshards.arguments import fit_fields
from hexshards.errors import nearest, printable
from hexshards.loading.options import LOADER, Augment, LoaderSpec, OnError
from hexshards.options import about, check_options, option, require
from hexshards.piecewise import named, parsed
from hexshards.storage.options import REMOTE, RemoteSpec
from hexshards.units import duration_s

Optimizer = Literal["adamw", "sgd"]
"""What moves the weights: AdamW, or SGD with Nesterov's momentum."""

Precision = Literal["float32", "bfloat16", "float16"]
"""In what a network computes where torch deems it safe (autocast); weights and losses stay float32."""

Schedule = Literal["constant", "cosine", "step", "one-cycle"]
"""How the learning rate follows the samples seen."""

CONFIG = "config.toml"
"""In a run's folder: every option of it."""

STATES = "datasets"
"""In a run's folder: an index for each state of the dataset that the run has seen, named by its fingerprint."""

VALIDATION = "validation"
"""Name, among these states, of the one that the run validates on."""

HIGHER_IS_BETTER = ("accuracy", "top1", "top5")
"""Endings of the metrics that are better when they are higher; of all others less is better."""

ValueOutput = Literal["logit", "tanh", "probability"]
"""What a network answers as the value, of RED's winning: any number; within -1 to 1; within 0 to 1."""

ValueLoss = Literal["bce", "mse"]
"""Binary cross-entropy, or the squared error of the probability."""

HeadName = Literal["policy", "value", "moves_left", "search_value"]
"""What a network can be trained to answer."""

Grow = Literal["epoch", "mini-epoch"]
"""When a run goes over to a dataset that was added to: where an epoch ends, or where a mini-epoch does."""

MOST_THREADS = 1024
"""A billion end a process without a word."""

NETWORK, OPTIMIZER, SCHEDULE, SPEED = "Network", "Optimizer", "Learning-rate schedule", "Precision and speed"

MINI_EPOCHS, ENDS, KEPT = "Mini-epochs and validation", "When a run ends", "What is kept"
"""Panels of the help of ``hexshards train``."""


def head_names(text: str) -> tuple[str, ...]:
    """The heads that a text names between commas. Raises ValueError for other text."""
    names, there = tuple(name.strip() for name in text.split(",")), get_args(HeadName)
    fits = names[:2] == there[:2] and len({*names}) == len(names) and {*names} <= {*there}
    hint = next(filter(None, (nearest(name, there) for name in names if name not in there)), "")
    wanted = f"heads must be {','.join(there[:2])} and any of {', '.join(there[2:])} behind them"
    require(fits, wanted, f"{printable(text)}{hint}")
    return names


def search_share(text: str) -> float:
    """The share of the search's value in a target such as ``0.7*result+0.3*search``. Raises ValueError."""
    shares = {"result": Fraction(0), "search": Fraction(0)}
    for term in text.replace(" ", "").split("+"):
        match = re.fullmatch(r"(?:([01]|[01]?\.[0-9]{1,6})\*)?(result|search)", term)
        if match:
            shares[match[2]] += Fraction(match[1] or 1)
    whole = sum(shares.values()) == 1 and len(text.split("+")) <= len(shares)
    require(whole, "value_target must be shares that make 1, such as 0.7*result+0.3*search", printable(text))
    return float(shares["search"])


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """Options of an optimizer step: losses, optimizer, learning rate schedule, precision."""

    optimizer: Optimizer = option("adamw", "AdamW, or SGD with Nesterov's momentum.", panel=OPTIMIZER, shapes="weights")
    learning_rate: float = option(1e-3, "Learning rate, after warm-up.", above=0, panel=OPTIMIZER, shapes="weights")
    momentum: float = option(0.9, "Momentum of SGD.", least=0, below=1, panel=OPTIMIZER, shapes="weights")
    weight_decay: float = option(
        1e-4, "Decay of weights; biases and norms do not decay.", least=0, panel=OPTIMIZER, shapes="weights"
    )
    value_learning_rate_factor: float = option(
        1.0,
        "Learning rate of the value head's own weights, as a multiple of the others'.",
        above=0,
        panel=OPTIMIZER,
        shapes="weights",
    )
    value_weight_decay_factor: float = option(
        1.0,
        "Decay of the value head's own weights, as a multiple of the others'.",
        least=0,
        panel=OPTIMIZER,
        shapes="weights",
    )
    clip_norm: float = option(
        0.0, "Gradients longer than this are scaled down to it; 0: none.", least=0, panel=OPTIMIZER, shapes="weights"
    )
    policy_weight: float = option(0.15, "Weight of the policy loss.", least=0, panel=OPTIMIZER, shapes="weights")
    value_weight: float = option(0.85, "Weight of the value loss.", least=0, panel=OPTIMIZER, shapes="weights")
    moves_left_weight: float = option(
        0.1, "Weight of the loss of moves_left, where that is a head.", least=0, panel=OPTIMIZER, shapes="weights"
    )
    search_value_weight: float = option(
        0.3, "Weight of the loss of search_value, where that is a head.", least=0, panel=OPTIMIZER, shapes="weights"
    )
    value_target: str = option(
        "result",
        "What the value learns: who won, or a blend such as 0.7*result+0.3*search; who won where no search said "
        "anything.",
        panel=OPTIMIZER,
        shapes="weights",
    )
    loss_schedule: str = option(
        "",
        "Weights of heads' losses by the samples seen, in place of fixed ones: moves_left=linear 0:0 1M:0.2, "
        "policy=cosine 0:0.5 10M:0.15. Kinds: constant, linear, step, cosine.",
        panel=OPTIMIZER,
        shapes="weights",
    )
    value_target_schedule: str = option(
        "",
        "The search's share of what the value learns, by the samples seen, in place of --value-target: linear 0:0 "
        "10M:0.5.",
        panel=OPTIMIZER,
        shapes="weights",
    )
    value_loss: ValueLoss = option(
        "bce",
        "Cross-entropy with who won, or the squared error of the probability.",
        panel=OPTIMIZER,
        shapes="weights",
    )
    heads: str = option(
        "policy,value",
        "What the network answers, in this order: policy,value, then moves_left (plies to the end), search_value (what "
        "a search said).",
        panel=NETWORK,
        shapes="weights",
    )
    value_output: ValueOutput = option(
        "logit",
        "What the network answers as the value: the logit of RED's winning, any number; tanh: within -1 to 1, as "
        "hex_ai's; probability: within 0 to 1.",
        panel=NETWORK,
        shapes="weights",
    )
    ema: float = option(
        0.0,
        "Keep a moving average of the weights that holds on to this share of itself in each step, such as 0.999, and "
        "validate it too; 0: none.",
        least=0,
        below=1,
        panel=OPTIMIZER,
        shapes="weights",
    )
    schedule: Schedule = option(
        "constant",
        "The learning rate after warm-up. cosine: falls over --schedule-samples; step: falls each --schedule-samples; "
        "one-cycle: rises from 1/25 over 30% of --schedule-samples instead of warm-up, then falls.",
        panel=SCHEDULE,
        shapes="weights",
    )
    warmup_samples: int = option(
        20_000, "The learning rate rises linearly over so many samples.", least=0, panel=SCHEDULE, shapes="weights"
    )
    schedule_samples: int = option(
        0,
        "Samples of all ranks. 0: those that the run is planned for when it begins; extended later, it keeps to them, "
        "and to the rate it fell to.",
        least=0,
        panel=SCHEDULE,
        shapes="weights",
    )
    schedule_factor: float = option(
        0.1,
        "To which share of the learning rate it falls; step: by which, each time.",
        least=0,
        panel=SCHEDULE,
        shapes="weights",
    )
    precision: Precision = option(
        "float32",
        "In what the network computes; weights stay float32. float16 scales the loss, and passes over steps that "
        "overflow.",
        panel=SPEED,
        shapes="weights",
    )
    accumulate: int = option(
        1,
        "A batch goes through the network in so many parts, to need less memory. Gradients are those of the whole "
        "batch; batch norm sees parts.",
        least=1,
        panel=SPEED,
        shapes="rounding",
    )
    compile: bool = option(False, "Compile the network for training (torch.compile).", panel=SPEED, shapes="rounding")
    channels_last: bool | None = option(
        None,
        "Keep planes channels last, the order that a CPU's convolutions and tensor cores like.",
        unset="on for hexshards' network on a CPU, else off; a run goes on as it began",
        panel=SPEED,
        shapes="rounding",
    )

    def __post_init__(self) -> None:
        fit_fields(self)
        check_options(self)
        names, share = head_names(self.heads), search_share(self.value_target)
        unknown = sorted(named(self.loss_schedule, name="loss_schedule").keys() - {*names})
        told = [f"{printable(name)}{nearest(name, names)}" for name in unknown[:1]]
        require(not unknown, f"loss_schedule names what is none of the heads {', '.join(names)}", *told)
        if self.value_target_schedule:
            shares = parsed(self.value_target_schedule, name="value_target_schedule")
            require(shares.most <= 1, "value_target_schedule must be shares, 0 to 1", self.value_target_schedule)
            require(not share, "give value_target or value_target_schedule, not both", self.value_target)
        fitting = self.schedule != "step" or self.schedule_samples > 0
        require(fitting, "schedule step needs schedule_samples, after each of which it falls", self.schedule_samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec(StepSpec):
    """Options of a training run: its data, folder, network, steps and ends.

    Every field made by ``option`` is an option of ``hexshards train`` by the same name.
    """

    data: str | Path = option(
        MISSING, "A dataset made by `hexshards convert`: a folder, or a URL.", offered="python", shapes="nothing"
    )
    run: Path = option(
        MISSING, "Folder of checkpoints and metrics; a run found there goes on.", offered="python", shapes="nothing"
    )
    relative_to: Path | None = option(
        None,
        "Where relative paths begin.",
        unset="the folder that is the current one when the spec is made",
        offered="python",
        recorded=False,
        shapes="nothing",
    )
    mini_epoch_samples: int = option(
        200_000,
        "Samples between two validations; an epoch's last may be fewer.",
        least=1,
        panel=MINI_EPOCHS,
        shapes="records",
    )
    mini_epoch_batches: int | None = option(
        None, "Batches between two validations, in place of samples.", least=1, panel=MINI_EPOCHS, shapes="records"
    )
    cross_epochs: bool = option(
        False, "A mini-epoch may begin in one epoch and end in the next.", panel=MINI_EPOCHS, shapes="records"
    )
    grow: Grow = option(
        "epoch",
        "When files that were added are taken up: at the next epoch; or at the next mini-epoch, which then begins one. "
        "--epochs counts those cut short, and the last is not.",
        panel=MINI_EPOCHS,
        shapes="order",
        later=True,
    )
    samples_per_position: float | None = option(
        None,
        "Wait for positions to be added where the next mini-epoch would take more samples than so many for each "
        "position of the first epoch and each added since, on average: KataGo's train bucket, 4 in its runs.",
        above=0,
        unset="no limit",
        panel=MINI_EPOCHS,
        searched="no",
        shapes="nothing",
        later=True,
    )
    val_every: int = option(
        1,
        "Validate after every so many-th mini-epoch of an epoch, and the last.",
        least=1,
        panel=MINI_EPOCHS,
        shapes="records",
    )
    val_samples: int | None = option(
        None,
        "Validate on at most so many positions, always the same, taken evenly.",
        least=1,
        panel=MINI_EPOCHS,
        shapes="records",
    )
    diagnose: int = option(
        8_192,
        "Validation positions to look into after each validation: by ply, calibration, the hardest; 0: none.",
        least=0,
        panel=MINI_EPOCHS,
        shapes="nothing",
    )
    epochs: int = option(1, "Passes over the data.", least=1, panel=ENDS, shapes="end")
    max_samples: int | None = option(
        None, "End after so many samples, over all starts.", least=1, panel=ENDS, shapes="end"
    )
    max_time: str | None = option(
        None, "End in time, over all starts: 90s, 30m, 12h, 2d or 11h30m.", panel=ENDS, shapes="end"
    )
    patience: int | None = option(
        None, "End after so many mini-epochs without a better one.", least=1, panel=ENDS, shapes="end"
    )
    best_by: str = option(
        "val.loss",
        "What is best, for best.pt and --patience; ..accuracy, ..top1 and ..top5 are better higher.",
        panel=ENDS,
        shapes="records",
        searched="fixed",
    )
    min_improvement: float = option(
        0.0, "By how much a better mini-epoch must be better.", least=0, panel=ENDS, shapes="records"
    )
    keep_last: int | None = option(
        None, "Keep the newest so many checkpoints, and best.pt; else all.", least=1, panel=KEPT, shapes="end"
    )
    keep_every: int | None = option(
        None, "With --keep-last: keep every so many-th as well.", least=1, panel=KEPT, shapes="end"
    )
    batch_size: int = option(256, "Samples in a batch of one process.", least=1, shapes="weights")
    channels: int = option(32, "Width of the network.", least=1, panel=NETWORK, shapes="weights")
    blocks: int = option(4, "Residual blocks of two 3x3 convolutions each.", least=1, panel=NETWORK, shapes="weights")
    dropout: float = option(
        0.0,
        "Share of the tower's planes that each head does without, others each time.",
        least=0,
        below=1,
        panel=NETWORK,
        shapes="weights",
    )
    model: str | None = option(
        None,
        "Your own network, package.module:factory; what the factory returns is taken instead of hexshards' own. Python "
        "looks for it in the current folder too.",
        panel=NETWORK,
        shapes="weights",
    )
    model_args: str = option(
        "",
        "What the factory of --model is called with, as a call has it: resnet18,dropout_prob=0.1.",
        panel=NETWORK,
        shapes="weights",
    )
    init_from: Path | None = option(
        None,
        "Begin with the weights in this checkpoint or state_dict, hex_ai's epoch3_mini4.pt.gz too, and nothing else of "
        "it.",
        panel=NETWORK,
        shapes="weights",
    )
    augment: Augment = option(LOADER.augment, "Symmetries shown; all: four times the samples.", shapes="weights")
    policy_target: str = option(
        str(LOADER.policy),
        "What the policy learns: played, the move that was played; search, the shares of a search's visits; or a "
        "number from 0 (played) to 1 (search) for a mix, or by the samples seen, such as linear 0:0 5M:1.",
        shapes="weights",
    )
    seed: int = option(LOADER.seed, "Seed of weights and order.", least=0, below=1 << 64, shapes="weights")
    num_workers: int = option(LOADER.num_workers, "Processes that read.", least=0, shapes="nothing")
    threads: int | None = option(
        None,
        "Threads a process computes with on the CPU; else as many as the run began with, which were as many as torch "
        "would take and the machine or its container gives.",
        least=1,
        most=MOST_THREADS,
        shapes="rounding",
    )
    streams: int = option(
        LOADER.streams, about(LoaderSpec)["streams"].says, least=1, searched="no", shapes="weights", later=True
    )
    drop_last: bool = option(
        LOADER.drop_last, about(LoaderSpec)["drop_last"].says, searched="no", shapes="weights", later=True
    )
    mix: str = option(
        "", "Datasets to mix in, and their shares of the samples: B=0.2,C=0.1. DIR gives the rest.", shapes="weights"
    )
    mix_schedule: str = option(
        LOADER.mix_schedule,
        "Shares of datasets of --mix by the samples seen, in place of fixed ones: B=linear 0:0.1 5M:0.4.",
        shapes="weights",
    )
    where: str = option(
        LOADER.where,
        "Train only on positions like ply=10..60, plies=30.., tier=1..2, source=games_0*.",
        shapes="weights",
    )
    positions: int | None = option(
        None, "Train on at most so many positions an epoch, taken evenly.", least=1, shapes="weights"
    )
    window: str = option(
        LOADER.window,
        "Train only on the newest positions: 500k; or by KataGo's power law min=250k exponent=0.65 expand=0.4 (scale, "
        "max). keep=100k: so many of them an epoch, others in the next. by=generation: not by additions.",
        unset="all",
        later=True,
        shapes="weights",
    )
    per_game: int | None = option(
        LOADER.per_game,
        "Train on at most so many positions of one game in an epoch, on others in the next.",
        least=1,
        unset="all",
        later=True,
        shapes="weights",
    )
    sources: str = option(
        LOADER.sources,
        "Train only on positions from source files like games_2[0-4]*.",
        unset="all",
        later=True,
        shapes="weights",
    )
    shards: str = option(
        LOADER.shards,
        "Train only on some shards of the split: 40%..50% of them, or those numbered 3..7 from 0 on.",
        unset="all",
        later=True,
        shapes="weights",
    )
    weights: str = option(
        LOADER.weights,
        "How much positions count, by factors such as ply=60..:2,tier=0:0.5, times the dataset's weights.",
        shapes="weights",
    )
    on_error: OnError = option(LOADER.on_error, about(LoaderSpec)["on_error"].says, shapes="nothing")
    cache: Path | None = option(REMOTE.cache, about(RemoteSpec)["cache"].says, shapes="nothing")
    device: str = option(
        "auto", "cpu, cuda, cuda:1, mps; auto: the first there is of cuda, mps and cpu.", shapes="rounding"
    )
    resume: str = option(
        "auto",
        "auto: from the newest good checkpoint in the run's folder; never: from nothing, and only in a folder without "
        "checkpoints; a path: from that checkpoint.",
        searched="no",
        shapes="nothing",
    )

    def __post_init__(self) -> None:
        StepSpec.__post_init__(self)  # super() does not know a class with slots
        if self.relative_to is None:
            object.__setattr__(self, "relative_to", _here())
        require(self.max_time is None or duration_s(self.max_time) > 0, "max_time must be more than 0", self.max_time)
        waits = self.samples_per_position is not None and bool(self.mix)
        require(not waits, "samples_per_position waits for a dataset to grow, which a mix does not: leave out one")
        require(
            not (self.mini_epoch_batches and self.mini_epoch_samples != TRAIN.mini_epoch_samples),
            "give mini_epoch_samples or mini_epoch_batches, not both",
            self.mini_epoch_samples,
        )

    def absolute(self, path: str | Path) -> Path:
        """A path of the spec, wherever this process has gone since."""
        return (self.relative_to or Path.cwd()) / path


def _here() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:  # it was removed, and whose paths are absolute needs none
        return None


STEP = StepSpec()

TRAIN = TrainSpec(data=Path(), run=Path())
"""Defaults of a training run; data and run are always given."""
