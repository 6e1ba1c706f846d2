from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared import tasks
from shared.errors import ConfigurationError, InvalidParameter, ModelOutputMismatch
from shared.manifest import Bundle
from shared.masks import rle
from shared.predictions import Instance, Rle
from tests.bundles import Output, bundle, floats, predicted
from tests.golden_masks import values
from tests.unit.test_masks_rle import whole

DATA = Path(__file__).parents[1] / "data"
CASES: list[dict[str, Any]] = json.loads((DATA / "masks.json").read_text(encoding="utf-8"))["yolo"]
HILLS = values(np.load(DATA / "masks.npz")["yolo"])
LABELS = ["cat", "dog", "cow"]
K = 4
V8: list[Output] = [("output0", [1, 7 + K, None]), ("output1", [1, K, 16, 16])]
V8_BY_ROW: list[Output] = [("output0", [1, None, 7 + K]), ("output1", [1, K, 16, 16])]
V5: list[Output] = [("output0", [1, None, 8 + K]), ("output1", [1, K, 16, 16])]
END_TO_END: list[Output] = [("output0", [1, 300, 6 + K]), ("output1", [1, K, 16, 16])]
LETTERBOX = {"resize": "letterbox"}

SIDES = np.where(np.arange(16) < 8, 9, -9) * np.ones((16, 1))
PROTOTYPES = floats([[SIDES, SIDES.T, np.full((16, 16), 9), np.zeros((16, 16))]])
"""The left half, the upper half, all of it, and nothing."""
LEFT, UPPER, ALL = ([1, 0, 0, 0.5], [0, 1, 0, 0.5], [0, 0, 1, 0.5])


def own(outputs: list[Output] = V8, **rest: Any) -> Bundle:
    return bundle("yolo-seg", outputs, LABELS, task="instance-segmentation", **({"preprocess": LETTERBOX} | rest))


def found(bundle: Bundle, rows: Any, source_hw: tuple[int, int] = (64, 64), **given: Any) -> list[Instance]:
    """What comes of `rows` [N, columns], turned as the declared shape has them."""
    (detections, prototypes) = bundle.model.networks["detector"].outputs
    output = floats([rows])
    if detections.shape[1] == 7 + K:
        output = output.transpose(0, 2, 1)
    planes = PROTOTYPES if prototypes.shape[1] in (K, None) else PROTOTYPES.transpose(0, 2, 3, 1)
    return list(predicted(bundle, {detections.name: output, prototypes.name: planes}, source_hw, **given).predictions)


def corners(instance: Instance) -> tuple[float, ...]:
    assert isinstance(instance.mask, Rle)
    return rle.box(instance.mask)


def v8(box: tuple[float, ...], factors: list[float], scores: tuple[float, ...] = (0.9, 0, 0)) -> list[float]:
    x1, y1, x2, y2 = box
    return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, *scores, *factors]


@pytest.mark.parametrize("case", CASES)
def test_masks_are_those_of_process_mask_native(case: dict[str, Any]) -> None:
    """Two halves of one plane, which are put together by their coefficients, for a box in source pixels."""
    source_hw = tuple(case["source"])
    scale = 640 / max(source_hw)
    top = (640 - round(source_hw[0] * scale)) // 2
    x1, y1, x2, y2 = (side * scale + shift for side, shift in zip(case["in"], (0, top) * 2, strict=True))
    model = own([("output0", [1, 9, None]), ("output1", [1, 2, 160, 160])], input_shape=[1, 3, 640, 640])
    outputs = {"output0": floats([[v8((x1, y1, x2, y2), [0.25, 1.5])]]).transpose(0, 2, 1)}
    outputs["output1"] = floats([[HILLS, HILLS / 2]])
    (one,) = predicted(model, outputs, source_hw).predictions
    expected = whole(rle.decoded(Rle(tuple(case["size"]), case["counts"])))
    apart = whole(rle.decoded(one.mask)) != expected
    assert np.count_nonzero(apart) <= 2e-5 * expected.size


HEADS = {
    "v8": (V8, v8((8, 8, 40, 40), LEFT)),
    "v8 by row": (V8_BY_ROW, v8((8, 8, 40, 40), LEFT)),
    "v5": (V5, [24, 24, 32, 32, 0.9, 1, 0, 0, *LEFT]),
    "end-to-end": (END_TO_END, [8, 8, 40, 40, 0.9, 0, *LEFT]),
}


@pytest.mark.parametrize("head", HEADS)
def test_every_head_gives_its_boxes_and_their_masks(head: str) -> None:
    outputs, row = HEADS[head]
    (one,) = found(own(outputs), [row])
    assert (one.label, one.score, one.box) == ("cat", 0.9, (8, 8, 40, 40))
    assert (corners(one), one.area) == ((8, 8, 32, 40), 24 * 32)


def test_prototypes_of_tensorflow_have_their_channels_last() -> None:
    (one,) = found(own([V8[0], ("output1", [1, 16, 16, K])]), [v8((8, 8, 40, 40), UPPER)])
    assert corners(one) == (8, 8, 40, 32)


@pytest.mark.parametrize("shape", [[1, None, None, None], [None, K, None, None]])
def test_prototypes_of_a_free_shape_are_known_when_they_come(shape: list[int | None]) -> None:
    (one,) = found(own([V8[0], ("output1", shape)]), [v8((8, 8, 40, 40), UPPER)])
    assert corners(one) == (8, 8, 40, 32)


