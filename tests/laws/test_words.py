"""A name says what it stands for, and one word means one thing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FILES = [
    path
    for folder in ("hexshards", "converters", "benchmarks", "docs", "tests")
    for path in ROOT.glob(f"{folder}/**/*.py")
]

SAYS_NOTHING = {"found"}
"""Of all that is found: index, shards, games, checkpoint, ..., one is meant, and has a name."""

PICTURES = {
    "ahead": "prefetch",
    "alike": "what is the same",
    "arrival": "what is read",
    "course": "plan",
    "intake": "sources",
    "pace": "throughput",
    "supply": "growing data",
    "team": "process group",
    "trail": "history",
}
"""What has to be opened to be known, with the field's term, which a search finds."""


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names that a module gives, with their lines: of variables, arguments, attributes, fields, functions, classes."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.alias(name=full, asname=name):
                yield node.lineno, name or full


def called(tree: ast.AST, words: set[str]) -> list[tuple[int, str]]:
    """Names that are nothing but one of some words."""
    return [(line, name) for line, name in names_in(tree) if name.strip("_").lower() in words]


@pytest.fixture(scope="module")
def trees():
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def test_no_name_says_only_that_something_was_found(trees):
    named = {path: called(tree, SAYS_NOTHING) for path, tree in trees.items()}
    assert {path: names for path, names in named.items() if names} == {}


def test_no_name_is_a_picture_where_the_field_has_a_term(trees):
    said = {(path, word) for path, tree in trees.items() for _, word in called(tree, {*PICTURES})}
    assert said == {("hexshards/training/steps/trainer.py", "team")}, "an argument of Trainer in 0.1, still taken"


@pytest.mark.parametrize(
    "source",
    [
        *("found = 1", "found: int = 1", "(found := 1)", "for found in x: ...", "class A:\n    found: int", "x.found"),
        *("def f(found): ...", "lambda found: 1", "def _found(): ...", "class Found: ...", "FOUND = 1"),
        *("import a as found", "from a import found"),
    ],
)
def test_the_check_sees_each_way_to_give_a_name(source):
    assert called(ast.parse(source), SAYS_NOTHING)
