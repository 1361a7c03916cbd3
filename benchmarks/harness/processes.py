"""What a process and all that it started hold in memory and take of the processor, from /proc."""

from __future__ import annotations

import os
import re
from pathlib import Path


def family(pid: int) -> list[int]:
    """A process and all it started."""
    try:
        threads = [path.name for path in Path(f"/proc/{pid}/task").iterdir()]
        children = [
            child for each in threads for child in Path(f"/proc/{pid}/task/{each}/children").read_text().split()
        ]
    except OSError:
        return []
    return [pid, *(each for child in children for each in family(int(child)))]


def resident_bytes(pid: int) -> int:
    """Its resident memory, a page that is shared counted in full; 0 when it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


def proportional_bytes(pid: int) -> int:
    """Its resident memory, a page that is shared counted as its share; where the kernel does not tell, all of it."""
    try:
        match = re.search(r"^Pss: *(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return resident_bytes(pid)
    return 1024 * int(match[1]) if match else 0


def processor_s(pid: int) -> float:
    """Seconds of a processor that it and all it started have taken, also what has ended and was waited for."""
    return sum(map(_ticks, family(pid))) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    after_the_name = told.rpartition(")")[2].split()
    return sum(map(int, after_the_name[11:15]))  # user and system, its own and of children that were waited for
