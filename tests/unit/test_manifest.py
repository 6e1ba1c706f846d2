from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ConfigurationError
from shared.manifest import Preprocess, read_bundle
from shared.settings import Settings
from tests.bundles import manifest

BUNDLED = Path(Settings().models) / "coco-ssd-mobilenet-v2"


def declared() -> dict[str, Any]:
    return manifest("yolo", [("out", [1, 84, None])], ["cat", None, "dog"])


def read(folder: Path, content: object) -> Any:
    (folder / "model.json").write_text(json.dumps(content))
    return read_bundle(folder)


def test_the_bundled_model_is_read_whole() -> None:
    bundle = read_bundle(BUNDLED)
    assert (bundle.model.name, bundle.model.task, len(bundle.labels)) == ("coco-ssd-mobilenet-v2", "detection", 90)
    assert bundle.network("detector").inputs[0].shape == (1, 300, 300, 3)


def profile(**changed: Any) -> dict[str, Any]:
    point = {"size": [300, 300], "ms": 14.0, "infer_ms": 12.0, "peak_mb": 60.0, "total_mb": 120.0}
    figures = {"backend": "onnx", "runtime": "onnxruntime 1.31.1", "processor": "x", "threads": 4}
    return figures | {"load_s": 0.1, "first_ms": 20.0, "measured": [point | changed]}


def test_a_profile_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, declared() | {"profile": profile()}).model.profile
    assert (found.threads, found.measured[0].size, found.measured[0].concurrency) == (4, (300, 300), 1)


@pytest.mark.parametrize("changed", [{"ms": -1.0}, {"size": [0, 1]}, {"concurrency": 0}, {"peak": 1.0}])
def test_a_wrong_profile_is_named(changed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"profile\.measured\[0\]\.{next(iter(changed))}"):
        read(tmp_path, declared() | {"profile": profile(**changed)})


def test_labels_may_lie_in_a_file_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\n\ndög \n", encoding="utf-8")
    assert read(tmp_path, declared() | {"labels": "labels.txt"}).labels == ("cat", None, "dög")


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    content = declared()
    del content["preprocess"], content["postprocess"]
    model = read(tmp_path, content).model
    assert (model.version, model.preprocess, model.postprocess) == ("1", Preprocess(), {})


WRONG: dict[str, tuple[tuple[str | int, ...], object, str]] = {
    "name": (("name",), "My Model", "name: .* found 'My Model'"),
    "a name that is a path": (("name",), "../x", "name: "),
    "an unknown field": (("thresholds",), {}, "thresholds: unknown field"),
    "a misspelt field": (("licens",), "MIT", "licens: unknown field; did you mean 'licence'"),
    "an empty licence": (("licence",), "", "licence: "),
    "no networks": (("networks",), {}, "networks: "),
    "dtype": (("networks", "detector", "inputs", 0, "dtype"), "f32", "inputs.0..dtype: expected one of bool"),
    "shape": (("networks", "detector", "inputs", 0, "shape"), ["N"], "found 'N'"),
    "the same name twice": (
        ("networks", "detector", "outputs"),
        [{"name": "a", "dtype": "bool", "shape": []}] * 2,
        "outputs: expected distinct names, found .'a', 'a'.",
    ),
    "no artifacts": (("networks", "detector", "artifacts"), {}, "artifacts: expected a backend's file, or served_as"),
    "a short checksum": (("networks", "detector", "artifacts", "onnx", "sha256"), "ab", "sha256: expected 64"),
    "a checksum in capitals": (
        ("networks", "detector", "artifacts", "onnx", "sha256"),
        "A" * 64,
        "sha256: expected 64",
    ),
    "an absolute file": (("networks", "detector", "artifacts", "onnx", "file"), "/etc/passwd", "inside the bundle"),
    "a file above": (("networks", "detector", "artifacts", "onnx", "file"), "a/../../b", "inside the bundle"),
    "an empty file": (("networks", "detector", "artifacts", "onnx", "file"), "", "inside the bundle"),
    "a file with a zero byte": (("networks", "detector", "artifacts", "onnx", "file"), "a\0b", "inside the bundle"),
    "labels above": (("labels",), "../labels.txt", "labels: expected a path inside the bundle"),
    "resize": (("preprocess", "resize"), "fit", "preprocess.resize: expected one of letterbox"),
    "a side that is needed": (("preprocess", "resize"), "long-side", "preprocess.side: expected a number"),
    "std with a zero": (("preprocess", "std"), [1, 0, 1], "std without a zero"),
    "std of two": (("preprocess", "std"), [1, 1], "preprocess.std: "),
    "a pad value": (("preprocess", "pad_value"), [0, 0, 256], "preprocess.pad_value: "),
    "a huge size": (("preprocess", "size"), [1, 10**9], r"preprocess.size\[1\]: "),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field_is_named(case: str, tmp_path: Path) -> None:
    path, value, message = WRONG[case]
    content = declared()
    place: Any = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ConfigurationError, match=rf"^{tmp_path.name}/model.json: .*{message}"):
        read(tmp_path, content)


