"""`describe`: a draft of model.json for somebody's own model: what can be read from its file, and what is usual.

Each kind of file has a module here that opens it by its framework, and is reached by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from model_server.describe import families, kinds, labels, roles
from model_server.describe.looked import Asked, Looked, Samples
from model_server.describe.samples import samples
from model_server.describe.usual import preprocess
from model_server.failures import Stopped
from model_server.manifests import family_problem, tensor_json, write_manifest
from shared.backends import EMBEDDED
from shared.manifest import MANIFEST
from shared.tensors import TensorSpec

_NETWORK = "detector"
_SAVED_MODEL = "saved_model"


def describe(path: Path, asked: Asked, into: Path | None = None) -> tuple[dict[str, Any], list[str]]:
    """The draft of the model.json in the folder `into`, and what in it a person should look over. Raises Stopped."""
    families.check(asked.family)
    file, backend = kinds.find(path)
    folder = into or kinds.home(file)
    looked = _looker(backend)(file, asked, partial(samples, asked))
    roles.check([*looked.inputs, *looked.outputs], asked.roles)
    inputs, outputs = roles.guessed(looked.inputs, asked.roles), roles.given(looked.outputs, asked.roles)
    picture = roles.picture(inputs)
    family = asked.family or families.proposed(outputs)
    artifact = kinds.artifact(file, folder, looked.signature)
    draft = {
        "name": asked.name or _slug(file, folder),
        "task": families.task_of(family),
        "family": family,
        "licence": asked.licence,
        "source": artifact["file"],
        "networks": {
            _NETWORK: {
                "inputs": [_tensor(one) for one in inputs],
                "outputs": [_tensor(one) for one in outputs],
                "artifacts": {backend: artifact},
            }
        },
        "preprocess": preprocess(families.habits(family, outputs), picture.dtype, picture.shape),
        "postprocess": {"score_threshold": 0.25, "max_predictions": 100},
        "labels": labels.read(asked.labels, looked.labels),
    }
    by_outputs = [] if asked.family else [f"family {family}: that is what the outputs look like"]
    return draft, [
        *by_outputs,
        *_notes(draft),
        *_places(file, artifact, folder, into),
        *looked.notes,
        *_problems(draft),
    ]


def write(draft: dict[str, Any], folder: Path) -> None:
    """Writes the draft as the model.json of `folder`. Raises Stopped where there is one."""
    if (folder / MANIFEST).exists():
        raise Stopped(
            f"{folder / MANIFEST}: there is one already; --add-to puts another file of the same model into it"
        )
    write_manifest(draft, folder)


def _looker(backend: str) -> Callable[[Path, Asked, Samples], Looked]:
    try:
        look: Callable[[Path, Asked, Samples], Looked] = import_module(f"model_server.describe.{backend}").look
    except ImportError as error:
        raise Stopped(f"describing this file needs {error.name}: pip install {EMBEDDED[backend][1]}") from error
    return look


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return tensor_json(spec) | ({"role": spec.role} if spec.role else {})


def _slug(file: Path, folder: Path) -> str:
    own = file.stem if file.name != kinds.SAVED_MODEL else file.resolve().parent.name
    name = folder.resolve().name if own == _SAVED_MODEL else own
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "model"


def _notes(draft: dict[str, Any]) -> list[str]:
    chosen = ", ".join(f"{key} {value}" for key, value in draft["preprocess"].items())
    notes = [f"preprocess is what is usual for {draft['family']}: {chosen}"]
    if draft["licence"] == "unknown":
        notes.append("licence: say under which licence the weights may be used")
    return notes


def _places(file: Path, artifact: dict[str, Any], folder: Path, into: Path | None) -> list[str]:
    """What belongs where."""
    if file.name == kinds.SAVED_MODEL:
        return [] if into else [f"{MANIFEST} belongs into {folder}, from where it names the files"]
    return [f"{data['file']} holds weights and belongs beside {file.name}" for data in artifact.get("data", [])]


def _problems(draft: dict[str, Any]) -> list[str]:
    """Why the family could not serve the draft as it is."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / draft["name"]
        folder.mkdir()
        write_manifest(draft, folder)
        problem = family_problem(folder)
    return [problem] if problem else []
