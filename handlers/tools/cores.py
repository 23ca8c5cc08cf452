"""How many threads this process should start for work that keeps a core busy."""

from __future__ import annotations

import os
from pathlib import Path

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Seen from inside a container. Source: the kernel's cgroup-v2 documentation, "CPU Interface Files"."""

_MOST_THREADS = 16


def default_threads() -> int:
    """As many threads as this process may use cores: those of its affinity, within its container's share of time.

    16 at most, because each thread costs three frames of memory or more; who has more cores may ask for more.
    """
    try:
        quota = cores_of_quota(_CPU_QUOTA.read_text(encoding="ascii"))
    except OSError:
        quota = None
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, _MOST_THREADS, cores if quota is None else quota))


def cores_of_quota(cpu_max: str) -> int | None:
    """The cores, rounded up, that a cgroup's `cpu.max` grants; None when it sets no limit or is not understood."""
    quota, _, period = cpu_max.strip().partition(" ")
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None
    return -(-int(quota) // int(period))
