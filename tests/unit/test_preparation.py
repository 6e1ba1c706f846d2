from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shared.errors import ConfigurationError
from shared.images import Image
from shared.manifest import Preprocess
from shared.tasks import preparation
from shared.tensors import TensorSpec
from shared.validation import convert

RED = (255, 0, 0)


def preprocess(**fields: Any) -> Preprocess:
    return convert(fields, Preprocess)


def picture(height: int, width: int, rgb: tuple[int, int, int] = RED) -> Image:
    return Image(np.full((height, width, 3), rgb, np.uint8), (height, width))


def spec(*shape: int | None, dtype: Any = "float32") -> TensorSpec:
    return TensorSpec("image", dtype, shape)


def prepared(image: Image, declared: TensorSpec, **fields: Any) -> np.ndarray:
    wanted = preprocess(**fields)
    resize = preparation.place(image.source_hw, wanted, declared)
    return preparation.to_tensor(image, resize, wanted, declared)


def test_channels_come_first_in_nchw() -> None:
    tensor = prepared(picture(2, 3), spec(1, 3, 2, 3))
    assert tensor.shape == (1, 3, 2, 3)
    assert tensor[0, :, 0, 0].tolist() == [255, 0, 0]


def test_channels_come_last_in_nhwc() -> None:
    tensor = prepared(picture(2, 3), spec(1, 2, 3, 3), layout="NHWC")
    assert tensor.shape == (1, 2, 3, 3)
    assert tensor[0, 0, 0].tolist() == [255, 0, 0]


def test_chw_has_no_batch_axis() -> None:
    assert prepared(picture(2, 3), spec(3, 2, 3), layout="CHW").shape == (3, 2, 3)


def test_hwc_has_no_batch_axis() -> None:
    assert prepared(picture(2, 3), spec(2, 3, 3), layout="HWC").shape == (2, 3, 3)


def test_bgr_turns_the_channels_round() -> None:
    assert prepared(picture(1, 1), spec(1, 3, 1, 1), colour="BGR").ravel().tolist() == [0, 0, 255]


def test_the_tensor_lies_in_one_piece() -> None:
    assert prepared(picture(2, 3), spec(1, 3, 2, 3), colour="BGR").flags.c_contiguous


def test_uint8_pixels_are_left_as_they_are() -> None:
    tensor = prepared(picture(1, 1, (1, 2, 3)), spec(1, 3, 1, 1, dtype="uint8"))
    assert tensor.dtype == np.uint8
    assert tensor.ravel().tolist() == [1, 2, 3]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_floats_have_the_declared_dtype(dtype: str) -> None:
    assert prepared(picture(1, 1), spec(1, 3, 1, 1, dtype=dtype), scale=1 / 255).dtype == dtype


def test_scale_mean_and_std_are_applied_in_this_order() -> None:
    tensor = prepared(
        picture(1, 1, (255, 51, 0)), spec(1, 3, 1, 1), scale=1 / 255, mean=[0.5, 0.5, 0.5], std=[0.5, 0.25, 0.125]
    )
    assert tensor.ravel() == pytest.approx([1, -1.2, -4], abs=1e-6)


def test_mean_follows_the_colour_order() -> None:
    tensor = prepared(picture(1, 1, (10, 20, 30)), spec(1, 3, 1, 1), colour="BGR", mean=[30, 20, 10])
    assert tensor.ravel().tolist() == [0, 0, 0]


def test_the_rest_of_a_letterbox_is_the_pad_value() -> None:
    tensor = prepared(picture(2, 4), spec(1, 3, 4, 4), resize="letterbox", pad_value=[1, 2, 3])
    assert tensor[0, :, 0, 0].tolist() == [1, 2, 3]
    assert tensor[0, :, 1, 0].tolist() == [255, 0, 0]
    assert tensor[0, :, 3, 3].tolist() == [1, 2, 3]


def test_padding_is_normalised_like_pixels() -> None:
    tensor = prepared(picture(2, 4), spec(1, 3, 4, 4), resize="letterbox", scale=1 / 114)
    assert tensor[0, :, 0, 0] == pytest.approx([1, 1, 1])


def test_a_picture_that_was_decoded_smaller_fills_the_same_content() -> None:
    small = Image(np.full((50, 100, 3), RED, np.uint8), (200, 400))
    tensor = prepared(small, spec(1, 3, 64, 64), resize="letterbox")
    assert tensor[0, 0, 16:48].min() == 255
    assert tensor[0, 1, 15].tolist() == [114] * 64


def test_free_sides_follow_the_long_one() -> None:
    tensor = prepared(picture(50, 100), spec(1, 3, None, None), resize="long-side", side=64, multiple_of=32)
    assert tensor.shape == (1, 3, 32, 64)


def test_free_sides_follow_the_short_one() -> None:
    tensor = prepared(picture(50, 100), spec(1, 3, None, None), resize="short-side", side=25, max_side=100)
    assert tensor.shape == (1, 3, 25, 50)


def test_a_free_network_with_no_size_takes_the_picture_as_it_is() -> None:
    assert prepared(picture(7, 9), spec(3, None, None), layout="CHW").shape == (3, 7, 9)


def test_a_free_network_takes_the_size_of_preprocess() -> None:
    assert prepared(picture(7, 9), spec(1, 3, None, None), size=[20, 30]).shape == (1, 3, 20, 30)


def test_a_network_free_in_one_axis_takes_the_size_of_preprocess() -> None:
    assert prepared(picture(7, 9), spec(1, 3, 20, None), size=[20, 30]).shape == (1, 3, 20, 30)


@pytest.mark.parametrize(
    ("declared", "fields", "names"),
    [
        (spec(1, 3, 64, 64), {"size": [32, 32]}, "preprocess.size"),
        (spec(1, 3, 64, None), {"size": [32, 32]}, "preprocess.size"),
        (spec(1, 3, 64, 64), {"layout": "NHWC"}, "preprocess.layout"),
        (spec(3, 64, 64), {}, "preprocess.layout"),
        (spec(1, 1, 64, 64), {}, "preprocess.layout"),
        (spec(1, 3, 64, 64), {"resize": "long-side", "side": 64}, "preprocess.resize"),
        (spec(1, 3, 64, 64), {"resize": "short-side", "side": 64, "max_side": 99}, "preprocess.resize"),
        (spec(1, 3, None, None), {"resize": "letterbox"}, "preprocess.size"),
        (spec(1, 3, 64, 64, dtype="uint8"), {"scale": 0.5}, "uint8"),
        (spec(1, 3, 64, 64, dtype="uint8"), {"mean": [1, 1, 1]}, "uint8"),
        (spec(1, 3, 64, 64, dtype="int64"), {}, "int64"),
    ],
)
def test_a_preprocess_that_contradicts_the_network_is_refused(
    declared: TensorSpec, fields: dict[str, Any], names: str
) -> None:
    with pytest.raises(ConfigurationError, match=names):
        preparation.check(preprocess(**fields), declared)


def test_a_refusal_tells_both_sizes() -> None:
    with pytest.raises(ConfigurationError, match=r"expected \[64, 64\] as input 'image' declares, found \[32, 32\]"):
        preparation.check(preprocess(size=[32, 32]), spec(1, 3, 64, 64))
