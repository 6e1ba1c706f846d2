"""What this machine lets the process use."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from pathlib import Path


@cache
def cores() -> int:
    """Cores that this process may keep busy: its affinity, cut by a container's CPU quota (cgroup v2)."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return min(affinity, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return affinity


@cache
def cpu_fingerprint() -> str:
    """Changes with the instruction sets of the processor: a graph optimised for one must not be run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
