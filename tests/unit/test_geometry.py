from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shared import geometry
from shared.geometry import Resize

sides = st.integers(1, 20_000)
pictures = st.tuples(sides, sides)
tensors = st.tuples(st.integers(1, 2048), st.integers(1, 2048))
multiples = st.sampled_from([1, 14, 32, 64])


@st.composite
def placements(draw: st.DrawFn) -> Resize:
    source_hw = draw(pictures)
    kind = draw(st.sampled_from(["stretch", "center", "top-left", "long", "short"]))
    if kind == "stretch":
        return geometry.stretch(source_hw, draw(tensors))
    if kind == "long":
        return geometry.long_side(source_hw, draw(st.integers(1, 2048)), draw(multiples))
    if kind == "short":
        return geometry.short_side(source_hw, draw(st.integers(1, 1024)), draw(st.integers(1, 2048)), draw(multiples))
    return geometry.letterbox(source_hw, draw(tensors), center=kind == "center")


def boxes(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


@given(placements(), st.tuples(*[st.floats(0, 1, width=32)] * 4))
def test_a_box_goes_to_the_tensor_and_comes_back_for_every_placement(
    resize: Resize, corners: tuple[float, ...]
) -> None:
    height, width = resize.source_hw
    box = boxes([corners[0] * width, corners[1] * height, corners[2] * width, corners[3] * height])
    back = resize.boxes_to_source(resize.boxes_to_model(box))
    # A float32 next to the tensor's far side is 1e-7 of it away; a source pixel is content/source of a tensor pixel.
    allowed = [
        5e-7 * model * source / content
        for model, source, content in zip(resize.model_hw, resize.source_hw, resize.content_hw, strict=True)
    ]
    assert (np.abs(back - box) <= [allowed[1], allowed[0]] * 2).all()


@given(placements())
def test_the_whole_picture_becomes_the_whole_content(resize: Resize) -> None:
    height, width = resize.source_hw
    right, bottom = resize.left + resize.content_hw[1], resize.top + resize.content_hw[0]
    placed = resize.boxes_to_model(boxes([0, 0, width, height]))
    assert placed == pytest.approx(boxes([resize.left, resize.top, right, bottom]), rel=1e-5)


@given(placements())
def test_the_content_lies_inside_the_tensor(resize: Resize) -> None:
    assert min(resize.content_hw) >= 1
    assert resize.top >= 0
    assert resize.left >= 0
    assert resize.top + resize.content_hw[0] <= resize.model_hw[0]
    assert resize.left + resize.content_hw[1] <= resize.model_hw[1]


@given(placements(), arrays.arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32)))
def test_no_box_leaves_the_picture(resize: Resize, anywhere: np.ndarray) -> None:
    back = resize.boxes_to_source(anywhere)
    height, width = resize.source_hw
    assert (back >= 0).all()
    assert (back <= [width, height, width, height]).all()


@given(pictures, tensors, st.booleans())
def test_a_letterbox_touches_two_opposite_sides(source_hw: geometry.HW, model_hw: geometry.HW, center: bool) -> None:
    resize = geometry.letterbox(source_hw, model_hw, center=center)
    assert resize.content_hw[0] == model_hw[0] or resize.content_hw[1] == model_hw[1]


@given(pictures, tensors)
def test_a_letterbox_keeps_the_aspect_within_half_a_pixel(source_hw: geometry.HW, model_hw: geometry.HW) -> None:
    resize = geometry.letterbox(source_hw, model_hw, center=True)
    scale = min(model_hw[0] / source_hw[0], model_hw[1] / source_hw[1])
    for content, source in zip(resize.content_hw, source_hw, strict=True):
        assert abs(content - max(1, source * scale)) <= 0.5 + 1e-6


@given(pictures, st.integers(1, 2048), multiples)
def test_the_long_side_is_what_was_asked(source_hw: geometry.HW, side: int, multiple_of: int) -> None:
    resize = geometry.long_side(source_hw, side, multiple_of)
    assert max(resize.content_hw) == side
    assert all(length % multiple_of == 0 for length in resize.model_hw)
    assert all(m - c < multiple_of for m, c in zip(resize.model_hw, resize.content_hw, strict=True))


@given(pictures, st.integers(1, 1024), st.integers(1, 2048))
def test_the_short_side_is_what_was_asked_or_the_long_one_at_its_limit(
    source_hw: geometry.HW, side: int, max_side: int
) -> None:
    content_hw = geometry.short_side(source_hw, side, max_side).content_hw
    assert max(content_hw) == max_side or (min(content_hw) == side and max(content_hw) <= max_side)


def test_a_centred_letterbox_puts_the_odd_pixel_right_and_bottom() -> None:
    resize = geometry.letterbox((10, 20), (21, 20), center=True)
    assert (resize.content_hw, resize.top, resize.left) == ((10, 20), 5, 0)


def test_a_letterbox_at_the_top_left_has_no_offset() -> None:
    resize = geometry.letterbox((480, 640), (640, 640), center=False)
    assert (resize.content_hw, resize.top, resize.left) == ((480, 640), 0, 0)


