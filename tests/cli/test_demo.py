"""The demo is what a newcomer runs first: it stops a run in the middle by a signal, and goes on with it."""

from __future__ import annotations

import sys

from helpers import warm

SMALL = """
import sys
from pathlib import Path
from hexshards.cli import demo
demo.GAMES, demo.MINI_EPOCH_SAMPLES = 40, 1_500
demo.run(Path(sys.argv[1]))
"""


def test_the_demo_stops_after_the_second_mini_epoch_and_goes_on_to_the_end(tmp_path):
    ended = warm.run([sys.executable, "-c", SMALL, tmp_path / "demo"])
    assert ended.returncode == 0, ended.stderr
    assert "interrupted after " in ended.stdout
    assert f"resumed from {tmp_path / 'demo' / 'run' / 'checkpoints'}" in ended.stderr
    assert "2 epochs done" in ended.stdout
    assert "Now your own files" in ended.stdout
