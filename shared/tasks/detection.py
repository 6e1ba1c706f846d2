"""Detection: what all its families share. A family says only how its raw outputs become candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from shared import geometry
from shared.errors import ConfigurationError, InvalidParameter, ModelOutputMismatch
from shared.geometry import HW, Resize
from shared.images import Decoding
from shared.manifest import Bundle, Network
from shared.parameters import DetectionParameters
from shared.predictions import Detection, Prediction
from shared.tasks.placing import Placed, Placing, Ran
from shared.validation import Mismatch, convert, show, suggest

if TYPE_CHECKING:
    import numpy.typing as npt

    from shared.backends import Run
    from shared.call import Call
    from shared.tensors import Float32, Int64, Tensors, TensorSpec

TASK, NETWORK = "detection", "detector"
# More candidates than this are never compared with each other: the best ones decide (Ultralytics' max_nms is 30000).
_MOST_CANDIDATES = 10_000
# A corner farther out is not a place, and areas of what is left stay finite in float32; NaN is dropped with it.
_FARTHEST_PX = 1e9

_NO_NMS = "iou_threshold has no effect: this model drops overlapping boxes itself"

Threshold = Annotated[float, Meta(ge=0, le=1)]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`postprocess` of model.json: the defaults of a request, and how class indices become ids.

    first_class_id is the class id of the first label; nms says whether overlapping boxes are left to be
    suppressed here (null: as the family knows it).
    """

    score_threshold: Threshold = 0.25
    iou_threshold: Threshold = 0.5
    max_predictions: Annotated[int, Meta(ge=1, le=1000)] = 100
    first_class_id: int = 0
    nms: bool | None = None


