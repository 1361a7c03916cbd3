"""Names of files come from outside: whatever is raised or logged shows them escaped, also where no command prints it.

The source is read for it: each value that is put into a message is escaped, or of a kind that needs no escaping.
"""

from __future__ import annotations

import ast
import builtins
from pathlib import Path

import pytest

import hexshards
from hexshards.reports.history import read_history

ROOT = Path(hexshards.__file__).parent.parent
FILES = sorted(path for folder in ("hexshards", "converters") for path in (ROOT / folder).rglob("*.py"))

ESCAPING = {"escaped", "printable", "shown", "repr", "nearest", "nearest_path"}
"""Functions whose answer is one printable line, whatever they are given."""

OF_OURS = {"counted", "show_bytes", "len", "int", "float", "round", "list", "tuple", "get_args"}
"""Functions whose answers are numbers, words that stand in the source, or shown as ``repr`` shows them."""

OF_NO_FILE = {"__name__", "strerror", "split", "scheme", "dtype", "shape", "side", "last", "attempts", "wait_s"}
OF_NO_FILE |= {"device_count"}
"""Attributes and methods that are words of the source or of the system, numbers and shapes."""

NUMBERS = {"int", "float", "bool", "None"}


def unsafe(message, function, numbers):
    """The first part of an expression that may hold a control character, as source; nothing where none may."""
    match message:
        case ast.Constant():
            return ""
        case ast.FormattedValue(conversion=114 | 97):
            return ""
        case ast.FormattedValue(format_spec=ast.JoinedStr(values=[ast.Constant(value=str(how))])) if how[-1] in ",gdx":
            return ""
        case ast.FormattedValue(value=value):
            return unsafe(value, function, numbers)
        case ast.Tuple() | ast.List() | ast.ListComp():  # shown as ``repr`` shows it
            return ""
        case ast.JoinedStr(values=parts) | ast.BoolOp(values=parts):
            return next(filter(None, (unsafe(part, function, numbers) for part in parts)), "")
        case ast.BinOp(left=left, right=right):
            return unsafe(left, function, numbers) or unsafe(right, function, numbers)
        case ast.IfExp(body=body, orelse=orelse):
            return unsafe(body, function, numbers) or unsafe(orelse, function, numbers)
        case ast.NamedExpr(value=value):
            return unsafe(value, function, numbers)
        case ast.Call(func=ast.Name(id=name)) if name in ESCAPING | OF_OURS:
            return ""
        case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=[joined]):
            return _joined(joined, function, numbers)
        case ast.Call(func=ast.Name(id="without_secrets"), args=[text]):
            return unsafe(text, function, numbers)
        case ast.Subscript(value=ast.Name(id=name)) if _is_constant(name):
            return ""
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="get"), args=[_, ast.Constant()]) if (
            _is_constant(name)
        ):
            return ""
        case ast.Attribute(attr=name) | ast.Name(id=name) if name in numbers | OF_NO_FILE or _is_constant(name):
            return ""
        case ast.Call(func=ast.Attribute(attr=name)) if name in OF_NO_FILE:
            return ""
        case ast.Name(id=name) if values := _assigned(name, function):
            return next(filter(None, (unsafe(value, None, numbers) for value in values)), "")
    return ast.unparse(message)


def _joined(names, function, numbers):
    match names:
        case ast.GeneratorExp(elt=each):
            return unsafe(each, function, numbers)
        case ast.Call(func=ast.Name(id="map"), args=[ast.Name(id=name), names]) if name in ESCAPING:
            return ""
        case ast.Call(func=ast.Name(id="map"), args=[ast.Name(id="str"), ast.Name(id=name)]) if _is_constant(name):
            return ""
        case ast.Name(id=name) if _is_constant(name):
            return ""
    return ast.unparse(names)


def _is_constant(name):
    return name.strip("_").isupper()


def numbers_of(tree):
    """Parameters and attributes that a module declares to be numbers, wherever it declares the name."""
    declared = {}
    for node in ast.walk(tree):
        match node:
            case (
                ast.arg(arg=name, annotation=ast.expr() as kind)
                | ast.AnnAssign(target=ast.Name(id=name), annotation=kind)
            ):
                declared.setdefault(name, set()).update(ast.unparse(kind).split(" | "))
    return {name for name, kinds in declared.items() if kinds <= NUMBERS}


