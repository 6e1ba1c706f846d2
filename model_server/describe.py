"""`describe`: a draft of model.json for somebody's own ONNX file: what can be read from it, and what is usual."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from model_server.failures import Stopped
from model_server.manifests import family_problem, write_manifest
from shared import tasks
from shared.artifacts import external_data, sha256_of
from shared.validation import suggest

if TYPE_CHECKING:
    import onnxruntime as ort

_NETWORK = "detector"
_DTYPES = {"float": "float32", "double": "float64"}
_PER_255 = 1 / 255
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
# The size that free networks of these families were mostly trained at.
_USUAL_SIZE = [640, 640]


def describe(
    path: Path, family: str, labels: str | None, name: str | None, licence: str
) -> tuple[dict[str, Any], list[str]]:
    """The draft of model.json for the ONNX file `path`, and what in it a person should look over. Raises Stopped."""
    if family not in tasks.FAMILIES and ":" not in family:
        raise Stopped(f"--family: unknown {family!r}; {suggest(family, list(tasks.FAMILIES))}")
    session = _opened(path)
    inputs = [_tensor(value) for value in session.get_inputs()]
    draft = {
        "name": name or _slug(path.stem),
        "task": "detection",
        "family": family,
        "licence": licence,
        "source": path.name,
        "networks": {
            _NETWORK: {
                "inputs": inputs,
                "outputs": [_tensor(value) for value in session.get_outputs()],
                "artifacts": {"onnx": _artifact(path)},
            }
        },
        "preprocess": preprocess(family, inputs[0]["dtype"], inputs[0]["shape"]),
        "postprocess": {"score_threshold": 0.25, "max_predictions": 100},
        "labels": _labels(labels, session),
    }
    return draft, _notes(draft, path)


def preprocess(family: str, dtype: str, shape: list[int | None]) -> dict[str, Any]:
    """What networks of `family` are usually fed, for an input of this dtype and shape."""
    layout = _layout(shape)
    size = [shape[layout.index("H")], shape[layout.index("W")]]
    free = None in size
    fixed = {} if free else {"size": size}
    usual: dict[str, dict[str, Any]] = {
        "yolo": {"size": _USUAL_SIZE if free else size, "resize": "letterbox", "scale": _PER_255},
        "yolox": {
            "size": _USUAL_SIZE if free else size,
            "resize": "letterbox",
            "anchor": "top-left",
            "colour": "BGR",
        },
        "detr": {"resize": "short-side", "side": 800, "max_side": 1333, "scale": _PER_255, **_IMAGENET}
        if free
        else {**fixed, "resize": "stretch", "scale": _PER_255},
        "torchvision-detection": {**fixed, "scale": _PER_255},
    }
    chosen = {**usual.get(family, {**fixed, "resize": "stretch"}), "layout": layout}
    normalising = ("scale", "mean", "std") if dtype == "uint8" else ()
    return {key: value for key, value in chosen.items() if key not in normalising}


def _artifact(path: Path) -> dict[str, Any]:
    data = [{"file": file, "sha256": sha256_of(path.parent / file)} for file in sorted(external_data(path))]
    return {"file": path.name, "sha256": sha256_of(path), **({"data": data} if data else {})}


def _layout(shape: list[int | None]) -> str:
    if len(shape) not in (3, 4):
        raise Stopped(f"the first input has shape {shape}; expected a picture, of 3 axes or with a batch axis of 4")
    axes = "HWC" if shape[-1] in (1, 3) and shape[-3] != 3 else "CHW"
    return axes if len(shape) == 3 else f"N{axes}"


def _opened(path: Path) -> ort.InferenceSession:
    if not path.is_file():
        raise Stopped(f"{path}: there is no such file")
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise Stopped("describe needs onnxruntime: pip install -r requirements.txt") from error
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no base class of their own
        raise Stopped(f"{path}: ONNX Runtime cannot open it: {error}") from error


def _tensor(value: ort.NodeArg) -> dict[str, Any]:
    """A tensor as model.json has it; an axis without a fixed size is null."""
    kind = re.fullmatch(r"tensor\((\w+)\)", value.type)
    if kind is None:
        raise Stopped(f"tensor {value.name!r} is a {value.type}, expected a plain tensor")
    shape = [axis if isinstance(axis, int) and axis > 0 else None for axis in value.shape]
    return {"name": value.name, "dtype": _DTYPES.get(kind[1], kind[1]), "shape": shape}


def _labels(given: str | None, session: ort.InferenceSession) -> list[str | None]:
    """The labels by class index: from a file with one a line, from a list, or from the file's metadata."""
    if given is None:
        return _own_labels(session)
    path = Path(given)
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else given.split(",")
    except UnicodeDecodeError as error:
        raise Stopped(f"--labels: {given} is not UTF-8 text: {error}") from error
    return [line.strip() or None for line in lines]


def _own_labels(session: ort.InferenceSession) -> list[str | None]:
    """What some exporters, Ultralytics' among them, leave under `names`: a Python dictionary of labels by index."""
    text = session.get_modelmeta().custom_metadata_map.get("names")
    if text is None:
        raise Stopped("the file names no labels itself: give --labels, a file with one a line or a list like cat,dog")
    try:
        names = dict(ast.literal_eval(text))
        return [names.get(index) for index in range(max(names) + 1)]
    except (ValueError, SyntaxError, TypeError) as error:
        raise Stopped(f"the labels in the file's metadata cannot be read ({error}): give --labels") from error


def _slug(stem: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "model"


def _notes(draft: dict[str, Any], path: Path) -> list[str]:
    chosen = ", ".join(f"{key} {value}" for key, value in draft["preprocess"].items())
    notes = [f"preprocess is what is usual for {draft['family']}: {chosen}"]
    if draft["licence"] == "unknown":
        notes.append("licence: say under which licence the weights may be used")
    for data in draft["networks"][_NETWORK]["artifacts"]["onnx"].get("data", []):
        notes.append(f"{data['file']} holds weights and belongs beside {path.name}")
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / draft["name"]
        folder.mkdir()
        write_manifest(draft, folder)
        problem = family_problem(folder)
    return [*notes, problem] if problem else notes
