"""Packages have ranks and import only from those below; what is heavy waits until it is needed."""

from __future__ import annotations

import ast
import graphlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest
from helpers.small_data import dataset
from typer.main import get_command

import hexshards
from hexshards.cli.app import app

PACKAGE = Path(hexshards.__file__).parent
ROOT = Path(__file__).parents[2]
CONVERTERS = ROOT / "converters"

RANK = [
    *(
        "errors",
        "arguments",
        "units",
        "rng",
        "rng_compiled",
        "piecewise",
        "options",
        "config_files",
        "signals",
        "main_guard",
        "cores",
    ),
    *(
        "drawing",
        "game",
        "storage",
        "dataset",
        "conversion",
        "loading",
        "training",
        "interop",
        "reports",
        "publishing",
        "sweeps",
        "cli",
        "__main__",
    ),
]
"""Packages, and modules beside them, lowest first. Each imports only from itself and from those before it."""

AT_MOST = 19
"""Modules in a folder that a reader can still look through."""

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")

FOR_CONVERTERS = ("hexshards.game.", "hexshards.errors.", "hexshards.units.", "hexshards.storage.files.")
FOR_CONVERTERS += ("hexshards.conversion.sources.", "hexshards.conversion.options.", "hexshards.conversion.pickles.")
"""What a source format may build on: nothing of shards, datasets or training."""

HEAVY = {
    "numba",
    "optuna",
    "matplotlib",
    "torch",
    "webdataset",
    "numpy",
    "zstandard",
    "ray",
    "multiprocessing",
    "fsspec",
    "jinja2",
    "pyarrow",
    "pydantic",
}
"""What a person who asks for help should not wait for."""


def module_of(path: Path) -> str:
    """Full name of the module in a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports_of(path: Path) -> tuple[str, ...]:
    """Full names of what a module imports when it runs, wherever in it the import stands."""
    return tuple(_imports_of(path))


def _imports_of(path: Path) -> Iterator[str]:
    for node in _run_time(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _run_time(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _run_time(child)


def ours(path: Path) -> set[str]:
    """Packages, and modules beside them, that a file imports from; ``""`` for public names of hexshards itself."""
    names = [name.split(".") for name in imports_of(path) if name != "hexshards.__version__"]
    return {parts[1] if parts[1] in {*RANK, "converters"} else "" for parts in names if parts[0] == "hexshards"}


def importers_of(name: str) -> set[str]:
    files = [*FILES, *CONVERTERS.glob("*.py")]
    return {path.name for path in files if name in {imported.split(".")[0] for imported in imports_of(path)}}


def test_every_package_has_one_rank():
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__", "converters"} == set(RANK)
    assert len(RANK) == len(set(RANK))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_module_imports_from_above_its_package(path):
    own = module_of(path).split(".")[1]
    assert ours(path) <= {*RANK[: RANK.index(own)], own}


def test_no_modules_import_each_other_in_a_circle():
    modules = {module_of(path): path for path in FILES}
    edges = {}
    for name, path in modules.items():
        imported = {full if full in modules else full.rpartition(".")[0] for full in imports_of(path)}
        edges[name] = imported & set(modules) - {name}
    graphlib.TopologicalSorter(edges).prepare()


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda path: path.name)
def test_a_folder_can_be_looked_through_and_says_what_it_is_for(folder):
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= AT_MOST
    assert len((ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or "").split()) > 10


def test_the_orchestrator_stays_slim():
    text = (PACKAGE / "training" / "orchestrator.py").read_text(encoding="utf-8")
    attributes = {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    assert len(text.splitlines()) < 200
    assert len(attributes) <= 8


def test_the_wheel_has_every_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted({"hexshards.converters", *(module_of(each / "__init__.py") for each in folders())})


def folders() -> list[Path]:
    return [path.parent for path in PACKAGE.rglob("__init__.py") if path.parent.name != "converters"]


def test_the_package_itself_imports_no_module_until_asked():
    assert ours(PACKAGE / "__init__.py") == set()


def test_the_check_sees_imports_inside_functions_and_not_those_for_types():
    assert "conversion" in ours(PACKAGE / "cli" / "dataset_commands.py")
    assert "reports" not in ours(PACKAGE / "cli" / "dataset_view.py")


@pytest.mark.parametrize("path", sorted(CONVERTERS.glob("*.py")), ids=lambda path: path.stem)
def test_a_converter_builds_only_on_what_is_there_for_converters(path):
    names = [name for name in imports_of(path) if name.startswith("hexshards.")]
    assert not [name for name in names if not name.startswith((*FOR_CONVERTERS, "hexshards.converters."))]
    assert not [name for name in names if name.rsplit(".", 1)[1].startswith("_")]


def test_nobody_imports_a_converter():
    for path in [*FILES, *CONVERTERS.glob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        assert not [name for name in imports_of(path) if name.split(".")[0] == "converters"], path.name
    assert not [path.name for path in FILES if "converters" in ours(path)]


COMPILED = {path.name for path in FILES if path.stem.endswith("_compiled")}


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("zstandard", {"codec.py", "webdataset_pipeline.py"}),
        ("tarfile", {"shard.py"}),
        ("optuna", {"trials.py"}),
        ("sqlalchemy", {"trials.py"}),
        ("matplotlib", {"plots.py"}),
        ("jinja2", {"page.py"}),
        ("xml", {"svg.py"}),
        ("numba", COMPILED),
        (
            "llvmlite",
            COMPILED - {"lookahead_compiled.py", "rng_compiled.py", "streaming_compiled.py", "targets_compiled.py"},
        ),
        ("webdataset", {"webdataset_pipeline.py"}),
        ("fsspec", {"remote.py"}),
        ("onnxruntime", {"export.py"}),
        ("onnxscript", {"export.py"}),
        ("hex_ai", set()),
    ],
)
def test_a_library_has_few_doors(library, homes):
    assert importers_of(library) <= homes


def test_nobody_lets_pickle_read():
    for path in [*FILES, *CONVERTERS.glob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {f"{node.value.id}.{node.attr}" for node in ast.walk(tree) if _is_dotted(node)} | set(imports_of(path))
        assert not names & {f"pickle.{name}" for name in ("load", "loads", "Unpickler", "_Unpickler")}, path.name


def _is_dotted(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)


def test_no_module_is_named_like_something_public():
    # importing the module would put it in the place of the name
    assert not set(RANK) & set(hexshards.__all__)


@pytest.mark.parametrize("name", hexshards.__all__)
def test_every_public_name_is_there(name):
    assert getattr(hexshards, name).__name__ == name
    assert name in dir(hexshards)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = hexshards.nothing


def test_in_a_checkout_the_converters_beside_the_package_are_found(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "hexshards", ignore=shutil.ignore_patterns("__pycache__", "converters"))
    shutil.copytree(CONVERTERS, tmp_path / "converters", ignore=shutil.ignore_patterns("__pycache__"))
    source = "from hexshards.converters import trmph; print(trmph.__file__)"
    # Python's own finders alone: that of an editable installation would help
    own = "import sys; sys.meta_path = [each for each in sys.meta_path if each.__module__.startswith('_frozen')]"
    command = [sys.executable, "-c", f"{own}; {source}"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(ended.stdout.strip()) == tmp_path / "converters" / "trmph.py"


# what is loaded, and how long it takes ------------------------------------------------------------------------------

IMPORT = "import hexshards"
COMMANDS = """
import sys
from hexshards.cli.app import main
for line in {lines}:
    sys.argv = ["hexshards", *line]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, line
