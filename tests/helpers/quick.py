"""The tests of ``pytest --quick``: units alone, which start no process and train nothing; one that starts one fails."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from multiprocessing import util
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NoReturn

import pytest

TESTS = Path(__file__).parents[1]
NOT_UNITS = ("laws", "benchmarks", "fuzz", "helpers")
BUSY = re.compile(
    r"subprocess|\bwarm\.|multiprocessing|fork\(|os\.system|pipe:|three_processes|s3_bucket|serving\(|WebLoader"
    r"|DataLoader|workers\b|executors|_Pools|\.local\(|\"(convert|bench)\""
)
TRAINS = re.compile(r"\b(train|sweep|started|fit|rehearse|overfit)\(|train_on_batches|\"train\"")
STARTS = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"}
"""Audit events of Python."""


def is_unit(item: pytest.Item) -> bool:
    """Whether neither the test, nor its fixtures, nor what they call in tests/, speaks of processes or of training."""
    assert isinstance(item, pytest.Function)
    fixtures = [each.func for name in item.fixturenames for each in item._fixtureinfo.name2fixturedefs.get(name, ())]
    called = {each for function in (item.function, *fixtures) for each in _called(inspect.unwrap(function))}
    given = " ".join(_keys(item.callspec.params)) if hasattr(item, "callspec") else ""
    return not (BUSY.search(given) or any(map(_speaks, called)))


def _keys(parameters: dict[str, Any]) -> Iterator[str]:
    """What is named in the parameters of a test: they, and the options in them."""
    yield from parameters
    for value in parameters.values():
        if isinstance(value, dict):
            yield from map(str, value)


@cache
def _called(function: Any) -> frozenset[FunctionType]:
    """A function of tests/ and all those that it names, and that they name."""
    seen, waiting = set[FunctionType](), [function]
    while waiting:
        each = waiting.pop()
        if isinstance(each, FunctionType) and each not in seen and TESTS in Path(each.__code__.co_filename).parents:
            seen.add(each)
            waiting += [each.__globals__.get(name) for name in _names(each.__code__)]
    return frozenset(seen)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


@cache
def _speaks(function: FunctionType) -> bool:
    source = inspect.getsource(function)
    return bool(BUSY.search(source) or TRAINS.search(source))


def refuse_processes() -> None:
    """From now on this process starts no other."""
    sys.addaudithook(_refuse)
    util.spawnv_passfds = lambda path, *_: _refused(path)  # which tells of no event


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in STARTS:
        _refused(event)


def _refused(what: object) -> NoReturn:
    raise RuntimeError(f"a quick test starts no process, and this one would ({what}): see helpers/quick.py")
