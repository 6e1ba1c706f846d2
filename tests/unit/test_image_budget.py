"""What images weigh, on small saved images that are made here, and what is said of it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from docker.matrix import budget, contents, size_report
from docker.matrix.budget import Ceiling
from docker.matrix.containers import megabytes
from docker.matrix.layers import File, Layer, read
from docker.matrix.markdown import markdown_table
from docker.matrix.variants import VARIANTS, chosen
from docker.matrix.weighing import Weighed, check_is_on
from model_server.failures import Stopped

_PACKAGE = "opt/venv/lib/python3.11/site-packages"
_MODEL = "app/model_server/models/detector/model.onnx"
_WIDE = Ceiling(1000.0, 1000.0)


def _tar(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.LNKTYPE, target
            archive.addfile(entry)
    return written.getvalue()


def _saved(folder: Path, layers: Sequence[bytes]) -> Path:
    """An image of these layers as `docker save` writes it; made between them was one that is empty."""
    names = [f"blobs/sha256/{at}" for at in range(len(layers))]
    history = [{"created_by": "ENV A=1", "empty_layer": True}, *({"created_by": f"COPY {name}"} for name in names)]
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {"rootfs": {"diff_ids": diff_ids}, "history": history}
    manifest = [{"Config": "config", "Layers": names, "RepoTags": ["thinlens:one"]}]
    blobs = dict(zip(names, layers, strict=True))
    path = folder / "image.tar"
    path.write_bytes(_tar({**blobs, "config": _json(config), "manifest.json": _json(manifest)}))
    return path


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _layers(folder: Path, *layers: bytes) -> list[Layer]:
    return list(read(_saved(folder, layers), contents.is_of_bundle))


def _file(path: str, size: int, sha256: str = "") -> File:
    return File(path, size, sha256 or path)


def _image(*files: File, gzip_bytes: int = 0) -> Weighed:
    layer = Layer("sha256:above", "COPY . .", files, gzip_bytes, 0)
    return Weighed("google-onnx", "thinlens:google-onnx", None, (), (layer,))


def test_every_file_of_every_layer_is_read(tmp_path: Path) -> None:
    below, above = _layers(tmp_path, _tar({"etc/os": b"base"}), _tar({"app/one.py": b"1", "app/two.py": b"22"}))
    assert [(file.path, file.size) for file in above.files] == [("app/one.py", 1), ("app/two.py", 2)]
    assert below.disk_bytes == 4


def test_layers_are_named_by_what_made_them(tmp_path: Path) -> None:
    found = _layers(tmp_path, _tar({"a": b"a"}), _tar({"b": b"b"}))
    assert [layer.made_by for layer in found] == ["COPY blobs/sha256/0", "COPY blobs/sha256/1"]


def test_a_further_hard_link_takes_no_room(tmp_path: Path) -> None:
    (layer,) = _layers(tmp_path, _tar({"app/one.py": b"123"}, links={"app/same.py": "app/one.py"}))
    assert layer.disk_bytes == 3


def test_a_layer_is_compressed_as_gzip_does(tmp_path: Path) -> None:
    content = _tar({"app/one.py": b"x" * 300_000})
    (layer,) = _layers(tmp_path, content)
    assert layer.gzip_bytes == pytest.approx(len(gzip.compress(content, 6)), abs=16)


def test_the_bundle_is_compressed_apart(tmp_path: Path) -> None:
    weights = hashlib.shake_256(b"weights").digest(100_000)
    (layer,) = _layers(tmp_path, _tar({"app/one.py": b"x" * 10_000, _MODEL: weights}))
    assert layer.gzip_bytes < 1_000
    assert layer.apart_gzip_bytes == pytest.approx(100_000, rel=0.01)


def test_layers_that_an_engine_has_compressed_are_read_too(tmp_path: Path) -> None:
    (layer,) = _layers(tmp_path, gzip.compress(_tar({"app/one.py": b"123"})))
    assert layer.disk_bytes == 3


def test_a_layer_that_is_known_is_not_read_again(tmp_path: Path) -> None:
    path = _saved(tmp_path, [_tar({"a": b"a"})])
    (first,) = read(path, contents.is_of_bundle)
    (second,) = read(path, contents.is_of_bundle, {first.diff_id: first})
    assert second is first


def test_what_is_no_saved_image_is_told(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(_tar({"one": b"1"}))
    with pytest.raises(Stopped, match="not one image as `docker save` writes it"):
        list(read(path, contents.is_of_bundle))


@pytest.mark.parametrize(
    ("path", "part"),
    [
        (f"{_PACKAGE}/numpy/core.so", "packages"),
        ("home/site/wwwroot/.python_packages/lib/site-packages/msgspec/_core.so", "packages"),
        ("opt/venv/bin/gunicorn", "packages"),
        (_MODEL, "bundle"),
        ("home/site/wwwroot/model_server/models/detector/model.onnx", "bundle"),
        ("app/shared/web/page.py", "app"),
        ("home/site/wwwroot/function_app.py", "app"),
        ("etc/passwd", "app"),
    ],
)
def test_a_file_belongs_to_one_part(path: str, part: str) -> None:
    assert contents.part(path) == part


def test_packages_come_by_size_and_their_metadata_together() -> None:
    files = [
        _file(f"{_PACKAGE}/numpy/core.so", 5),
        _file(f"{_PACKAGE}/numpy.libs/blas.so", 9),
        _file(f"{_PACKAGE}/numpy-2.0.dist-info/RECORD", 1),
        _file(f"{_PACKAGE}/pillow-12.dist-info/RECORD", 2),
        _file("app/main.py", 100),
    ]
    assert contents.packages(files) == [("numpy.libs", 9), ("numpy", 5), ("*.dist-info", 3)]


def test_equal_files_are_told_with_what_they_waste() -> None:
    files = [_file("a", 10, "same"), _file("b", 10, "same"), _file("c", 10, "same"), _file("d", 10, "other")]
    (found,) = contents.duplicates(files)
    assert (found.paths, found.wasted_bytes) == (("a", "b", "c"), 20)


def test_empty_files_are_no_duplicates() -> None:
    assert contents.duplicates([_file("a/__init__.py", 0, "none"), _file("b/__init__.py", 0, "none")]) == []


def test_the_bundle_is_not_part_of_what_is_added() -> None:
    assert _image(_file(_MODEL, 50_000_000), _file("app/main.py", 2_000_000)).added_mb == 2.0


def test_an_image_on_another_base_is_refused() -> None:
    with pytest.raises(Stopped, match="is not built on the python:3 that is here"):
        check_is_on("thinlens:one", ["sha256:old", "sha256:ours"], "python:3", ["sha256:new"])


def test_an_image_below_its_ceilings_is_fine() -> None:
    assert budget.exceeded([_image(_file("app/main.py", 5_000_000))], {"google-onnx": Ceiling(5.0, 1.0)}) == []


def test_a_ceiling_that_is_exceeded_on_disk_is_named() -> None:
    (said,) = budget.exceeded([_image(_file("app/main.py", 5_100_000))], {"google-onnx": Ceiling(5.0, 1.0)})
    assert said == "google-onnx adds 5.10 MB on disk, above its ceiling of 5 MB"


def test_a_ceiling_that_is_exceeded_compressed_is_named() -> None:
    (said,) = budget.exceeded([_image(gzip_bytes=2_000_000)], {"google-onnx": Ceiling(5.0, 1.0)})
    assert said == "google-onnx adds 2.00 MB compressed, above its ceiling of 1 MB"


def test_every_variant_has_its_ceiling() -> None:
    assert list(budget.read_budget()) == [variant.name for variant in VARIANTS]


def _budget(folder: Path, **changes: str) -> Path:
    """A budget file that is right but for `changes`: the text in a variant's table."""
    right = {variant.name: "disk_mb = 1\ngzip_mb = 1" for variant in VARIANTS}
    path = folder / "budget.toml"
    path.write_text("\n".join(f"[{name}]\n{text}" for name, text in {**right, **changes}.items()), encoding="utf-8")
    return path


