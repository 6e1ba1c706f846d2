"""What a plane's trimmed part says is what the whole plane says."""

from __future__ import annotations

import numpy as np
import pytest

from shared.geometry import long_side
from shared.masks import enlargement
from shared.masks.enlargement import Enlargement
from shared.masks.extent import trimmed
from shared.masks.placed import Crop
from tests.golden_masks import DATA, values

with np.load(DATA / "masks.npz") as stored:
    PLANE, ROUGH = values(stored["sam"]), values(stored["rough"])
BLOB = np.where(np.hypot(*np.ogrid[-100:156, -60:196]) < 25, PLANE + 5, -9).astype(np.float32)
SOURCES = [(427, 640), (900, 500), (1500, 2000), (90, 60)]


def ways() -> list[Enlargement]:
    found = []
    for source in SOURCES:
        crop = Crop(11, 7, (source[0] + 40, source[1] + 20))
        found.append(enlargement.sam((256, 256), long_side(source, 1024, 1024), crop))
        found.append(enlargement.stretched((256, 256), source))
    return found


@pytest.mark.parametrize("way", ways(), ids=lambda way: f"{way.source_hw}")
@pytest.mark.parametrize("plane", [PLANE, ROUGH, BLOB], ids=["smooth", "rough", "blob"])
@pytest.mark.parametrize("threshold", [0.0, 3.0])
def test_mask_box_and_stability_are_those_of_the_whole_plane(
    way: Enlargement, plane: np.ndarray[tuple[int, int], np.dtype[np.float32]], threshold: float
) -> None:
    part = trimmed(plane, way, threshold - 1)
    assert part is not None
    whole = enlargement.mask(plane, way, threshold)
    assert part.mask(threshold) == whole
    assert part.box(threshold) == (whole.box if whole.area else None)
    assert part.stability(threshold, 1.0) == pytest.approx(enlargement.stability(plane, way, threshold), abs=1e-6)


def test_only_what_is_needed_of_a_plane_is_held() -> None:
    part = trimmed(BLOB, enlargement.stretched((256, 256), (1000, 1000)), -1)
    assert part is not None
    assert part.plane.size < BLOB.size / 20


def test_of_what_lies_beside_the_picture_nothing_is_held() -> None:
    assert trimmed(BLOB, enlargement.sam((256, 256), long_side((33, 700), 1024, 1024)), -1) is None


def test_of_a_plane_that_stays_below_nothing_is_held() -> None:
    assert trimmed(BLOB, enlargement.stretched((256, 256), (1000, 1000)), 100) is None
