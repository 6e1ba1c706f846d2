"""`optimise`: a bundle whose ONNX graphs are as ONNX Runtime optimises them, so that no start has to do it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Protocol

from model_server.failures import Stopped
from model_server.landing import check_place, landing
from model_server.manifests import declared, needed_files, problems, write_manifest
from model_server.staging.files import files
from shared.artifacts import sha256_of, undeclared_data
from shared.manifest import MANIFEST, read_bundle
from shared.tensors import Artifact

_BACKEND = "onnx"


class Optimiser(Protocol):
    """model_server.export.onnx_optimised."""

    BY: str

    def for_gpu(self) -> bool: ...

    def optimise(self, source: Path, target: Path, data: Path | None) -> None: ...


def optimise(folder: Path, backend: str) -> str:
    """Puts optimised graphs in the place of those of the bundle in `folder`, and says so; also where nothing was to be
    done. Raises Stopped."""
    if backend != _BACKEND:
        return f"{folder.name}: not optimised: {backend} has no step for it"
    optimiser = _optimiser()
    if optimiser.for_gpu():
        return f"{folder.name}: not optimised: ONNX Runtime for GPUs does that for the one that it finds"
    before, manifest, model = _size(folder), declared(folder), read_bundle(folder).model
    if not model.networks:
        return f"{folder.name}: not optimised: its parts have the networks"
    made: dict[str, dict[str, Any]] = {}
    for name, network in model.networks.items():
        artifact = network.artifacts.get(_BACKEND)
        if artifact is None or artifact.optimised:
            continue
        made[artifact.file] = made.get(artifact.file) or _made(folder, artifact, optimiser)
        told = manifest["networks"][name]["artifacts"][_BACKEND]
        kept = {key: told[key] for key in ("source", "note") if key in told}
        manifest["networks"][name]["artifacts"][_BACKEND] = made[artifact.file] | kept
    if not made:
        return f"{folder.name}: not optimised: it has been before"
    manifest.pop("profile", None)  # was that of the old graphs
    old = needed_files(model)
    write_manifest(manifest, folder)
    for file in old.keys() - needed_files(read_bundle(folder).model).keys():
        (folder / file).unlink(missing_ok=True)
    return f"{folder.name}: optimised by {optimiser.BY}: {before:.1f} MB before, {_size(folder):.1f} MB now"


def optimised_copy(folder: Path, target: Path, *, replace: bool) -> str:
    """Writes the bundle anew, optimised, as the folder `target`. Raises Stopped."""
    for problem in problems(folder):
        raise Stopped(problem)
    if not any(_BACKEND in network.artifacts for network in read_bundle(folder.resolve()).model.networks.values()):
        raise Stopped(f"{folder}: model.json names no weights for {_BACKEND!r}, which alone can be optimised")
    check_place(target, MANIFEST, replace=replace)
    with landing(target.resolve(), resumes=False) as place:
        shutil.rmtree(place.content, ignore_errors=True)
        for file, source in files(folder, "").items():
            (place.content / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place.content / file)
        said = optimise(place.content, _BACKEND)
        place.land()
    return f"{said}\n{target}: written"


def _made(folder: Path, artifact: Artifact, optimiser: Optimiser) -> dict[str, Any]:
    """The optimised graph, written beside the old one, as model.json names it."""
    if missing := undeclared_data(folder, artifact):
        raise Stopped(f"{folder.name}: {artifact.file!r} has weights in {missing[0]!r}, which model.json does not name")
    source = folder / artifact.file
    target = source.with_suffix(".optimised.onnx")
    if target.exists():
        raise Stopped(f"{folder.name}: {target.name!r} is in the way of what is made of {artifact.file!r}")
    # What is too large for one file stays in two.
    data = target.with_name(f"{target.name}.data") if artifact.data else None
    optimiser.optimise(source, target, data)
    beside = {"data": [_named(folder, data)]} if data is not None and data.is_file() else {}
    return {**_named(folder, target), **beside, "optimised": optimiser.BY}


def _named(folder: Path, path: Path) -> dict[str, Any]:
    return {"file": path.relative_to(folder).as_posix(), "sha256": sha256_of(path)}


def _size(folder: Path) -> float:
    """What the bundle takes in MB."""
    return sum(path.stat().st_size for path in files(folder, "").values()) / 1e6


def _optimiser() -> Optimiser:
    try:
        from model_server.export import onnx_optimised
    except ImportError as error:
        raise Stopped(f"optimising needs {error.name}: pip install -r requirements.txt") from error
    return onnx_optimised
