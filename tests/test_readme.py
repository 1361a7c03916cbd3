import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)

# The blocks run in one folder, as a reader would follow them; only what needs a checkout is not run from here.
ELSEWHERE = {"make demo", "make test"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def run(command, folder):
    binaries = str(Path(sys.executable).parent)
    env = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_block_of_the_readme_runs(number, folder):
    language, text = BLOCKS[number]
    if language == "python":
        result = run([sys.executable, "-c", text], folder)
        assert result.returncode == 0, result.stderr
        return
    for line in text.splitlines():
        command = line.removeprefix("$ ").split("#")[0].strip()
        if language == "":
            assert command in ELSEWHERE
            continue
        result = run(command.split(), folder)
        assert result.returncode == 0, f"{command}\n{result.stderr}"


def test_what_the_readme_does_not_run_is_what_ci_and_the_workflow_run():
    root = README.parent
    workflow = (root / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert all(f"run: {command}" in workflow for command in ELSEWHERE)


def test_the_commands_named_in_the_text_exist():
    from typer.main import get_command

    from hexshards.cli import app

    named = set(re.findall(r"`hexshards (\w+)", README.read_text(encoding="utf-8"))) - {"COMMAND"}
    assert named <= set(get_command(app).commands)
