"""Families of the tests, named by dotted path in model.json as a user's own would be: each goes wrong in one way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event
from time import sleep
from typing import Any

import numpy as np

from shared.backends import Run
from shared.call import Call
from shared.images import Decoding, Image
from shared.manifest import Bundle
from shared.parameters import DetectionParameters
from shared.predictions import Prediction
from shared.tasks import Plan

GATE = Event()
"""Opens what waits in `waiting`; a test that shuts it opens it again."""

Predict = Callable[[Image, Mapping[str, Run], Call], None]


@dataclass(frozen=True)
class Stub:
    """A Task (see shared.tasks) that finds nothing, after `before`."""

    before: Predict
    defaults: DetectionParameters = field(default_factory=lambda: DetectionParameters(0.5, 0.5, 100))

    def plan(self, picture: Decoding, params: Any, budget_bytes: int) -> Plan:
        return Plan(None)

    def predict(
        self, picture: Decoding, plan: Plan, params: Any, runs: Mapping[str, Run], call: Call
    ) -> Prediction[Any]:
        image = picture.image(plan.decode_hw, call)
        with call.stage("infer"):
            self.before(image, runs, call)
        return Prediction(image.source_hw, ())


def nothing(bundle: Bundle) -> Stub:
    return Stub(lambda image, runs, call: None)


def hungry(bundle: Bundle) -> Stub:
    def predict(image: Image, runs: Mapping[str, Run], call: Call) -> None:
        raise MemoryError

    return Stub(predict)


def buggy(bundle: Bundle) -> Stub:
    def predict(image: Image, runs: Mapping[str, Run], call: Call) -> None:
        raise LookupError("/secret/place/of/the/model.py")

    return Stub(predict)


def slow(bundle: Bundle) -> Stub:
    return Stub(lambda image, runs, call: sleep(call.timeout_s + 0.05))


def waiting(bundle: Bundle) -> Stub:
    def predict(image: Image, runs: Mapping[str, Run], call: Call) -> None:
        GATE.wait(30)

    return Stub(predict)


def misusing(bundle: Bundle) -> Stub:
    """Gives its network a tensor that it cannot take."""

    def predict(image: Image, runs: Mapping[str, Run], call: Call) -> None:
        runs["detector"]({"image": np.zeros((1, 2), np.float32)}, call)

    return Stub(predict)


def exploding(bundle: Bundle) -> Stub:
    raise LookupError("/secret/place/of/the/family.py")


MADE: list[str] = []
"""What `counted` has made."""


def counted(bundle: Bundle) -> Stub:
    sleep(0.05)
    MADE.append(bundle.model.name)
    return nothing(bundle)
