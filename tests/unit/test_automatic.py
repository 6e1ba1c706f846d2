"""Automatic masks of a scripted SAM, against segment-anything's own, and within their limits of memory and time."""

from __future__ import annotations

import json
import sys
from io import BytesIO
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image as Pillow

from shared.backends import Run
from shared.call import Call
from shared.embeddings import Memo
from shared.errors import DeadlineExceeded, InvalidParameter, OutOfMemory
from shared.images import Decoding
from shared.masks import rle
from shared.parameters import parse
from shared.predictions import Prediction, Rle, Segment
from shared.tasks import Plan, crops
from shared.tasks.looking import Looking
from tests.bundles import picture
from tests.golden_automatic import GOLDEN
from tests.scripted_sam import Decoder, Encoder, scripted

TASK = scripted()
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))
HW = (180, 240)
EASY = {"points_per_side": 10, "stability_score_thresh": 0.8}
ROOMY = sys.maxsize


class Asked:
    """One request for everything in a black picture of `hw`, with the networks that answer it."""

    def __init__(
        self, given: dict[str, Any], hw: tuple[int, int] = HW, memo: Memo | None = None, **decoder: Any
    ) -> None:
        self.params = parse(TASK.defaults, given)
        self.picture = picture(hw) if memo is None else png(hw, memo)
        self.encoder = Encoder()
        self.decoder = Decoder(hw, crops.parts(hw, self.params), **decoder)

    def answer(self, budget_bytes: int = ROOMY, timeout_s: float = 60) -> Prediction[Segment]:
        plan = TASK.plan(self.picture, self.params, budget_bytes)
        return self.answered(plan, timeout_s)

    def answered(self, plan: Plan, timeout_s: float = 60) -> Prediction[Segment]:
        runs: dict[str, Run] = {"encoder": self.encoder, "decoder": self.decoder}
        return TASK.predict(self.picture, plan, self.params, runs, Call("test", timeout_s))


def png(hw: tuple[int, int], memo: Memo) -> Decoding:
    file = BytesIO()
    Pillow.new("RGB", hw[::-1]).save(file, "PNG")
    return Decoding(file.getvalue(), 10**6, memo)


def found(given: dict[str, Any], hw: tuple[int, int] = HW) -> tuple[Segment, ...]:
    return Asked(given, hw).answer().predictions


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["parameters"]))
def test_masks_are_those_of_segment_anything(case: Any) -> None:
    ours = [as_told(one) for one in found(case["parameters"], tuple(case["source_hw"]))]
    assert sorted(ours) == sorted(told(mask) for mask in case["masks"])


def as_told(one: Segment) -> tuple[Any, ...]:
    assert isinstance(one.mask, Rle)
    assert one.point is not None
    assert one.crop_box is not None
    x1, y1, x2, y2 = one.box
    left, top, right, bottom = one.crop_box
    # The reference tells a box by its last pixels, but its parts by what lies behind them.
    box, part = (x1, y1, x2 - x1 - 1, y2 - y1 - 1), (left, top, right - left, bottom - top)
    return part, one.point, one.predicted_iou, one.stability_score, one.area, box, one.mask.counts


def told(mask: Any) -> tuple[Any, ...]:
    (x, y), counts = mask["point_coords"][0], mask["segmentation"]["counts"]
    iou, stability = round(mask["predicted_iou"], 6), round(mask["stability_score"], 6)
    return (
        tuple(mask["crop_box"]),
        (round(x, 3), round(y, 3)),
        iou,
        stability,
        mask["area"],
        tuple(mask["bbox"]),
        counts,
    )


def test_the_score_is_the_estimate_and_falls() -> None:
    scores = [one.score for one in found(EASY)]
    assert scores == sorted(scores, reverse=True)
    assert scores == [one.predicted_iou for one in found(EASY)]


def test_masks_come_by_area_on_request() -> None:
    areas = [one.area for one in found({**EASY, "sort_by": "area"})]
    assert areas == sorted(areas, reverse=True)


def test_area_and_box_are_those_of_the_mask() -> None:
    for one in found(EASY):
        assert isinstance(one.mask, Rle)
        assert (one.area, one.box) == (rle.area(one.mask), rle.box(one.mask))


def test_no_more_masks_than_asked_for_are_given_and_the_reply_says_so() -> None:
    answer = Asked({**EASY, "max_masks": 3}).answer()
    assert answer.predictions == found(EASY)[:3]
    assert answer.notes == ("max_masks: of 11 masks the first 3 by score are given",)


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_the_answer_is_the_same_whatever_the_batch(at_once: int) -> None:
    asked = Asked({**EASY, "points_per_batch": at_once})
    assert asked.answer().predictions == found(EASY)
    assert max(asked.decoder.batches) == at_once
    assert sum(asked.decoder.batches) == 100


def test_the_answer_is_the_same_whether_few_logits_are_held_or_many() -> None:
    asked = Asked(EASY)
    plan = TASK.plan(asked.picture, asked.params, ROOMY)
    assert isinstance(plan, Looking)
    little = msgspec.structs.replace(plan, logits_bytes=10_000)
    assert asked.answered(little).predictions == found(EASY)


