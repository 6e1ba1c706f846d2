"""Changes to `model.json` that go with a changed graph. Each takes its plain JSON values and gives new ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from shared.artifacts import SAVED_MODEL, external_data, sha256_of

Declared = dict[str, Any]
Axes = Sequence[int | None]
_NORMALISATION = ("scale", "mean", "std")


def folded(declared: Declared, network: str, picture: str, layout: str, colour: str) -> Declared:
    """The input `picture` takes raw pixels, in `layout` and `colour` order."""
    before = declared.get("preprocess", {}).get("layout", "NCHW")

    def raw(tensor: Declared) -> Declared:
        return {**tensor, "dtype": "uint8", "shape": [tensor["shape"][before.index(axis)] for axis in layout]}

    new = _tensors(declared, network, "inputs", lambda tensor: raw(tensor) if tensor["name"] == picture else tensor)
    kept = {key: value for key, value in declared.get("preprocess", {}).items() if key not in _NORMALISATION}
    return {**new, "preprocess": {**kept, "layout": layout, "colour": colour}}


def reshaped(declared: Declared, network: str, kind: str, shapes: Mapping[str, Axes]) -> Declared:
    """The inputs or outputs (`kind`) named in `shapes` have those."""

    def one(tensor: Declared) -> Declared:
        return {**tensor, "shape": list(shapes.get(tensor["name"], tensor["shape"]))}

    return _tensors(declared, network, kind, one)


def sized(declared: Declared, size: tuple[int, int]) -> Declared:
    """Pictures become tensors of `size` (height, width)."""
    return {**declared, "preprocess": {**declared.get("preprocess", {}), "size": list(size)}}


def with_artifact(declared: Declared, network: str, backend: str, artifact: Declared) -> Declared:
    """The network has this artifact and no other."""
    new = deepcopy(declared)
    new["networks"][network]["artifacts"] = {backend: artifact}
    return new


def artifact(folder: Path, file: str, source: str) -> Declared:
    """What model.json says of `file` in `folder` and of the files that belong to it."""
    path = folder / file
    data: list[Path] = []
    if path.name == SAVED_MODEL:
        data = sorted(one for one in path.parent.rglob("*") if one.is_file() and one != path)
    elif path.suffix == ".onnx":
        data = sorted(path.parent / one for one in external_data(path))
    beside = [{"file": one.relative_to(folder).as_posix(), "sha256": sha256_of(one)} for one in data]
    return {"file": file, "sha256": sha256_of(path), "source": source, **({"data": beside} if beside else {})}


def _tensors(declared: Declared, network: str, kind: str, change: Callable[[Declared], Declared]) -> Declared:
    new = deepcopy(declared)
    new["networks"][network][kind] = [change(tensor) for tensor in new["networks"][network][kind]]
    return new
