"""Detection bundles without files, and a network that answers what it is told: what the tests of the families share."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shared import tasks
from shared.call import Call
from shared.errors import OutOfMemory
from shared.images import Decoding, Image
from shared.manifest import Bundle, Model
from shared.parameters import parse
from shared.predictions import Detection, Prediction
from shared.validation import convert

if TYPE_CHECKING:
    from shared.backends import Run
    from shared.tasks import Task
    from shared.tensors import Tensors

Axes = Sequence[int | None]
Labels = Sequence[str | None]
Output = tuple[str, Axes] | tuple[str, Axes, str]


def manifest(
    family: str,
    outputs: Sequence[Output],
    labels: Labels,
    *,
    task: str = "detection",
    input_shape: Axes | None = None,
    dtype: str = "float32",
    preprocess: dict[str, Any] | None = None,
    postprocess: dict[str, Any] | None = None,
    sha256: str = "0" * 64,
) -> dict[str, Any]:
    """`model.json` of a network with one input; an output is (name, shape) or (name, shape, role)."""
    return {
        "name": "own",
        "task": task,
        "family": family,
        "labels": list(labels),
        "licence": "Apache-2.0",
        "source": "made by the tests",
        "networks": {
            "detector": {
                "inputs": [{"name": "image", "dtype": dtype, "shape": input_shape or [1, 3, 64, 64]}],
                "outputs": [
                    {"name": name, "dtype": "float32", "shape": shape} | ({"role": role[0]} if role else {})
                    for name, shape, *role in outputs
                ],
                "artifacts": {"onnx": {"file": "model.onnx", "sha256": sha256}},
            }
        },
        "preprocess": preprocess or {},
        "postprocess": postprocess or {},
    }


def bundle(family: str, outputs: Sequence[Output], labels: Labels, **rest: Any) -> Bundle:
    model = convert(manifest(family, outputs, labels, **rest), Model)
    return Bundle(model, Path("own"), tuple(labels))


class Cramped:
    """A Run that has memory for pictures of so many pixels, and finds their right half, in tensor pixels of 0..1."""

    def __init__(self, pixels: int = sys.maxsize) -> None:
        self.pixels = pixels
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        (tensor,) = inputs.values()
        height, width = tensor.shape[2:]
        self.asked.append((height, width))
        if height * width > self.pixels:
            raise OutOfMemory("there is not enough memory")
        return {"boxes": floats([[[0, 0.5, 1, 1]]]), "scores": floats([[[0.9]]])}

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


class Answers:
    """A Run that gives the same outputs to every picture."""

    def __init__(self, outputs: Tensors) -> None:
        self.outputs = outputs

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        return self.outputs

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


def detect(
    bundle: Bundle, outputs: dict[str, Any], source_hw: tuple[int, int] = (64, 64), **given: Any
) -> list[Detection]:
    """What the bundle's family makes of `outputs` for a black picture of `source_hw`."""
    return list(predicted(bundle, outputs, source_hw, **given).predictions)


def predicted(
    bundle: Bundle, outputs: dict[str, Any], source_hw: tuple[int, int] = (64, 64), **given: Any
) -> Prediction[Any]:
    """The whole answer that the bundle's family makes of `outputs` for a black picture of `source_hw`."""
    arrays: dict[str, npt.NDArray[Any]] = {name: np.asarray(value) for name, value in outputs.items()}
    task = tasks.build(bundle)
    return ask(task, {"detector": Answers(arrays)}, source_hw, parse(task.defaults, given))


def ask(
    task: Task, runs: Mapping[str, Run], source_hw: tuple[int, int], params: Any = None, timeout_s: float = 60
) -> Prediction[Any]:
    """What `task` answers for a black picture of `source_hw`, with no limit to its memory."""
    params = task.defaults if params is None else params
    black = picture(source_hw)
    return task.predict(black, task.plan(black, params, sys.maxsize), params, runs, Call("test", timeout_s))


def picture(source_hw: tuple[int, int]) -> Decoding:
    """A black picture that has been decoded."""
    return Decoding.of(Image(np.zeros((*source_hw, 3), np.uint8), source_hw))


def floats(values: Any) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)