def test_a_ceiling_for_no_variant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="wrong or missing: nobody"):
        budget.read_budget(_budget(tmp_path, nobody="disk_mb = 1\ngzip_mb = 1"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("disk_mb = 1", "expected disk_mb and gzip_mb"),
        ("disk_mb = 1\ngzip_mb = 0", "gzip_mb: expected a number above 0, found 0"),
        ("disk_mb = true\ngzip_mb = 1", "disk_mb: expected a number above 0, found True"),
        ("disk_mb =", "Invalid value"),
    ],
)
def test_a_wrong_ceiling_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Stopped, match=said):
        budget.read_budget(_budget(tmp_path, **{"google-onnx": text}))


def test_the_table_names_the_largest_of_what_is_left() -> None:
    image = _image(_file(f"{_PACKAGE}/numpy/core.so", 20_900_000))
    assert "numpy 20.9" in size_report.text([image], {"google-onnx": _WIDE}, layers=False)


def test_the_table_of_layers_is_shown_when_asked() -> None:
    image = _image(_file("app/main.py", 1_000_000))
    assert "COPY . ." in size_report.text([image], {"google-onnx": _WIDE}, layers=True)


def test_a_stand_in_is_said() -> None:
    layer = Layer("sha256:above", "COPY . .", (), 0, 0)
    image = Weighed("google-onnx", "thinlens:google-onnx", "python:3", (), (layer,))
    assert "STAND-INS of python:3" in size_report.text([image], {"google-onnx": _WIDE}, layers=False)


