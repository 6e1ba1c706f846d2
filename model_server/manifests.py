"""Writes `model.json` the way people read it, and says what is wrong with a bundle's folder."""

from __future__ import annotations

import json
import textwrap
from codecs import BOM_UTF8
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from shared import tasks
from shared.artifacts import sha256_of
from shared.backends import EMBEDDED
from shared.errors import ConfigurationError
from shared.manifest import MANIFEST, Bundle, Model, read_bundle
from shared.service import Service
from shared.settings import Settings
from shared.tensors import TensorSpec

_WIDTH = 110


def json_text(value: Any, indent: str = "") -> str:
    """`value` as JSON: what fits stays on one line, long rows of plain values are filled, the rest is indented."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) <= _WIDTH or not isinstance(value, dict | list):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        rows = [f"{inner}{json.dumps(key)}: {json_text(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if any(isinstance(item, dict | list) for item in value):
        return "[\n" + ",\n".join(inner + json_text(item, inner) for item in value) + f"\n{indent}]"
    return "[\n" + _filled([json.dumps(item, ensure_ascii=False) for item in value], inner) + f"\n{indent}]"


def _filled(items: list[str], indent: str) -> str:
    """Items over as few lines as fit the width; a line is never broken inside an item."""
    unbroken = ", ".join(item.replace(" ", "\0") for item in items)
    lines = textwrap.wrap(
        unbroken,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return "\n".join(lines).replace("\0", " ")


def tensor_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def write_manifest(manifest: dict[str, Any], folder: Path) -> None:
    """Writes model.json whole or not at all."""
    part = folder / f"{MANIFEST}.part"
    try:
        part.write_text(json_text(manifest) + "\n", encoding="utf-8", newline="\n")
        part.replace(folder / MANIFEST)
    finally:
        part.unlink(missing_ok=True)


def declared(folder: Path) -> dict[str, Any]:
    """model.json as it stands, of a bundle that can be read."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes().removeprefix(BOM_UTF8))
    return manifest


def needed_files(model: Model, backend: str | None = None) -> dict[str, str | None]:
    """The files that a bundle cannot do without beside model.json, with their checksums where model.json has them;
    those that only other backends than `backend` read are left out where one is named."""
    artifacts = [
        artifact
        for network in model.networks.values()
        for name, artifact in network.artifacts.items()
        if backend in (None, name)
    ]
    labels = {model.labels: None} if isinstance(model.labels, str) else {}
    return {**labels, **{file.file: file.sha256 for artifact in artifacts for file in artifact.files}}


def weights_for(backend: str, model: Model) -> tuple[set[str], set[str]]:
    """The files of weights that a deployment with `backend` reads, and those that only others do. A model server has
    its own."""
    own: set[str] = set()
    others: set[str] = set()
    for network in model.networks.values():
        for name, artifact in network.artifacts.items():
            (own if name == backend else others).update(file.file for file in artifact.files)
    return own, others - own


def problems(
    folder: Path,
    expected: Mapping[str, str | None] | None = None,
    *,
    backend: str | None = None,
    beside: Path | None = None,
) -> list[str]:
    """What is wrong with the files of the bundle in `folder` and of its parts, a sentence each; none where it is whole,
    or whole enough for `backend` where one is named.

    `expected` are checksums by file from elsewhere, beside those of model.json itself; `beside` is where its parts lie.
    """
    if not (folder / MANIFEST).is_file():
        return [f"{folder} holds no {MANIFEST}"]
    try:
        bundle = read_bundle(folder.resolve(), beside)
    except ConfigurationError as error:
        return [str(error)]
    sums = [*needed_files(bundle.model, backend).items(), *(expected or {}).items()]
    found = [problem for file, sha256 in sums if (problem := _file_problem(folder, file, sha256))]
    found += [problem for part in bundle.parts.values() for problem in problems(part.folder, backend=backend)]
    return list(dict.fromkeys(found))


def family_problem(folder: Path) -> str | None:
    """Why the family that model.json names cannot serve it; None where it can."""
    try:
        tasks.build(read_bundle(folder))
    except ConfigurationError as error:
        return str(error)
    return None


def serving_problem(folder: Path, settings: Settings) -> str | None:
    """Why the bundle cannot be served, found by opening it and running it once as a server would; None where it can."""
    served = Service(msgspec.structs.replace(settings, models=str(folder), model=None)).find(None)
    served.open(warm_up=True)
    return served.reason


def own_backend(bundle: Bundle) -> str | None:
    """The first embedded backend that every network of the bundle has a file for."""
    return next((name for name in EMBEDDED if all(name in network.artifacts for network in bundle.specs)), None)


def _file_problem(folder: Path, file: str, sha256: str | None) -> str | None:
    path = folder / file
    if not path.is_file():
        return f"{folder.resolve().name}/{file}: the file is missing"
    if sha256 is not None and (found := sha256_of(path)) != sha256:
        return f"{folder.resolve().name}/{file}: expected sha256 {sha256}, found {found}"
    return None
