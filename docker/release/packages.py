"""The packages that lie inside a package for Azure: those of a lock, for another Python than this one if need be."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

from packaging.utils import canonicalize_name

from docker.prune import prune
from docker.release.lock import requirements_for
from model_server.failures import Stopped

PLACE = ".python_packages/lib/site-packages"
"""Where Azure's host looks for packages, seen from the root of the function app."""

# Azure's image is Debian with glibc 2.31; pip takes a wheel only where its very tag is named.
_GLIBC = range(5, 29)
_OLDER_NAMES = ("manylinux2014", "manylinux2010", "manylinux1")
_PLATFORMS = [*(f"manylinux_2_{minor}_x86_64" for minor in _GLIBC), *(f"{name}_x86_64" for name in _OLDER_NAMES)]


class Installed(NamedTuple):
    """A package in place: its name, version, and the wheel that it came from."""

    name: str
    version: str
    wheel_sha256: str


def install(lock: Path, site: Path, python: str, scratch: Path) -> list[Installed]:
    """Installs the packages of `lock` for Linux on x86-64 and `python` (3.11, …) into the folder `site`, less what is
    never run, and names what is left. Raises Stopped where pip fails; its words are on stderr."""
    wanted, report = scratch / "requirements.txt", scratch / "report.json"
    wanted.write_text(requirements_for(lock, python), encoding="utf-8")
    _pip(
        *("--target", str(site), "--requirement", str(wanted), "--report", str(report)),
        *("--require-hashes", "--no-deps", "--no-compile", "--only-binary", ":all:"),
        *("--implementation", "cp", "--python-version", python),
        *(word for platform in _PLATFORMS for word in ("--platform", platform)),
    )
    shutil.rmtree(site / "bin", ignore_errors=True)  # commands for the Python that pip runs on
    prune(site)
    for record in site.glob("*.dist-info/RECORD"):
        _keep_existing(record, site)
    return _left(site, json.loads(report.read_text(encoding="utf-8")))


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    done = subprocess.run([*command, *words], stdout=sys.stderr, check=False)
    if done.returncode:
        raise Stopped(f"pip could not install the packages: status {done.returncode}")


def _keep_existing(record: Path, site: Path) -> None:
    """A package's list of its files, less those that are gone."""
    rows = csv.reader(record.read_text(encoding="utf-8").splitlines())
    kept = io.StringIO()
    csv.writer(kept, lineterminator="\n").writerows(sorted(row for row in rows if (site / row[0]).is_file()))
    record.write_text(kept.getvalue(), encoding="utf-8")


def _left(site: Path, report: dict[str, Any]) -> list[Installed]:
    wheels = {
        canonicalize_name(each["metadata"]["name"]): each["download_info"]["archive_info"]["hashes"]["sha256"]
        for each in report["install"]
    }
    found = [(canonicalize_name(each.name), each.version) for each in distributions(path=[str(site)])]
    return [Installed(name, version, wheels[name]) for name, version in sorted(found)]
