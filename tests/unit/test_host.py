"""What a container grants, by both versions of the control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.host import cores, cpu_quota, memory

VERSION_1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    return folder


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        (dict(zip(VERSION_1, ("-1", "100000"), strict=True)), None),
        (dict(zip(VERSION_1, ("50000", "100000"), strict=True)), 0.5),
        ({VERSION_1[0]: "50000"}, None),
        ({"cpu.max": "1 0"}, None),
        ({"cpu.max": "nothing"}, None),
    ],
)
def test_a_quota_is_read_in_cores(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    assert cpu_quota(written(tmp_path, files)) == quota


def test_there_is_at_least_one_core() -> None:
    assert cores() >= 1


def test_memory_was_never_less_than_now() -> None:
    found = memory()
    assert 1 < found.now_mb <= found.peak_mb
