"""The demo is what a newcomer runs first: it stops a run in the middle by a signal, and goes on with it."""

from __future__ import annotations

import subprocess
import sys

SMALL = """
import sys
from pathlib import Path
from hexshards.cli import demo
demo.GAMES = 330
demo.run(Path(sys.argv[1]))
"""


def test_the_demo_stops_after_the_second_mini_epoch_and_goes_on_to_the_end(tmp_path):
    command = [sys.executable, "-c", SMALL, tmp_path / "demo"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "interrupted after " in ended.stdout
    assert f"resumed from {tmp_path / 'demo' / 'run' / 'checkpoints'}" in ended.stderr
    assert "2 whole epochs" in ended.stdout
    assert "Now your own files" in ended.stdout
