"""The enlargers made anew from their published source: the same bytes, and the pictures of the source itself.

Needs npm and onnx: `make test-export`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from model_server.archives import Archive
from model_server.catalog import SHIPPED, find_entry
from model_server.fetch import download
from model_server.sources import Sources
from shared.artifacts import sha256_of

if TYPE_CHECKING:
    from shared.tensors import UInt8

NAMES = ["esrgan-slim", "esrgan-medium"]
MISSING = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None] + (
    [] if shutil.which("npm") else ["npm"]
)

pytestmark = [
    pytest.mark.export,
    pytest.mark.skipif(bool(MISSING), reason=f"EXPORT NOT TESTED: {', '.join(MISSING)} missing; run make test-export"),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both bundles, as the command makes them."""
    into = tmp_path_factory.mktemp("exported")
    for name in [*NAMES, "rdn-psnr-small"]:
        command = [sys.executable, "-m", "model_server", "export", name, "--into", str(into)]
        result = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    return into


@pytest.mark.parametrize("file", ["LICENSE", "x2.onnx", "x3.onnx", "x4.onnx", "x8.onnx"])
def test_the_export_makes_the_shipped_files_byte_for_byte(file: str, exported: Path) -> None:
    assert sha256_of(exported / "esrgan-slim" / file) == sha256_of(SHIPPED / "esrgan-slim" / file)


def test_the_export_declares_its_files_as_the_shipped_manifest_does(exported: Path) -> None:
    folders = (exported / "esrgan-slim", SHIPPED / "esrgan-slim")
    made, shipped = (json.loads((it / "model.json").read_text(encoding="utf-8")) for it in folders)
    shipped.pop("profile", None)  # measured afterwards
    assert made == shipped


@pytest.mark.parametrize(("name", "overlap"), [("esrgan-slim", 10), ("esrgan-medium", 18), ("rdn-psnr-small", 38)])
def test_the_overlap_of_tiles_is_how_far_the_networks_see(name: str, overlap: int, exported: Path) -> None:
    declared = json.loads((exported / name / "model.json").read_text(encoding="utf-8"))
    assert declared["postprocess"] == {"overlap": overlap}


@pytest.fixture(scope="module", params=NAMES)
def samples(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A package's own picture, and what TensorFlow.js has made of it, as the package shows them."""
    folder = tmp_path_factory.mktemp("samples")
    origin = find_entry(request.param).export
    assert origin is not None
    with Sources() as sources:
        download(origin, folder / "source.tgz", sources)
    files = {f"assets/samples/{scale}x/result.png": folder / f"x{scale}.png" for scale in (2, 3, 4)}
    Archive(folder / "source.tgz").extract({**files, "assets/fixture.png": folder / "fixture.png"})
    return request.param, folder


def _read(path: Path) -> UInt8:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _enlarged(path: Path, picture: UInt8) -> UInt8:
    import onnxruntime as ort

    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (enlarged,) = session.run(["enlarged"], {"image": np.ascontiguousarray(picture)[None]})
    whole: UInt8 = enlarged[0]
    return whole


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_enlarged_picture_is_the_one_that_the_package_shows(
    scale: int, samples: tuple[str, Path], exported: Path
) -> None:
    name, folder = samples
    found = _enlarged(exported / name / f"x{scale}.onnx", _read(folder / "fixture.png")).astype(int)
    difference = np.abs(found - _read(folder / f"x{scale}.png"))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_a_tile_with_the_declared_overlap_has_the_pixels_of_the_whole(scale: int, samples: Any) -> None:
    network, picture = SHIPPED / "esrgan-slim" / f"x{scale}.onnx", _read(samples[1] / "fixture.png")
    tile = _enlarged(network, picture[20:80, 30:100])[10 * scale : -10 * scale, 10 * scale : -10 * scale]
    whole = _enlarged(network, picture)[30 * scale : 70 * scale, 40 * scale : 90 * scale]
    assert np.array_equal(tile, whole)
