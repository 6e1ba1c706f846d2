"""Exporters: each makes one bundle from its published source. Reached by name: only they need the frameworks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from model_server.catalog import find_entry
from model_server.failures import Stopped
from model_server.fetch import download
from model_server.landing import check_place, landing
from model_server.manifests import problems
from model_server.sources import Sources
from shared.manifest import MANIFEST

Exporter: TypeAlias = Callable[[Path, Path], None]
"""Takes the downloaded source and an empty folder, and writes the whole bundle into the folder."""

Adder: TypeAlias = Callable[[Path], str]
"""Takes the folder of a whole bundle, adds one backend's file to it, and says so."""

EXPORTERS = {
    "coco-ssd-mobilenet-v2": "model_server.export.coco_ssd:export",
    "esrgan-medium": "model_server.export.esrgan:medium",
    "esrgan-slim": "model_server.export.esrgan:slim",
    "mobile-sam": "model_server.export.sam:export",
    "rdn-psnr-small": "model_server.export.esrgan:psnr_small",
}
ADDERS = {("coco-ssd-mobilenet-v2", "torchscript"): "model_server.export.coco_ssd_torch"}
REQUIREMENTS = "model_server/export/requirements.txt"
TORCH_REQUIREMENTS = "model_server/export/requirements-torch.txt"
_NEEDED = {
    "esrgan-medium": "onnx",
    "esrgan-slim": "onnx",
    "mobile-sam": f"-r {TORCH_REQUIREMENTS}",
    "rdn-psnr-small": "onnx",
}
"""What pip installs for an exporter, where it is not all that REQUIREMENTS has."""


def load_exporter(name: str) -> Exporter:
    """The exporter of the bundle `name`. Raises Stopped where there is none or its framework is not installed."""
    if name not in EXPORTERS:
        raise Stopped(f"{name!r} has no exporter; expected one of {', '.join(sorted(EXPORTERS))}")
    module, _, function = EXPORTERS[name].partition(":")
    try:
        exporter: Exporter = getattr(import_module(module), function)
    except ImportError as error:
        needed = _NEEDED.get(name, f"-r {REQUIREMENTS}")
        raise Stopped(f"exporting {name} needs {error.name}: pip install {needed}") from error
    return exporter


def add(name: str, backend: str, into: Path) -> str:
    """Makes the file that `backend` runs anew in the bundle `name` of the folder `into`, from its other files."""
    if (name, backend) not in ADDERS:
        known = sorted(known for model, known in ADDERS if model == name)
        raise Stopped(f"--backend: {name} has its own exporter for {', '.join(known) or 'none'}, found {backend!r}")
    try:
        adder: Adder = import_module(ADDERS[name, backend]).export
    except ImportError as error:
        raise Stopped(f"exporting {name} needs {error.name}: pip install -r {TORCH_REQUIREMENTS}") from error
    try:
        return adder(into / name)
    except ValueError as error:
        raise Stopped(f"{name} cannot be exported: {error}") from error


def export(name: str, into: Path, *, replace: bool = False) -> str:
    """Makes the bundle `name` anew in the folder `into`, from what its catalogue entry says it was published as."""
    exporter = load_exporter(name)
    origin = find_entry(name).export
    if origin is None:
        raise Stopped(f"the catalogue does not say what {name} is exported from")
    target = into / name
    check_place(target, MANIFEST, replace=replace)
    with landing(target) as place, Sources() as sources, TemporaryDirectory() as scratch:
        check_place(target, MANIFEST, replace=replace)
        source = Path(scratch) / "source"
        download(origin, source, sources)
        shutil.rmtree(place.content, ignore_errors=True)
        place.content.mkdir()
        try:
            exporter(source, place.content)
        except ValueError as error:
            raise Stopped(f"{name} cannot be exported: {error}") from error
        for problem in problems(place.content):
            raise Stopped(problem)
        place.land()
    return f"{name}: exported into {target}"
