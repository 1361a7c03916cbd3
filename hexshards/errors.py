"""Exceptions of the package: each says where, what was found, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_SCHEME = r"((?<![A-Za-z])[A-Za-z][A-Za-z0-9+.-]{1,20}:/{1,3})"
_NAME = r"[^\s/?#'\",:@]"
_NO_PORT = (
    # host:80, and what may follow it; with a path only where the host cannot be a user
    rf"(?!{_NAME}{{1,99}}:\d{{1,5}}(?:[,;:.)'\"]{{0,9}}(?:\s|$)|[?#=]))"
    rf"(?!(?:localhost|\[[0-9A-Fa-f:]{{2,45}}\]|{_NAME}{{0,99}}\.{_NAME}{{0,99}}):\d{{1,5}}/)"
)
# A password may hold what should have been escaped: a slash, or else a comma, a space or a quote, up to the next @ that
# is before another URL. A comma also ends a URL in a list of datasets to mix. All is bounded, for texts may be long.
_TO_AT = r"[^\s'\",]{0,999}@"
_PASSWORD = rf"{_NO_PORT}{_NAME}{{1,99}}:(?:{_TO_AT}|(?!\s)(?:(?!:/)[^\n@]){{0,250}}@)"
_USER = re.compile(rf"{_SCHEME}(?:[^\s/?#'\",]{{0,999}}@|{_PASSWORD})")
# What lost its scheme is a path, and of a path one slash may be left.
_BARE = re.compile(rf"(?<![^\s'\"(=,])(?:(//){_PASSWORD}|(/{{1,3}}){_NO_PORT}{_NAME}{{1,99}}:{_TO_AT})")
_QUERY = re.compile(rf"{_SCHEME[:-1]}[^\s?#'\"]{{0,999}})[?#][^\s'\"]*[^\s'\":;,.)]")


class DataError(Exception):
    """Damaged or invalid data: bytes on disk are not what they should be. Names file and place, finding, fix.

    The three parts stay apart as attributes, so that a program can show them its own way.
    """

    def __init__(self, problem: str, *, where: str, fix: str) -> None:
        problem, where, fix = (escaped(without_secrets(part)) for part in (problem, where, fix))
        super().__init__(f"{where}: {problem}. {fix}")
        self.problem, self.where, self.fix = problem, where, fix

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments do not survive BaseException's own pickling, and workers send errors home
        return _rebuild, (type(self), self.problem, self.where, self.fix)


class InputRejected(DataError):
    """Conversion refused: a source file, or more of its positions than allowed; nothing was published."""


class WorkerKilled(DataError):
    """Worker process of a conversion was killed, most likely for want of memory."""


class Misused(DataError):
    """Wrong usage: what is there is sound, and does not go with what was asked for."""


class NonFiniteLoss(ArithmeticError):
    """Non-finite loss: infinite or NaN in training. Raised before the weights it spoiled could be saved.

    ``batches_ago`` counts back from the newest batch the trainer was given, 0: whose loss was the first of that kind.
    A trainer that looks only now and then, to spare the device a synchronisation a batch, still knows which it was;
    None when it does not.
    """

    def __init__(self, loss: float, *, batches_ago: int | None = 0) -> None:
        super().__init__(f"the training loss is {loss}")
        self.loss, self.batches_ago = loss, batches_ago


class WorkerDied(RuntimeError):
    """Worker process died: one that reads for a loader ended before its time."""


def _rebuild(kind: type[DataError], problem: str, where: str, fix: str) -> DataError:
    return kind(problem, where=where, fix=fix)


def or_refusal(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | DataError:
    """What a call gives, or the DataError that it raises, for those that go on with what is sound."""
    try:
        return call(*args, **kwargs)
    except DataError as error:
        # a traceback would hold on to the memory of those that called, until the garbage collector comes by
        return error.with_traceback(None)


def sendable(error: Exception) -> Exception:
    """The error, or where another process could not make it again, one with its words."""
    try:
        deepcopy(error)  # as pickling does, it makes another from what the error says it is made of
    except Exception:
        return OSError(str(error))
    return error


def escaped(text: object) -> str:
    """Text, such as a path, in one line and safe for a terminal or a log.

    Control characters, line breaks and the bytes of names that are not UTF-8 stand as backslash escapes. What is
    escaped already stays as it is.
    """
    line = str(text)
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def printable(text: object, *, width: int = 80) -> str:
    """Text from inside a file, escaped and cut to ``width``."""
    # cut first: a hostile name may be megabytes long
    clean = escaped(str(text)[: width + 1])
    return clean if len(clean) <= width else clean[: width - 1] + "…"


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known: which of the known ones may be meant; or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(names))
    return f". Did you mean {' or '.join(map(printable, close))}?" if close else ""


def without_secrets(text: str) -> str:
    """Text in which URLs have neither users, passwords, queries nor fragments; a query leaves ``?...``.

    Neither have URLs that lack their scheme users with passwords.
    """
    if "@" in text:
        text = _BARE.sub(r"\1\2", _USER.sub(r"\1", text))
    return _QUERY.sub(r"\1?...", text) if ":/" in text else text
