"""What a caller may ask of a task. One struct a task: validation, /models, OpenAPI and the page come from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from shared.errors import InvalidParameter, UnknownParameter
from shared.predictions import Array, Embedding
from shared.validation import Mismatch, convert, show, suggest

LARGEST_RENDER_FACTOR = 256

Fraction = Annotated[float, Meta(ge=0, le=1)]
Coordinate = Annotated[float, Meta(ge=-1e6, le=1e6)]
Point: TypeAlias = tuple[Coordinate, Coordinate]
PromptBox: TypeAlias = tuple[Coordinate, Coordinate, Coordinate, Coordinate]
MaskFormat = Literal["rle", "polygon", "png", "none"]
RenderFactor = Annotated[int, Meta(ge=1, le=LARGEST_RENDER_FACTOR)] | Literal["auto"]
AskedFactor = Annotated[
    RenderFactor,
    Meta(
        description="the network's input is a square of 16 times this, for networks of free size; `auto`: the model's "
        "own size, or the largest square that the memory bears"
    ),
]
MaskForm = Annotated[
    MaskFormat, Meta(description="COCO run lengths, polygons with holes, a PNG of one bit a pixel, or no masks")
]
Tolerance = Annotated[
    float, Meta(ge=0, le=1000, description="how far, in pixels, a polygon may leave its mask's edge; 0 is exact")
]


class DetectionParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    score_threshold: Annotated[float, Meta(ge=0, le=1, description="keep predictions with at least this score")]
    iou_threshold: Annotated[
        float, Meta(ge=0, le=1, description="of two boxes of one class that overlap more than this, keep the better")
    ]
    max_predictions: Annotated[int, Meta(ge=1, le=1000, description="keep at most this many, the best ones")]
    labels: Annotated[tuple[str, ...], Meta(max_length=1000, description="keep only these; empty keeps all")] = ()
    render_factor: AskedFactor = "auto"


class InstanceParameters(DetectionParameters, frozen=True, kw_only=True):
    mask_format: MaskForm = "rle"
    mask_threshold: Annotated[
        float | None,
        Meta(
            description="what counts as mask: more than this, as a probability or, of SAM, a logit; unset: the model's"
        ),
    ] = None
    polygon_tolerance: Tolerance = 0.0


class PromptableParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Without points, boxes and mask_input everything in the picture is looked for: points_per_side and what follows
    are of that only, and mean what they mean in segment-anything's SamAutomaticMaskGenerator."""

    points: Annotated[
        tuple[Point, ...],
        Meta(max_length=1000, description="[[x, y], …] in source pixels, all of one object (also `input_point`)"),
    ] = ()
    point_labels: Annotated[
        tuple[Literal[0, 1], ...],
        Meta(
            max_length=1000, description="1 for a point of the object, 0 beside it; unset: all 1 (also `input_label`)"
        ),
    ] = ()
    boxes: Annotated[
        tuple[PromptBox, ...],
        Meta(max_length=1000, description="[[x1, y1, x2, y2], …] in source pixels, each of its own object"),
    ] = ()
    box: Annotated[PromptBox | None, Meta(description="one box, which points may refine")] = None
    mask_input: Annotated[
        Array | None, Meta(description="`logits` of an earlier answer, shape [256, 256] or [1, 256, 256], to refine")
    ] = None
    multimask: Annotated[
        bool, Meta(description="three masks for a prompt that may mean a thing or its part; else the one")
    ] = True
    mask_threshold: Annotated[float, Meta(ge=-100, le=100, description="a mask is where its logit is above this")] = 0.0
    mask_format: MaskForm = "rle"
    polygon_tolerance: Tolerance = 0.0
    return_logits: Annotated[bool, Meta(description="with each mask its logits of low resolution, 256x256")] = False
    logits_dtype: Annotated[
        Literal["float16", "float32"], Meta(description="numbers of `logits` and of `embedding`")
    ] = "float16"
    return_embedding: Annotated[bool, Meta(description="with the reply what the encoder has made of the picture")] = (
        False
    )
    embedding: Annotated[
        Embedding | None, Meta(description="`embedding` of an earlier answer; the picture may then be left out")
    ] = None
    points_per_side: Annotated[int, Meta(ge=1, le=128, description="automatic: points along each side of the grid")] = (
        32
    )
    points_per_batch: Annotated[
        int, Meta(ge=1, le=1024, description="automatic: points at once, fewer where memory is tight")
    ] = 64
    pred_iou_thresh: Annotated[Fraction, Meta(description="automatic: keep masks with a better estimated IoU")] = 0.88
    stability_score_thresh: Annotated[Fraction, Meta(description="automatic: keep masks at least as stable")] = 0.95
    stability_score_offset: Annotated[
        float, Meta(ge=0, le=100, description="how far the threshold is moved to tell a mask's stability")
    ] = 1.0
    box_nms_thresh: Annotated[
        Fraction, Meta(description="automatic: of two masks whose boxes overlap more, keep the better")
    ] = 0.7
    crop_n_layers: Annotated[
        int, Meta(ge=0, le=4, description="automatic: layers of closer looks, of (2^i)^2 crops each")
    ] = 0
    crop_nms_thresh: Annotated[Fraction, Meta(description="automatic: box_nms_thresh between crops")] = 0.7
    crop_overlap_ratio: Annotated[
        float, Meta(ge=0, lt=1, description="automatic: how much crops overlap, of the picture's short side")
    ] = 512 / 1500
    crop_n_points_downscale_factor: Annotated[
        int, Meta(ge=1, le=16, description="automatic: in layer n, points_per_side is divided by this to the n")
    ] = 1
    min_mask_region_area: Annotated[
        int, Meta(ge=0, description="automatic: holes and islands of fewer pixels are taken away")
    ] = 0
    max_masks: Annotated[int, Meta(ge=1, le=10_000, description="automatic: keep at most this many")] = 1000
    sort_by: Annotated[Literal["score", "area"], Meta(description="automatic: which masks come first")] = "score"
    render_factor: AskedFactor = "auto"


class EnlargeParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    scale: Annotated[
        Literal[2, 3, 4, 8],
        Meta(description="how many times larger, of those that the model has (also `upscale_factor`)"),
    ] = 4
    twin: Annotated[bool, Meta(description="also the picture enlarged by bicubic interpolation, to compare")] = False
    output_format: Annotated[
        Literal["png", "jpeg", "webp"], Meta(description="how the pictures in JSON are encoded")
    ] = "png"
    quality: Annotated[int, Meta(ge=1, le=100, description="of jpeg and webp")] = 90
    render_factor: AskedFactor = "auto"


class Usual(msgspec.Struct, frozen=True):
    """What a process would have its callers' parameters be where they give none; None leaves it to the model."""

    score_threshold: float | None = None
    render_factor: RenderFactor | None = None


Parameters: TypeAlias = DetectionParameters | InstanceParameters | PromptableParameters | EnlargeParameters
P = TypeVar("P", bound=msgspec.Struct)

OLDER_NAMES = {
    "upscale_factor": "scale",
    "input_point": "points",
    "point_coords": "points",
    "input_label": "point_labels",
    "input_box": "box",
}
"""What older clients call a parameter. Read where the task has the newer one."""


def parse(defaults: P, given: Mapping[str, object]) -> P:
    """`defaults` with what the caller gave (JSON values, or text from a query or form) laid over them.

    Raises UnknownParameter or InvalidParameter that name the parameter, the value and what was expected.
    """
    if not given:
        return defaults
    known = list(defaults.__struct_encode_fields__)
    asked: dict[str, object] = {}
    for older, value in given.items():
        name = older if older in known else OLDER_NAMES.get(older, older)
        if name not in known:
            raise UnknownParameter(
                f"unknown parameter {show(older)}; {suggest(older, [*known, 'format'])}", parameter=older
            )
        if name in asked:
            raise InvalidParameter(f"{name} is given twice, once by an older name", parameter=name)
        asked[name] = value
    try:
        return convert(_values(defaults) | asked, type(defaults), strict=False)
    except Mismatch as error:
        is_text = "got `str`" in error.what and any(kind in error.what for kind in ("`array", "`object"))
        hint = "; a list or an object in a query or form is JSON text" if is_text else ""
        raise InvalidParameter(f"{error}{hint}", parameter=error.field.partition("[")[0]) from error


def schema(defaults: msgspec.Struct) -> dict[str, object]:
    """JSON Schema (2020-12) of a task's parameters, with the model's own defaults in it."""
    references, components = msgspec.json.schema_components([type(defaults)], ref_template="#/$defs/{name}")
    name = str(references[0]["$ref"]).rsplit("/", 1)[-1]
    body, values = components.pop(name), msgspec.to_builtins(defaults)
    properties = {
        name: _inlined({key: value for key, value in kind.items() if key != "title"}, components)
        | {"default": values[name]}
        for name, kind in body["properties"].items()
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _values(defaults: msgspec.Struct) -> dict[str, object]:
    return {name: getattr(defaults, name) for name in defaults.__struct_fields__}


def _inlined(kind: Any, components: Mapping[str, Any]) -> Any:
    """`kind` with what it refers to put in its place: a parameter's schema stands alone in a query."""
    if isinstance(kind, list):
        return [_inlined(each, components) for each in kind]
    if not isinstance(kind, dict):
        return kind
    if "$ref" in kind:
        rest = {key: value for key, value in kind.items() if key != "$ref"}
        return _inlined(components[kind["$ref"].rsplit("/", 1)[-1]], components) | rest
    return {key: _inlined(value, components) for key, value in kind.items()}
