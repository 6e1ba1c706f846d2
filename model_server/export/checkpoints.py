"""`export sam`: a bundle of an original SAM from its checkpoint, with the code of its authors' installed package."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from model_server.failures import Stopped
from model_server.landing import check_place, landing
from model_server.manifests import problems
from shared.manifest import MANIFEST

PACKAGES = {
    "vit_b": "segment_anything",
    "vit_l": "segment_anything",
    "vit_h": "segment_anything",
    "vit_t": "mobile_sam",
}
"""The package that has the code of each type of network; vit_t is MobileSAM's."""

TORCH_REQUIREMENTS = "model_server/export/requirements-torch.txt"
_INSTALL = {
    "segment_anything": "pip install --no-deps segment-anything==1.0",
    "mobile_sam": "pip install --no-deps git+https://github.com/ChaoningZhang/MobileSAM",
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file of weights, the type of network that they are for, and the name of the bundle to be made (None:
    `sam-vit-b` and so on)."""

    file: Path
    kind: str
    name: str | None = None

    @property
    def bundle(self) -> str:
        return self.name or f"sam-{self.kind.replace('_', '-')}"


def export_checkpoint(checkpoint: Checkpoint, into: Path, *, replace: bool = False) -> str:
    """Makes the bundle of `checkpoint` in the folder `into`. Raises Stopped."""
    if checkpoint.kind not in PACKAGES:
        raise Stopped(f"--type: expected one of {', '.join(PACKAGES)}, found {checkpoint.kind!r}")
    if not checkpoint.file.is_file():
        raise Stopped(f"--checkpoint: {checkpoint.file}: there is no such file")
    package, target = package_folder(PACKAGES[checkpoint.kind]), into / checkpoint.bundle
    try:
        sam = import_module("model_server.export.sam")
    except ImportError as error:
        raise Stopped(f"exporting a SAM needs {error.name}: pip install -r {TORCH_REQUIREMENTS}") from error
    check_place(target, MANIFEST, replace=replace)
    with landing(target, resumes=False) as place:
        place.content.mkdir()
        try:
            sam.write_bundle(sam.load_sam(package, checkpoint.kind, checkpoint.file), checkpoint, place.content)
        except ValueError as error:
            raise Stopped(f"{checkpoint.file} cannot be exported: {error}") from error
        for problem in problems(place.content):
            raise Stopped(problem)
        place.land()
    return f"{checkpoint.bundle}: exported into {target}"


def package_folder(package: str) -> Path:
    """Where the installed `package` lies. Raises Stopped that says how to install it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Stopped(f"this type needs the package {package}, which is not installed: {_INSTALL[package]}")
    return Path(spec.submodule_search_locations[0])
