from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from shared.call import Call
from shared.errors import ImageTooLarge, NotAnImage
from shared.images import Decoding, Image
from tests.clients import picture


def call() -> Call:
    return Call("test", 10)


def test_the_header_is_known_before_any_pixel() -> None:
    decoding = Decoding(picture(hw=(40, 80)), 10_000)
    assert (decoding.header.format, decoding.header.upright_hw) == ("PNG", (40, 80))


def test_pixels_are_decoded_when_they_are_asked_for_and_timed() -> None:
    decoding, timed = Decoding(picture(hw=(40, 80)), 10_000), call()
    assert decoding.image((20, 40), timed).rgb.shape == (20, 40, 3)
    assert list(timed.stages_ms) == ["decode"]


def test_pixels_decoded_ahead_are_not_decoded_again() -> None:
    decoding, later = Decoding(picture(), 10_000), call()
    decoding.decode(None, call())
    decoding.image(None, later)
    assert later.stages_ms == {}


def test_a_picture_is_known_by_its_bytes() -> None:
    assert Decoding(picture(), 10_000).digest == sha256(picture()).hexdigest()


def test_a_picture_that_was_made_here_is_known_by_nothing() -> None:
    assert Decoding.of(Image(np.zeros((2, 2, 3), np.uint8), (2, 2))).digest == ""


def test_of_an_absent_picture_only_the_size_is_known() -> None:
    assert Decoding.absent((30, 40)).header.upright_hw == (30, 40)


def test_what_is_no_picture_is_refused_at_once() -> None:
    with pytest.raises(NotAnImage):
        Decoding(b"no picture", 10_000)


def test_what_is_too_large_is_refused_at_once() -> None:
    with pytest.raises(ImageTooLarge):
        Decoding(picture(hw=(101, 100)), 10_000)
