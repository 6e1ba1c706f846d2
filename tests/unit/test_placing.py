from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shared import needs, tasks
from shared.call import Call
from shared.errors import OutOfMemory
from shared.images import Decoding, Header, Image
from shared.parameters import parse
from tests.bundles import Cramped, Output, bundle

if TYPE_CHECKING:
    from shared.predictions import Prediction
    from shared.tasks import Task

OUTPUTS: list[Output] = [("boxes", [1, None, 4]), ("scores", [1, None, 1])]
FREE: dict[str, Any] = {"input_shape": [1, 3, None, None], "preprocess": {"resize": "long-side", "side": 640}}


def photo() -> Decoding:
    return Decoding.of(Image(np.zeros((500, 1000, 3), np.uint8), (500, 1000)))


def built(**rest: Any) -> Task:
    return tasks.build(bundle("tf-detection", OUTPUTS, ["cat"], **(FREE | rest)))


def found(task: Task, run: Cramped, budget_bytes: int = sys.maxsize, **given: Any) -> Prediction[Any]:
    picture = photo()
    params = parse(task.defaults, given)
    plan = task.plan(picture, params, budget_bytes)
    return task.predict(picture, plan, params, {"detector": run}, Call("test", 10))


def test_a_render_factor_makes_the_input_a_square_of_16_times_it() -> None:
    run = Cramped()
    prediction = found(built(), run, render_factor=35)
    assert (run.asked, prediction.render_factor) == ([(560, 560)], 35)


def test_boxes_come_back_in_source_pixels_by_each_axis() -> None:
    (one,) = found(built(), Cramped(), render_factor=10).predictions
    assert one.box == (500.0, 0.0, 1000.0, 500.0)


def test_auto_is_the_models_own_size_where_memory_bears_it() -> None:
    run = Cramped()
    prediction = found(built(), run)
    assert (run.asked, prediction.render_factor, prediction.notes) == ([(320, 640)], None, ())


def test_auto_is_the_largest_factor_that_the_memory_bears_and_says_so() -> None:
    task, run = built(), Cramped()
    small = task.plan(photo(), parse(task.defaults, {"render_factor": 12}), sys.maxsize).bytes_needed
    prediction = found(task, run, budget_bytes=small)
    assert (run.asked, prediction.render_factor) == ([(192, 192)], 12)
    assert prediction.notes == ("memory is short: the model was run with render factor 12",)


def test_what_is_asked_for_is_not_made_smaller_in_silence() -> None:
    task = built()
    plan = task.plan(photo(), parse(task.defaults, {"render_factor": 100}), 1000)
    assert plan.bytes_needed > 1000


def test_where_memory_runs_out_the_factor_is_halved_twice_and_told() -> None:
    run = Cramped(pixels=150 * 150)
    prediction = found(built(), run, render_factor=32)
    assert run.asked == [(512, 512), (256, 256), (128, 128)]
    assert prediction.render_factor == 8
    assert prediction.notes == ("memory was short: the model was run with render factor 8",)


def test_what_is_too_much_at_a_quarter_is_a_failure() -> None:
    with pytest.raises(OutOfMemory):
        found(built(), Cramped(pixels=1))


def test_a_fixed_size_network_says_that_a_factor_has_no_effect() -> None:
    prediction = found(built(input_shape=[1, 3, 64, 64], preprocess={}), Cramped(), render_factor=20)
    assert prediction.notes == ("render_factor has no effect: the network's input has a fixed size",)
    assert prediction.render_factor is None


def test_a_fixed_size_network_is_not_tried_smaller() -> None:
    run = Cramped(pixels=1)
    with pytest.raises(OutOfMemory):
        found(built(input_shape=[1, 3, 64, 64], preprocess={}), run)
    assert run.asked == [(64, 64)]


def test_a_square_is_padded_to_what_the_network_needs_a_multiple_of() -> None:
    run = Cramped()
    found(built(preprocess=FREE["preprocess"] | {"multiple_of": 32}), run, render_factor=5)
    assert run.asked == [(96, 96)]


def test_what_is_needed_covers_the_decoding_and_the_run() -> None:
    task, header = built(), Header("JPEG", (3000, 4000))
    picture = Decoding.of(Image(np.zeros((1, 1, 3), np.uint8), header.upright_hw))
    plan = task.plan(picture, task.defaults, sys.maxsize)
    assert plan.bytes_needed >= max(needs.decode_bytes(picture.header, plan.decode_hw), 7 * 3 * 480 * 640)