O = TypeVar("O", bound=msgspec.Struct)  # noqa: E741


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a network found, before anything is dropped.

    boxes_xyxy [N, 4] float32 in tensor pixels, scores [N] float32 0..1, classes [N] int64 index into the labels;
    suppressed says that the graph has already dropped overlapping boxes; rows [N] int64 are their places in the
    network's outputs, None where they come in that order.
    """

    boxes_xyxy: Float32
    scores: Float32
    classes: Int64
    suppressed: bool = False
    rows: Int64 | None = None

    def taken(self, places: Int64) -> Candidates:
        """Those at `places` [K], in that order."""
        rows = places if self.rows is None else self.rows[places]
        return Candidates(self.boxes_xyxy[places], self.scores[places], self.classes[places], self.suppressed, rows)


class Misfit(Exception):
    """An output whose shape its family cannot read: the role, the shape that was expected, the one found."""

    def __init__(self, role: str, expected: str, found: Sequence[int | None]) -> None:
        super().__init__(role, expected, found)
        self.role, self.expected, self.found = role, expected, list(found)


class Decode(Protocol):
    """A family's own part: outputs by role -> Candidates with at least `score_threshold`. Pure; raises Misfit."""

    def __call__(self, outputs: Tensors, model_hw: HW, score_threshold: float) -> Candidates: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What one run of a network has come to: `objects`, by falling score, and in the same order what they were made of.

    boxes_xyxy [N, 4] float32 in source pixels, not clipped to the picture; rows [N] int64 are the objects' places in
    the outputs, which are given by role.
    """

    objects: tuple[Detection, ...]
    boxes_xyxy: Float32
    classes: Int64
    rows: Int64
    outputs: Tensors
    resize: Resize
    notes: tuple[str, ...]
    render_factor: int | None


class Finder:
    """A network that finds things, the parameters that say which of them are kept, and their way back to the source.
    Raises ConfigurationError where the bundle is not for `task`."""

    def __init__(
        self, bundle: Bundle, options: Options, roles: Mapping[str, TensorSpec], decode: Decode, task: str
    ) -> None:
        self._placing = Placing(bundle, NETWORK, network_of(bundle))
        self._family = bundle.model.family
        self._labels = bundle.labels
        self._options = options
        self._roles = roles
        self._decode = decode
        if bundle.model.task != task:
            raise ConfigurationError(f"task: family {self._family!r} is for {task!r}, found {bundle.model.task!r}")

    def plan(self, picture: Decoding, params: DetectionParameters, budget_bytes: int) -> Placed:
        self._wanted(params.labels)
        return self._placing.plan(picture.header, params.render_factor, budget_bytes)

    def find(
        self, picture: Decoding, plan: Placed, params: DetectionParameters, runs: Mapping[str, Run], call: Call
    ) -> Found:
        ran = self._placing.run(picture.image(plan.decode_hw, call), plan, runs[NETWORK], call)
        with call.stage("postprocess"):
            outputs = {role: _present(ran.outputs, spec) for role, spec in self._roles.items()}
            candidates = self._candidates(outputs, ran.resize.model_hw, params.score_threshold)
            nms = not candidates.suppressed if self._options.nms is None else self._options.nms
            kept = select(candidates, params, self._wanted(params.labels), nms=nms)
            idle = not nms and params.iou_threshold != self._options.iou_threshold
            notes = (*ran.notes, *((_NO_NMS,) if idle else ()))
            return self._found(kept, outputs, ran, notes)

    def _candidates(self, outputs: Tensors, model_hw: HW, score_threshold: float) -> Candidates:
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # `select` drops what is not finite
                return self._decode(outputs, model_hw, score_threshold)
        except Misfit as misfit:
            name = self._roles[misfit.role].name
            raise ModelOutputMismatch(
                f"output {name!r}: family {self._family!r} expects shape {misfit.expected}, found {misfit.found}",
                output=name,
                expected=misfit.expected,
                found=misfit.found,
            ) from misfit

    def _found(self, kept: Candidates, outputs: Tensors, ran: Ran, notes: tuple[str, ...]) -> Found:
        boxes = ran.resize.boxes_to_source(kept.boxes_xyxy)
        inside = np.flatnonzero(geometry.area(boxes) > 0)
        kept, boxes = kept.taken(inside), boxes[inside]
        objects = tuple(map(self._detection, boxes.tolist(), kept.scores.tolist(), kept.classes.tolist()))
        unclipped = ran.resize.boxes_to_source(kept.boxes_xyxy, clip=False)
        assert kept.rows is not None, "taken gives them"
        return Found(objects, unclipped, kept.classes, kept.rows, outputs, ran.resize, notes, ran.render_factor)

    def _detection(self, box: Sequence[float], score: float, index: int) -> Detection:
        class_id = index + self._options.first_class_id
        label = self._labels[index] if 0 <= index < len(self._labels) else None
        x1, y1, x2, y2 = (round(side, 3) for side in box)
        return Detection(label or str(class_id), class_id, round(score, 6), (x1, y1, x2, y2))

    def _wanted(self, labels: tuple[str, ...]) -> Int64 | None:
        """The class indices of the labels that a request keeps; None for all."""
        if not labels:
            return None
        for label in labels:
            if label not in self._labels:
                hint = suggest(label, [known for known in self._labels if known])
                raise InvalidParameter(f"labels: this model knows no {show(label)}; {hint}", parameter="labels")
        return np.array([index for index, known in enumerate(self._labels) if known in labels], np.int64)


class DetectionTask:
    """A Task (see shared.tasks) for any detector whose family gives `decode`."""

    def __init__(self, bundle: Bundle, options: Options, roles: Mapping[str, TensorSpec], decode: Decode) -> None:
        self._finder = Finder(bundle, options, roles, decode, TASK)
        self._options = options

    @property
    def defaults(self) -> DetectionParameters:
        options = self._options
        return DetectionParameters(options.score_threshold, options.iou_threshold, options.max_predictions)

    def plan(self, picture: Decoding, params: DetectionParameters, budget_bytes: int) -> Placed:
        return self._finder.plan(picture, params, budget_bytes)

    def predict(
        self, picture: Decoding, plan: Placed, params: DetectionParameters, runs: Mapping[str, Run], call: Call
    ) -> Prediction[Detection]:
        found = self._finder.find(picture, plan, params, runs, call)
        return Prediction(picture.header.upright_hw, found.objects, found.notes, found.render_factor)


def select(candidates: Candidates, params: DetectionParameters, wanted: Int64 | None, *, nms: bool) -> Candidates:
    """Candidates by falling score: those of the wanted classes, above the threshold, finite, not suppressed."""
    keep = (candidates.scores >= params.score_threshold) & np.isfinite(candidates.scores)
    keep &= (np.abs(candidates.boxes_xyxy) < _FARTHEST_PX).all(axis=1)
    if wanted is not None:
        keep &= np.isin(candidates.classes, wanted)
    left = candidates.taken(np.flatnonzero(keep))
    order = geometry.by_score(left.scores, left.classes)[:_MOST_CANDIDATES]
    if nms:
        boxes, classes = left.boxes_xyxy[order], left.classes[order]
        order = order[geometry.nms(boxes, classes, params.iou_threshold, params.max_predictions)]
    return left.taken(order[: params.max_predictions])


def best_class(boxes_xyxy: Float32, scores: Float32, score_threshold: float) -> Candidates:
    """One candidate a box, of its best class: boxes [N, 4], scores [N, C]."""
    best = scores.max(axis=1)
    keep = np.flatnonzero(best >= score_threshold)
    return Candidates(boxes_xyxy[keep], best[keep], scores[keep].argmax(axis=1).astype(np.int64), rows=keep)


def every_class(boxes_xyxy: Float32, scores: Float32, score_threshold: float) -> Candidates:
    """One candidate for each class of a box that passes the threshold: boxes [N, 4], scores [N, C]."""
    places = np.flatnonzero(scores >= score_threshold)  # much faster than in two dimensions
    rows, classes = np.divmod(places, scores.shape[1])
    return Candidates(boxes_xyxy[rows], scores.ravel()[places], classes.astype(np.int64), rows=rows)


def read_options(bundle: Bundle, kind: type[O]) -> O:
    """`postprocess` of model.json as the family's own struct. Raises ConfigurationError that names the field."""
    try:
        return convert(bundle.model.postprocess, kind)
    except Mismatch as error:
        raise ConfigurationError(f"postprocess.{error}") from error