def test_a_720p_frame_in_640_lies_140_below_the_top() -> None:
    resize = geometry.letterbox((720, 1280), (640, 640), center=True)
    assert (resize.content_hw, resize.top, resize.left) == ((360, 640), 140, 0)
    assert resize.boxes_to_source(boxes([0, 140, 320, 320])).tolist() == [[0, 0, 640, 360]]


def test_a_stretch_scales_each_axis_by_itself() -> None:
    resize = geometry.stretch((100, 400), (300, 300))
    assert resize.boxes_to_source(boxes([75, 75, 150, 150])) == pytest.approx(boxes([100, 25, 200, 50]))


def test_a_needle_keeps_one_pixel() -> None:
    assert geometry.letterbox((20_000, 1), (640, 640), center=True).content_hw == (640, 1)


def test_torchvisions_resize_stops_at_its_longest_side() -> None:
    assert geometry.short_side((400, 1200), 800, 1333).content_hw == (444, 1333)


def test_centre_and_size_become_corners() -> None:
    assert geometry.cxcywh_to_xyxy(boxes([10, 20, 4, 6])).tolist() == [[8, 17, 12, 23]]


def test_iou_of_boxes_that_share_a_third_is_a_third() -> None:
    assert geometry.iou(boxes([0, 0, 2, 1])[0], boxes([1, 0, 3, 1])) == pytest.approx([1 / 3])


def test_iou_of_boxes_that_only_touch_is_nothing() -> None:
    assert geometry.iou(boxes([0, 0, 2, 2])[0], boxes([2, 0, 4, 2], [0, 2, 2, 4])).tolist() == [0, 0]


def test_iou_of_empty_boxes_is_nothing() -> None:
    assert geometry.iou(boxes([1, 1, 1, 1])[0], boxes([1, 1, 1, 1])).tolist() == [0]


def test_a_box_turned_inside_out_has_no_area() -> None:
    assert geometry.area(boxes([5, 5, 1, 1], [5, 0, 1, 4], [0, 0, 2, 3])).tolist() == [0, 0, 6]


def test_the_order_is_by_score_then_class_then_place() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.5], np.float32)
    assert geometry.by_score(scores, np.array([2, 0, 1, 1])).tolist() == [1, 2, 3, 0]


@given(st.permutations(range(6)))
def test_equal_scores_come_in_one_order_however_they_are_shuffled(order: list[int]) -> None:
    scores, classes = np.full(6, 0.5, np.float32), np.array(order)
    assert classes[geometry.by_score(scores, classes)].tolist() == [0, 1, 2, 3, 4, 5]


def naive_nms(rows: list[tuple[int, ...]], classes: list[int], threshold: float, limit: int) -> list[int]:
    """Pair by pair, in exact whole numbers but for one division."""
    kept: list[int] = []
    for place, (x1, y1, x2, y2) in enumerate(rows):
        worst = 0.0
        for other in kept:
            if classes[other] != classes[place]:
                continue
            a1, b1, a2, b2 = rows[other]
            shared = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
            union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared
            worst = max(worst, shared / union if union else 0.0)
        if worst <= threshold:
            kept.append(place)
    return kept[:limit]


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], list[int]]:
    corner, size = st.integers(0, 20), st.integers(0, 20)
    rows = draw(st.lists(st.tuples(corner, corner, size, size), max_size=25))
    classes = draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    return [(x, y, x + w, y + h) for x, y, w, h in rows], classes


@settings(max_examples=300)
@given(crowds(), st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.7, 1.0]), st.integers(1, 30))
def test_nms_keeps_what_a_pairwise_loop_keeps(
    crowd: tuple[list[tuple[int, ...]], list[int]], threshold: float, limit: int
) -> None:
    rows, classes = crowd
    kept = geometry.nms(boxes(*[[*map(float, row)] for row in rows]), np.array(classes, np.int64), threshold, limit)
    assert kept.tolist() == naive_nms(rows, classes, threshold, limit)


def test_nms_of_nothing_is_nothing() -> None:
    assert geometry.nms(boxes(), np.zeros(0, np.int64), 0.5, 10).tolist() == []


def test_nms_leaves_boxes_of_different_classes_alone() -> None:
    twice = boxes([0, 0, 4, 4], [0, 0, 4, 4])
    assert geometry.nms(twice, np.array([0, 1]), 0.5, 10).tolist() == [0, 1]


def test_nms_keeps_an_overlap_of_exactly_the_threshold() -> None:
    half = boxes([0, 0, 2, 1], [0, 0, 1, 1])
    assert geometry.nms(half, np.array([0, 0]), 0.5, 10).tolist() == [0, 1]


def test_nms_of_ten_thousand_boxes_takes_less_than_two_seconds() -> None:
    corners = np.random.default_rng(0).uniform(0, 2000, (10_000, 2)).astype(np.float32)
    crowd = np.concatenate([corners, corners + 20], axis=1)
    begin = perf_counter()
    geometry.nms(crowd, np.zeros(10_000, np.int64), 0.5, 1000)
    assert perf_counter() - begin < 2
