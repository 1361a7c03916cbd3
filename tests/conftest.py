"""What several test files need: the real files beside the checkout, where there are any, and a small machine."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import quick, warm
from helpers.processes import hear_signals

from hexshards import signals

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"

# processes that tests start find helpers as pytest itself does
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))

ADDRESS_SPACE_BYTES = 3 << 30
"""What a small machine may map: 2 GB more than an interpreter with NumPy does."""

PATIENCE_S = 60
"""What ends in a second or two ends within this on any machine; what takes quadratic time does not."""


MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 << 30
# the folders of tests lie in memory: a conversion of a thousand positions waits 72 times until the disk has it
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

LONGEST_FIRST = (
    "test_docs.py",
    "test_faults.py",
    "test_fuzz.py",
    "test_killed.py",
    "test_loading_benchmark.py",
    "test_loader.py",
    "test_processes.py",
    "test_orchestrator.py",
    "test_sweeps.py",
    "test_expand_compiled.py",
    "test_scale.py",
    "test_dedupe.py",
    "test_processed.py",
    "test_convert.py",
    "test_append.py",
    "test_upload.py",
    "test_cli.py",
    "test_terminal.py",
    "test_trmph.py",
    "test_executors.py",
    "test_mixture.py",
    "test_loader_states.py",
    "test_dedupe_games.py",
    "test_protocols.py",
    "test_training_view.py",
    "test_imports.py",
    "test_webdataset_pipeline.py",
    "test_run_ends.py",
    "test_window_reader.py",
    "test_leakage.py",
    "test_pickles.py",
    "test_demo.py",
)
"""Files that take the longest, in this order: begun last, one of them would keep a single core busy at the end."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="units alone, which start no process and train nothing")


def pytest_configure(config: pytest.Config) -> None:
    """Tests that run beside others compute with one thread, and so does all that they start: threads that wait for one
    another on a busy core take many times as long."""
    hear_signals()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    elif config.getoption("numprocesses", None):
        if sys.platform == "linux" and not config.getoption("quick"):
            os.environ[warm.SERVER] = warm.address()  # one for all workers
        return
    gc.disable()  # what is collected stays: it need not be looked through, while it comes or later


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.enable()
    if session.config.getoption("quick"):
        quick.refuse_processes()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.getoption("quick") and collection_path.name in quick.NOT_UNITS else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    names = [item.path.name for item in items]
    ranks = {name: LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST) for name in {*names}}
    items.sort(key=lambda item: ranks[item.path.name])
    if config.getoption("quick"):
        units = [item for item in items if quick.is_unit(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(units)])
        items[:] = units


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Path:
    """The folder of real files; without it the test is skipped, saying what is then not proved."""
    if not (REAL / "golden").is_dir():
        pytest.skip(f"no real files at {REAL}, so this is NOT CHECKED: {request.node.name.replace('_', ' ')}")
    return REAL


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums depend on the number of threads, and on busy machines those of tiny layers wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of three processes that train together found; started once, as each of them imports torch."""
    from helpers.three_processes import answers_in

    return answers_in(tmp_path_factory.mktemp("answers"))


@pytest.fixture
def s3_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, Path]]:
    """Make a server of helpers/small_server.py the S3 endpoint; a bucket's URL, and its folder behind the server."""
    pytest.importorskip("s3fs", reason="without s3fs NOTHING OF S3 IS CHECKED")

    def make(server: Any) -> tuple[str, Path]:
        for name, value in {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        # a bucket of its own, as a process keeps its connections to one
        bucket = tmp_path.name.replace("_", "-")
        (server.root / bucket).mkdir()
        return f"s3://{bucket}", server.root / bucket

    return make


@pytest.fixture
def small_machine(tmp_path: Path) -> Callable[..., dict[str, object]]:
    """Run Python source with ``argv`` in a process of little memory and an empty working folder.

    Returns the JSON that it prints. A process that dies or does not end fails the test.
    """
    folder = tmp_path / "cwd"
    folder.mkdir()
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({ADDRESS_SPACE_BYTES},) * 2)\n"

    def run(source: str, *argv: str | Path) -> dict[str, object]:
        command = [sys.executable, "-c", limit + source, *map(str, argv)]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
        assert ended.returncode == 0, ended.stderr
        assert not any(folder.iterdir()), "a file was made in the working folder"
        return json.loads(ended.stdout)

    return run


@pytest.fixture(autouse=True)
def _no_ctrl_c_of_another_test(monkeypatch):
    """The next line on a terminal would wipe what that terminal shows of it."""
    monkeypatch.setattr(signals._CtrlC, "times", 0)
    if display := sys.modules.get("hexshards.cli.display"):
        monkeypatch.setattr(display._manner, "ctrl_c", 0)