def test_each_mask_stays_with_its_box_when_some_are_suppressed() -> None:
    rows = [
        v8((0, 0, 64, 64), UPPER, (0.1, 0, 0)),
        v8((0, 0, 64, 64), ALL, (0.5, 0, 0)),
        v8((0, 0, 64, 64), LEFT, (0.9, 0, 0)),
        v8((0, 0, 64, 62), UPPER, (0.8, 0, 0)),
        v8((0, 0, 64, 64), UPPER, (0, 0.7, 0)),
    ]
    left, upper = found(own(), rows)
    assert (left.label, corners(left)) == ("cat", (0, 0, 32, 64))
    assert (upper.label, corners(upper)) == ("dog", (0, 0, 64, 32))


def test_each_mask_of_v5_stays_with_its_box() -> None:
    rows = [[32, 32, 64, 64, 0.1, 1, 0, 0, *ALL], [32, 32, 64, 64, 0.9, 0, 0, 1, *UPPER]]
    (one,) = found(own(V5), rows)
    assert (one.label, corners(one)) == ("cow", (0, 0, 64, 32))


def test_each_mask_of_an_end_to_end_head_stays_with_its_box() -> None:
    rows = [[0, 0, 64, 64, 0.1, 0, *ALL], [0, 0, 64, 64, 0.9, float("nan"), *ALL], [0, 0, 64, 64, 0.8, 1, *UPPER]]
    (one,) = found(own([("output0", [1, None, 6 + K]), V8[1]], postprocess={"head": "end-to-end"}), rows)
    assert (one.label, corners(one)) == ("dog", (0, 0, 64, 32))


def test_the_padding_of_a_letterbox_is_cut_off() -> None:
    (one,) = found(own(), [v8((0, 16, 64, 48), UPPER)], (32, 64))
    assert (one.box, corners(one)) == ((0, 0, 64, 32), (0, 0, 64, 16))


def test_masks_are_in_source_pixels() -> None:
    (one,) = found(own(), [v8((8, 8, 40, 40), LEFT)], (640, 640))
    assert (one.box, corners(one)) == ((80, 80, 400, 400), (80, 80, 320, 400))


def test_normalised_boxes_are_taken_too() -> None:
    (one,) = found(own(postprocess={"coordinates": "normalised"}), [v8((1 / 8, 1 / 8, 5 / 8, 5 / 8), LEFT)])
    assert (one.box, corners(one)) == ((8, 8, 40, 40), (8, 8, 32, 40))


def test_no_boxes_have_no_masks() -> None:
    assert found(own(), np.zeros((0, 7 + K))) == []


@pytest.mark.parametrize(("threshold", "area"), [(0.0, 1024), (0.6, 1024), (0.75, 0), (1.0, 0)])
def test_the_mask_threshold_is_the_probability_of_the_logit(threshold: float, area: int) -> None:
    """0.5 of the plane that is 9 is a logit of 0.9 where 0.1 of it is taken: a probability of 0.711."""
    (one,) = found(own(), [v8((8, 8, 40, 40), [0, 0, 0.1, 0])], mask_threshold=threshold)
    assert one.area == area


def test_the_models_own_mask_threshold_holds_when_none_is_given() -> None:
    (one,) = found(own(postprocess={"mask_threshold": 0.75}), [v8((8, 8, 40, 40), [0, 0, 0.1, 0])])
    assert one.area == 0


def test_a_mask_threshold_that_is_no_probability_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="expected a probability from 0 to 1 for this model, found -3"):
        found(own(), [v8((8, 8, 40, 40), ALL)], mask_threshold=-3)


def test_columns_that_do_not_fit_are_told_before_a_picture_comes() -> None:
    with pytest.raises(
        ConfigurationError, match=r"'output0' has shape \[1, 7, 8400\], family 'yolo-seg' expects"
    ) as caught:
        tasks.build(own([("output0", [1, 7, 8400]), V8[1]]))
    assert "[1, 11, N] (v8) or [1, N, 11] (v8) for 3 labels and 4 coefficients" in str(caught.value)


def test_prototypes_of_another_rank_are_told_before_a_picture_comes() -> None:
    with pytest.raises(
        ConfigurationError, match=r"'output1' has shape \[32, 16, 16\], family 'yolo-seg' expects \[1, K"
    ):
        tasks.build(own([V8[0], ("output1", [32, 16, 16])]))


def test_columns_that_do_not_fit_are_told_when_they_come() -> None:
    free = own([("output0", [1, None, None]), ("output1", [1, None, None, None])])
    outputs = {"output0": np.zeros((1, 12, 30), np.float32), "output1": PROTOTYPES}
    with pytest.raises(ModelOutputMismatch, match="output 'output0': family 'yolo-seg' expects shape"):
        predicted(free, outputs)


def test_a_shape_that_fits_two_heads_asks_for_one() -> None:
    two = bundle(
        "yolo-seg",
        [("output0", [1, None, 6 + K]), V8[1]],
        ["a", "b"],
        task="instance-segmentation",
        preprocess=LETTERBOX,
    )
    with pytest.raises(ConfigurationError, match=r"say which in postprocess\.head"):
        tasks.build(two)


def test_a_plain_detector_has_no_prototypes() -> None:
    with pytest.raises(ConfigurationError, match="needs an output with role 'prototypes'"):
        tasks.build(own([("output0", [1, 7, 8400])]))
