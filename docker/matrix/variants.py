"""The images that this project builds and releases, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model_server.failures import Stopped

AMD64, ARM64 = "linux/amd64", "linux/arm64"
EXTERNAL = "external"
PORTS = {"azure": 80, "google": 8080, "vertex": 8080}
# Azure's base image is made for amd64 only; PyTorch's and TensorFlow's variants are released for it alone.
_AMD64_ONLY = frozenset(("azure", "torchscript", "tensorflow"))


@dataclass(frozen=True, slots=True)
class Variant:
    """One image: `arguments` are the build arguments beside CLOUD and RUNTIME that make it what it is."""

    name: str
    cloud: str
    runtime: str
    arguments: tuple[tuple[str, str], ...] = ()

    @property
    def platforms(self) -> tuple[str, ...]:
        return (AMD64,) if _AMD64_ONLY & {self.cloud, self.runtime} else (AMD64, ARM64)

    @property
    def port(self) -> int:
        """Where it answers inside its container."""
        return PORTS[self.cloud]

    @property
    def build_arguments(self) -> dict[str, str]:
        """Everything that the Dockerfile has to be told to build this image and no other."""
        return {"CLOUD": self.cloud, "RUNTIME": self.runtime, **dict(self.arguments)}

    def tag(self, prefix: str) -> str:
        return f"{prefix}:{self.name}"


def _embedded(cloud: str, runtime: str) -> Variant:
    return Variant(f"{cloud}-{runtime}", cloud, runtime)


def _external(cloud: str, forward: str = "tensor", protocol: str = "http") -> Variant:
    """Named after what differs from forwarding tensors over HTTP."""
    said = [word for word, usual in ((forward, "tensor"), (protocol, "http")) if word != usual]
    name = "-".join([cloud, EXTERNAL, *said])
    return Variant(name, cloud, EXTERNAL, (("FORWARD", forward), ("PROTOCOL", protocol)))


VARIANTS = (
    _embedded("google", "onnx"),
    _external("google"),
    _external("google", forward="encoded"),
    _external("google", protocol="grpc"),
    _embedded("google", "torchscript"),
    _embedded("google", "tensorflow"),
    _embedded("azure", "onnx"),
    _external("azure"),
    _external("azure", forward="encoded"),
    _embedded("vertex", "onnx"),
)


def chosen(names: Sequence[str]) -> list[Variant]:
    """The variants of these names, in the matrix's order; all of them where none is named. Raises Stopped."""
    known = [variant.name for variant in VARIANTS]
    for name in names:
        if name not in known:
            raise Stopped(f"{name!r} is no variant; expected some of {', '.join(known)}")
    return [variant for variant in VARIANTS if not names or variant.name in names]
