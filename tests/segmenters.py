"""SAM bundles without files, and networks that remember what they were asked: what tests of promptable models share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from shared import tasks
from shared.call import Call
from shared.images import Decoding, Image
from shared.manifest import Bundle, Model
from shared.parameters import PromptableParameters, parse
from shared.predictions import Prediction, Segment
from shared.tasks.promptable import PromptableTask
from shared.tensors import TensorSpec
from shared.validation import convert

if TYPE_CHECKING:
    from shared.tensors import Tensors

Axes = Sequence[int | None]

PROMPTS: dict[str, Axes] = {
    "image_embeddings": [1, 256, 64, 64],
    "point_coords": [None, None, 2],
    "point_labels": [None, None],
    "mask_input": [None, 1, 256, 256],
    "has_mask_input": [None],
}
ANSWERS: dict[str, Axes] = {"low_res_masks": [None, 4, 256, 256], "iou_predictions": [None, 4]}
EMBEDDINGS: dict[str, Axes] = {"image_embeddings": [1, 256, 64, 64]}
LETTERBOX = {"size": [1024, 1024], "resize": "letterbox", "anchor": "top-left", "layout": "NHWC"}
SCORES = (0.5, 0.7, 0.9, 0.6)
"""Of the masks of `Networks`."""


def bundle(
    *,
    prompts: Mapping[str, Axes] = PROMPTS,
    answers: Mapping[str, Axes] = ANSWERS,
    embeddings: Mapping[str, Axes] = EMBEDDINGS,
    family: str = "sam",
    preprocess: Mapping[str, Any] = LETTERBOX,
    postprocess: Mapping[str, Any] | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> Bundle:
    def specs(shapes: Mapping[str, Axes]) -> list[dict[str, Any]]:
        kinds = dtypes or {}
        return [{"name": name, "dtype": kinds.get(name, "float32"), "shape": shape} for name, shape in shapes.items()]

    artifacts = {"onnx": {"file": "model.onnx", "sha256": "0" * 64}}
    picture = [{"name": "image", "dtype": "uint8", "shape": [1, 1024, 1024, 3]}]
    model = {
        "name": "own-sam",
        "task": "promptable-segmentation",
        "family": family,
        "licence": "Apache-2.0",
        "source": "made by the tests",
        "networks": {
            "encoder": {"inputs": picture, "outputs": specs(embeddings), "artifacts": artifacts},
            "decoder": {"inputs": specs(prompts), "outputs": specs(answers), "artifacts": artifacts},
        },
        "preprocess": dict(preprocess),
        "postprocess": dict(postprocess or {}),
    }
    return Bundle(convert(model, Model), Path("own-sam"), ())


class Networks:
    """An encoder whose embeddings are the picture's first pixel, and a decoder that answers each prompt by a square of
    64 x 64 elements around its first point (of four masks the i-th is i elements larger). Both remember what they were
    given."""

    def __init__(self, bundle: Bundle) -> None:
        self.encoded: list[Tensors] = []
        self.decoded: list[Tensors] = []
        self._outputs = {name: network.outputs for name, network in bundle.model.networks.items()}
        self.runs = {"encoder": _Run(self._encode), "decoder": _Run(self._decode)}

    def _encode(self, inputs: Tensors) -> Tensors:
        self.encoded.append(inputs)
        pixel = float(next(iter(inputs.values()))[0, 0, 0, 0])
        return {spec.name: np.full(_shape(spec, 1), pixel, np.float32) for spec in self._outputs["encoder"]}

    def _decode(self, inputs: Tensors) -> Tensors:
        self.decoded.append(inputs)
        points = next(array for name, array in inputs.items() if "coords" in name)
        frame = 256 if points.ndim == 4 else 1024
        points = points.reshape(-1, *points.shape[-2:])
        planes, scores = (_shape(spec, len(points)) for spec in self._outputs["decoder"])
        logits = np.full((len(points), planes[-3], 256, 256), -8, np.float32)
        for number, (x, y) in enumerate((points[:, 0] / (frame / 256)).round().astype(int)):
            for mask in range(planes[-3]):
                reach = 32 + mask
                logits[number, mask, max(y - reach, 0) : y + reach, max(x - reach, 0) : x + reach] = 8
        iou = np.broadcast_to(np.array(SCORES[: scores[-1]], np.float32), (len(points), scores[-1]))
        found = (logits.reshape(planes), iou.reshape(scores))
        return {spec.name: array for spec, array in zip(self._outputs["decoder"], found, strict=True)}


def _shape(spec: TensorSpec, prompts: int) -> tuple[int, ...]:
    """With what is free filled in: a batch of so many prompts, planes of 256 x 256."""
    if len(spec.shape) == 5 or (len(spec.shape) == 3 and spec.shape[0] == 1):
        free: tuple[int, ...] = (1, prompts, 4, 256, 256)
    else:
        free = (prompts, 4, 256, 256)
    return tuple(fixed or own for fixed, own in zip(spec.shape, free, strict=False))


class _Run:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        found: Tensors = self._answer(inputs)
        return found

    def ready(self) -> bool:
        return True

    def close(self) -> None: ...


def task_of(bundle: Bundle) -> PromptableTask:
    task = tasks.build(bundle)
    assert isinstance(task, PromptableTask)
    return task


def png(hw: tuple[int, int] = (40, 60), value: int = 128) -> bytes:
    file = BytesIO()
    Pillow.fromarray(np.full((*hw, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def grey(hw: tuple[int, int] = (512, 1024), value: int = 128) -> Decoding:
    return Decoding.of(Image(np.full((*hw, 3), value, np.uint8), hw))


def ask(bundle: Bundle, networks: Networks, picture: Decoding | None = None, **given: Any) -> Prediction[Segment]:
    """What the bundle's family makes of the answers of `networks`."""
    task, picture, call = task_of(bundle), picture or grey(), Call("test", 60)
    params: PromptableParameters = parse(task.defaults, given)
    return task.predict(picture, task.plan(picture, params, 1 << 40), params, networks.runs, call)


def last(networks: Networks, name: str) -> npt.NDArray[Any]:
    """The decoder's input of that name, of its last run."""
    found: npt.NDArray[Any] = networks.decoded[-1][name]
    return found
