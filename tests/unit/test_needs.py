"""What is foreseen of a request's memory, beside what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image as Pillow

from shared import needs
from shared.images import Picture
from shared.manifest import Bundle, Curve, Foreseen, Measured, Profile
from shared.predictions import Enlarged, Instance, Prediction, Rle
from tests.bundles import bundle as detector
from tests.clients import picture
from tests.peaks import Case, peaks

MB = 1_000_000
HW = (2000, 3000)


def colours() -> Pillow.Image:
    ramp = np.linspace(0, 255, 3000, dtype=np.uint8)
    pixels = np.broadcast_to(ramp[None, :, None], (2000, 3000, 3)).copy()
    pixels[:, :, 1] = np.random.default_rng(0).integers(0, 40, HW, np.uint8)
    return Pillow.fromarray(pixels)


def turned(orientation: int) -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return exif


FILES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "baseline": ("RGB", "JPEG", {}),
    "turned": ("RGB", "JPEG", {"exif": turned(6)}),
    "progressive": ("RGB", "JPEG", {"progressive": True}),
    "progressive, all colours": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "progressive cmyk": ("CMYK", "JPEG", {"progressive": True}),
    "grey jpeg": ("L", "JPEG", {}),
    "png": ("RGB", "PNG", {"compress_level": 1}),
    "turned png": ("RGB", "PNG", {"compress_level": 1, "exif": turned(8)}),
    "transparent png": ("RGBA", "PNG", {"compress_level": 1}),
    "palette": ("P", "PNG", {"compress_level": 1, "transparency": 3}),
    "webp": ("RGB", "WEBP", {"method": 0}),
    "transparent webp": ("RGBA", "WEBP", {"method": 0}),
    "gif": ("P", "GIF", {}),
    "tiff": ("RGB", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff of one strip": ("RGB", "TIFF", {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 2000}}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, image = tmp_path_factory.mktemp("pictures"), colours()
    for name, (mode, format_, options) in FILES.items():
        image.convert(mode).save(folder / name, format_, **options)
    return {name: folder / name for name in FILES}


@pytest.fixture(scope="module")
def measured(files: dict[str, Path]) -> dict[Case, int]:
    sizes: list[tuple[int, int] | None] = [None, (300, 300), (900, 1350), (1600, 2400)]
    cases = [Case(str(path), hw, alpha) for path in files.values() for hw in sizes for alpha in (False, True)]
    drawn = [Case(str(files[name]), drawn=form) for name in ("baseline", "png") for form in ("jpeg", "png", "webp")]
    return dict(zip(cases + drawn, peaks(cases + drawn), strict=True))


def foreseen(case: Case) -> int:
    header = Picture(Path(case.path).read_bytes(), 1 << 30).header
    if case.drawn is not None:
        return needs.draw_bytes(header, case.drawn)
    return needs.decode_bytes(header, case.hw, alpha=case.alpha)


def test_no_picture_takes_more_than_was_foreseen(measured: dict[Case, int]) -> None:
    over = {case: (taken, foreseen(case)) for case, taken in measured.items() if taken > foreseen(case)}
    assert not over


def test_not_much_more_is_foreseen_than_is_taken(measured: dict[Case, int]) -> None:
    loose = {
        case: (taken, foreseen(case)) for case, taken in measured.items() if foreseen(case) > 1.3 * taken + 12 * MB
    }
    assert not loose


def test_opening_a_picture_takes_next_to_nothing_before_its_memory_was_asked_for(files: dict[str, Path]) -> None:
    header = Picture(files["webp"].read_bytes(), 1 << 30).header
    assert header.upright_hw == HW
    assert header.decoder_bytes > 8 * 6 * MB


def test_a_scan_of_one_component_has_the_whole_jpeg_held() -> None:
    data = picture("JPEG")
    start = data.index(b"\xff\xda")
    several = data[: start + 4] + b"\x01\x01\x00\x00\x3f\x00" + data[start + 4 + 10 :]
    assert Picture(data, 1 << 30).header.decoder_bytes == 0
    assert Picture(several, 1 << 30).header.decoder_bytes > 0


def profiled(backend: str = "onnx", **networks: Curve) -> Bundle:
    own = detector("tests.families:nothing", [("boxes", [1, 5, 4])], [])
    profile = Profile(backend, "r", "p", 2, 0, 0, (Measured((1, 1), 0, 0, 0, 0),), Foreseen(90, 60, networks))
    return Bundle(msgspec.structs.replace(own.model, profile=profile), own.folder, own.labels)


def test_a_run_is_foreseen_by_the_bundles_curve() -> None:
    bundle = profiled(detector=Curve(-10, 20))
    assert needs.run_bytes(bundle, "detector", 3_000_000) == 50 * MB
    assert needs.run_bytes(bundle, "detector", 1000) == 0


def test_a_network_of_a_part_is_foreseen_by_the_parts_curve() -> None:
    whole = Bundle(profiled().model, Path("own"), (), {"finder": profiled(detector=Curve(7, 0))})
    assert needs.run_bytes(whole, "finder/detector", 1) == 7 * MB
    assert needs.opening_bytes(whole) == 180 * MB


def test_a_network_that_was_never_profiled_is_taken_for_a_hungry_one() -> None:
    bundle = detector("tests.families:nothing", [("boxes", [1, 5, 4])], [])
    assert needs.run_bytes(bundle, "detector", 1_000_000) == 232 * MB


def test_a_profile_tells_nothing_of_another_backend() -> None:
    assert needs.under(profiled("onnx"), "onnx").model.profile is not None
    assert needs.under(profiled("torchscript"), "onnx").model.profile is None


def test_a_model_server_has_the_networks_memory() -> None:
    bundle = needs.under(profiled(detector=Curve(5000, 0)), "triton")
    assert needs.run_bytes(bundle, "detector", 1_000_000) == 44 * MB
    assert needs.opening_bytes(bundle) == needs.resident_bytes(bundle) == 0


def test_a_reply_holds_its_pictures_and_masks_and_their_base64() -> None:
    enlarged = Prediction((3, 3), (Enlarged(bytes(300), 6, 6, "png", 2, bytes(90)),))
    assert 910 <= needs.reply_bytes(enlarged) <= 940
    found = Instance("cat", 1, 0.5, (0, 0, 1, 1), Rle((9, 9), "x" * 60), 5)
    assert needs.reply_bytes(Prediction((9, 9), (found, found))) >= 280


def test_what_is_open_already_is_not_opened_again() -> None:
    assert needs.opening_bytes(profiled(), {Path("own")}) == needs.resident_bytes(profiled(), {Path("own")}) == 0
    assert (needs.opening_bytes(profiled()), needs.resident_bytes(profiled())) == (90 * MB, 60 * MB)