@pytest.mark.parametrize("field", ["name", "task", "family", "licence", "source"])
def test_a_missing_field_is_named(field: str, tmp_path: Path) -> None:
    content = declared()
    del content[field]
    with pytest.raises(ConfigurationError, match=f"missing required field `{field}`"):
        read(tmp_path, content)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"name": NaN}'])
def test_what_is_no_manifest_is_said_to_be_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"model\.json: "):
        read_bundle(tmp_path)


def test_labels_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"model\.json: "):
        read(tmp_path, declared() | {"labels": "labels.txt"})


@pytest.mark.parametrize("labels", [None, "labels.txt"])
def test_a_missing_file_is_named_without_its_place(labels: str | None, tmp_path: Path) -> None:
    if labels:
        (tmp_path / "model.json").write_text(json.dumps(declared() | {"labels": labels}))
    with pytest.raises(ConfigurationError) as raised:
        read_bundle(tmp_path)
    assert f"cannot read '{labels or 'model.json'}': No such file" in str(raised.value)
    assert str(tmp_path.parent) not in str(raised.value)


def composed(**bundles: str) -> dict[str, Any]:
    return {
        "name": "both", "task": "instance-segmentation", "family": "detector-sam", "licence": "MIT", "source": "tests",
        "bundles": bundles,
    }  # fmt: skip


def test_a_bundle_may_put_others_together(tmp_path: Path) -> None:
    for name in ("one", "both"):
        (tmp_path / name).mkdir()
    read(tmp_path / "one", declared())
    found = read(tmp_path / "both", composed(detector="one"))
    assert found.network_names == ["detector/detector"]
    assert found.network("detector/detector").folder == tmp_path / "one"


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    with pytest.raises(ConfigurationError, match=r"bundles\.detector: expected the bundle 'one' beside this one"):
        read(tmp_path / "both", composed(detector="one"))


@pytest.mark.parametrize("name", ["both", "other"])
def test_a_part_has_networks_of_its_own(name: str, tmp_path: Path) -> None:
    for folder in ("one", "both", "other"):
        (tmp_path / folder).mkdir()
    read(tmp_path / "one", declared())
    read(tmp_path / "other", composed(detector="one"))
    with pytest.raises(ConfigurationError, match="expected a bundle with networks of its own"):
        read(tmp_path / "both", composed(detector=name))


def test_a_part_changes_the_fingerprint_of_the_whole(tmp_path: Path) -> None:
    for name in ("one", "both"):
        (tmp_path / name).mkdir()
    read(tmp_path / "one", declared())
    before = read(tmp_path / "both", composed(detector="one")).fingerprint
    read(tmp_path / "one", declared() | {"version": "2"})
    assert read_bundle(tmp_path / "both").fingerprint != before


def test_networks_and_bundles_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="networks: expected either networks, or bundles"):
        read(tmp_path, declared() | {"bundles": {"detector": "one"}})
