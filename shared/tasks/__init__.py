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
    from shared.images import Decoding
    from shared.predictions import Prediction

FAMILIES = {
    "tf-detection": "shared.tasks.tf_detection:task",
    "yolo": "shared.tasks.yolo:task",
    "yolox": "shared.tasks.yolox:task",
    "detr": "shared.tasks.detr:task",
    "torchvision-detection": "shared.tasks.torchvision_detection:task",
    "mask-rcnn": "shared.tasks.mask_rcnn:task",
    "yolo-seg": "shared.tasks.yolo_seg:task",
    "detector-sam": "shared.tasks.detector_sam:task",
    "sam": "shared.tasks.sam:task",
    "sam2": "shared.tasks.sam2:task",
    "image-to-image": "shared.tasks.image_to_image:task",
}


class Plan(msgspec.Struct, frozen=True):
    """How one request will be worked on, and what that takes; a family adds what it has decided.

    decode_hw     the upright size (height, width) to decode the picture at, or None for its own
    alpha         whether the picture's transparency is kept beside its colours
    pixels        whether the picture has to be decoded, as far as is known yet
    bytes_needed  the most memory, beside what the process holds anyway, from decoding to the finished Prediction
    """

    decode_hw: HW | None
    alpha: bool = False
    pixels: bool = True
    bytes_needed: int = 0


class Task(Protocol):
    """One model's way from a picture to a Prediction. Holds no state of a request."""

    @property
    def defaults(self) -> Any:
        """The parameters of a request that gives none: an instance of the task's own frozen struct."""

    def plan(self, picture: Decoding, params: Any, budget_bytes: int) -> Plan:
        """How to answer, with no more than `budget_bytes` where the task has a choice; what needs more all the same is
        for the caller to refuse. Decodes nothing. Raises InvalidParameter for what only the model can judge, such as an
        unknown label."""

    def predict(
        self, picture: Decoding, plan: Any, params: Any, runs: Mapping[str, Run], call: Call
    ) -> Prediction[Any]:
        """The answer, by the Plan that `plan` gave; `runs` are the opened networks by name, of a bundle's parts by
        `part/network`. Raises ModelOutputMismatch, DeadlineExceeded and what the backend raises."""


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