def network_of(bundle: Bundle) -> Network:
    if NETWORK not in bundle.model.networks:
        raise ConfigurationError(f"networks: expected {NETWORK!r}, found {sorted(bundle.model.networks)}")
    return bundle.model.networks[NETWORK]


def outputs_by_role(
    bundle: Bundle, roles: Mapping[str, Sequence[str]], optional: Sequence[str] = ()
) -> dict[str, TensorSpec]:
    """The declared outputs by the part that they play: by `role` in model.json, else by a usual name of that role, else
    by being the one output there is. Raises ConfigurationError that names the role which no output plays."""
    outputs = network_of(bundle).outputs
    found: dict[str, TensorSpec] = {}
    for role, names in roles.items():
        fitting = [spec for spec in outputs if spec.role == role]
        fitting += [spec for name in names for spec in outputs if spec.role is None and _plain(spec.name) == name]
        if not fitting and len(outputs) == len(roles) == 1 and outputs[0].role is None:
            fitting = list(outputs)
        if fitting:
            found[role] = fitting[0]
        elif role not in optional:
            raise ConfigurationError(
                f"networks.{NETWORK}.outputs: family {bundle.model.family!r} needs an output with "
                f"role {role!r} (or named {', '.join(names)}), found {[spec.name for spec in outputs]}"
            )
    return found


def _plain(name: str) -> str:
    """A tensor's name without TensorFlow's `:0`."""
    return name.partition(":")[0]


def _present(outputs: Tensors, spec: TensorSpec) -> npt.NDArray[Any]:
    if spec.name not in outputs:
        raise ModelOutputMismatch(f"output {spec.name!r} is missing; found {sorted(outputs)}", output=spec.name)
    return outputs[spec.name]
