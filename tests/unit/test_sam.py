"""SAM and its kin: what their networks are given, whatever the export, and what becomes of their answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from shared import tasks
from shared.call import Call
from shared.embeddings import Memo
from shared.errors import ConfigurationError, InvalidParameter, ModelOutputMismatch
from shared.images import Decoding
from shared.parameters import parse
from shared.tasks.arrays import unpacked
from tests import segmenters
from tests.segmenters import ANSWERS, PROMPTS, Networks, ask, bundle, grey, last, png, task_of

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "sam.json").read_text())["answers"]
ORIGINAL: dict[str, Any] = {
    "prompts": {
        **PROMPTS,
        "point_coords": [1, None, 2],
        "point_labels": [1, None],
        "mask_input": [1, 1, 256, 256],
        "has_mask_input": [1],
        "orig_im_size": [2],
    },
    "answers": {"low_res_masks": [1, 4, 256, 256], "iou_predictions": [1, 4]},
}
SAM2: dict[str, Any] = {
    "family": "sam2",
    "embeddings": {"high_res_feats_0": [1, 32, 256, 256], "image_embed": [1, 256, 64, 64]},
    "prompts": {
        "image_embed": [1, 256, 64, 64],
        "high_res_feats_0": [1, 32, 256, 256],
        "point_coords": [None, None, 2],
        "point_labels": [None, None],
        "mask_input": [None, 1, 256, 256],
        "has_mask_input": [1],
    },
    "answers": {"masks": [None, 3, 256, 256], "iou_predictions": [None, 3]},
    "preprocess": {"size": [1024, 1024], "layout": "NHWC"},
}
EFFICIENT: dict[str, Any] = {
    "prompts": {
        "image_embeddings": [1, 256, 64, 64],
        "batched_point_coords": [1, None, None, 2],
        "batched_point_labels": [1, None, None],
        "orig_im_size": [2],
    },
    "answers": {"output_masks": [1, None, 3, None, None], "iou_predictions": [1, None, 3]},
    "preprocess": {"size": [1024, 1024], "layout": "NHWC"},
    "dtypes": {"orig_im_size": "int64"},
    "postprocess": {"max_points": 6},
}


@pytest.mark.parametrize("export", [{}, ORIGINAL, SAM2, EFFICIENT], ids=["ours", "original", "sam2", "efficient"])
def test_a_point_of_the_picture_becomes_a_mask_around_it_in_every_export(export: dict[str, Any]) -> None:
    own = bundle(**export)
    found = ask(own, Networks(own), points=[[500, 200]])
    assert len(found.predictions) == 3
    x1, y1, x2, y2 = found.predictions[0].box
    assert (x1 + x2) / 2 == pytest.approx(500, abs=2)
    assert (y1 + y2) / 2 == pytest.approx(200, abs=2)


def test_points_go_to_the_frame_of_the_encoder() -> None:
    networks = Networks(bundle())
    ask(bundle(), networks, segmenters.grey((500, 2000)), points=[[1000, 250]])
    assert last(networks, "point_coords")[0, 0].tolist() == [512, 128]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_decoder_is_given_what_segment_anything_gives_its_prompt_encoder(name: str) -> None:
    found, networks = GOLDEN[name]["found"], Networks(bundle())
    asked = {key: value for key, value in GOLDEN[name]["asked"].items() if key not in ("photo", "earlier")}
    ask(bundle(), networks, segmenters.grey(tuple(found["size"])), **asked)
    corners = np.reshape(
        found["encoder_boxes"] or [[0, 0]], (-1, 2)
    )  # without a box the padding point, as utils/onnx.py
    expected = np.concatenate([np.reshape(found["encoder_points"] or [], (-1, 2)), corners])
    np.testing.assert_allclose(last(networks, "point_coords")[0], expected, rtol=1e-6, atol=1e-4)
    kinds = [2, 3] if found["encoder_boxes"] else [-1]
    labels = asked.get("point_labels", [1] * len(asked.get("points", [])))
    assert last(networks, "point_labels").tolist() == [[*labels, *kinds]]


def test_a_point_without_a_box_is_followed_by_the_padding_point() -> None:
    networks = Networks(bundle())
    ask(bundle(), networks, points=[[512, 256]])
    assert last(networks, "point_labels").tolist() == [[1, -1]]
    assert last(networks, "point_coords")[0, 1].tolist() == [0, 0]


def test_a_box_has_no_padding_point() -> None:
    networks = Networks(bundle())
    ask(bundle(), networks, box=[100, 100, 300, 200], points=[[200, 150]])
    assert last(networks, "point_labels").tolist() == [[1, 2, 3]]


def test_sam2_adds_the_padding_point_itself() -> None:
    own = bundle(**SAM2)
    networks = Networks(own)
    ask(own, networks, points=[[512, 256]])
    assert last(networks, "point_labels").tolist() == [[1]]


def test_the_bundle_may_say_that_its_export_adds_the_padding_point() -> None:
    own = bundle(postprocess={"padding_point": False})
    networks = Networks(own)
    ask(own, networks, points=[[512, 256]])
    assert last(networks, "point_labels").tolist() == [[1]]


def test_without_an_earlier_mask_the_decoder_is_told_so() -> None:
    networks = Networks(bundle())
    ask(bundle(), networks, points=[[512, 256]])
    assert last(networks, "has_mask_input").tolist() == [0]
    assert not last(networks, "mask_input").any()


def test_logits_sent_back_are_the_earlier_mask() -> None:
    networks = Networks(bundle())
    first = ask(bundle(), networks, points=[[512, 256]], return_logits=True).predictions[0].logits
    assert first is not None
    ask(bundle(), networks, points=[[512, 256]], mask_input=first)
    assert last(networks, "has_mask_input").tolist() == [1]
    assert (last(networks, "mask_input")[0, 0] == unpacked(first, "logits")).all()


def test_several_boxes_go_through_a_free_decoder_together_and_keep_their_places() -> None:
    networks = Networks(bundle())
    found = ask(bundle(), networks, boxes=[[100, 100, 300, 200], [500, 100, 700, 200]], multimask=False)
    assert len(networks.decoded) == 1
    assert [segment.prompt for segment in found.predictions] == [0, 1]


def test_several_boxes_go_through_a_decoder_of_one_prompt_one_by_one() -> None:
    own = bundle(**ORIGINAL)
    networks = Networks(own)
    found = ask(own, networks, boxes=[[100, 100, 300, 200], [500, 100, 700, 200]], multimask=False)
    assert len(networks.decoded) == 2
    assert [segment.prompt for segment in found.predictions] == [0, 1]


def test_many_boxes_go_through_the_decoder_some_at_a_time() -> None:
    networks = Networks(bundle())
    boxes = [[x, 10, x + 20, 40] for x in range(0, 800, 20)]
    found = ask(bundle(), networks, boxes=boxes, multimask=False)
    assert [len(inputs["point_coords"]) for inputs in networks.decoded] == [16, 16, 8]
    assert sorted(segment.prompt or 0 for segment in found.predictions) == list(range(40))


def test_fewer_boxes_go_together_where_memory_is_short() -> None:
    task, picture = task_of(bundle()), segmenters.grey()
    params = parse(task.defaults, {"boxes": [[x, 10, x + 20, 40] for x in range(0, 800, 20)]})
    assert task.plan(picture, params, 30 << 20).at_once < task.plan(picture, params, 1 << 40).at_once  # type: ignore[attr-defined]


def test_a_fixed_batch_is_filled_up_and_cut_again() -> None:
    own = bundle(prompts={**PROMPTS, "point_coords": [3, None, 2], "point_labels": [3, None]})
    networks = Networks(own)
    found = ask(own, networks, boxes=[[100, 100, 300, 200], [500, 100, 700, 200]], multimask=False)
    assert last(networks, "point_coords").shape == (3, 2, 2)
    assert len(found.predictions) == 2


def test_a_fixed_number_of_points_is_filled_with_points_that_say_nothing() -> None:
    own = bundle(prompts={**PROMPTS, "point_coords": [None, 4, 2], "point_labels": [None, 4]})
    networks = Networks(own)
    ask(own, networks, points=[[512, 256]])
    assert last(networks, "point_labels").tolist() == [[1, -1, -1, -1]]


def test_more_points_than_the_decoder_takes_are_refused() -> None:
    own = bundle(prompts={**PROMPTS, "point_coords": [None, 4, 2], "point_labels": [None, 4]})
    with pytest.raises(InvalidParameter, match="at most 3, found 5"):
        ask(own, Networks(own), points=[[1, 1]] * 5)


def test_points_that_the_decoder_would_drop_in_silence_are_refused() -> None:
    own = bundle(**EFFICIENT)
    with pytest.raises(InvalidParameter, match="at most 6, found 7"):
        ask(own, Networks(own), points=[[1, 1]] * 7)


def test_the_original_graph_is_asked_to_enlarge_to_next_to_nothing() -> None:
    own = bundle(**ORIGINAL)
    networks = Networks(own)
    ask(own, networks, segmenters.grey((3000, 4000)), points=[[512, 256]])
    assert last(networks, "orig_im_size").tolist() == [256, 256]


def test_nested_points_come_in_the_pixels_of_the_size_that_is_asked_for() -> None:
    own = bundle(**EFFICIENT)
    networks = Networks(own)
    ask(own, networks, points=[[512, 256]])
    assert last(networks, "batched_point_coords").tolist() == [[[[128, 128]]]]
    assert last(networks, "orig_im_size").dtype == np.int64


def test_multimask_gives_the_three_masks_of_a_prompt_that_may_mean_several_things() -> None:
    found = ask(bundle(), Networks(bundle()), points=[[512, 256]])
    assert [round(segment.score, 3) for segment in found.predictions] == [0.9, 0.7, 0.6]


def test_without_multimask_there_is_the_one_mask() -> None:
    found = ask(bundle(), Networks(bundle()), points=[[512, 256]], multimask=False)
    assert [round(segment.score, 3) for segment in found.predictions] == [0.5]


def test_without_multimask_the_best_of_three_is_the_one_mask() -> None:
    own = bundle(**SAM2)
    found = ask(own, Networks(own), points=[[512, 256]], multimask=False)
    assert [round(segment.score, 3) for segment in found.predictions] == [0.9]


def test_an_export_of_a_single_mask_gives_that_one_always() -> None:
    answers = {"low_res_masks": [None, 1, 256, 256], "iou_predictions": [None, 1]}
    own = bundle(answers=answers)
    for multimask in (True, False):
        assert len(ask(own, Networks(own), points=[[512, 256]], multimask=multimask).predictions) == 1


def test_a_mask_is_measured_in_source_pixels() -> None:
    (segment,) = ask(bundle(), Networks(bundle()), points=[[512, 256]], multimask=False).predictions
    assert list(segment.box) == [384, 128, 640, 384]
    assert segment.area == pytest.approx(256 * 256, abs=8)  # its corners are round
    assert segment.stability_score == 1.0


def test_a_mask_threshold_above_every_logit_leaves_nothing_and_says_so() -> None:
    found = ask(bundle(), Networks(bundle()), points=[[512, 256]], mask_threshold=9)
    assert found.predictions == ()
    assert found.notes == ("3 of 3 masks had no pixel and are left out",)


def test_masks_may_be_left_out() -> None:
    found = ask(bundle(), Networks(bundle()), points=[[512, 256]], mask_format="none")
    assert [segment.mask for segment in found.predictions] == [None] * 3


def test_a_render_factor_has_no_effect_and_that_is_said() -> None:
    found = ask(bundle(), Networks(bundle()), points=[[512, 256]], render_factor=20)
    assert found.notes == ("render_factor has no effect: the network's input has a fixed size",)


def test_what_only_automatic_masks_know_has_no_effect_with_a_prompt_and_that_is_said() -> None:
    found = ask(bundle(), Networks(bundle()), points=[[512, 256]], points_per_side=8, max_masks=3)
    assert found.notes == ("points_per_side, max_masks: no effect together with a prompt",)


@pytest.mark.parametrize(
    ("given", "note"),
    [
        ({"polygon_tolerance": 2}, "polygon_tolerance: no effect on masks that are no polygons"),
        ({"logits_dtype": "float32"}, "logits_dtype: no effect without return_logits or return_embedding"),
    ],
)
def test_a_parameter_of_something_that_was_not_asked_for_has_no_effect_and_that_is_said(
    given: dict[str, Any], note: str
) -> None:
    assert ask(bundle(), Networks(bundle()), points=[[512, 256]], **given).notes == (note,)


def test_an_embedding_sent_back_spares_the_encoder_and_the_picture() -> None:
    networks = Networks(bundle())
    first = ask(bundle(), networks, points=[[512, 256]], return_embedding=True, logits_dtype="float32")
    assert first.embedding is not None
    absent = Decoding.absent(first.embedding.size)
    again = ask(bundle(), networks, absent, points=[[512, 256]], embedding=first.embedding)
    assert len(networks.encoded) == 1
    assert again.predictions == first.predictions


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "another@1:0"}, "found one of 'another@1:0'"),
        ({"size": (5, 5)}, "of a picture of size [5, 5]"),
        ({"arrays": {}}, "expected arrays ['image_embeddings'], found []"),
    ],
)
def test_an_embedding_of_something_else_is_refused(change: dict[str, Any], words: str) -> None:
    first = ask(bundle(), Networks(bundle()), points=[[512, 256]], return_embedding=True).embedding
    assert first is not None
    with pytest.raises(InvalidParameter) as caught:
        ask(bundle(), Networks(bundle()), points=[[512, 256]], embedding=msgspec.structs.replace(first, **change))
    assert words in caught.value.message


def test_the_second_prompt_about_a_picture_needs_neither_pixels_nor_encoder() -> None:
    task, memo, networks = task_of(bundle()), Memo(10_000_000), Networks(bundle())
    source = png()
    for clicks in range(2):
        picture = Decoding(source, 1_000_000, memo)
        params = parse(task.defaults, {"points": [[10, 10 + clicks]]})
        plan = task.plan(picture, params, 1 << 40)
        assert plan.pixels == (clicks == 0)
        task.predict(picture, plan, params, networks.runs, Call("test", 60))
    assert len(networks.encoded) == 1


def test_the_second_prompt_is_foreseen_to_need_less_memory() -> None:
    task, memo, networks = task_of(bundle()), Memo(10_000_000), Networks(bundle())
    needed = []
    for _ in range(2):
        picture = Decoding(png(), 1_000_000, memo)
        params = parse(task.defaults, {"points": [[10, 10]]})
        plan = task.plan(picture, params, 1 << 40)
        needed.append(plan.bytes_needed)
        task.predict(picture, plan, params, networks.runs, Call("test", 60))
    assert needed[1] < needed[0]


def test_a_needle_of_millions_of_pixels_is_foreseen_to_need_more_memory() -> None:
    task, needle = task_of(bundle()), Decoding.absent((1, 10_000_000))
    assert task.plan(needle, parse(task.defaults, {"points": [[1, 1]]}), 1 << 40).bytes_needed > 1_000_000_000


@pytest.mark.parametrize("given", [{"mask_format": "polygon"}, {"points": [[1, 1]] * 1000}])
def test_polygons_and_very_many_points_are_foreseen_to_need_more_memory(given: dict[str, Any]) -> None:
    task, large = task_of(bundle()), Decoding.absent((8000, 8000))
    one, other = (
        task.plan(large, parse(task.defaults, asked), 1 << 40).bytes_needed
        for asked in ({"points": [[1, 1]]}, {"points": [[1, 1]], **given})
    )
    assert other > one + 50_000_000


class Asking(Call):
    """Counts how often it is asked for its time."""

    checks = 0

    def check(self) -> None:
        self.checks += 1
        super().check()


def test_the_time_is_looked_at_before_each_mask_is_placed_and_brought_into_its_form() -> None:
    task, networks, call, picture = task_of(bundle()), Networks(bundle()), Asking("test", 60), grey()
    params = parse(task.defaults, {"boxes": [[1, 1, 700, 400]] * 8, "mask_format": "polygon"})
    found = task.predict(picture, task.plan(picture, params, 1 << 40), params, networks.runs, call)
    assert call.checks >= 2 * len(found.predictions) == 48


def test_what_is_made_of_a_picture_decoded_at_another_size_is_kept_apart() -> None:
    segmenter, picture = task_of(bundle()).segmenter, Decoding(png((40, 60)), 10_000)
    usual = segmenter.place((40, 60)).content_hw
    assert (
        segmenter.key(picture)
        == segmenter.key(picture, decoded_hw=usual)
        != segmenter.key(picture, decoded_hw=(40, 60))
    )


def test_an_embedding_that_was_given_up_meanwhile_is_made_again() -> None:
    task, memo, networks = task_of(bundle()), Memo(0), Networks(bundle())
    params = parse(task.defaults, {"points": [[10, 10]]})
    for _ in range(2):
        picture = Decoding(png(), 1_000_000, memo)
        task.predict(picture, task.plan(picture, params, 1 << 40), params, networks.runs, Call("test", 60))
    assert len(networks.encoded) == 2


def test_logits_of_another_shape_are_the_models_fault() -> None:
    own, networks = bundle(), Networks(bundle())
    networks.runs["decoder"]._answer = lambda inputs: {
        "low_res_masks": np.zeros((1, 4, 128, 128), np.float32),
        "iou_predictions": np.zeros((1, 4), np.float32),
    }
    with pytest.raises(ModelOutputMismatch, match=r"\[1, masks, 256, 256\], found \[1, 4, 128, 128\]"):
        ask(own, networks, points=[[512, 256]])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prompts": {"image_embeddings": [1, 256, 64, 64]}}, "role 'points' (or named point_coords"),
        ({"prompts": {**PROMPTS, "extra": [1, 2]}}, "'extra' is no prompt and none of the encoder's outputs"),
        ({"prompts": {**PROMPTS, "image_embeddings": [1, 256, 32, 32]}}, "but the encoder gives float32"),
        ({"prompts": {**PROMPTS, "point_coords": [None, 2]}}, "expected shape [prompts, points, 2]"),
        ({"prompts": {**PROMPTS, "point_labels": [None]}}, "'point_labels': expected shape [None, None]"),
        ({"prompts": {**PROMPTS, "mask_input": [1, 256]}}, "expected shape [prompts, 1, height, width]"),
        ({"answers": {"iou_predictions": [None, 4]}}, "role 'low_res_masks'"),
        ({"postprocess": {"max_point": 3}}, "postprocess"),
    ],
)
def test_a_decoder_that_cannot_be_understood_is_a_configuration_error(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        tasks.build(bundle(**wrong))
    assert words in str(caught.value)


def test_the_only_output_of_the_encoder_may_have_another_name() -> None:
    own = bundle(embeddings={"features": [1, 256, 64, 64]})
    networks = Networks(own)
    ask(own, networks, points=[[512, 256]])
    assert last(networks, "image_embeddings").shape == (1, 256, 64, 64)


def test_the_enlarged_masks_of_the_original_export_are_not_taken_for_its_logits() -> None:
    answers = {"masks": [None, None, None, None], **ANSWERS}
    own = bundle(prompts={**PROMPTS, "orig_im_size": [2]}, answers=answers)
    assert task_of(own).segmenter.mask_hw == (256, 256)
