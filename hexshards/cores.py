"""Number of usable CPU cores: those this process is bound to, and no more than its container's share of time."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores by affinity and by the limits of cgroups (v1 and v2), rounded up; at least one.

    More threads than that wait for each other: a process that has used up its share stands still, locks and all.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        groups = Path("/proc/self/cgroup").read_text()
    except OSError:  # no Linux
        return bound
    return max(1, min([bound, *(math.ceil(share) for share in shares(groups, CGROUPS))]))


def shares(groups: str, root: Path) -> Iterator[float]:
    """Limits in cores of the groups in the text of /proc/self/cgroup, and of all groups above them."""
    for line in groups.splitlines():
        _, kinds, path = line.split(":", 2)
        if not kinds:
            yield from _of(root, path, _v2)
        elif "cpu" in kinds.split(","):
            yield from _of(root / kinds, path, _v1)
            yield from _of(root / "cpu", path, _v1)


def _of(root: Path, path: str, read: Callable[[Path], list[str]]) -> Iterator[float]:
    # in a container the path may be the host's, and only the root is there
    group = Path(path.strip("/"))
    for folder in (group, *group.parents):
        try:
            quota, period = read(root / folder)
            if int(quota) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError):  # not there, or "max": no limit
            continue


def _v2(folder: Path) -> list[str]:
    return (folder / "cpu.max").read_text().split()


def _v1(folder: Path) -> list[str]:
    return [(folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]
