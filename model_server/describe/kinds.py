"""What kind of exported model a file is, by its name: the backend that runs it, and the files that belong to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_server.failures import Stopped
from shared.artifacts import external_data, sha256_of

SAVED_MODEL = "saved_model.pb"
_BESIDE = ("variables", "assets")
_BACKENDS = {
    ".onnx": "onnx",
    ".ts": "torchscript",
    ".torchscript": "torchscript",
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".pt2": "torchscript",
    ".pb": "tensorflow",
    ".tflite": "litert",
}
_KERAS = "is Keras' own: save it by model.export(FOLDER), which writes a SavedModel"
_WEIGHTS = (
    "holds weights without the network: make the network in a function of your own and give that to `convert --module`"
)
_ADVICE = {".keras": _KERAS, ".h5": _KERAS, ".safetensors": _WEIGHTS, ".ckpt": _WEIGHTS, ".bin": _WEIGHTS}


def find(path: Path) -> tuple[Path, str]:
    """The file that a backend runs, which in a SavedModel's folder is `saved_model.pb`, and that backend."""
    if path.is_dir():
        if not (path / SAVED_MODEL).is_file():
            raise Stopped(f"{path}: expected a file, or a SavedModel's folder, which has a {SAVED_MODEL} in it")
        path = path / SAVED_MODEL
    if not path.is_file():
        raise Stopped(f"{path}: there is no such file")
    ending = path.suffix.lower()
    if ending not in _BACKENDS:
        known = ", ".join(_BACKENDS)
        raise Stopped(f"{path}: {_ADVICE.get(ending, f'expected a SavedModel or a file that ends in {known}')}")
    return path, _BACKENDS[ending]


def home(path: Path) -> Path:
    """The folder that `model.json` usually lies in: the file's own, or the one that a SavedModel's folder lies in."""
    return path.resolve().parent.parent if path.name == SAVED_MODEL else path.resolve().parent


def artifact(path: Path, folder: Path, signature: str | None = None) -> dict[str, Any]:
    """What the model.json in `folder` says of the file and of those that hold its weights. Raises Stopped."""
    file = _inside(path, folder)
    data = [{"file": _inside(one, folder), "sha256": sha256_of(one)} for one in _beside(path)]
    return {
        "file": file,
        "sha256": sha256_of(path),
        **({"data": data} if data else {}),
        **({"signature": signature} if signature else {}),
    }


def _beside(path: Path) -> list[Path]:
    if path.name == SAVED_MODEL:
        return [one for name in _BESIDE for one in sorted((path.parent / name).rglob("*")) if one.is_file()]
    return [path.parent / file for file in sorted(external_data(path))] if path.suffix.lower() == ".onnx" else []


def _inside(path: Path, folder: Path) -> str:
    try:
        return (path.parent.resolve() / path.name).relative_to(folder.resolve()).as_posix()
    except ValueError as error:
        raise Stopped(f"{path}: a bundle's files lie in its folder, {folder}: put it there first") from error