def test_the_report_is_written_as_json_and_markdown(tmp_path: Path) -> None:
    size_report.write([_image(_file("app/main.py", 1_000_000))], {"google-onnx": _WIDE}, tmp_path)
    (found,) = json.loads((tmp_path / "sizes.json").read_text(encoding="utf-8"))
    assert (found["name"], found["added_mb"]) == ("google-onnx", 1.0)
    assert (tmp_path / "sizes.md").read_text(encoding="utf-8").startswith("| image |")


def test_figures_stand_to_the_right_on_a_page() -> None:
    assert markdown_table(["a", "b"], [["x", "1"], ["y", "-"]]).splitlines()[1] == "| --- | ---: |"


@pytest.mark.parametrize(("text", "mb"), [("1.5MiB", 1.572864), ("2GiB ", 2147.483648), ("512kB", 0.512), ("0B", 0.0)])
def test_an_engine_s_amounts_of_memory_are_understood(text: str, mb: float) -> None:
    assert megabytes(text) == mb


def test_an_amount_of_memory_that_is_none_is_refused() -> None:
    with pytest.raises(Stopped, match="expected an amount of memory"):
        megabytes("--")


def test_variants_come_in_the_matrix_s_order() -> None:
    assert [one.name for one in chosen(["vertex-onnx", "google-onnx"])] == ["google-onnx", "vertex-onnx"]


def test_a_variant_that_is_not_known_is_refused() -> None:
    with pytest.raises(Stopped, match="'google-caffe' is no variant; expected some of google-onnx, "):
        chosen(["google-caffe"])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("google-onnx", {"CLOUD": "google", "RUNTIME": "onnx"}),
        (
            "azure-external-encoded",
            {"CLOUD": "azure", "RUNTIME": "external", "FORWARD": "encoded", "PROTOCOL": "http"},
        ),
        ("google-external-grpc", {"CLOUD": "google", "RUNTIME": "external", "FORWARD": "tensor", "PROTOCOL": "grpc"}),
    ],
)
def test_a_variant_s_name_says_its_build_arguments(name: str, arguments: dict[str, str]) -> None:
    (variant,) = chosen([name])
    assert variant.build_arguments == arguments


def test_azure_images_are_for_amd64_only() -> None:
    assert {one.platforms for one in VARIANTS if one.cloud == "azure"} == {("linux/amd64",)}
