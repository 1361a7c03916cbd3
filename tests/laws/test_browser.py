"""What a real browser says of the page. Without Chromium nothing here is checked."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from helpers.small_data import dataset

from hexshards.reports.dataset_report import dataset_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium, so the page is NOT LOOKED AT by a browser")


def looked_at(page, folder):
    """What the console says of a page, and the elements that a browser makes of it."""
    (folder / "page.html").write_text(page, encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={folder / 'me'}",
    ]
    command = [CHROMIUM, *flags, "--dump-dom", (folder / "page.html").as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return re.findall(r"CONSOLE[^\n]*", ended.stderr), ended.stdout


def test_the_console_is_empty_and_hears_of_what_the_policy_forbids(tmp_path):
    page = dataset_report(dataset(tmp_path, games=24)).html
    console, elements = looked_at(page, tmp_path)
    assert console == []
    assert elements.count("<svg") == page.count("<svg")
    spoiled = page.replace("</footer>", "<script>document.title = 'ran'</script><p style='color: red'>x</p></footer>")
    console, elements = looked_at(spoiled, tmp_path)
    assert len(console) == 2
    assert "<title>ran" not in elements
