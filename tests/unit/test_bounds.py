"""The limits that a process finds, by both versions of the control groups, `ulimit -v` and the machine."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from shared.bounds import bounds
from tests.servers import ROOT, environ

MEMINFO = "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n"
V2_STAT = "anon 300000000\nfile 900000000\nkernel 20000000\nshmem 5000000\n"
V1_STAT = "rss 1\ntotal_cache 900000000\ntotal_rss 300000000\ntotal_shmem 5000000\n"


def machine(root: Path, files: dict[str, str], group: str = "0::/") -> tuple[Path, Path]:
    """/proc and /sys/fs/cgroup of a process in `group`; `files` are of the control groups, by their path."""
    proc, cgroups = root / "proc", root / "cgroup"
    for path, text in {
        proc / "self/status": "Name: python\nVmSize: 2000000 kB\nVmRSS: 100000 kB\n",
        proc / "self/cgroup": group,
        proc / "meminfo": MEMINFO,
        **{cgroups / name: text for name, text in files.items()},
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, cgroups


def found(
    root: Path, files: dict[str, str], limit_mb: int | Literal["auto"] = "auto", group: str = "0::/"
) -> list[tuple[str, int, int]]:
    proc, cgroups = machine(root, files, group)
    return [(name, limit, used()) for name, limit, used in bounds(limit_mb, proc, cgroups)]


def test_a_container_of_version_2_counts_what_cannot_be_dropped(tmp_path: Path) -> None:
    files = {"memory.max": "1000000000\n", "memory.stat": V2_STAT}
    assert found(tmp_path, files) == [("the container", 1_000_000_000, 325_000_000)]


def test_a_container_of_version_1_does_too(tmp_path: Path) -> None:
    files = {"memory/memory.limit_in_bytes": "1000000000\n", "memory/memory.stat": V1_STAT}
    for group in ("4:memory:/docker/abc\n", "4:memory:/\n"):
        assert found(tmp_path, files, group=group) == [("the container", 1_000_000_000, 305_000_000)]


def test_the_groups_around_the_process_count_too(tmp_path: Path) -> None:
    inner = {"pod/box/memory.max": "max", "pod/box/memory.stat": V2_STAT}
    outer = {"pod/memory.max": "900000000", "pod/memory.stat": V2_STAT}
    assert [limit for _, limit, _ in found(tmp_path, inner | outer, group="0::/pod/box\n")] == [900_000_000]


def test_without_a_limit_it_is_the_machine(tmp_path: Path) -> None:
    assert found(tmp_path, {"memory.max": "max\n", "memory.stat": V2_STAT}) == [
        ("the machine", 8_192_000_000, 2_048_000_000)
    ]


def test_a_number_counts_what_the_process_has_resident(tmp_path: Path) -> None:
    assert found(tmp_path, {}, 500) == [("THINLENS_MEMORY_LIMIT_MB", 500_000_000, 102_400_000)]


def test_a_number_does_not_lift_the_containers_limit(tmp_path: Path) -> None:
    files = {"memory.max": "1000000000", "memory.stat": V2_STAT}
    limits = [limit for _, limit, _ in found(tmp_path, files, 2000)]
    assert limits == [1_000_000_000, 2_000_000_000]


def test_where_there_is_no_proc_there_is_no_limit(tmp_path: Path) -> None:
    assert bounds("auto", tmp_path / "proc", tmp_path) == []


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="not on this system")
def test_ulimit_counts_addresses() -> None:
    told = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "from shared.bounds import bounds\n"
        "print([(b.name, b.limit_bytes) for b in bounds('auto') if 0 < b.used_bytes() < b.limit_bytes])"
    )
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, env=environ({}), capture_output=True, check=True)
    assert f"('ulimit -v', {3 << 30})" in done.stdout.decode()
