"""PyTorch's own call of a script."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from tests.bench.backends.inputs import pixels, sums
from tests.bench.backends.loop import Way


def call(file: str, threads: str, side: str, *outputs: str) -> Way:
    """The module as it was loaded."""
    return _called(_loaded(file, threads), side, outputs)


def frozen(file: str, threads: str, side: str, *outputs: str) -> Way:
    """The module with its weights as constants, which PyTorch advises for inference."""
    return _called(torch.jit.freeze(_loaded(file, threads)), side, outputs)


def unprofiled(file: str, threads: str, side: str, *outputs: str) -> Way:
    """The frozen module without the executor that compiles anew for what it has seen."""
    module = torch.jit.freeze(_loaded(file, threads))

    def without(tensor: Any) -> Any:
        with torch.jit.optimized_execution(False):
            return module(tensor)

    return _called(without, side, outputs)


def _loaded(file: str, threads: str) -> Any:
    warnings.simplefilter("ignore", DeprecationWarning)
    torch.set_num_threads(int(threads))
    return torch.jit.load(file).eval()


def _called(module: Any, side: str, outputs: tuple[str, ...]) -> Way:
    picture = pixels(int(side))

    def work() -> dict[str, Any]:
        with torch.inference_mode():
            answer = module(torch.from_numpy(picture))
        return {name: tensor.numpy() for name, tensor in zip(outputs, answer, strict=True)}

    return Way(work, sums)
