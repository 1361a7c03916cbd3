from __future__ import annotations

import ast
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

import hexshards

PACKAGE = Path(hexshards.__file__).parent
CONVERTERS = Path(__file__).parents[1] / "converters"

RANK = [
    *(
        "errors",
        "plurals",
        "arguments",
        "board",
        "specs",
        "interrupts",
        "locks",
        "main_guard",
        "cores",
        "cursor",
        "stopping",
        "stopwatch",
        "retention",
        "reports",
        "trainable",
        "plain",
        "checkpoint_schema",
        "trail",
        "course",
    ),
    *("storage", "cache", "remote"),
    *(
        "positions",
        "contents",
        "order",
        "images",
        "pickles",
        "frames",
        "templates",
        "alike",
        "codec",
        "sources",
        "discovery",
        "inventory",
        "engines",
    ),
    *(
        "shard",
        "index_schema",
        "index",
        "reading",
        "selection",
        "blend",
        "budget",
        "overlaps",
        "same_games",
        "spill",
        "scratch",
        "read_sources",
        "intake",
        "merging",
        "games",
        "dedupe_games",
        "assembly",
    ),
    *("space", "repeats", "publication", "conversion", "estimates"),
    *(
        "team",
        "expand",
        "kernel",
        "window",
        "prefetch",
        "workers",
        "epochs",
        "loader_state",
        "torn_games",
        "verification",
        "leakage",
    ),
    *("ahead", "buffers", "arrival", "delivery", "resident", "batches", "mixing"),
    *("members", "wds", "synth", "state_fit", "model", "value_range", "networks"),
    *("losses", "schedules", "trainer", "checkpoint", "hooks"),
    *("runfolder", "growth", "settings", "stop", "stream", "checkpoints", "events"),
    *("suspects", "orchestrator", "diagnosis", "runs"),
    *("rehearsal", "overfitting", "tensorboard_log"),
    *("history", "curves", "plots", "searchspace", "trials", "sweeps", "sweep_view"),
    *(
        "pace",
        "display",
        "training_view",
        "demo",
        "console",
        "dataset_commands",
        "training_commands",
        "cli",
        "__main__",
    ),
]
"""Every module of the package. Each imports only from those before it."""

MODULES = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}

FOR_CONVERTERS = {
    "alike",
    "board",
    "converters",
    "errors",
    "frames",
    "pickles",
    "plurals",
    "positions",
    "sources",
    "specs",
    "storage",
    "templates",
}
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
}
"""What a person who asks for help should not wait for."""


def imports_of(path: Path) -> Iterator[str]:
    """Full names of what a module imports when it runs, wherever in it the import stands."""
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
    """Modules of the package that a file imports, ``""`` for the package itself."""
    names = [name.split(".") for name in imports_of(path)]
    return {parts[1] if parts[1] in {*MODULES, "converters"} else "" for parts in names if parts[0] == "hexshards"}


def importers_of(name: str) -> set[str]:
    files = [*PACKAGE.glob("*.py"), *CONVERTERS.glob("*.py")]
    return {path.name for path in files if name in {found.split(".")[0] for found in imports_of(path)}}


def test_every_module_has_one_rank():
    assert len(RANK) == len(set(RANK))
    assert MODULES - set(RANK) == set()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_module_imports_one_that_is_not_before_it(module):
    before = set(RANK[: RANK.index(module)])
    assert ours(PACKAGE / f"{module}.py") <= before


def test_the_package_itself_imports_no_module_until_asked():
    assert ours(PACKAGE / "__init__.py") == set()


def test_the_check_sees_imports_inside_functions_and_not_those_for_types():
    assert "conversion" in ours(PACKAGE / "dataset_commands.py")
    assert "conversion" not in ours(PACKAGE / "display.py")


@pytest.mark.parametrize("path", sorted(CONVERTERS.glob("*.py")), ids=lambda path: path.stem)
def test_a_converter_builds_only_on_what_is_there_for_converters(path):
    assert ours(path) <= FOR_CONVERTERS
    names = [name for name in imports_of(path) if name.startswith("hexshards.")]
    assert not [name for name in names if name.rsplit(".", 1)[1].startswith("_")]


def test_nobody_imports_a_converter():
    for path in [*PACKAGE.glob("*.py"), *CONVERTERS.glob("*.py"), *Path(__file__).parent.glob("*.py")]:
        assert not [name for name in imports_of(path) if name.split(".")[0] == "converters"], path.name
    assert not [path.name for path in PACKAGE.glob("*.py") if "converters" in ours(path)]


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("zstandard", {"codec.py", "wds.py"}),
        ("tarfile", {"shard.py"}),
        ("optuna", {"trials.py"}),
        ("sqlalchemy", {"trials.py"}),
        ("matplotlib", {"plots.py"}),
        ("numba", {"kernel.py"}),
        ("llvmlite", {"kernel.py"}),
        ("webdataset", {"wds.py"}),
        ("fsspec", {"remote.py"}),
        ("hex_ai", set()),
    ],
)
def test_a_library_has_few_doors(library, homes):
    assert importers_of(library) <= homes


def test_nobody_lets_pickle_read():
    for path in [*PACKAGE.glob("*.py"), *CONVERTERS.glob("*.py")]:
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
    source = "import hexshards.converters.trmph as found; print(found.__file__)"
    # Python's own finders alone: that of an editable installation would help
    own = "import sys; sys.meta_path = [each for each in sys.meta_path if each.__module__.startswith('_frozen')]"
    command = [sys.executable, "-c", f"{own}; {source}"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(ended.stdout.strip()) == tmp_path / "converters" / "trmph.py"


# what is loaded, and how long it takes ------------------------------------------------------------------------------

IMPORT = "import hexshards"
HELP = """
import sys
from hexshards.cli.app import main
sys.argv = ["hexshards", "--help"]
try:
    main()
except SystemExit:
    pass
"""
TELL = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"


@pytest.mark.parametrize("source", [IMPORT, HELP], ids=["import", "help"])
def test_nothing_heavy_is_loaded_before_it_is_needed(source):
    ended = subprocess.run([sys.executable, "-c", source + TELL], capture_output=True, text=True, check=True)
    loaded = set(json.loads(ended.stderr))
    assert "hexshards" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("source", [IMPORT, HELP], ids=["import", "help"])
def test_it_takes_less_than_half_a_second(source):
    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", source], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    # processor time, and the best of five: what else a busy machine does is no fault of ours
    assert min(once() for _ in range(5)) < 0.5
