"""`stage`: the doors, `shared`, chosen bundles and one requirements file in a folder that both clouds can deploy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from model_server.failures import Stopped
from model_server.landing import STAGE_MARK, check_place, landing
from model_server.staging.files import MODELS, Cloud, Files, bundle_files, code_files, with_parts
from model_server.staging.optimise import optimise
from model_server.staging.packages import REQUIREMENTS, flat_requirements, requirements_of
from model_server.staging.profile import profile
from shared.artifacts import verified
from shared.backends import EMBEDDED
from shared.build import BUILD, Build
from shared.manifest import read_bundle

ROOT = Path(__file__).resolve().parent.parent.parent
# The earliest time that a zip file can hold: the same sources give the same package.
TIME = 315_532_800


class Additions(msgspec.Struct, frozen=True):
    """What is done to what is copied: graphs optimised, bundles profiled, the commit noted down where it is known."""

    optimise: bool = False
    profile: bool = False
    git_sha: str | None = None


AS_IT_IS = Additions()


def stage(
    out: Path,
    bundles: Sequence[str],
    models: Path,
    requirements: Path | None = None,
    *,
    backend: str = "onnx",
    cloud: Cloud | None = None,
    additions: Additions = AS_IT_IS,
    root: Path = ROOT,
) -> str:
    """Lays out the folder `out` anew, with the weights that `backend` reads and the packages that it needs where no
    `requirements` are named, and says what is in it. A bundle is named, or is a folder.

    Raises Stopped for a folder that is not of this command's making, and for a bundle that is not whole.
    """
    out = out.absolute()
    _check_place(out, root)
    folders = with_parts([Path(name).resolve() if Path(name).is_dir() else models / name for name in bundles])
    planned = _planned(folders, backend, cloud, root)
    text = flat_requirements(requirements) if requirements else requirements_of(backend, root)
    with landing(out, resumes=False) as place:
        shutil.rmtree(place.content, ignore_errors=True)
        place.content.mkdir()
        for target, source in planned.items():
            _write(place.content / target, source.read_bytes())
        _write(place.content / REQUIREMENTS, text.encode())
        said = list(_added(place.content, [folder.name for folder in folders], backend, additions))
        files = _settled(place.content)
        place.land()
    names = ", ".join(folder.name for folder in folders)
    return "\n".join([f"{out}: {files} files, with {names}", *said, _told(backend)])


def _added(content: Path, names: Sequence[str], backend: str, additions: Additions) -> Iterator[str]:
    """What is done to the copied bundles, and a sentence on each thing."""
    if additions.git_sha:
        _write(content / "shared" / BUILD, msgspec.json.encode(Build(additions.git_sha)) + b"\n")
    for name in names:
        if additions.optimise:
            yield optimise(content / MODELS / name, backend)
        if additions.profile:
            yield profile(content / MODELS / name, backend)
        _vouch(content / MODELS / name, backend)


def _told(backend: str) -> str:
    """What the function has to be told where it is deployed."""
    if backend in EMBEDDED:
        return f"set THINLENS_BACKEND={backend}" + (", which is the default" if backend == "onnx" else "")
    return f"set THINLENS_BACKEND={backend} and THINLENS_BACKEND_URL"


def _check_place(out: Path, root: Path) -> None:
    if out.resolve() in [root, *root.parents] or any(
        out.resolve().is_relative_to(root / part) for part in ("function_app", "shared", "model_server")
    ):
        raise Stopped(f"{out} is where the sources are; expected a folder of its own")
    check_place(out, STAGE_MARK, replace=True)


def _planned(folders: Sequence[Path], backend: str, cloud: Cloud | None, root: Path) -> Files:
    """Every file by its place in the staged folder, in order."""
    planned = code_files(root, cloud)
    for folder in folders:
        planned |= bundle_files(folder, backend)
    for names in ([folder.name for folder in folders], [read_bundle(folder).model.name for folder in folders]):
        if len(set(names)) < len(names):
            raise Stopped(f"{', '.join(names)}: two bundles have one name")
    taken = sorted(set(planned) & {REQUIREMENTS, STAGE_MARK})
    if taken:
        raise Stopped(f"function_app/{taken[0]} is in the way: the staged folder has its own")
    return dict(sorted(planned.items()))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _vouch(folder: Path, backend: str) -> None:
    """Leaves beside the weights that their checksums were found right: a start on a read-only disk would else read them
    all to know. The finding holds as long as the files have the time that they are given here."""
    _settle_times(folder)
    bundle = read_bundle(folder)
    for network in map(bundle.network, bundle.model.networks):
        if backend in network.artifacts:
            verified(network, backend)


def _settled(folder: Path) -> int:
    """Gives everything the same rights and time, whoever stages it and when, files before the folders they are in; with
    the list of files beside them, whose number it gives."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    _write(folder / STAGE_MARK, "".join(f"{file}\n" for file in files).encode())
    _settle_times(folder)
    return len(files)


def _settle_times(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (TIME, TIME))
