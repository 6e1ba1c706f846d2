"""Enlarged pictures of every kind, size and network; numbers small enough to check by eye."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as Pillow

from shared import tasks
from shared.call import Call
from shared.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidParameter,
    ModelOutputMismatch,
    NotAcceptable,
    OutOfMemory,
)
from shared.images import Decoding
from shared.manifest import Bundle, Model
from shared.parameters import parse
from shared.predictions import Enlarged, Prediction
from shared.tasks.image_to_image import ImageToImageTask
from shared.validation import convert
from tests.hostile_pictures import photo, saved

if TYPE_CHECKING:
    from shared.tensors import Tensors

PIXELS, NO_LIMIT = 10_000_000, 1 << 60
_FREE: dict[str, list[int | None]] = {"NHWC": [1, None, None, 3], "NCHW": [1, 3, None, None], "HWC": [None, None, 3]}


def bundle(
    scales: tuple[int, ...] = (2,), dtype: str = "uint8", hw: tuple[int, int] | None = None, **rest: Any
) -> Bundle:
    """A bundle without files; `rest` is of its preprocess but for `postprocess`."""
    preprocess = {"layout": "NHWC"} | rest
    postprocess = preprocess.pop("postprocess", {"overlap": 1})
    free = _FREE[preprocess["layout"]]
    shape = free if hw is None else [1, *hw, 3]
    network = {
        "inputs": [{"name": "image", "dtype": dtype, "shape": shape}],
        "outputs": [{"name": "enlarged", "dtype": dtype, "shape": free}],
        "artifacts": {"onnx": {"file": "model.onnx", "sha256": "0" * 64}},
    }
    model = {
        "name": "own",
        "task": "super-resolution",
        "family": "image-to-image",
        "licence": "Apache-2.0",
        "source": "made by the tests",
        "networks": {f"x{scale}": network for scale in scales},
        "preprocess": preprocess,
        "postprocess": postprocess,
    }
    return Bundle(convert(model, Model), Path("own"), ())


class Blurs:
    """A Run: the mean of the 3x3 pixels around each, zero beyond the edge as convolutions have it, repeated `scale`
    times. `most` is the number of pixels that there is memory for."""

    def __init__(self, scale: int = 2, layout: str = "NHWC", most: int = 1 << 60, wait_s: float = 0.0) -> None:
        self.scale, self.planar, self.batched = scale, layout.endswith("CHW"), layout.startswith("N")
        self.most, self.wait_s = most, wait_s
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        sleep(self.wait_s)
        tensor = inputs["image"]
        self.shapes.append(tensor.shape)
        if tensor.size // 3 > self.most:
            raise OutOfMemory("there is not enough memory to run the model on this picture")
        pixels = tensor[0] if self.batched else tensor
        pixels = pixels.transpose(1, 2, 0) if self.planar else pixels
        larger = blurred(pixels).repeat(self.scale, 0).repeat(self.scale, 1)
        larger = larger.transpose(2, 0, 1) if self.planar else larger
        return {"enlarged": np.ascontiguousarray(larger[None] if self.batched else larger).astype(tensor.dtype)}

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


def blurred(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    height, width = pixels.shape[:2]
    padded = np.pad(pixels.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    return sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3)) / 9  # type: ignore[return-value]


def answer(
    data: bytes, own: Bundle | None = None, run: Any = None, *, side: int = 0, timeout_s: float = 60.0, **given: Any
) -> Prediction[Enlarged]:
    task = ImageToImageTask(own or bundle())
    params = parse(task.defaults, given)
    decoding = Decoding(data, PIXELS)
    plan = task.plan(decoding, params, NO_LIMIT)
    plan = msgspec.structs.replace(plan, side=side) if side else plan
    run = run or Blurs(params.scale)
    return task.predict(decoding, plan, params, {f"x{params.scale}": run}, Call("test", timeout_s))


def picture(data: bytes, *rest: Any, **given: Any) -> Pillow.Image:
    return Pillow.open(BytesIO(answer(data, *rest, **given).predictions[0].image))


def pixels(data: bytes, *rest: Any, **given: Any) -> npt.NDArray[np.int64]:
    return np.asarray(picture(data, *rest, **given)).astype(np.int64)


def noise(height: int, width: int) -> Pillow.Image:
    return Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def expected(image: Pillow.Image, scale: int = 2) -> npt.NDArray[np.int64]:
    """What Blurs makes of the whole picture."""
    return blurred(np.asarray(image)).astype(np.uint8).repeat(scale, 0).repeat(scale, 1).astype(np.int64)


PHOTO = photo(48, 64)
SHADE = Pillow.linear_gradient("L").resize(PHOTO.size)
CLEAR = PHOTO.copy()
CLEAR.putalpha(SHADE)
SIDEWAYS = Pillow.Exif()
SIDEWAYS[0x0112] = 6
KINDS = {
    "RGB": (saved(PHOTO, "PNG"), PHOTO),
    "L": (saved(PHOTO.convert("L"), "PNG"), PHOTO.convert("L")),
    "RGBA": (saved(CLEAR, "PNG"), CLEAR),
    "LA": (saved(CLEAR.convert("LA"), "PNG"), CLEAR.convert("LA")),
}
PALETTE = PHOTO.quantize(16)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [(33, 1), (1, 1), (1, 33), (61, 47)])
def test_a_picture_becomes_exactly_so_many_times_as_large(size: tuple[int, int], scale: int) -> None:
    found = answer(saved(PHOTO.resize(size), "PNG"), bundle((scale,)), side=16).predictions[0]
    assert Pillow.open(BytesIO(found.image)).size == (size[0] * scale, size[1] * scale)
    assert (found.width, found.height) == (size[0] * scale, size[1] * scale)


@pytest.mark.parametrize("side", [12, 16, 29, 64])
def test_tiles_give_what_the_whole_picture_gives(side: int) -> None:
    image = noise(61, 47)
    assert np.array_equal(pixels(saved(image, "PNG"), side=side), expected(image))


@pytest.mark.parametrize("side", [12, 29])
def test_tiles_have_one_shape(side: int) -> None:
    run = Blurs()
    answer(saved(noise(61, 47), "PNG"), None, run, side=side)
    assert len(set(run.shapes)) == 1


def test_a_seam_whose_reach_is_unknown_does_not_show() -> None:
    own = bundle(postprocess={})
    assert np.array_equal(
        pixels(saved(PHOTO.resize((300, 300)), "PNG"), own, side=128), expected(PHOTO.resize((300, 300)))
    )


def test_sides_are_padded_to_what_the_network_wants() -> None:
    run = Blurs()
    assert picture(saved(noise(61, 47), "PNG"), bundle(multiple_of=8), run, side=32).size == (94, 122)
    assert all(height % 8 == width % 8 == 0 for _, height, width, _ in run.shapes)


@pytest.mark.parametrize("size", [(9, 5), (32, 24), (70, 61)])
def test_a_network_of_one_size_gets_tiles_of_it(size: tuple[int, int]) -> None:
    run, image = Blurs(), noise(size[1], size[0])
    found = pixels(saved(image, "PNG"), bundle(hw=(24, 32)), run)
    assert set(run.shapes) == {(1, 24, 32, 3)}
    assert np.array_equal(found[:-2, :-2], expected(image)[:-2, :-2])  # the last pixels are repeated, not zero


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "HWC"])
def test_a_network_of_floats_gives_the_same(layout: str, dtype: str) -> None:
    image = noise(31, 47)
    own = bundle(dtype=dtype, layout=layout, scale=1 / 255)
    found = pixels(saved(image, "PNG"), own, Blurs(layout=layout), side=20)
    assert np.abs(found - blurred(np.asarray(image)).repeat(2, 0).repeat(2, 1)).max() <= 0.6


def test_a_network_may_give_levels_as_floats() -> None:
    own = bundle(dtype="float32", postprocess={"overlap": 1, "output_range": [0, 255]})
    assert np.abs(pixels(saved(PHOTO, "PNG"), own) - expected(PHOTO)).max() <= 1


def test_a_network_may_give_black_as_minus_one() -> None:
    own = bundle(dtype="float32", scale=2 / 255, mean=[1, 1, 1], postprocess={"overlap": 1, "output_range": [-1, 1]})
    white = saved(Pillow.new("RGB", (5, 5), (255, 255, 255)), "PNG")
    assert pixels(white, own)[5, 5].tolist() == [255, 255, 255]


def test_a_network_that_wants_blue_first_gives_the_same_colours() -> None:
    image = noise(31, 47)
    assert np.array_equal(pixels(saved(image, "PNG"), bundle(colour="BGR")), expected(image))


@pytest.mark.parametrize("mode", KINDS)
def test_a_picture_keeps_its_kind(mode: str) -> None:
    assert picture(KINDS[mode][0]).mode == mode


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("format_", ["png", "webp"])
def test_transparency_is_kept_as_pillow_enlarges_it(mode: str, format_: str) -> None:
    found = picture(KINDS[mode][0], output_format=format_)
    theirs = SHADE.resize(found.size, Pillow.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(found.getchannel("A")), np.asarray(theirs))


def test_colours_under_what_is_transparent_are_enlarged_as_they_are() -> None:
    assert np.array_equal(pixels(KINDS["RGBA"][0])[..., :3], expected(PHOTO))


def test_transparency_of_a_palette_is_kept() -> None:
    assert picture(saved(PALETTE, "PNG", transparency=3)).mode == "RGBA"


def test_sixteen_bits_stay_grey() -> None:
    deep = Pillow.fromarray(np.asarray(PHOTO.convert("L")).astype(np.uint16) << 8)
    assert np.array_equal(pixels(saved(deep, "PNG")), pixels(KINDS["L"][0]))


def test_a_turned_picture_comes_out_upright_and_says_no_more_how_to_turn_it() -> None:
    found = picture(saved(PHOTO, "JPEG", exif=SIDEWAYS.tobytes()))
    assert found.size == (96, 128)
    assert not found.getexif()


@pytest.mark.parametrize("mode", KINDS)
def test_the_twin_is_pillows_bicubic(mode: str) -> None:
    data, image = KINDS[mode]
    twin = answer(data, twin=True).predictions[0].twin
    assert twin is not None
    theirs = image.resize((128, 96), Pillow.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(Pillow.open(BytesIO(twin))), np.asarray(theirs))


def test_there_is_no_twin_unless_asked_for() -> None:
    assert answer(KINDS["RGB"][0]).predictions[0].twin is None


def test_the_twin_is_encoded_as_the_other() -> None:
    found = answer(KINDS["RGB"][0], twin=True, output_format="webp").predictions[0]
    assert [Pillow.open(BytesIO(data)).format for data in (found.image, found.twin or b"")] == ["WEBP", "WEBP"]


def test_jpeg_lays_what_is_transparent_on_white_and_says_so() -> None:
    nothing = saved(Pillow.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG")
    found = answer(nothing, output_format="jpeg")
    middle = np.asarray(Pillow.open(BytesIO(found.predictions[0].image)))[4:12, 4:12]
    assert middle.min() >= 250
    assert found.notes == ("jpeg has no transparency: the picture was laid on white",)


def test_a_render_factor_is_said_to_have_no_effect() -> None:
    assert answer(KINDS["RGB"][0], render_factor=20).notes == (
        "render_factor has no effect: the whole picture is enlarged",
    )


def test_a_pngs_quality_is_said_to_have_no_effect() -> None:
    assert answer(KINDS["RGB"][0], quality=10).notes == ("quality has no effect: png keeps every pixel as it is",)


def test_a_side_that_the_format_cannot_hold_is_refused() -> None:
    with pytest.raises(NotAcceptable, match="webp holds no side longer than 16383 pixels and the picture has 16384"):
        answer(saved(Pillow.new("RGB", (8192, 1)), "PNG"), output_format="webp")


@pytest.mark.parametrize(
    ("scales", "own", "usual"),
    [((2, 3, 4, 8), {}, 4), ((2, 3), {}, 3), ((8,), {}, 8), ((2,), {}, 2), ((2, 4), {"scale": 2}, 2)],
)
def test_the_usual_scale_is_four_or_what_the_bundle_has(
    scales: tuple[int, ...], own: dict[str, Any], usual: int
) -> None:
    task = tasks.build(bundle(scales, postprocess=own))
    assert task.defaults.scale == usual


def test_a_scale_that_the_bundle_lacks_names_those_it_has() -> None:
    with pytest.raises(InvalidParameter, match="scale: this model has 2, 4, found 8"):
        answer(KINDS["RGB"][0], bundle((2, 4)), scale=8)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"scales": ()}, "networks: expected some of x2, x3, x4, x8"),
        ({"scales": (5,)}, "networks: expected some of x2, x3, x4, x8, found"),
        ({"postprocess": {"scale": 3}}, "postprocess.scale: expected one of .2., found 3"),
        ({"postprocess": {"overlap": -1}}, "postprocess.overlap"),
        ({"postprocess": {"margin": 1}}, "postprocess.margin"),
        ({"postprocess": {"output_range": [1, 0]}}, "postprocess.output_range"),
        ({"postprocess": {"output_range": [0, 1]}}, "output_range: expected 0 and 255"),
        ({"postprocess": {"overlap": 16}, "hw": (32, 32)}, "overlap: expected at most 13"),
        ({"layout": "NCHW", "hw": (32, 32)}, "preprocess.layout"),
        ({"scale": 0.5}, "takes pixels as they are"),
    ],
)
def test_a_bundle_that_cannot_be_honoured_is_named(own: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigurationError, msgspec.ValidationError), match=message):
        tasks.build(bundle(**own))


def test_a_result_of_another_size_is_told() -> None:
    with pytest.raises(ModelOutputMismatch, match=r"x2 expects shape \[1, 96, 128, 3\], found \[1, 144, 192, 3\]"):
        answer(KINDS["RGB"][0], None, Blurs(3))


def test_values_that_are_no_numbers_are_told() -> None:
    class Broken(Blurs):
        def __call__(self, inputs: Tensors, call: Call) -> Tensors:
            return {"enlarged": np.full((1, 96, 128, 3), np.nan, np.float32)}

    with pytest.raises(ModelOutputMismatch, match="values that are no numbers"):
        answer(KINDS["RGB"][0], bundle(dtype="float32"), Broken())


def test_what_runs_out_of_memory_is_done_in_smaller_tiles_and_says_so() -> None:
    image, run = noise(400, 300), Blurs(most=100 * 100)
    found = answer(saved(image, "PNG"), None, run)
    assert np.array_equal(np.asarray(Pillow.open(BytesIO(found.predictions[0].image))), expected(image))
    assert found.notes == ("memory was short: the picture was enlarged in tiles of at most 96 pixels",)


def test_where_even_small_tiles_find_no_memory_the_request_fails() -> None:
    with pytest.raises(OutOfMemory):
        answer(saved(noise(400, 300), "PNG"), None, Blurs(most=100))


def test_a_network_of_one_size_is_not_tried_again() -> None:
    run = Blurs(most=100)
    with pytest.raises(OutOfMemory):
        answer(saved(noise(60, 60), "PNG"), bundle(hw=(32, 32)), run)
    assert len(run.shapes) == 1


def test_a_time_that_will_not_do_is_told_after_a_few_tiles() -> None:
    run = Blurs(wait_s=0.02)
    with pytest.raises(DeadlineExceeded, match="ask for a smaller scale or send a smaller picture") as caught:
        answer(saved(noise(200, 200), "PNG"), None, run, side=12, timeout_s=1)
    assert len(run.shapes) == 2
    assert caught.value.figures["limit"] == 1


def planned(data: bytes, budget_bytes: int, own: Bundle | None = None, **given: Any) -> Any:
    task = ImageToImageTask(own or bundle())
    return task.plan(Decoding(data, PIXELS), parse(task.defaults, given), budget_bytes)


LARGE = saved(Pillow.new("RGB", (2000, 1500)), "PNG")


def test_tiles_shrink_until_they_fit() -> None:
    large, small = planned(LARGE, NO_LIMIT), planned(LARGE, planned(LARGE, NO_LIMIT).bytes_needed - 30_000_000)
    assert small.side < large.side
    assert small.bytes_needed <= large.bytes_needed - 30_000_000


def test_what_does_not_fit_in_the_smallest_tiles_is_left_to_be_refused() -> None:
    assert planned(LARGE, 1_000_000).bytes_needed > 12_000_000 * 4


@pytest.mark.parametrize("format_", ["png", "jpeg", "webp"])
def test_a_twin_takes_more(format_: str) -> None:
    without, with_one = (planned(LARGE, 0, output_format=format_, twin=twin).bytes_needed for twin in (False, True))
    assert with_one > without


def test_planning_decodes_nothing() -> None:
    broken = saved(PHOTO, "PNG")[:-200]
    assert planned(broken, NO_LIMIT).decode_hw is None
