import ast
import re
from pathlib import Path

import pytest

import hexshards
from hexshards.units import counted

PACKAGE = Path(hexshards.__file__).parent
CONVERTERS = PACKAGE.parent / "converters"
THINGS = "games|shards|positions|files|blocks|batches|workers|rows|epochs|checkpoints|trials|samples|bytes|lines"
NO_COUNTS = (
    "bytes per position",
    "bytes a position",
    "blocks of {options['channels']} channels",
    "{sizes} bytes",
    "{printable(games, width=24)} games",
)
"""Means; a network by its name; several sizes; and what a source file states, whatever that is."""


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [
        (0, "game", "0 games"),
        (1, "mini-epoch", "1 mini-epoch"),
        (2, "mini-epoch", "2 mini-epochs"),
        (1.0, "more file", "1 more file"),
        (1204, "batch", "1,204 batches"),
        (2, "worker process", "2 worker processes"),
        (3, "ply", "3 plies"),
        (3, "play", "3 plays"),
    ],
)
def test_a_count_is_said_as_a_person_says_it(count, noun, said):
    assert counted(count, noun) == said


def test_a_verb_follows_the_count_and_a_table_stays_one():
    assert counted(1, "byte", verb="was/were") == "1 byte was"
    assert counted(2, "byte", verb="was/were") == "2 bytes were"
    assert [counted(count, "game", width=5) for count in (1, 1000)] == ["    1 game ", "1,000 games"]


NO_NOUNS = {"more", "other", "whole", "new", "fewer", "less", "left", "both", "damaged", "rejected"}
"""What stands before a noun, or in its place, and has no plural."""


def test_what_is_counted_is_named_by_a_noun():
    calls = [
        (path.name, each)
        for path in [*PACKAGE.rglob("*.py"), *CONVERTERS.glob("*.py")]
        for each in ast.walk(ast.parse(path.read_text()))
        if isinstance(each, ast.Call) and getattr(each.func, "id", "") in ("counted", "plural") and each.args
    ]
    nouns = {
        (name, each.value)
        for name, call in calls
        for each in call.args
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }
    assert len(nouns) > 30
    assert {(name, noun) for name, noun in nouns if noun.split()[-1] in NO_NOUNS} == set()


def test_no_text_counts_things_by_itself():
    told = re.compile(rf"\}} (more |other |whole )?({THINGS})\b(?!/)|['\"]s['\"] \*")
    texts = {
        f"{path.name}:{number}: {line.strip()}"
        for path in [*PACKAGE.rglob("*.py"), *CONVERTERS.glob("*.py")]
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if told.search(line) and not any(each in line for each in NO_COUNTS)
    }
    assert texts == set()
