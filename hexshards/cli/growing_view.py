"""What a person, or a program, sees of a dataset that grows."""

from __future__ import annotations

from dataclasses import asdict

from hexshards.cli import display
from hexshards.conversion.compact import Compaction
from hexshards.conversion.watch import (
    Added,
    Held,
    PassedOver,
    SetAside,
    StillChanging,
    WatchBegun,
    WatchEnded,
    WatchEvent,
)
from hexshards.errors import escaped, printable
from hexshards.units import counted, show_bytes

NAMED = 5
"""Files named in a line; of others it says how many."""

EVENTS = {
    WatchBegun: "begun",
    Added: "added",
    SetAside: "set_aside",
    PassedOver: "passed_over",
    StillChanging: "still_changing",
    Held: "held",
    WatchEnded: "ended",
}
"""What each event is called in JSON."""


def tell_json(event: WatchEvent) -> None:
    """Say an event of a watch to a program."""
    display.say(display.json_line({"event": EVENTS[type(event)], **asdict(event)}))


def tell(event: WatchEvent) -> None:
    """Say an event of a watch to a person."""
    match event:
        case WatchBegun():
            display.notice(_begun(event))
        case Added():
            display.progress(_added(event))
        case SetAside():
            moved = f"Moved to {escaped(event.moved_to)}, beside a report"
            display.warn(f"refused {escaped(event.file)}: {printable(event.problem, width=500)}. {moved}")
        case PassedOver():
            display.notice(f"passed over {escaped(event.reason)}")
        case StillChanging():
            display.notice(f"waiting for {_named(event.files)}: still changing")
        case Held():
            display.warn(f"waiting: {escaped(event.problem)}")
        case WatchEnded():
            display.say(_ended(event))


def compaction_text(done: Compaction, *, dry_run: bool) -> str:
    """What was merged, or would be."""
    merge, become = ("would merge", "would become") if dry_run else ("merged", "became")
    lines = [
        f"{name:<6} {counted(before, 'shard')}" + (f" {become} {after:,}" if after < before else _unmerged(before))
        for name, before, after in _both(done.shards_before, done.shards_after)
    ]
    lines += [
        f"{name:<6} {counted(before, 'shard', verb='stays as it is/stay as they are')}"
        + (f"; --held-out would make them {after:,}" if after < before else "")
        for name, before, after in _both(done.left_before, done.left_after)
    ]
    if done.positions:
        lines.append(f"{merge} {counted(done.positions, 'position')} of {show_bytes(done.written_bytes)}")
    if done.kept_bytes:
        lines.append(f"{show_bytes(done.kept_bytes)} of old shards stay for epochs that began before (--keep)")
    return "\n".join([*lines, f"dataset: {escaped(done.dataset)}"])


def _unmerged(shards: int) -> str:
    return ": nothing to merge" if shards == 1 else ": nothing to merge, for no two neighbours fit one"


def _both(before: dict[str, int], after: dict[str, int]) -> list[tuple[str, int, int]]:
    return [(name, count, after[name]) for name, count in before.items()]


def _begun(event: WatchBegun) -> str:
    there = f"dataset {_splits(event.dataset)}" if event.dataset else "the first files make the dataset"
    return f"looking into {escaped(event.inbox)} every {event.every_s:g} s · {there}"


def _splits(dataset: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in dataset.items())


def _added(event: Added) -> str:
    parts = [f"added {counted(event.positions, 'position')} of {counted(event.files, 'file')}"] if event.files else []
    parts += [f"{counted(event.already, 'file')} there already"] if event.already else []
    parts += [f"{event.rejected:,} rejected"] if event.rejected else []
    parts += [f"dataset {_splits(event.dataset)} in {counted(event.shards, 'shard')}"]
    parts += [f"{counted(event.waiting, 'file')} to come"] if event.waiting else []
    return "\n".join([" · ".join(parts), *(f"  {printable(note, width=300)}" for note in event.notes)])


def _ended(event: WatchEnded) -> str:
    parts = [f"ended: added {counted(event.positions, 'position')} of {counted(event.files, 'file')}"]
    parts += [f"set {counted(event.set_aside, 'file')} aside"] if event.set_aside else []
    stays = "could not be added and stays/could not be added and stay"
    parts += [counted(event.not_added, "file", verb=stays)] if event.not_added else []
    parts += [f"not taken: {_named(event.waiting)}"] if event.waiting else []
    return " · ".join(parts)


def _named(files: tuple[str, ...]) -> str:
    named = ", ".join(map(escaped, files[:NAMED]))
    return named + (f" and {len(files) - NAMED:,} more" if len(files) > NAMED else "")