"""
HELP = COMMANDS.format(lines=[["--version"], ["--help"], *([name, "--help"] for name in get_command(app).commands)])
TELL = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"


def loaded_by(source: str) -> set[str]:
    ended = subprocess.run([sys.executable, "-c", source + TELL], capture_output=True, text=True, check=True)
    return set(json.loads(ended.stderr))


@pytest.mark.parametrize("source", [IMPORT, HELP], ids=["import", "help"])
def test_nothing_heavy_is_loaded_before_it_is_needed(source):
    loaded = loaded_by(source)
    assert "hexshards" in loaded
    assert not loaded & HEAVY


def test_what_a_dataset_is_is_told_without_anything_heavy(tmp_path):
    folder = dataset(tmp_path, games=4)
    loaded = loaded_by(COMMANDS.format(lines=[["info", str(folder)], ["info", str(folder), "--json"]]))
    assert "hexshards.dataset.index" in loaded
    assert not loaded & HEAVY


def test_a_table_of_runs_and_a_picture_of_a_position_need_no_torch(tmp_path):
    folder = dataset(tmp_path, games=4)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"samples_seen": 10, "val": {"loss": 1.0}}\n')
    shutil.copytree(folder, tmp_path / "run" / "datasets" / "validation")  # it says what was validated on
    runs = loaded_by(COMMANDS.format(lines=[["runs", str(tmp_path)]]))
    assert "hexshards.reports.runs" in runs
    assert not runs & (HEAVY - {"pydantic"})
    assert not loaded_by(COMMANDS.format(lines=[["show", str(folder)]])) & {"pydantic", "torch"}


COMPILE = """
from importlib import import_module
from numba.core import event

class Compiled(event.Listener):
    def __init__(self):
        self.functions = []
    def on_start(self, event):
        self.functions.append(event.data["dispatcher"].py_func)
    def on_end(self, event):
        pass

event.register("numba:compile", compiled := Compiled())
for name in {names}:
    import_module(name)
print(*(f"{{function.__module__}}.{{function.__name__}}" for function in compiled.functions))
"""


def test_nothing_but_functions_of_ours_is_compiled_before_the_first_batch(tmp_path):
    # what numba writes in Python, as memory, slices and the texts of their errors, took two seconds of three
    names = sorted(module_of(path) for path in FILES if path.name in COMPILED)
    ended = subprocess.run(
        [sys.executable, "-c", COMPILE.format(names=names)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    compiled = ended.stdout.split()
    assert {name.rpartition(".")[0] for name in compiled} == set(names)
    assert len(names) == len(COMPILED)


def test_every_file_that_contributing_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = (ROOT, ROOT / "hexshards", ROOT / "tests", PACKAGE / "training" / "checkpointing")
    named = {name for name in re.findall(r"`([\w./-]+)`", text) if "/" in name or name.endswith(".py")}
    assert len(named) > 30
    assert [name for name in named if not any((folder / name).exists() for folder in folders)] == []
