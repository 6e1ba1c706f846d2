"""Every kind of picture in every format, and what that may take."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Pillow

from shared.encoding import Format, bytes_needed, check_sides, encoded, file_bytes
from shared.errors import NotAcceptable

FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp")


def noise(mode: str, side: int = 64) -> Pillow.Image:
    shape = (side, side, {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode])
    return Pillow.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8).squeeze(), mode=None)


def read(data: bytes) -> Pillow.Image:
    return Pillow.open(BytesIO(data))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_png_keeps_every_pixel(mode: str) -> None:
    image = noise(mode)
    again = read(encoded(image, "png"))
    assert again.mode == mode
    assert np.array_equal(np.asarray(again), np.asarray(image))


@pytest.mark.parametrize("format_", FORMATS)
def test_the_bytes_are_of_the_format_that_was_asked_for(format_: Format) -> None:
    assert read(encoded(noise("RGB"), format_)).format == format_.upper()


@pytest.mark.parametrize("format_", ["jpeg", "webp"])
def test_quality_is_honoured(format_: Format) -> None:
    assert len(encoded(noise("RGB"), format_, 20)) < len(encoded(noise("RGB"), format_, 95)) / 2


def test_webp_keeps_what_is_transparent() -> None:
    assert read(encoded(noise("RGBA"), "webp")).mode == "RGBA"


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_noise_takes_no_more_than_foreseen(mode: str, format_: Format) -> None:
    assert (
        len(encoded(noise(mode, 500), format_, 100))
        < file_bytes((500, 500), mode)
        <= bytes_needed((500, 500), mode, format_)
    )


@pytest.mark.parametrize(("format_", "longest"), [("jpeg", 65_500), ("webp", 16_383)])
def test_a_side_that_the_format_cannot_hold_is_refused_with_the_figures(format_: Format, longest: int) -> None:
    check_sides((1, longest), format_)
    with pytest.raises(NotAcceptable, match=f"{format_} holds no side longer than {longest}") as caught:
        check_sides((1, longest + 1), format_)
    assert caught.value.figures == {"limit": longest, "found": longest + 1}


def test_a_png_may_have_any_side() -> None:
    check_sides((1, 1_000_000), "png")
