from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from shared import artifacts
from shared.artifacts import CACHE, verified, write_cache
from shared.errors import ConfigurationError
from shared.manifest import NetworkSpec
from shared.tensors import Artifact


def network(folder: Path, sha256: str | None = None, data: bytes = b"weights") -> NetworkSpec:
    (folder / "model.onnx").write_bytes(data)
    artifact = Artifact("model.onnx", sha256 or hashlib.sha256(data).hexdigest())
    return NetworkSpec("own", "1", "detector", folder, (), (), {"onnx": artifact}, "own.detector")


def test_a_file_with_the_right_checksum_is_verified(tmp_path: Path) -> None:
    path, artifact = verified(network(tmp_path), "onnx")
    assert (path, artifact.file) == (tmp_path / "model.onnx", "model.onnx")


def test_a_changed_file_is_refused_with_both_checksums(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"own: .*onnx.sha256: expected 0{64}, but 'model.onnx' has [0-9a-f]{64}"
    ):
        verified(network(tmp_path, "0" * 64), "onnx")


def test_a_file_is_read_once_while_it_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = network(tmp_path)
    verified(spec, "onnx")
    monkeypatch.setattr(artifacts, "sha256_of", lambda path: pytest.fail("read again"))
    verified(spec, "onnx")


def test_a_file_that_was_touched_is_read_again(tmp_path: Path) -> None:
    spec = network(tmp_path)
    verified(spec, "onnx")
    (tmp_path / "model.onnx").write_bytes(b"WEIGHTS")
    with pytest.raises(ConfigurationError, match="sha256"):
        verified(spec, "onnx")


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"sha256": "' + b"0" * 64 + b'", "size": 7, "mtime_ns": 1}'])
def test_a_damaged_note_is_not_believed(note: bytes, tmp_path: Path) -> None:
    spec = network(tmp_path)
    verified(spec, "onnx")
    (kept,) = (tmp_path / CACHE).iterdir()
    kept.write_bytes(note)
    (tmp_path / "model.onnx").write_bytes(b"WEIGHTS")
    with pytest.raises(ConfigurationError, match="sha256"):
        verified(spec, "onnx")


def test_a_missing_file_is_named_without_its_place(tmp_path: Path) -> None:
    spec = network(tmp_path)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(ConfigurationError, match=r"onnx.file: cannot read 'model.onnx': No such file") as raised:
        verified(spec, "onnx")
    assert str(tmp_path) not in str(raised.value)


def test_another_backends_file_is_not_this_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing for backend 'triton', found \['onnx'\]"):
        verified(network(tmp_path), "triton")


def test_a_bundle_that_cannot_be_written_to_is_verified_all_the_same(tmp_path: Path) -> None:
    (tmp_path / CACHE).write_bytes(b"a file where the folder would be")
    assert verified(network(tmp_path), "onnx")[0].name == "model.onnx"


def test_the_cache_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / CACHE / "note"
    assert write_cache(target, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    assert not write_cache(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["note"]
