"""`stage`: the doors, `shared`, chosen bundles and one requirements file in a folder that both clouds can deploy."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from model_server.failures import Stopped
from model_server.landing import STAGE_MARK, check_place, landing
from model_server.manifests import problems, weights_for
from shared.backends import EMBEDDED
from shared.manifest import read_bundle

ROOT = Path(__file__).resolve().parent.parent
_REQUIREMENTS = "requirements.txt"
_REQUIREMENTS_OF = {"torchscript": "requirements-torch.txt", "tensorflow": "requirements-tf.txt"}
_ADDED = {"litert": EMBEDDED["litert"][1].strip("'")}
_ONNX_RUNTIME = re.compile(r"\s*onnxruntime\b")
_GUNICORN = "gunicorn.conf.py"
# Ignore files tell the deploying tools what to leave behind; all else that is hidden stays here.
_HIDDEN = {".funcignore", ".gcloudignore", ".dockerignore"}
_LEFT_OUT = {"__pycache__", "tests", "node_modules", "local.settings.json"}
_ENDINGS_LEFT_OUT = {".pyc", ".part"}
_INCLUDED = re.compile(r"\s*(-r|--requirement)[\s=]*(?P<path>\S+)")
_ELSEWHERE = re.compile(r"\s*(-c|--constraint|-e|--editable)\b")
# The earliest time that a zip file can hold: the same sources give the same package.
_TIME = 315_532_800


def stage(
    out: Path,
    bundles: Sequence[str],
    models: Path,
    requirements: Path | None = None,
    *,
    backend: str = "onnx",
    root: Path = ROOT,
) -> str:
    """Lays out the folder `out` anew, with the weights that `backend` reads and the packages that it needs where no
    `requirements` are named, and says what is in it. A bundle is named, or is a folder.

    Raises Stopped for a folder that is not of this command's making, and for a bundle that is not whole.
    """
    out = out.absolute()
    _check_place(out, root)
    files = _planned(bundles, models, backend, root)
    text = _flat_requirements(requirements) if requirements else _requirements(backend, root)
    with landing(out, resumes=False) as place:
        shutil.rmtree(place.content, ignore_errors=True)
        place.content.mkdir()
        for target, source in files.items():
            _write(place.content / target, source.read_bytes())
        _write(place.content / _REQUIREMENTS, text.encode())
        _write(place.content / STAGE_MARK, "".join(f"{target}\n" for target in [*files, _REQUIREMENTS]).encode())
        _settle(place.content)
        place.land()
    return f"{out}: {len(files) + 1} files, with {', '.join(bundles)}\n{_told(backend)}"


def _told(backend: str) -> str:
    """What the function has to be told where it is deployed."""
    if backend in EMBEDDED:
        return f"set THINLENS_BACKEND={backend}" + (", which is the default" if backend == "onnx" else "")
    return f"set THINLENS_BACKEND={backend} and THINLENS_BACKEND_URL"


def _requirements(backend: str, root: Path) -> str:
    """The packages of one backend: ONNX Runtime is only for its own."""
    text = _flat_requirements(root / _REQUIREMENTS_OF.get(backend, _REQUIREMENTS))
    if backend == "onnx":
        return text
    kept = [line for line in text.splitlines() if not _ONNX_RUNTIME.match(line)]
    return "".join(f"{line}\n" for line in [*kept, *([_ADDED[backend]] if backend in _ADDED else [])])


def _check_place(out: Path, root: Path) -> None:
    if out.resolve() in [root, *root.parents] or any(
        out.resolve().is_relative_to(root / part) for part in ("function_app", "shared", "model_server")
    ):
        raise Stopped(f"{out} is where the sources are; expected a folder of its own")
    check_place(out, STAGE_MARK, replace=True)


def _planned(bundles: Sequence[str], models: Path, backend: str, root: Path) -> dict[str, Path]:
    """Every file by its place in the staged folder, in order."""
    planned = {
        **_files(root / "function_app", ""),
        **_files(root / "shared", "shared/"),
        _GUNICORN: root / _GUNICORN,
    }
    for name in bundles:
        planned |= _bundle(Path(name).resolve() if Path(name).is_dir() else models / name, backend)
    taken = sorted(set(planned) & {_REQUIREMENTS, STAGE_MARK})
    if taken:
        raise Stopped(f"function_app/{taken[0]} is in the way: the staged folder has its own")
    return dict(sorted(planned.items()))


def _bundle(folder: Path, backend: str) -> dict[str, Path]:
    """A bundle's files but for the weights that `backend` does not read."""
    for problem in problems(folder):
        raise Stopped(problem)
    own, others = weights_for(backend, read_bundle(folder).model)
    if not own and backend in EMBEDDED:
        raise Stopped(f"{folder.name}: model.json names no weights for {backend!r}; found those of {sorted(others)}")
    place = f"model_server/models/{folder.name}/"
    left_out = {place + file for file in others}
    return {target: source for target, source in _files(folder, place).items() if target not in left_out}


def _files(folder: Path, prefix: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise Stopped(f"{folder}: there is no such folder")
    return {prefix + path.relative_to(folder).as_posix(): path for path in _walk(folder)}


def _walk(folder: Path) -> Iterator[Path]:
    """The files to take. Links are followed: Google's deploying tool drops them, so what they mean is staged."""
    for path in sorted(folder.iterdir()):
        if _is_left_out(path):
            continue
        if path.is_dir():
            yield from _walk(path)
        elif path.exists():
            yield path
        else:
            raise Stopped(f"{path} is a link to nothing")


def _is_left_out(path: Path) -> bool:
    hidden = path.name.startswith(".") and path.name not in _HIDDEN
    return hidden or path.name in _LEFT_OUT or path.suffix in _ENDINGS_LEFT_OUT


def _flat_requirements(path: Path) -> str:
    """The requirements file with those that it includes written out: one file is all that the clouds read."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := _INCLUDED.match(line):
            lines.append(_flat_requirements(path.parent / match["path"]).rstrip("\n"))
        elif _ELSEWHERE.match(line):
            raise Stopped(f"{path}: {line.strip()!r} cannot be staged; expected packages and -r")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o644)


def _settle(folder: Path) -> None:
    """Gives everything the same rights and time, whoever stages it and when; files before the folders they are in."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (_TIME, _TIME))
