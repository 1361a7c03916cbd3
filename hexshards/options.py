"""Every default, once. Specs are frozen and checked when made; nothing here imports more than the standard library."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypedDict

from hexshards.arguments import fit_fields
from hexshards.errors import without_secrets

Augment = Literal["none", "random", "cycle", "all"]
"""Which symmetry a sample shows: none of them; one of four drawn per position and epoch; four taken in turn, one an
epoch; all four in one epoch."""

Codec = Literal["zstd", "none"]
"""How a column is stored in a shard: ``.npy.zst`` or plain ``.npy``."""

Dedupe = Literal["none", "games", "positions", "symmetric"]
"""What is kept once: nothing; each game, by however many files it comes; or equal positions of all games, merged into
one (positions), also those that are equal when turned by 180 degrees (symmetric)."""

Engine = Literal["local", "ray"]
"""Where a conversion's tasks run: in processes of this machine, or on a Ray cluster. The shards do not depend on it."""

Format = Literal["processed", "trmph"]
"""How random games are written: ``*_processed.pkl.gz`` (every position) or ``.trmph`` (one game a line)."""

OnError = Literal["raise", "skip"]
"""What a loader does where it finds a damaged block: stop with an error, or deliver other rows of the window instead,
so that the number of batches stays what the index says."""

Optimizer = Literal["adamw", "sgd"]
"""What moves the weights: AdamW, or SGD with Nesterov's momentum."""

Precision = Literal["float32", "bfloat16", "float16"]
"""In what a network computes where torch deems it safe (autocast); weights and losses stay float32."""

Schedule = Literal["constant", "cosine", "step", "one-cycle"]
"""How the learning rate follows the samples seen."""

Selector = Literal["all", "final", "penultimate"]
"""Which positions of a game of M moves are taken: plies 0 to M; ply M; ply M - 1. For files of whole games."""

V1Value = Literal["check", "as-is", "inverted"]
"""How a first-generation file's values are taken: 1.0 where RED won (as-is), or where BLUE won (inverted)."""

Unfinished = Literal["reject", "keep"]
"""What becomes of a game in which nobody connected: reject it, or trust the result that is written beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSpec:
    """How source files become a dataset. The shards are a function of these fields and of the files' contents."""

    val_fraction: float = 0.02
    """Share of the games, chosen by a stable hash of each, that go to the split ``val``."""
    seed: int = 0
    """Seed of the global shuffle. The split does not depend on it."""
    shard_positions: int = 262_144
    """Positions in a shard, the last of a split excepted: 6 MB at 23 bytes each."""
    block_positions: int = 8_192
    """Positions in a block, the last of a shard excepted. At 4,096 a position costs 2 bytes more (tar and zstd)."""
    codec: Codec = "zstd"
    """zstd, or none for shards that stock WebDataset decodes without a handler (4 times larger)."""
    positions: Selector = "all"
    unfinished: Unfinished = "reject"
    v1_value: V1Value = "check"
    """For files of the first generation: compare each with its terminal boards, or trust as-is or inverted values."""
    keep_duplicates: bool = False
    """Keep exact repeats of a game, also turned by 180 degrees, where whole games are read."""
    bake_symmetries: bool = False
    """Write every position in each of its four symmetries, for readers that cannot augment: four times the data."""
    dedupe: Dedupe = "none"
    """Keep a game once however it comes; or merge equal positions of a split into one with the mean value, the mean
    policy and a count."""

    def __post_init__(self) -> None:
        fit_fields(self)
        _require(0.0 <= self.val_fraction <= 1.0, "val_fraction must be 0 to 1", self.val_fraction)
        _require(self.seed >= 0, "seed must not be negative", self.seed)
        # a window of 16 full blocks must stay below the 16.8 million rows that order.permutation takes
        _require(1 <= self.block_positions <= 1 << 19, "block_positions must be 1 to 524,288", self.block_positions)
        _require(
            self.shard_positions >= 1 and self.shard_positions % self.block_positions == 0,
            f"shard_positions must be a multiple of block_positions ({self.block_positions})",
            self.shard_positions,
        )
        _require(
            not (self.keep_duplicates and self.dedupe == "games"),
            "keep_duplicates keeps what dedupe games leaves out: give one of them, keep_duplicates",
            self.keep_duplicates,
        )

    @property
    def merges(self) -> bool:
        """Whether equal positions become one."""
        return self.dedupe in ("positions", "symmetric")


