"""What a built image adds to its base: by layer, by part and by package."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.matrix.contents import BUNDLE, Duplicates, bytes_of_parts, duplicates, is_of_bundle, packages
from docker.matrix.engine import Engine, asked, stand_in
from docker.matrix.failures import Missing
from docker.matrix.layers import File, Layer, read
from docker.matrix.variants import Variant
from model_server.failures import Stopped

MB = 1e6
_BASE_OF = {
    "azure": ("AZURE_IMAGE", "mcr.microsoft.com/azure-functions/python:4-python3.11"),
    "google": ("PYTHON_IMAGE", "python:3.11-slim-bookworm"),
    "vertex": ("PYTHON_IMAGE", "python:3.11-slim-bookworm"),
}
_SAVE_S = 600.0
_PULL_S = 900.0


@dataclass(frozen=True, slots=True)
class Weighed:
    """One image: `below` are the layers of its base, `above` those that we add."""

    name: str
    tag: str
    stand_in: str | None
    below: tuple[Layer, ...]
    above: tuple[Layer, ...]

    @property
    def files(self) -> list[File]:
        return [file for layer in self.above for file in layer.files]

    @property
    def parts_mb(self) -> dict[str, float]:
        return {part: size / MB for part, size in bytes_of_parts(self.files).items()}

    @property
    def base_mb(self) -> float:
        return sum(layer.disk_bytes for layer in self.below) / MB

    @property
    def base_gzip_mb(self) -> float:
        return sum(layer.gzip_bytes + layer.apart_gzip_bytes for layer in self.below) / MB

    @property
    def added_mb(self) -> float:
        """On disk: the files of every layer above the base, bundle apart."""
        return sum(size for part, size in self.parts_mb.items() if part != BUNDLE)

    @property
    def added_gzip_mb(self) -> float:
        """As a registry holds those layers, bundle apart."""
        return sum(layer.gzip_bytes for layer in self.above) / MB

    @property
    def packages(self) -> list[tuple[str, int]]:
        return packages(self.files)

    @property
    def duplicates(self) -> list[Duplicates]:
        return duplicates(self.files)


def weigh_all(engine: Engine, variants: Sequence[Variant], prefix: str) -> list[Weighed]:
    """Raises Missing where an image or its base is not there, and Stopped where it is not made on that base."""
    check_present(engine, variants, prefix)
    below = {variant.name: _layers_below(engine, variant, prefix) for variant in variants}
    known: dict[str, Layer] = {}
    found = []
    for variant in variants:
        one = _weigh(engine, variant, prefix, below[variant.name], known)
        known |= {layer.diff_id: layer for layer in (*one.below, *one.above)}
        found.append(one)
    return found


def _layers_below(engine: Engine, variant: Variant, prefix: str) -> int:
    """How many of an image's layers are its base's."""
    tag, below = variant.tag(prefix), base_layers(engine, variant)
    check_is_on(tag, engine.inspected(tag)["RootFS"]["Layers"], base_image(variant), below)
    return len(below)


def _weigh(engine: Engine, variant: Variant, prefix: str, below: int, known: Mapping[str, Layer]) -> Weighed:
    tag = variant.tag(prefix)
    with tempfile.TemporaryDirectory(prefix="thinlens-image-") as folder:
        path = Path(folder) / "image.tar"
        engine.docker("save", "--output", str(path), tag, limit_s=_SAVE_S)
        layers = tuple(read(path, is_of_bundle, known))
    return Weighed(variant.name, tag, stand_in(engine.inspected(tag)), layers[:below], layers[below:])


def check_present(engine: Engine, variants: Sequence[Variant], prefix: str) -> None:
    """Raises Missing, which names every image that is not built."""
    tags = [variant.tag(prefix) for variant in variants]
    missing = [tag for tag in tags if not engine.has(tag)]
    if missing:
        raise Missing(f"not built: {', '.join(missing)}; python3 -m docker.images build makes them")


def base_image(variant: Variant) -> str:
    return asked(*_BASE_OF[variant.cloud])


def base_layers(engine: Engine, variant: Variant) -> list[str]:
    """The layers of a variant's base image, which is pulled where the engine built on it without keeping its name."""
    base = base_image(variant)
    if not engine.has(base):
        try:
            engine.docker("pull", base, limit_s=_PULL_S)
        except Stopped as error:
            raise Missing(f"the base {base} of {variant.name} is not there: {error}") from error
    found: dict[str, Any] = engine.inspected(base)
    layers: list[str] = found["RootFS"]["Layers"]
    return layers


def check_is_on(tag: str, layers: Sequence[str], base: str, below: Sequence[str]) -> None:
    """Raises Stopped where the lowest of an image's layers are not those of its base."""
    if list(layers[: len(below)]) != list(below):
        raise Stopped(f"{tag} is not built on the {base} that is here; build it again")
