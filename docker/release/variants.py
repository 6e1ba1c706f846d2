"""The packages that a release holds, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model_server.failures import Stopped

BUNDLE = "coco-ssd-mobilenet-v2"
PYTHONS = ("3.11", "3.12", "3.13")
"""What Azure Functions runs of what we support."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One package: the bundle's weights are those of `backend`, its packages those of `lock` (None: the cloud installs
    them itself), `settings` what it has to be told where it is deployed."""

    name: str
    cloud: str
    backend: str
    lock: str | None
    settings: str


@dataclass(frozen=True, slots=True)
class Build:
    """A variant for one Python; for None where the cloud chooses it."""

    variant: Variant
    python: str | None

    def stem(self, version: str) -> str:
        """The name of its files, less the ending."""
        suffix = f"-py{self.python.replace('.', '')}" if self.python else ""
        return f"thinlens-{version}-{self.variant.name}{suffix}"


_URL = "`THINLENS_BACKEND_URL`"
VARIANTS = (
    Variant("azure-onnx", "azure", "onnx", "azure/onnx-cpu.txt", ""),
    Variant(
        "azure-external",
        "azure",
        "triton",
        "azure/external-tensor-http.txt",
        f"`THINLENS_BACKEND` (`triton`, `tfserving`), {_URL}",
    ),
    Variant(
        "azure-external-encoded",
        "azure",
        "triton",
        "azure/external-encoded-http.txt",
        f"`THINLENS_BACKEND=triton`, `THINLENS_FORWARD=encoded`, {_URL}",
    ),
    Variant("google-onnx", "google", "onnx", None, ""),
)


def builds(names: Sequence[str], pythons: Sequence[str]) -> list[Build]:
    """Those variants, all where none is named, for those Pythons. Raises Stopped for a name that is not known."""
    known = [variant.name for variant in VARIANTS]
    for name in names:
        if name not in known:
            raise Stopped(f"{name!r} is no variant; expected some of {', '.join(known)}")
    return [
        Build(variant, python)
        for variant in VARIANTS
        if not names or variant.name in names
        for python in (pythons if variant.lock else [None])
    ]
