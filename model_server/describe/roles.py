"""What the family should take a tensor for, where its name does not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from model_server.failures import Stopped
from shared.errors import ConfigurationError
from shared.tasks.companions import SIZE, told_apart
from shared.tensors import TensorSpec


def given(tensors: Sequence[TensorSpec], roles: Mapping[str, str]) -> list[TensorSpec]:
    """The tensors, those named in `roles` with that role."""
    return [msgspec.structs.replace(one, role=roles.get(one.name, one.role)) for one in tensors]


def guessed(inputs: Sequence[TensorSpec], roles: Mapping[str, str]) -> list[TensorSpec]:
    """The inputs with their roles; where that leaves no one picture, one of two numbers is taken for its size."""
    named = given(inputs, roles)
    if _picture(named) is not None:
        return named
    sizes = [one.name for one in named if one.role is None and one.fits((1, 2))]
    return given(named, dict.fromkeys(sizes[:1], SIZE))


def picture(inputs: Sequence[TensorSpec]) -> TensorSpec:
    """The picture's input, or the first one where only a family of the user's own could tell."""
    return _picture(inputs) or inputs[0]


def check(tensors: Sequence[TensorSpec], roles: Mapping[str, str]) -> None:
    """Raises Stopped where a role is given to no tensor."""
    names = [one.name for one in tensors]
    if unknown := [name for name in roles if name not in names]:
        raise Stopped(f"--role: there is no {unknown[0]!r}, only {', '.join(names)}")


def _picture(inputs: Sequence[TensorSpec]) -> TensorSpec | None:
    try:
        return told_apart(inputs, "inputs")[0]
    except ConfigurationError:
        return None