class ConvertOptions(TypedDict, total=False):
    """The fields of ConvertSpec as keyword arguments, those that are given."""

    val_fraction: float
    seed: int
    shard_positions: int
    block_positions: int
    codec: Codec
    positions: Selector
    unfinished: Unfinished
    v1_value: V1Value
    keep_duplicates: bool
    bake_symmetries: bool
    dedupe: Dedupe


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSpec:
    """What a loader delivers and in which order; with the dataset and the epoch it determines every batch."""

    split: str = "train"
    batch_size: int = 1024
    """Samples in a batch of one rank. The global batch is batch_size * world_size."""
    shuffle: bool = True
    """Off: the dataset's own order, which conversion made random once."""
    augment: Augment = "random"
    seed: int = 0
    drop_last: bool = False
    """Leave out an epoch's last global batch when it is not full."""
    num_workers: int = 0
    """Processes that read and permute windows. The order of the samples never depends on it."""
    on_error: OnError = "raise"
    window_blocks: int = 16
    """Blocks mixed together: 131,072 positions, 6.6 MB packed."""
    group_shards: int = 8
    """Shards walked at a time, so that few remote shards need to be at hand."""
    where: str = ""
    """Conditions that a position must meet to be used, such as ``"ply=10..60, tier=1..2, source=games_0*"``."""
    positions: int | None = None
    """At most so many positions are used in an epoch, evenly taken from all shards, the same in every epoch."""

    def __post_init__(self) -> None:
        fit_fields(self)
        _require(self.positions is None or self.positions >= 1, "positions must be at least 1", self.positions)
        _require(self.batch_size >= 1, "batch_size must be at least 1", self.batch_size)
        _require(self.seed >= 0, "seed must not be negative", self.seed)
        _require(self.num_workers >= 0, "num_workers must not be negative", self.num_workers)
        _require(self.window_blocks >= 1, "window_blocks must be at least 1", self.window_blocks)
        _require(self.group_shards >= 1, "group_shards must be at least 1", self.group_shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSpec:
    """How the files of a dataset come down from a URL."""

    cache: Path | None = None
    """Folder they come down to; None: ``hexshards`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    cache_bytes: int = 50 << 30
    """What the cache may hold: 2 billion positions at 23 bytes each."""
    chunk_bytes: int = 4 << 20
    """What one request asks for, and what a kill loses at most."""
    stall_s: float = 60
    """A request that takes longer has failed: 70 kB/s."""
    give_up_s: float = 300
    """Time after which a file that can't be fetched is an error; a request that is under way is waited for."""
    first_wait_s: float = 0.5
    """Wait after the first failure; each further one doubles it, up to 30 s."""
    threads: int = 4
    """Files fetched at once, ahead of their use."""

    def __post_init__(self) -> None:
        fit_fields(self)
        for name in ("cache_bytes", "chunk_bytes", "threads"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        for name in ("stall_s", "give_up_s", "first_wait_s"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative", getattr(self, name))


def option(
    default: Any,
    says: str,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    panel: str | None = None,
) -> Any:
    """A field that is an option of the command line as well: its help, its bounds, and the panel of ``--help``."""
    bounds = {"least": least, "above": above, "below": below}
    return field(default=default, metadata={"says": says, "panel": panel, **bounds})


MOST_THREADS = 1024
"""A billion end a process without a word."""

NETWORK, OPTIMIZER, SCHEDULE, SPEED = "Network", "Optimizer", "Learning-rate schedule", "Precision and speed"
PACE, ENDS, KEPT = "Mini-epochs and validation", "When a run ends", "What is kept"
"""Panels of the help of ``hexshards train``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """How a batch changes the weights."""

    optimizer: Optimizer = option("adamw", "AdamW, or SGD with Nesterov's momentum.", panel=OPTIMIZER)
    learning_rate: float = option(1e-3, "Learning rate, after warm-up.", above=0, panel=OPTIMIZER)
    momentum: float = option(0.9, "Momentum of SGD.", least=0, below=1, panel=OPTIMIZER)
    weight_decay: float = option(1e-4, "Decay of weights; biases and norms do not decay.", least=0, panel=OPTIMIZER)
    clip_norm: float = option(
        0.0, "Gradients longer than this are scaled down to it; 0: none.", least=0, panel=OPTIMIZER
    )
    policy_weight: float = option(0.15, "Weight of the policy loss.", least=0, panel=OPTIMIZER)
    value_weight: float = option(0.85, "Weight of the value loss.", least=0, panel=OPTIMIZER)
    ema: float = option(
        0.0,
        "Keep a moving average of the weights that holds on to this share of itself in each step, such as 0.999, and "
        "validate it too; 0: none.",
        least=0,
        below=1,
        panel=OPTIMIZER,
    )
    schedule: Schedule = option(
        "constant",
        "The learning rate after warm-up. cosine: falls over --schedule-samples; step: falls each --schedule-samples; "
        "one-cycle: rises from 1/25 over 30% of --schedule-samples instead of warm-up, then falls.",
        panel=SCHEDULE,
    )
    warmup_samples: int = option(
        20_000, "The learning rate rises linearly over so many samples.", least=0, panel=SCHEDULE
    )
    schedule_samples: int = option(
        0,
        "Samples of all ranks. 0: those that the run is planned for when it begins; extended later, it keeps to them, "
        "and to the rate it fell to.",
        least=0,
        panel=SCHEDULE,
    )
    schedule_factor: float = option(
        0.1, "To which share of the learning rate it falls; step: by which, each time.", least=0, panel=SCHEDULE
    )
    precision: Precision = option(
        "float32",
        "In what the network computes; weights stay float32. float16 scales the loss, and passes over steps that "
        "overflow.",
        panel=SPEED,
    )
    accumulate: int = option(
        1,
        "A batch goes through the network in so many parts, to need less memory. Gradients are those of the whole "
        "batch; batch norm sees parts.",
        least=1,
        panel=SPEED,
    )
    compile: bool = option(False, "Compile the network for training (torch.compile).", panel=SPEED)
    channels_last: bool = option(False, "Keep planes in the order that tensor cores like.", panel=SPEED)

    def __post_init__(self) -> None:
        fit_fields(self)
        _check_options(self)
        fitting = self.schedule != "step" or self.schedule_samples > 0
        _require(fitting, "schedule step needs schedule_samples, after each of which it falls", self.schedule_samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec(StepSpec):
    """One training run: its data, its folder, its model and its schedule.

    Every field made by ``option`` is an option of ``hexshards train`` by the same name.
    """

    data: str | Path
    run: Path
    relative_to: Path | None = None
    """Where relative paths begin; None: in the folder that is the current one when the spec is made."""
    mini_epoch_samples: int = option(
        200_000, "Samples between two validations; an epoch's last may be fewer.", least=1, panel=PACE
    )
    mini_epoch_batches: int | None = option(
        None, "Batches between two validations, in place of samples.", least=1, panel=PACE
    )
    cross_epochs: bool = option(False, "A mini-epoch may begin in one epoch and end in the next.", panel=PACE)
    val_every: int = option(
        1, "Validate after every so many-th mini-epoch of an epoch, and the last.", least=1, panel=PACE
    )
    val_samples: int | None = option(
        None, "Validate on at most so many positions, always the same, taken evenly.", least=1, panel=PACE
    )
    diagnose: int = option(
        8_192,
        "Validation positions to look into after each validation: by ply, calibration, the hardest; 0: none.",
        least=0,
        panel=PACE,
    )
    epochs: int = option(1, "Passes over the data.", least=1, panel=ENDS)
    max_samples: int | None = option(None, "End after so many samples, over all starts.", least=1, panel=ENDS)
    max_time: str | None = option(None, "End in time, over all starts: 90s, 30m, 12h, 2d or 11h30m.", panel=ENDS)
    patience: int | None = option(None, "End after so many mini-epochs without a better one.", least=1, panel=ENDS)
    best_by: str = option(
        "val.loss",
        "What is best, for best.pt and --patience; ..accuracy, ..top1 and ..top5 are better higher.",
        panel=ENDS,
    )
    min_improvement: float = option(0.0, "By how much a better mini-epoch must be better.", least=0, panel=ENDS)
    keep_last: int | None = option(
        None, "Keep the newest so many checkpoints, and best.pt; else all.", least=1, panel=KEPT
    )
    keep_every: int | None = option(None, "With --keep-last: keep every so many-th as well.", least=1, panel=KEPT)
    batch_size: int = option(256, "Samples in a batch of one process.", least=1)
    channels: int = option(32, "Width of the network.", least=1, panel=NETWORK)
    blocks: int = option(4, "Residual blocks of two 3x3 convolutions each.", least=1, panel=NETWORK)
    model: str | None = option(
        None,
        "Your own network, package.module:factory; what the factory returns is trained instead. Python looks for it "
        "in the current folder too.",
        panel=NETWORK,
    )
    init_from: Path | None = option(
        None, "Begin with the weights in this checkpoint or state_dict, and nothing else of it.", panel=NETWORK
    )
    augment: Augment = option("random", "Symmetries shown; all: four times the samples.")
    seed: int = option(0, "Seed of weights and order.", least=0, below=1 << 64)
    num_workers: int = option(0, "Processes that read.", least=0)
    threads: int | None = option(
        None,
        "Threads a process computes with on the CPU; else as many as the run began with, which were as many as torch "
        "would take and the machine or its container gives.",
        least=1,
        below=MOST_THREADS + 1,
    )
    mix: str = option("", "Datasets to mix in, and their shares of the samples: B=0.2,C=0.1. DIR gives the rest.")
    where: str = option("", "Train only on positions like ply=10..60, plies=30.., tier=1..2, source=games_0*.")
    positions: int | None = option(None, "Train on at most so many positions an epoch, taken evenly.", least=1)
    on_error: OnError = option("raise", "At a damaged block: stop, or show other positions in its place and count.")
    cache: Path | None = option(
        None, "Folder that shards of a URL come down to, else hexshards in $XDG_CACHE_HOME or ~/.cache."
    )
    device: str = option("auto", "cpu, cuda, cuda:1, mps; auto: cuda where there is one, else cpu.")
    resume: str = option(
        "auto",
        "auto: from the newest good checkpoint in the run's folder; never: from nothing, and only in a folder without "
        "checkpoints; a path: from that checkpoint.",
    )

    def __post_init__(self) -> None:
        StepSpec.__post_init__(self)  # super() does not know a class with slots
        if self.relative_to is None:
            object.__setattr__(self, "relative_to", _here())
        _require(self.max_time is None or duration_s(self.max_time) > 0, "max_time must be more than 0", self.max_time)
        _require(
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthSpec:
    """Random games and their files. The files are a function of these fields."""

    games: int = 2_000
    """305,000 positions with side 13."""
    format: Format = "processed"
    side: int = 13
    seed: int = 0
    games_per_file: int = 500
    """76,000 positions, held at once: 0.5 GB with side 13."""

    def __post_init__(self) -> None:
        fit_fields(self)
        for name in ("games", "games_per_file"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        _require(self.seed >= 0, "seed must not be negative", self.seed)


def duration_s(text: str) -> float:
    """Seconds of a time like 90s, 30m, 12h, 2d or 11h30m. Raises ValueError for anything else."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"a time is written like 90s, 30m, 12h, 2d or 11h30m, got {text}")
    return sum(float(number) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[unit] for number, unit in parts)


def plain(spec: ConvertSpec | LoaderSpec | TrainSpec) -> dict[str, int | float | str | bool]:
    """A spec as a dict that JSON and ``torch.load(weights_only=True)`` take.

    Paths are text, as they were given, and URLs are without secrets.
    """
    named = {name: value for name, value in asdict(spec).items() if name != "relative_to"}
    texts = {name: str(value) for name, value in named.items() if isinstance(value, (str, Path))}
    return {**named, **{name: without_secrets(text) for name, text in texts.items()}}


def changed(options: ConvertOptions) -> ConvertOptions:
    """The options that are not the defaults."""
    given = {name: value for name, value in options.items() if value != getattr(CONVERT, name)}
    return given  # type: ignore[return-value]  # some of the same keys


def _check_options(spec: StepSpec) -> None:
    for each in fields(spec):
        if each.metadata:
            check_option(type(spec), each.name, getattr(spec, each.name))


def check_option(spec: type[StepSpec], name: str, value: Any) -> None:
    """Raise ValueError where a value is beyond the bounds of an option. None is not looked at."""
    if value is None:
        return
    bounds = next(each.metadata for each in fields(spec) if each.name == name)
    least, above, below = bounds["least"], bounds["above"], bounds["below"]
    _require(not isinstance(value, float) or math.isfinite(value), f"{name} must be finite", value)
    _require(least is None or value >= least, f"{name} must be at least {least}", value)
    _require(above is None or value > above, f"{name} must be more than {above}", value)
    _require(below is None or value < below, f"{name} must be less than {below}", value)


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{rule}, got {value}")


CONVERT = ConvertSpec()
MEMORY = "1GiB"
"""What a conversion may hold in memory, over all its processes."""
LOADER = LoaderSpec()
REMOTE = RemoteSpec()
STEP = StepSpec()
SYNTH = SynthSpec()
TRAIN = TrainSpec(data=Path(), run=Path())
"""Defaults of a training run; data and run are always given."""
