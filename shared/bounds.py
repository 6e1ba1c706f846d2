"""What this process may have of memory, and how much of that is taken: as the settings, the control groups, `ulimit -v`
and the machine say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # version 1 says so with the largest number of whole pages
_MB = 1_000_000
_LONGEST_NUMBER = 24


class Bound(NamedTuple):
    """One limit: who sets it, in bytes, and what is taken of it now."""

    name: str
    limit_bytes: int
    used_bytes: Callable[[], int]


def bounds(limit_mb: int | Literal["auto"], proc: Path = _PROC, cgroups: Path = _CGROUPS) -> list[Bound]:
    """All limits that hold for this process, none where the system is not Linux. A number counts what this process has
    resident. `auto` goes by the machine's own memory where no other limit is set."""
    if not (proc / "self/status").is_file():
        return []
    found = [*_of_groups(proc, cgroups), *_of_addresses(proc)]
    if limit_mb != "auto":
        found.append(Bound("THINLENS_MEMORY_LIMIT_MB", limit_mb * _MB, lambda: _status_bytes(proc, "VmRSS:")))
    return found or _of_machine(proc)


def _of_groups(proc: Path, cgroups: Path) -> Iterator[Bound]:
    """The limits of the process's control group and of those that it lies in; each counts all of its processes. Pages
    of files are left out, because the kernel drops those first (Linux's Documentation/admin-guide/cgroup-v2.rst and
    cgroup-v1/memory.rst)."""
    for folder in _groups(proc, cgroups):
        is_second = (folder / "memory.max").is_file()
        limit = _number(folder / ("memory.max" if is_second else "memory.limit_in_bytes"))
        if limit is not None and limit < _UNLIMITED:
            fields = ("anon", "shmem", "kernel") if is_second else ("total_rss", "total_shmem")
            yield Bound("the container", limit, lambda folder=folder, fields=fields: _stat_bytes(folder, fields))  # type: ignore[misc]


def _groups(proc: Path, cgroups: Path) -> Iterator[Path]:
    """The folders of the group and of its parents, the innermost first. A container sees its own group at the root,
    whatever /proc/self/cgroup calls it."""
    for line in _text(proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = cgroups / controllers
        folder = root / path.lstrip("/")
        while folder.is_relative_to(root):
            if (folder / "memory.stat").is_file():
                yield folder
            folder = folder.parent


def _stat_bytes(folder: Path, fields: tuple[str, ...]) -> int:
    text = "\n" + _text(folder / "memory.stat")
    return sum(_after(text, f"\n{field} ") for field in fields)


def _of_addresses(proc: Path) -> Iterator[Bound]:
    """`ulimit -v` counts addresses, whether anything lies there or not."""
    import resource  # not on every system

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        yield Bound("ulimit -v", limit, lambda: _status_bytes(proc, "VmSize:"))


def _of_machine(proc: Path) -> list[Bound]:
    """The machine's memory; what it could free is not taken."""
    total = _meminfo_bytes(proc, "MemTotal:")
    return [Bound("the machine", total, lambda: total - _meminfo_bytes(proc, "MemAvailable:"))] if total else []


def _status_bytes(proc: Path, field: str) -> int:
    return _after(_text(proc / "self/status"), field) * 1024


def _meminfo_bytes(proc: Path, field: str) -> int:
    return _after(_text(proc / "meminfo"), field) * 1024


def _after(text: str, field: str) -> int:
    """The number behind `field`, 0 where there is none. These files are read for every request."""
    at = text.find(field)
    return int(text[at + len(field) : at + len(field) + _LONGEST_NUMBER].split(None, 1)[0]) if at >= 0 else 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - half the time of Path's own
            return file.read().decode("ascii", "replace")
    except OSError:
        return ""
