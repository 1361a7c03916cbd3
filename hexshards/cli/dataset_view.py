"""What a person sees of a dataset: counts, how it mixes, how fast it loads, what leaks, and boards as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hexshards.errors import escaped, printable
from hexshards.units import counted, show_number

if TYPE_CHECKING:
    from hexshards.dataset import leakage
    from hexshards.dataset.index import Index, InputFile, Split
    from hexshards.game.positions import Positions
    from hexshards.loading import shuffle_quality
    from hexshards.reports import throughput

_GAMELESS = "does not say which game it is from/do not say which game they are from"

LEAKAGE_PLIES = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)
"""Numbers of stones at which a line of the table of leaked positions begins."""


def info_text(index: Index, *, folder: str, drawn: Mapping[str, Any] | None = None) -> str:
    """A dataset at a glance, and what an epoch would draw of it."""
    shards = [shard for split in index.splits.values() for shard in split.shards]
    positions = sum(shard.positions for shard in shards)
    size = sum(shard.size_bytes for shard in shards)
    lines = [
        f"{escaped(folder)}: {counted(positions, 'position')}, side {index.side}, {counted(len(shards), 'shard')}, "
        f"{counted(size, 'byte')}, {size / positions:.1f} per position, codec {index.layout.codec}"
    ]
    for name, split in index.splits.items():
        played = [ply for ply, count in enumerate(split.plies) if count]
        mean = sum(ply * count for ply, count in enumerate(split.plies)) / split.positions
        lines.append(
            f"{name:<6} {split_counts(split)} · BLUE wins "
            f"{split.blue_wins / split.positions:.1%}, RED {split.red_wins / split.positions:.1%} · plies "
            f"{played[0]} to {played[-1]}, mean {mean:.1f} · {split.without_policy:,} without policy"
        )
    lines += game_warning(index)
    lines.append(
        "options " + ", ".join(f"{printable(name)} {printable(value)}" for name, value in index.options.items())
    )
    lines.append(f"made from {counted(len(index.inputs), 'file')}:")
    lines += file_lines(index.inputs)
    lines.append(f"fingerprint {index.fingerprint}")
    if drawn:
        lines.append(f"an epoch draws {counted(drawn['positions'], 'position')} of train")
        lines += map(escaped, drawn["chosen"])
    return "\n".join(lines)


def file_lines(files: Sequence[InputFile], *, most: int | None = None) -> list[str]:
    """Source files, a line each, and what was kept of them; what is said of all of them stands once, below."""
    said = [_besides(file) for file in files]
    # of one file it stands in its line
    of_all = [text for text in said[0] if all(text in each for each in said)] if len(files) > 1 else []
    lines = [
        " · ".join([f"  {printable(file.name)}", _kept(file), *(text for text in texts if text not in of_all)])
        for file, texts in zip(files[:most], said, strict=False)
    ]
    if rest := len(files) - len(lines):
        lines.append(f"  and {counted(rest, 'more file')}: `hexshards info` lists them all")
    return lines + ([" · ".join([f"  all {counted(len(files), 'file')}", *of_all])] if of_all else [])


def _kept(file: InputFile) -> str:
    # what is rejected of game records are lines, each of many positions: the two make no sum
    return f"{counted(file.positions, 'position')} kept, {file.rejected:,} rejected"


def _besides(file: InputFile) -> list[str]:
    """What was corrected in a file, and what its head says."""
    said = ", ".join(f"{fact} {text}" for fact, text in file.headers.items())
    return [printable(text, width=300) for text in (file.notes, said) if text]


def split_counts(split: Split) -> str:
    """Positions and games of a split."""
    return f"{counted(split.positions, 'position', width=12)} {counted(split.games, 'game', width=10)}"


def game_warning(index: Index) -> list[str]:
    """A warning when some positions do not say which game they are from."""
    lost = sum(file.without_game for file in index.inputs)
    if not lost:
        return []
    return [
        f"warning: {counted(lost, 'position', verb=_GAMELESS)}. "
        f"{'It was' if lost == 1 else 'They were'} split by source file, so where "
        "files share games, validation positions may come from games that are also in training"
    ]


def mixing_text(mixing: shuffle_quality.Mixing) -> str:
    """What was measured, beside what a uniform shuffle gives, and a verdict."""
    from hexshards.cli.display import table
    from hexshards.loading.shuffle_quality import SUSPECT

    of = f" of the split's {mixing.held:,}" if mixing.positions < mixing.held else ""
    batches = f"{counted(mixing.batches, 'batch')} of {mixing.batch_size:,}"
    rows = [("", "measured", "uniform", "sd"), *map(_mixing_row, mixing.measures)]
    lines = [f"{batches}, of {counted(mixing.positions, 'position')}{of}", *map(escaped, mixing.chosen), *table(rows)]
    if mixing.without_game:
        lines.append(f"{counted(mixing.without_game, 'position', verb=_GAMELESS)}: no pairs of these")
    lines.append(f"sd: standard deviations above a uniform shuffle; above {SUSPECT:g} it is no chance")
    if any(measure.less for measure in mixing.measures):
        lines.append("less: than chance gives, which is good")
    lines.append(_mixing_verdict(mixing))
    return "\n".join(lines)


def _mixing_row(measure: shuffle_quality.Measure) -> tuple[str, ...]:
    judged = "" if measure.deviations is None else "less" if measure.less else f"{measure.deviations:+.1f}"
    return measure.name, show_number(measure.measured), show_number(measure.uniform), judged


def _mixing_verdict(mixing: shuffle_quality.Mixing) -> str:
    from hexshards.loading.shuffle_quality import HARM

    if worst := mixing.worst:
        beyond = f"beyond chance: {worst.name}, at worst as if batches were"
        if mixing.sound:
            return f"mixed well enough; {beyond} {worst.lost:.1%} smaller ({HARM:.0%} is not seen in a loss)"
        return f"NOT MIXED; {beyond} {worst.lost:.0%} smaller. {mixing.remedy}"
    if less := [measure.name for measure in mixing.measures if measure.less]:
        return f"mixed: as a uniform shuffle would, and better: less than chance gives of {' and of '.join(less)}"
    return "mixed: nothing tells these batches from those of a uniform shuffle"


def mixing_json(mixing: shuffle_quality.Mixing) -> dict[str, Any]:
    """The same for a program."""
    measures = [
        {
            "name": each.name,
            "found": each.measured,
            "uniform": each.uniform,
            "deviations": each.deviations,
            "lost": each.lost,
        }
        for each in mixing.measures
    ]
    return {**asdict(mixing), "measures": measures, "sound": mixing.sound}


def throughput_text(measured: throughput.Throughput) -> str:
    """Where a sample's time goes, what the loader delivers, and what to do about it."""
    cores, threads = counted(measured.cores, "core"), counted(measured.threads, "thread")
    on = f"{measured.device}, side {measured.side}, {cores}, {threads}"
    lines = [f"batches of {measured.batch_size:,} on {on}"]
    lines.append(
        "one sample, in nanoseconds: " + ", ".join(f"{name} {ns:,.0f}" for name, ns in measured.stages.items())
    )
    for run in measured.runs:
        lines.append(
            f"{counted(run.workers, 'worker') + ':':<10} {run.samples_per_s:>12,.0f} samples/s, "
            f"waiting {run.wait_ns:,.0f} ns a sample for rows, first batch after {run.first_batch_s:.2f} s"
        )
    best = f"{measured.fastest.samples_per_s:,.0f} samples/s"
    if measured.model_samples_per_s is None:
        batch_ms = 1000 * measured.batch_size / measured.fastest.samples_per_s
        verdict = f"a step that takes {batch_ms:.2f} ms or more does not wait for the loader"
    elif measured.bound == "compute":
        verdict = (
            f"compute-bound: the model takes {measured.model_samples_per_s:,.0f} samples/s, the loader gives {best}"
        )
    else:
        verdict = (
            f"LOADER-BOUND: the model could take {measured.model_samples_per_s:,.0f} samples/s, the loader gives {best}"
        )
    return "\n".join([*lines, verdict, f"train with --num-workers {measured.workers}"])


