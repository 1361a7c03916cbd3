"""What the docs say of options is what the options say of themselves."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from hexshards.options import about
from hexshards.training.options import TrainSpec

DOCS = Path(__file__).parents[2] / "docs"

_spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
tables = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tables)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda path: path.stem)
def test_the_tables_of_options_are_what_make_docs_tables_writes(page):
    text = page.read_text(encoding="utf-8")
    assert tables.written(text) == text, "run `make docs-tables`"


def test_a_table_that_is_not_as_the_options_are_is_written_anew():
    page = "# A\n\n<!-- options: hexshards.training.options:TrainSpec -->\nSTALE\n<!-- end -->\nafter\n"
    now = tables.written(page)
    assert "STALE" not in now and now.endswith("<!-- end -->\nafter\n")
    assert all(f"| `{name}` |" in now and each.says in now for name, each in about(TrainSpec).items())
    assert tables.written(now) == now


def test_every_option_class_has_its_table():
    marked = {match[3] for match in tables.MARKED.finditer((DOCS / "options.md").read_text(encoding="utf-8"))}
    assert marked == {"ConvertSpec", "WorkSpec", "LoaderSpec", "TrainSpec", "SynthSpec", "RemoteSpec"}
