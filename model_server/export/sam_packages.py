"""SAM's networks from the published Python files of their authors, loaded without what those need for other things.

Only a package's `build_sam` and its `modeling` are run: its `__init__` would bring torchvision and OpenCV, and TinyViT
asks `timm` for three names that a network at inference does without.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn


def load_sam(folder: Path, kind: str, checkpoint: Path) -> Any:
    """The network `kind` of the package in `folder` with the weights of `checkpoint`. Raises ValueError."""
    try:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # what unpickling raises is as various as the files
        raise ValueError(f"{checkpoint.name} is no checkpoint of weights: {type(error).__name__}") from error
    sam = build_sam(folder, kind)
    try:
        sam.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{checkpoint.name} does not hold the weights of a {kind}") from error
    return sam.eval()  # anew: TinyViT keeps what it works out of its weights when it leaves training


def build_sam(folder: Path, kind: str) -> Any:
    """The network `kind` of the package in `folder`, with weights to be loaded, for inference."""
    with _loaded(folder) as package:
        sam = import_module(f"{package}.build_sam").sam_model_registry[kind]()
    return sam.eval().requires_grad_(False)


@contextmanager
def _loaded(folder: Path) -> Iterator[str]:
    """The name of a package that is `folder` without its `__init__`, as long as its modules are being imported."""
    name = f"_thinlens_{folder.name}"
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    modules = {name: package, **_timm()}
    before = {known: sys.modules[known] for known in modules.keys() & sys.modules.keys()}
    sys.modules.update(modules)
    try:
        yield name
    finally:
        for known in [known for known in sys.modules if known in modules or known.startswith(f"{name}.")]:
            del sys.modules[known]
        sys.modules.update(before)


def _timm() -> dict[str, ModuleType]:
    """What TinyViT takes from timm: the start of a training's weights, and what only a training drops."""
    names: dict[str, dict[str, Any]] = {
        "timm": {},
        "timm.models": {},
        "timm.models.layers": {"DropPath": _Kept, "to_2tuple": _two, "trunc_normal_": _untouched},
        "timm.models.registry": {"register_model": _unregistered},
    }
    modules = {name: ModuleType(name) for name in names}
    for name, values in names.items():
        vars(modules[name]).update(values)
    return modules


class _Kept(nn.Identity):
    """All paths stay; nn.Identity takes any argument."""


def _two(side: int) -> tuple[int, int]:
    return side, side


def _untouched(tensor: torch.Tensor, **_: float) -> torch.Tensor:
    return tensor


def _unregistered(function: Any) -> Any:
    return function