def test_one_mask_a_point_is_given_on_request() -> None:
    both = found({**EASY, "pred_iou_thresh": 0.4}), found({**EASY, "pred_iou_thresh": 0.4, "multimask": False})
    assert {one.score for one in both[1]} == {0.5}
    assert len(both[1]) < len(both[0])


def test_a_picture_is_encoded_once() -> None:
    asked = Asked(EASY)
    asked.answer()
    assert asked.encoder.calls == 1


def test_each_part_is_encoded_once() -> None:
    asked = Asked({**EASY, "crop_n_layers": 1})
    asked.answer()
    assert asked.encoder.calls == 5


def test_a_picture_that_was_encoded_before_is_neither_decoded_nor_encoded() -> None:
    memo = Memo(10**6)
    first = Asked(EASY, memo=memo)
    again = Asked(EASY, memo=memo)
    answer = first.answer()
    assert not TASK.plan(again.picture, again.params, ROOMY).pixels
    assert again.answer() == answer
    assert again.encoder.calls == 0


def test_an_embedding_stands_for_the_picture() -> None:
    embedding = Asked({**EASY, "return_embedding": True}).answer().embedding
    asked = Asked({**EASY, "embedding": msgspec.to_builtins(embedding)})
    assert asked.answer().predictions == found(EASY)
    assert asked.encoder.calls == 0


def test_an_embedding_cannot_be_looked_at_closer() -> None:
    embedding = Asked({**EASY, "return_embedding": True}).answer().embedding
    asked = Asked({**EASY, "embedding": msgspec.to_builtins(embedding), "crop_n_layers": 1})
    with pytest.raises(InvalidParameter, match="crop_n_layers: an embedding is of the whole picture"):
        asked.answer()


def test_fewer_points_at_once_are_planned_where_memory_is_tight() -> None:
    asked = Asked({**EASY, "points_per_batch": 64})
    roomy = TASK.plan(asked.picture, asked.params, ROOMY)
    tight = TASK.plan(asked.picture, asked.params, roomy.bytes_needed // 2)
    assert tight.bytes_needed < roomy.bytes_needed
    answer = asked.answer(roomy.bytes_needed // 2)
    assert max(asked.decoder.batches) < 64
    assert answer.predictions == found(EASY)
    told = f"memory is short: the points are looked at {max(asked.decoder.batches)} at a time, not 64"
    assert answer.notes == (told,)


def test_a_batch_that_is_too_large_for_the_memory_is_halved() -> None:
    asked = Asked({**EASY, "points_per_batch": 64}, most=20)
    answer = asked.answer()
    assert set(asked.decoder.batches) == {16, 4}
    assert answer.predictions == found(EASY)
    assert answer.notes == ("memory was short: the points were looked at 16 at a time, not 64",)


def test_where_there_is_no_memory_for_one_point_that_is_said() -> None:
    with pytest.raises(OutOfMemory):
        Asked(EASY, most=0).answer()


def test_what_cannot_be_done_in_time_fails_at_once_with_the_way_out() -> None:
    asked = Asked({**EASY, "points_per_side": 30, "points_per_batch": 20}, point_s=0.002)
    way_out = r"900 points need about \d+ s; .* are left of 1: ask for points_per_side \d+ \(about 1 s\)"
    with pytest.raises(DeadlineExceeded, match=way_out) as failure:
        asked.answer(timeout_s=1)
    assert len(asked.decoder.batches) < 10
    assert failure.value.figures["points"] == 900


def test_logits_are_not_given_and_the_reply_says_so() -> None:
    answer = Asked({**EASY, "return_logits": True}).answer()
    assert answer.notes == ("return_logits: no effect on automatic masks",)
    assert not any(one.logits for one in answer.predictions)


def test_what_is_of_closer_looks_has_no_effect_without_them_and_the_reply_says_so() -> None:
    answer = Asked({**EASY, "crop_nms_thresh": 0.5, "crop_overlap_ratio": 0.1}).answer()
    assert answer.notes == ("crop_nms_thresh, crop_overlap_ratio: no effect without crop_n_layers",)


def test_a_needle_of_millions_of_pixels_is_foreseen_to_need_more_memory() -> None:
    needle = TASK.plan(Decoding.absent((1, 10_000_000)), parse(TASK.defaults, EASY), ROOMY)
    assert needle.bytes_needed > 1_000_000_000


def test_a_picture_of_one_row_is_looked_at() -> None:
    assert Asked({"points_per_side": 3, "crop_n_layers": 2}, (1, 33)).answer().source_hw == (1, 33)


def test_masks_without_a_pixel_are_left_out() -> None:
    everything = {"points_per_side": 4, "pred_iou_thresh": 0, "stability_score_thresh": 0, "mask_threshold": 24}
    assert all(one.area and np.isfinite(one.stability_score) for one in found(everything))
