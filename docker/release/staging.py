"""The function app of a package, less the packages inside: laid out by the command that everyone uses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from docker.release.checkout import Checkout
from docker.release.packages import install
from docker.release.variants import BUNDLE, Variant
from model_server.failures import Stopped
from model_server.landing import STAGE_MARK

_OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
_OWN_TEXTS = ("LICENSE", "NOTICE")


def stage(variant: Variant, checkout: Checkout, app: Path, lock: Path | None, scratch: Path) -> None:
    """Lays out `app`: the door, the code and the bundle, a graph for ONNX Runtime optimised by the one of `lock`; by
    none where the cloud installs what it finds. Sources that are not as committed have no commit to name."""
    sha = checkout.sha if checkout.clean else ""
    words = ["--bundle", BUNDLE, "--cloud", variant.cloud, "--backend", variant.backend, "--git-sha", sha]
    if variant.backend == "onnx" and lock is not None:
        tools = scratch / "tools"
        install(lock, tools, _OWN, scratch)
        _run(checkout.root, [str(app), *words, "--optimise"], {"PYTHONPATH": str(tools)})
    else:
        _run(checkout.root, [str(app), *words], {})
    (app / STAGE_MARK).unlink()
    for name in _OWN_TEXTS:
        shutil.copyfile(checkout.root / name, app / name)


def _run(root: Path, words: Sequence[str], environ: dict[str, str]) -> None:
    """The command, with no setting of this shell to build into a package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("THINLENS_", "AIP_", "PYTHON"))}
    command = [sys.executable, "-m", "model_server", "stage", *words]
    done = subprocess.run(command, cwd=root, env=kept | environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Stopped((done.stderr.strip().splitlines() or [f"stage: status {done.returncode}"])[-1])
