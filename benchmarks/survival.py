"""What survives: a run that stops and goes on with other workers and ranks, and data in which one bit has flipped.

    python benchmarks/survival.py [FOLDER_OF_PROCESSED_FILES] [--systems NAME ...] [--flips 24] [--write]

1. Two ranks of two workers walk an epoch, and leave a state after some batches. Others go on from it: as many ranks and
   workers, other workers, other ranks (the global batch stays). What the two would have seen is compared with what the
   others see: are the batches the same, in the same order; how many samples are lost, how many come twice.
2. A random bit of the stored data is flipped, the same share of the way through each system's bytes, and an epoch is
   read by one process: do samples come that were never stored, are samples missing, is there an error, or a crash?

Every system stores the same positions as packed rows, is opened as its documentation says for a run that is to go on,
and runs in processes of its own, a rank each. Environments and stored positions are kept as by benchmarks/loading.py,
and so is each system's result: what was stopped goes on where it was.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import torch
from harness.contestants import ALL, System, add_cache, contestant, source_of, versions
from harness.environments import Unavailable
from harness.recording import arguments_of, files_of, machine, write_results
from harness.survivors import GLOBAL_BATCH, STOP, WAYS, kept

STREAMS = System("hexshards_streams", "**hexshards**, 8 streams")
"""Here only: as fast as hexshards, where one process reads all streams."""
RESUMABLE = (
    "hexshards_dense",
    "hexshards_streams",
    "lancedb",
    "mosaicml",
    "litdata",
    "grain",
    "torchdata",
    "huggingface",
    "energon",
    "webdataset_packed",
)
KINDS = ("wrong samples, no error", "samples missing, no error", "error", "crash or hang", "nothing changed")
MINUTES = 2
"""A system takes about so long on two cores, the first time."""

Results = dict[str, dict[str, Any]]
"""By the name of a system; ``fails`` in the place of all else says why there are none."""


def kind_of(outcome: dict[str, Any]) -> str:
    """What came of a flipped bit, in words of the table."""
    if "crash" in outcome:
        return "crash or hang"
    if outcome["wrong"]:
        return "wrong samples, no error"  # some were handed over, also where an error comes later
    if outcome["error"]:
        return "error"
    return "samples missing, no error" if outcome["lost"] or outcome["twice"] else "nothing changed"


def resume_table(results: Results, systems: list[System]) -> str:
    """A row for each system, three columns for each way to go on."""
    heads = [f"{way}: same batches | lost | twice" for way in WAYS] + ["first batch, processor s", "first batch, s"]
    heads += ["whole epoch: left out, repeated", "batches of its ranks"]
    lines = [f"| system | {' | '.join(heads)} |", "|---|" + "---|---:|---:|" * len(WAYS) + "---:|" * 4]
    return "\n".join(lines + [f"| {' | '.join(_resume_row(system, results[system.name]))} |" for system in systems])


def _resume_row(system: System, result: dict[str, Any]) -> list[str]:
    told = result if "fails" in result else result["resumed"]
    if "fails" in told:
        return [system.title, f"not measured: {_short(told['fails'])}", *[""] * (3 * len(WAYS) + 3)]
    cells = [system.title + ("" if told["state"] else " (has no state: begins again)")]
    for way in map(told["ways"].__getitem__, WAYS):
        if "fails" in way:
            cells += [f"fails: {_short(way['fails'])}", "", ""]
        else:
            cells += ["yes" if way["same"] else "no", f"{way['lost']:,}", f"{way['twice']:,}"]
    went_on = [way for way in told["ways"].values() if "fails" not in way]
    for seconds in ("first_processor_s", "first_s"):
        cells.append(f"{max(way[seconds] for way in went_on):.1f}" if went_on else "-")
    epoch = told["epoch"]
    counts = " and ".join(map(str, sorted({*epoch["batches"]})))
    return [*cells, f"{epoch['left_out']:,}, {epoch['repeated']:,}", counts]


def flip_table(results: Results, systems: list[System]) -> str:
    """How many flips came to what."""
    lines = [f"| system | {' | '.join(KINDS)} |", "|---|" + "---:|" * len(KINDS)]
    for system in systems:
        if "fails" not in results[system.name]:
            counts = Counter(map(kind_of, results[system.name]["flipped"]))
            lines.append(f"| {system.title} | {' | '.join(str(counts[kind]) for kind in KINDS)} |")
    return "\n".join(lines)


def _short(text: str) -> str:
    return text.replace("|", "/")[:160]


def main() -> None:
    """Measure, print, and write if asked."""
    parser = arguments_of(__doc__, games=100)
    parser.add_argument("--systems", nargs="+", metavar="NAME", choices=RESUMABLE, default=RESUMABLE, help="only these")
    parser.add_argument("--flips", type=int, default=24)
    add_cache(parser)
    given = parser.parse_args()
    source = source_of(files_of(given, given.cache / "few-files", games=100), cache=given.cache)
    systems = [each for name in RESUMABLE for each in (*ALL, STREAMS) if each.name == name in given.systems]
    print(f"at most about {MINUTES * len(systems)} minutes; what is kept takes none", file=sys.stderr, flush=True)
    results: Results = {}
    for number, system in enumerate(systems, start=1):
        print(f"{number} of {len(systems)}: {system.title}", file=sys.stderr, flush=True)
        try:
            entrant = contestant(system, source, cache=given.cache)
            rows = source.folder / "rows.npy"
            results[system.name] = kept(entrant, rows, flips=given.flips, cache=given.cache)
        except Unavailable as reason:
            results[system.name] = {"fails": str(reason)}
            print(f"  {reason}", file=sys.stderr, flush=True)
    text = "\n\n".join(
        [
            f"{len(source.rows):,} positions, a global batch of {GLOBAL_BATCH}, stopped after batch {STOP}; "
            f"{given.flips} flipped bits. {machine(f'torch {torch.__version__}')} {versions(systems)}",
            "## Stop, and go on",
            f"Two ranks of two workers stop after batch {STOP}. As many go on, or two ranks with one worker, or four "
            "ranks with one. *Same batches*: each global batch that is left holds the same samples, in the same order "
            "of batches. *Lost* and *twice*: samples of the rest that do not come, and samples that come and do not "
            "belong to it. *First batch*: from the start of the process, its imports too, to the first batch after the "
            "stop, the slowest of the ways and ranks: seconds of a processor in the process and all that it started, "
            "and of the clock, which also counts what else the machine does, the other ranks too. *Whole epoch*: what "
            "the two ranks have too few and too many when nobody stops them; and how many batches a rank has: where "
            "that is unequal, one waits for the others at an epoch's end.",
            resume_table(results, systems),
            "## One bit flips",
            "An epoch is read by one process after one bit of the stored data was flipped, so many times. *No error*: "
            "nothing was raised in that epoch. (MosaicML Streaming, asked to compare hashes, ends the epoch at a shard "
            "whose hash is another; a traceback of its thread is printed, and its next epoch raises an error.)",
            flip_table(results, systems),
        ]
    )
    print(text)
    if given.write:
        write_results("What survives", text + "\n")


if __name__ == "__main__":
    main()
