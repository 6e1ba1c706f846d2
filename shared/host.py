"""What this machine lets the process use."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from math import ceil
from pathlib import Path
from typing import NamedTuple

LIBRARY_VARIABLES = {
    "OPENBLAS_NUM_THREADS": "1",  # the model's own threads do the work
    "OMP_WAIT_POLICY": "PASSIVE",  # PyTorch's idle threads would burn the processor that others wait for
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime's Linux builds report to their maker from 1.29 on
    "TF_CPP_MIN_LOG_LEVEL": "3",  # TensorFlow's own lines are no JSON
}
"""What libraries read when they are loaded. Whatever starts a process sets those that nobody has set."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_PTHREAD_ATTR_BYTES = 256  # 56 or 64 of them are used
_STACK_BYTES = 1 << 20  # as much as Windows gives

_CGROUPS = Path("/sys/fs/cgroup")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # proc_pid_clear_refs(5)


class Memory(NamedTuple):
    """What this process has resident, in MB of a million bytes: now, and at the highest."""

    now_mb: float
    peak_mb: float


@cache
def cores() -> int:
    """Cores that this process may keep busy: its affinity, cut by a container's CPU quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return affinity if quota is None else min(affinity, max(1, ceil(quota)))


def cpu_quota(cgroups: Path = _CGROUPS) -> float | None:
    """The processors' time that the container has, in cores; None without a limit. Version 2 of the control groups has
    "max 100000" or "150000 100000" in one file, version 1 has -1 or the same numbers in two (Linux's
    Documentation/admin-guide/cgroup-v2.rst, scheduler/sched-bwc.rst)."""
    one, two = ("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
    for files in (one, two):
        try:
            quota, period = " ".join((cgroups / file).read_text(encoding="ascii") for file in files).split()
            return int(quota) / int(period) if int(quota) > 0 else None
        except (OSError, ValueError, ZeroDivisionError):  # the other version, or no limit
            continue
    return None


def memory() -> Memory:
    """What this process has resident. Raises OSError where the system is not Linux."""
    lines = [line.split() for line in _STATUS.read_text(encoding="ascii").splitlines()]
    sizes = {words[0]: int(words[1]) * 1024 / 1e6 for words in lines if words[-1] == "kB"}
    return Memory(sizes["VmRSS:"], sizes["VmHWM:"])


def forget_peak() -> Memory:
    """Has the highest be counted from now on, and says what it now is. Raises OSError where the system is not Linux."""
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    return memory()


def return_large_buffers(large_bytes: int = 1 << 20) -> None:
    """Has the allocator hand every block of so many bytes and more back to the system once it is freed.

    glibc learns from the first large pictures to keep such blocks, a set for each thread, until a process that has no
    picture in it holds a gigabyte (mallopt(3), M_MMAP_THRESHOLD). Nothing happens where the C library is another.
    """
    try:
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
    except (ImportError, OSError, AttributeError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, large_bytes)
    mallopt(_M_TRIM_THRESHOLD, large_bytes)


def spare_addresses() -> None:
    """Under `ulimit -v`, has all threads share two heaps and each have a small stack. A thread would set aside 64 MB of
    addresses for a heap of its own and 8 for its stack (mallopt(3), M_ARENA_MAX; pthread_setattr_default_np(3)),
    whatever it uses of them, until none are left for pictures."""
    try:
        import ctypes
        import resource

        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            return
        libc, attributes = ctypes.CDLL(None), ctypes.create_string_buffer(_PTHREAD_ATTR_BYTES)
        libc.mallopt(_M_ARENA_MAX, 2)
        libc.pthread_attr_init(attributes)
        libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_STACK_BYTES))
        libc.pthread_setattr_default_np(attributes)
        libc.pthread_attr_destroy(attributes)
    except (ImportError, OSError, AttributeError, TypeError):
        return


@cache
def cpu_fingerprint() -> str:
    """Changes with the instruction sets of the processor: a graph optimised for one must not be run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
