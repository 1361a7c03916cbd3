"""Peers clash, so each has an environment of its own: what it pins, and the torch and NumPy of the one that asks."""

from __future__ import annotations

import hashlib
import os
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

SYSTEMS = Path(__file__).parents[1] / "systems"
PIP_S = 900.0


class Unavailable(Exception):
    """A system cannot run here; the message is the reason."""


def python_of(system: str, *, cache: Path, needs: Path | None = None) -> Path:
    """The interpreter that runs a system: this one, unless ``NAME.txt`` lists requirements. Raises Unavailable.

    Environments are made once and kept under ``cache``; another list of requirements makes another one.
    """
    needs = needs or SYSTEMS / f"{system}.txt"
    if not needs.exists():
        return Path(sys.executable)
    base = [sysconfig.get_path("purelib"), *site.getsitepackages()]
    key = hashlib.sha256(b"\n".join([needs.read_bytes(), sys.version.encode(), *map(os.fsencode, base)])).hexdigest()
    home = cache / "envs" / f"{system}-{key[:12]}"
    python, complete = home / "bin" / "python", home / "complete"
    if not complete.exists():
        shutil.rmtree(home, ignore_errors=True)
        _make(home, python, needs, base)
        complete.touch()
    return python


def _make(home: Path, python: Path, needs: Path, base: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    lib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # behind the environment's own packages, which win
    lines = [f"import site; site.addsitedir({path!r})" for path in dict.fromkeys(base)]
    Path(lib, "base.pth").write_text("\n".join(lines) + "\n")
    # the lists are complete: without --no-deps some would bring another torch, which is gigabytes
    command = [python, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check", "-r", needs]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_S)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"pip took more than {PIP_S:.0f} s") from None
    if done.returncode:
        raise Unavailable(f"cannot be installed: {_reason(done.stdout + done.stderr)}")


def _reason(output: str) -> str:
    """The line of pip's output that says most."""
    lines = [line.strip(" │╰─>×") for line in output.splitlines() if line.strip(" │╰─>×")]
    telling = [line for line in lines if "Exception" in line or "rror" in line.split(":")[0]]
    return (telling or lines or ["pip says nothing"])[0]