def _assigned(name, function):
    """All that a name stands for in a function, where it is set by plain assignments alone."""
    places = [] if function is None else [node for node in ast.walk(function) if _sets(node, name)]
    plain = [node.value for node in places if isinstance(node, (ast.Assign, ast.NamedExpr, ast.AugAssign))]
    return plain if len(plain) == len(places) else []


def _sets(node, name):
    match node:
        case ast.Assign(targets=targets):
            return any(isinstance(target, ast.Name) and target.id == name for target in targets) or any(
                isinstance(inner, ast.Name) and inner.id == name
                for target in targets
                if isinstance(target, (ast.Tuple, ast.List))
                for inner in ast.walk(target)
            )
        case ast.NamedExpr(target=target) | ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            return isinstance(target, ast.Name) and target.id == name
        case ast.For(target=target) | ast.comprehension(target=target):
            return any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(target))
        case ast.ExceptHandler(name=caught):
            return caught == name
        case ast.withitem(optional_vars=ast.expr() as target):
            return any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(target))
    return False


def messages(tree):
    """Each expression that becomes the text of an exception, or of a line of a log, and the function it stands in.

    Errors of ours escape what they are told, or become a DataError; the system's show a file's name as ``repr`` does.
    """
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inside = {id(inner): each for each in functions for inner in ast.walk(each)}  # the innermost comes last
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id=kind), args=[_, message, *_])) if _is(kind, OSError):
                said = [message]
            case ast.Raise(exc=ast.Call(func=ast.Name(id=kind), args=said)) if _is(kind, Exception):
                pass
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log")), args=said):
                pass
            case ast.Call(func=ast.Attribute(value=ast.Name(id="warnings"), attr="warn"), args=[message, *_]):
                said = [message]
            case _:
                continue
        yield from ((message, inside.get(id(node))) for message in said)


def _is(name, base):
    kind = getattr(builtins, name, None)
    return isinstance(kind, type) and issubclass(kind, base)


def test_whatever_is_raised_or_logged_shows_names_escaped():
    bad = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for message, function in messages(tree):
            if part := unsafe(message, function, numbers_of(tree)):
                bad.append(f"{path.relative_to(ROOT)}:{message.lineno}: {part}")
    assert bad == []


def test_the_reading_of_the_source_sees_what_may_hold_a_line_break():
    source = """
def refuse(path: Path, count: int, name: str):
    found = f"{name} is there"
    shown = escaped(name)
    log.warning("%s", path)
    raise ValueError(f"{path!r}, {count}, {shown}, {escaped(path)}, {len(name)}, {name or 1}")
    raise OSError(5, f"{found}", str(path))
    raise KeyError(", ".join(names))
    raise DataError(path, where=path, fix=path)
"""
    tree = ast.parse(source)
    parts = [unsafe(message, function, numbers_of(tree)) for message, function in messages(tree)]
    assert sorted(filter(None, parts)) == ["name", "name", "names", "path"]


HOSTILE = "a\x1b[31m\n\x9b.toml"

RAISED = {
    "no dataset": lambda path: hexshards.read_index(path),
    "nothing to load": lambda path: hexshards.loader(path),
    "nothing to convert": lambda path: hexshards.convert(path, out=path / "out"),
    "a link to nowhere": lambda path: hexshards.convert(_linked(path), out=path.parent / "out"),
    "a folder in use": lambda path: hexshards.convert(path, out=_filled(path)),
    "no search space": lambda path: hexshards.sweep(path.parent, path, out=path.parent / "run"),
    "no run": lambda path: read_history(path),
}


def _linked(path):
    path.symlink_to(path.parent / "nothing")
    return path


def _filled(path):
    path.mkdir()
    (path / "games.trmph").write_text("#5,a1b2 b\n")
    return path


@pytest.mark.parametrize("what", RAISED)
def test_a_library_call_raises_one_printable_line(tmp_path, what):
    with pytest.raises((ValueError, OSError)) as raised:
        RAISED[what](tmp_path / HOSTILE)
    assert str(raised.value).isprintable() and r"a\x1b[31m\n\x9b" in str(raised.value)
