"""What a person sees at the end on a terminal: every result, whatever moved meanwhile."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import sys
import threading

import pyte
import pytest
from helpers import warm
from helpers.cli import call
from helpers.small_data import CUT, processed
from rich.console import Console

from hexshards import signals
from hexshards.cli import display
from hexshards.cli.conversion_view import conversion_progress
from hexshards.conversion.convert import convert
from hexshards.conversion.random_files import write

ROWS = 500
"""High enough that nothing scrolls away."""


def screen_of(columns, *command, cwd):
    """The lines that stand on a terminal of so many columns when a command has ended."""
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": str(ROWS), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "hexshards", *map(str, command)]
    screen = pyte.Screen(columns, ROWS)
    stream = pyte.ByteStream(screen)
    with warm.Program(command, cwd=cwd, env=environment, tty=child) as started:
        os.close(child)
        while True:
            try:
                data = os.read(parent, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            stream.feed(data)
        os.close(parent)
        assert started.wait() == 0
    return [line.rstrip() for line in screen.display if line.strip()]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    convert(processed(folder / "processed"), out=folder / "data", **CUT)
    return folder


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_the_line_of_every_mini_epoch_stands_at_the_end(data, tmp_path, columns):
    options = ["--mini-epoch-samples", 300, "--batch-size", 50, "--channels", 4, "--blocks", 1, "--diagnose", 64]
    lines = screen_of(columns, "train", data / "data", "--run", tmp_path / "run", *options, cwd=tmp_path)
    text = "".join(line.ljust(columns) for line in lines)
    assert [int(each) for each in re.findall(r"epoch 1 mini-epoch (\d+) ", text)] == [1, 2, 3, 4]
    assert "trained 4 mini-epochs" in text
    assert len(re.findall(r"\d+ threads?\b", text)) == 1
    # bars that are over leave nothing behind
    assert "\u2501" not in text


@pytest.mark.parametrize("columns", [80, 200])
def test_what_convert_and_verify_found_stands_at_the_end(data, tmp_path, columns):
    lines = screen_of(columns, "convert", data / "processed", "--out", tmp_path / "out", "--workers", 1, cwd=tmp_path)
    assert any("positions kept, 0 rejected" in line for line in lines)
    assert any(line.startswith("train ") for line in lines)
    assert any("sound" in line for line in screen_of(columns, "verify", tmp_path / "out", cwd=tmp_path))


def test_what_is_said_of_every_file_stands_once(data, tmp_path):
    for command in ["convert", data / "processed", "--out", tmp_path / "out"], ["info", data / "data"]:
        lines = call(*command).stdout.splitlines()
        files = [line for line in lines if " kept, " in line]
        assert len(files) > 1
        assert all(re.fullmatch(r"  \S+ · [\d,]+ positions kept, 0 rejected", line) for line in files)
        assert lines.count(f"  all {len(files)} files · v2 with players as enums") == 1
    one = next((data / "processed").iterdir())
    (alone,) = (
        line for line in call("convert", one, "--out", tmp_path / "one").stdout.splitlines() if "kept, " in line
    )
    assert alone.endswith(" kept, 0 rejected · v2 with players as enums")


def test_bytes_of_small_files_of_games_are_counted_too(tmp_path, monkeypatch):
    sent = io.StringIO()
    monkeypatch.setattr(display, "err", Console(file=sent, force_terminal=True, width=80))
    write(tmp_path / "in", games=6, games_per_file=3, side=5, format="trmph")
    with conversion_progress() as show:

        def look(now):
            show(now)
            display._moving[-1].refresh()

        convert(tmp_path / "in", out=tmp_path / "out", progress=look)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent.getvalue())
    size = sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    assert f" {size} B/{size} B 0:00:00" in shown
    assert " 0/0 " not in shown
    assert re.search(r"comparing games +\u2501+ +(\d)/\1 +0:00:00", shown)


def test_a_long_line_breaks_between_words_on_a_terminal_alone(monkeypatch):
    words = " ".join(str(number) for number in range(100, 200))
    for terminal in (True, False):
        sent = io.StringIO()
        monkeypatch.setattr(
            display, "err", Console(file=sent, force_terminal=terminal, width=80, highlight=False, soft_wrap=True)
        )
        display.warn(words)
        lines = sent.getvalue().splitlines()
        assert [word for line in lines for word in line.split()] == words.split()
        assert (max(map(len, lines)) <= 80) is terminal


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        # at what separates parts, which stay whole as long as they fit
        ("one 1 · two two · three 3,000 samples/s", ["one 1 · two two ·", "  three", "  3,000 samples/s"]),
        ("epoch 1 · 200 samples · 10 samples/s", ["epoch 1 ·", "  200 samples ·", "  10 samples/s"]),
        ("  name · 3 kept · ok", ["  name · 3 kept ·", "    ok"]),
        # else between words; spaces inside a table, and numbers and their units, stay together
        ("train    3 shards are now one", ["train    3 shards", "  are now one"]),
        ("it takes about 12 s in all", ["it takes about", "  12 s in all"]),
        # letters that are two columns wide
        ("囲碁 囲碁 囲碁 囲碁", ["囲碁 囲碁 囲碁", "  囲碁"]),
        ("/a/path/that/fits/nowhere in it", ["/a/path/that/fits/nowhere", "  in it"]),
        ("", [""]),
    ],
)
def test_a_line_that_goes_on_is_indented_and_broken_where_its_parts_end(line, lines):
    assert display.broken(line, 17) == "\n".join(lines)
    assert display.broken(line, 100) == line
    assert display.broken(f"x\n{line}", 17) == "\n".join(["x", *lines])


def test_colours_that_are_asked_for_make_no_terminal_of_a_file(data, tmp_path):
    command = [sys.executable, "-m", "hexshards", "verify", data / "data"]
    ended = warm.run(command, env={**os.environ, "FORCE_COLOR": "1"})
    assert "\x1b" not in ended.stdout + ended.stderr
    assert len(ended.stderr.splitlines()) <= 1


class Screen(io.StringIO):
    """A terminal of 80 columns, and what stands on it."""

    def __init__(self):
        super().__init__()
        self.screen = pyte.Screen(80, 20)
        self.stream = pyte.Stream(self.screen)

    def isatty(self):
        return True

    def write(self, text):
        self.stream.feed(text.replace("\n", "\r\n"))
        return len(text)

    def lines(self):
        return [line.rstrip() for line in self.screen.display if line.strip()]


def type_ctrl_c(screen):
    """As a terminal shows it, and the program hears it."""
    before = signal.signal(signal.SIGINT, signals._remember_and_raise)
    try:
        screen.write("^C")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
        signals._interrupted.clear()


def test_what_is_said_after_ctrl_c_stands_in_a_line_of_its_own(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    monkeypatch.setattr(display, "err", display.Enduring(file=screen, width=80))
    display.warn("one")
    type_ctrl_c(screen)
    type_ctrl_c(screen)
    display.warn("two")
    display.warn("three")
    assert screen.lines() == ["one", "two", "three"]
    # a file is sent no signs of a terminal's
    sent = io.StringIO()
    monkeypatch.setattr(display, "err", display.Enduring(file=sent, width=80))
    type_ctrl_c(Screen())
    display.warn("four")
    assert sent.getvalue() == "four\n"


def test_bars_that_a_ctrl_c_stands_behind_leave_nothing_on_the_screen(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    monkeypatch.setattr(display, "err", display.Enduring(file=screen, width=80))
    with pytest.raises(KeyboardInterrupt), display.bar("samples") as bars:
        bars.add_task("measuring", total=10**9, completed=10**8)
        bars.note = "note " * 40
        bars.refresh()
        assert max(map(len, screen.lines())) <= 76
        bars.note = ""
        bars.refresh()
        # a line of bars is as long as there is room
        assert len(screen.lines()[-1]) == 76
        screen.write("^C^C")
        raise KeyboardInterrupt
    display.warn("interrupted")
    assert screen.lines() == ["interrupted"]


def test_a_line_waits_until_bars_are_drawn(monkeypatch):
    # rich's own lock has no public name: where a release of rich has another one, this is the first to know
    sent = Screen()
    monkeypatch.setattr(display, "err", display.Enduring(file=sent, width=80))
    with display.bar() as bars:
        with bars.live._lock:
            line = threading.Thread(target=display.warn, args=("a line",))
            line.start()
            line.join(0.1)
            assert line.is_alive() and "a line" not in sent.lines()
        line.join(60)
        assert "a line" in sent.lines()
