"""The seam between the service and what a model is for, and the table of families.

A task knows the Backend protocol, never a concrete backend. A new family is one file and one line of FAMILIES; a
model of no known family names its own factory by dotted path in `model.json` (`"family": "package.module:factory"`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from shared.errors import ConfigurationError
from shared.manifest import Bundle
from shared.validation import suggest

_log = logging.getLogger("thinlens")

if TYPE_CHECKING:
    from shared.backends import Run
    from shared.call import Call
    from shared.geometry import HW
    from shared.images import Header, Image
    from shared.predictions import Prediction

FAMILIES = {
    "tf-detection": "shared.tasks.tf_detection:task",
    "yolo": "shared.tasks.yolo:task",
    "yolox": "shared.tasks.yolox:task",
    "detr": "shared.tasks.detr:task",
    "torchvision-detection": "shared.tasks.torchvision_detection:task",
}


class Plan(msgspec.Struct, frozen=True):
    """What one request will need: the upright size (height, width) to decode the picture at, or None for its own."""

    decode_hw: HW | None


class Task(Protocol):
    """One model's way from a picture to a Prediction. Holds no state of a request."""

    @property
    def defaults(self) -> Any:
        """The parameters of a request that gives none: an instance of the task's own frozen struct."""

    def plan(self, header: Header, params: Any) -> Plan:
        """Pure. Raises InvalidParameter for what only the model can judge, such as an unknown label."""

    def predict(self, image: Image, params: Any, runs: Mapping[str, Run], call: Call) -> Prediction:
        """Raises ModelOutputMismatch, DeadlineExceeded and what the backend raises."""


TaskFactory = Callable[[Bundle], Task]


def build(bundle: Bundle) -> Task:
    """The task that `bundle`'s family names. Raises ConfigurationError that begins with the bundle's name."""
    try:
        return _factory(bundle.model.family)(bundle)
    except ConfigurationError as error:
        raise ConfigurationError(f"{bundle.model.name}: {error}") from error


def _factory(family: str) -> TaskFactory:
    path = FAMILIES.get(family, family if ":" in family else "")
    if not path:
        raise ConfigurationError(f"family: unknown {family!r}; {suggest(family, list(FAMILIES))}")
    module, _, name = path.partition(":")
    try:
        factory: TaskFactory = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        _log.error("family %s cannot be loaded: %s", path, error)
        what = type(error).__name__  # its text may hold a path
        raise ConfigurationError(f"family: cannot load {path!r} ({what})") from error
    return factory
