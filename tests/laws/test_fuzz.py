import resource
import subprocess
import sys

import pytest
from helpers import warm

MEMORY_BYTES = 3 << 30


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


@pytest.mark.parametrize(("kind", "cases"), [("pickle", 5_000), ("trmph", 10_000), ("games", 2_000), ("katahex", 500)])
def test_thousands_of_damaged_files_are_read_or_refused_in_words_in_bounded_memory(kind, cases, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.sources", kind, str(cases)],
        cwd=tmp_path,
        preexec_fn=limit_memory,  # nothing else runs in this process between fork and exec
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{cases:,} cases" in done.stdout


@pytest.mark.parametrize(("what", "cases"), [("datasets", 100), ("runs", 60), ("servers", 60)])
def test_what_anybody_could_have_written_is_used_or_refused_in_a_sentence(what, cases, tmp_path):
    done = warm.run([sys.executable, "-m", f"fuzz.{what}", "--cases", str(cases)], cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert f"{cases} cases" in done.stdout