_PAIRS = {
    ("val", "train"): "validation positions that training shows too",
    ("test", "train"): "test positions that training shows too",
    ("test", "val"): "test positions that validation shows too",
}


def leakage_text(measured: leakage.Leakage, of: str = "val", against: str = "train") -> str:
    """How many validation positions training shows too, in all and by the stones on the board."""
    lines = [f"{_PAIRS[of, against]}: {_share(sum(measured.leaked), sum(measured.validation))}"]
    edges = [*(edge for edge in LEAKAGE_PLIES if edge < len(measured.validation)), len(measured.validation)]
    for first, end in pairwise(edges):
        if count := sum(measured.validation[first:end]):
            stones = f"{first}" if end == first + 1 else f"{first} to {end - 1}"
            lines.append(f"  {stones:>9} stones: {_share(sum(measured.leaked[first:end]), count)}")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.1%})"


def optional_text(positions: Positions, row: int) -> str:
    """What the optional columns say of one position; nothing where there are none."""
    from hexshards.game.board import move_name
    from hexshards.game.columns import VISITS

    said = []
    for kind, column in positions.optional.items():
        value = column[row]
        if kind == VISITS:
            moves = [move_name(cell, side=positions.side) for cell in value[0].tolist()]
            visited = zip(moves, value[1].tolist(), strict=True)
            text = " ".join(f"{move}:{count}" for move, count in visited if count) or "none"
        else:
            text = f"{value:.6g}" if value.ndim == 0 else f"{value.tolist()}"
        said.append(f"{kind.name} {text}")
    return ", ".join(said)


def board_picture(positions: Positions, row: int) -> str:
    """One position as text: B and R stones, * the policy's move, each row shifted as the hexagons are."""
    side = positions.side
    blue, red = positions.planes()[row]
    policy = positions.policy[row]
    target = int(policy.argmax()) if positions.soft and policy.any() else -1 if positions.soft else int(policy)
    lines = ["   " + " ".join(chr(ord("a") + col) for col in range(side))]
    for r in range(side):
        marks = [
            "*" if r * side + c == target else "B" if blue[r, c] else "R" if red[r, c] else "·" for c in range(side)
        ]
        lines.append(" " * r + f"{r + 1:>2} " + " ".join(marks))
    return "\n".join(lines)
