"""What the fuzzers share: hostile values, a seed of its own for each case, and a loop that gathers what is found.

A finding is an answer that is no sentence of ours: an exception other than a DataError or a ValueError that this
package raised itself, a text that is not printable, more than SECONDS of work, or more than MEMORY_BYTES of memory.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import random as randomness  # noqa: TID251 - what is drawn here is no order of a dataset
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import hexshards
from hexshards.errors import DataError

Random = randomness.Random
Case = Callable[[Random, list[str]], None]
"""Tries something that the random numbers choose, and says in the list what."""

SECONDS = 20
"""Of processor time, for one case; ten times as much of any other."""

MEMORY_BYTES = 1 << 30
"""Address space that may come on top of what the first sound case took."""

PACKAGE = str(Path(hexshards.__file__).parent)

NUMBERS: list[Any] = [
    *(0, 1, 2, -1, -2, 3, 7, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, 10**18, 10**30),
    *(-(2**63), -(10**30), 10**400, 0.0, 0.5, 1.0, 2.0, 512.0, -0.5, 1e18, 1e308, float("inf"), float("nan")),
]
TEXTS = [
    *("", "a", "train", "val", "\x1b[2J\x1b]0;x\x07", "a\nb\r", "\0", "\u202e\u200b", "\ud800", "x" * 10_000, "%s{0}"),
    *("../outside.tar", "/tmp/outside.tar", "train-000000.tar/../../outside.tar", "http://127.0.0.1:1/outside.tar"),
    *("train-000000.tar", "train-999999.tar", "val-000000.tar", "train-00000\u0660.tar", "train-000000.tar\n"),
    *("0" * 64, "f" * 64, "g" * 64, "zstd", "none", "http://me:s3cret@host/outside?sig=s3cret"),
]
VALUES: list[Any] = [
    *(None, True, False, *NUMBERS, *TEXTS, [], [None], [[]], [0] * 100, {}, {"a": 1}, {"": {}}),
    [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]],
]


class Hang(BaseException):
    """A case took too long."""


class Unclean(Exception):
    """No exception, and yet not what it should be."""

    def __init__(self, kind: str, finding: object) -> None:
        super().__init__(f"{kind}: {str(finding)[:200]!r}")
        self.kind = kind


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every part of a nested value."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A nested value with another part at a path."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {each: put(part, rest, new) if each == key else part for each, part in value.items()}
    return [put(part, rest, new) if each == key else part for each, part in enumerate(value)]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """The part at a path."""
    for key in path:
        value = value[key]
    return value


def one_place(random: Random, value: Any) -> tuple[Any, ...]:
    """The path of some part; of a long list as likely as of a single number."""
    kinds: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for path in places(value):
        kinds.setdefault(tuple(key if isinstance(key, str) else 0 for key in path), []).append(path)
    return random.choice(random.choice(list(kinds.values())))


def shown(value: Any) -> str:
    """A value for a line of a report."""
    long = isinstance(value, int) and value.bit_length() > 1_000
    return f"a number of {value.bit_length()} bits" if long else repr(value)[:60]


def check_text(text: str) -> None:
    """Raise Unclean where a text is not fit for a terminal."""
    bad = next((line for line in text.split("\n") if not line.isprintable()), None)
    if bad is not None:
        raise Unclean("not printable", bad)
    if "s3cret" in text:
        raise Unclean("a password", text)


def refusal(error: Exception) -> str:
    """The sentence that an exception is. Raises it again where it is none of ours."""
    if not (isinstance(error, DataError) or (isinstance(error, ValueError) and _raised_here(error))):
        raise error
    check_text(str(error))
    if "\n" in str(error) or len(str(error)) > 2_000:
        raise Unclean("no sentence", error)
    return str(error)


def _raised_here(error: ValueError) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(PACKAGE)


def fuzz(about: str, prepare: Callable[[], Case]) -> None:
    """Try cases, so many or for so long; print each kind of finding once, and exit with 1 where there was any."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="Number of the first case; --cases 1 repeats that one.")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    case, findings, start, number = prepare(), dict[str, int](), time.monotonic(), given.first
    with suppress(Exception):
        case(Random("warm"), [])  # loads what the cases need
    limit_memory()
    signal.signal(signal.SIGPROF, _too_long)
    while time.monotonic() - start < 60 * given.minutes if given.minutes else number < given.first + given.cases:
        if kind := tried(case, Random(f"{given.seed} {number}"), f"--seed {given.seed} --first {number}", findings):
            findings[kind] = findings.get(kind, 0) + 1
        number += 1
    done = f"{number - given.first:,} cases in {time.monotonic() - start:,.0f} s"
    print(f"{done}: {len(findings)} kinds of findings")
    for kind, count in findings.items():
        print(f"{count:>7,} {kind}")
    sys.exit(bool(findings))


def tried(case: Case, random: Random, name: str, known: dict[str, int]) -> str:
    """The kind of finding that a case is, or nothing; one of a new kind is printed."""
    told: list[str] = []
    faulthandler.dump_traceback_later(10 * SECONDS, exit=True)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        case(random, told)
    except (Exception, Hang) as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        kind = f"{type(error).__name__} {error.kind if isinstance(error, Unclean) else 'in ' + _place(error)}"
        if kind not in known:
            print(f"{name}: {kind}: {str(error)[:300]!r}\n    {'; '.join(told)}", flush=True)
        return kind
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
    return ""


def limit_memory() -> None:
    """From now on this process gets no more than MEMORY_BYTES besides what it has."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, held + MEMORY_BYTES))


def _too_long(*_: object) -> None:
    raise Hang(f"more than {SECONDS} s")


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(PACKAGE)] or frames
    return f"{Path(ours[-1].filename).name} {ours[-1].name}"
