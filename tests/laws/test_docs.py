import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def blocks_of(page):
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


BLOCKS = blocks_of(README)
IN_DOCS = [
    pytest.param(language, text, id=f"{page.stem}-{number}")
    for page in sorted((ROOT / "docs").glob("*.md"))
    for number, (language, text) in enumerate(blocks_of(page))
    if language in ("python", "console")
]
"""What the pages of docs/ show to be run here; ``sh`` is for other machines, such as a cluster's."""

# The blocks run in one folder, as a reader would follow them; only what needs a checkout is not run from here.
ELSEWHERE = {"make demo", "make test"}
FIRST = (
    "hexshards synth --games 300 --side 9 --out processed",
    "hexshards convert processed --out dataset --val-fraction 0.1",
)
"""What a reader of docs/ has done before."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    for command in FIRST:
        assert run(command.split(), folder).returncode == 0
    return folder


def run(command, folder):
    binaries = str(Path(sys.executable).parent)
    env = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def run_block(language, text, folder):
    if language == "python":
        commands = [[sys.executable, "-c", text]]
    else:
        lines = (line.removeprefix("$ ").split("#")[0].strip() for line in text.splitlines())
        commands = [line.split() for line in lines if line]
    for command in commands:
        result = run(command, folder)
        assert result.returncode == 0, f"{command}\n{result.stderr}"


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_block_of_the_readme_runs(number, folder):
    language, text = BLOCKS[number]
    if language:
        run_block(language, text, folder)
    else:
        assert {line.split("#")[0].strip() for line in text.splitlines()} <= ELSEWHERE


@pytest.mark.parametrize(("language", "text"), IN_DOCS)
def test_every_block_of_the_docs_runs(language, text, prepared):
    run_block(language, text, prepared)


def test_readers_of_the_docs_have_done_what_the_readme_says():
    assert all(f"$ {command}" in README.read_text(encoding="utf-8") for command in FIRST)


def test_what_the_readme_does_not_run_is_what_ci_and_the_workflow_run():
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "run: bash .ci/run" in workflow
    assert all(f"run: {command}" in workflow or f"\n{command}\n" in ci for command in ELSEWHERE)


def test_the_commands_named_in_the_text_exist():
    from typer.main import get_command

    from hexshards.cli.app import app

    named = set(re.findall(r"`hexshards (\w+)", README.read_text(encoding="utf-8"))) - {"COMMAND"}
    assert named <= set(get_command(app).commands)
