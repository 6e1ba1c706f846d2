"""Fetching: whole or not at all, from every kind of source, with failures that a person can act on."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from model_server.archives import Archive
from model_server.catalog import Entry, File
from model_server.cli import main
from model_server.failures import Stopped
from model_server.fetch import catalogued, fetch, fetch_bundle
from model_server.sources import Sources, join, shown, split
from tests.bundles import Output, manifest

WEIGHTS = bytes(range(256)) * 4000


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A bundle called `own` as somebody may have published it: weights, labels of its own, a licence."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(WEIGHTS)
    (folder / "LICENSE").write_text("free")
    outputs: list[Output] = [("logits", [1, None, 2]), ("boxes", [1, None, 4])]
    declared = manifest("detr", outputs, ["cat"], sha256=_sha256(WEIGHTS))
    (folder / "model.json").write_text(json.dumps(declared))
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _bundle(folder: Path) -> set[str]:
    return {f"own/{name}" for name in _files(folder)}


# --- a folder, whole or not at all


def test_a_folder_with_a_model_json_becomes_a_bundle_of_the_name_that_it_says(published: Path, models: Path) -> None:
    fetch(published.as_uri(), models, models)
    assert _files(models) == {"own/model.json", "own/model.onnx", "own/LICENSE"}


def test_a_bundle_that_is_there_already_is_verified_and_said_so(published: Path, models: Path) -> None:
    fetch(published.as_uri(), models, models)
    assert "already in" in fetch(published.as_uri(), models, models)


def test_a_bundle_that_is_there_and_broken_is_not_passed_over(published: Path, models: Path) -> None:
    fetch(published.as_uri(), models, models)
    (models / "own" / "model.onnx").write_bytes(b"broken")
    with pytest.raises(Stopped, match=r"own/model\.onnx: expected sha256 \w{64}, found \w{64}; --replace"):
        fetch(published.as_uri(), models, models)


def test_replace_puts_the_new_bundle_in_the_place_of_the_broken_one(published: Path, models: Path) -> None:
    fetch(published.as_uri(), models, models)
    (models / "own" / "model.onnx").write_bytes(b"broken")
    fetch(published.as_uri(), models, models, replace=True)
    assert (models / "own" / "model.onnx").read_bytes() == WEIGHTS


def test_a_wrong_checksum_leaves_no_model(published: Path, models: Path) -> None:
    (published / "model.onnx").write_bytes(b"something else")
    with pytest.raises(Stopped, match=r"model\.onnx: expected sha256"):
        fetch(published.as_uri(), models, models)
    assert not list(models.glob("*/model.json"))


def test_a_second_attempt_keeps_what_the_first_has_fetched_whole(published: Path, models: Path) -> None:
    kept = models / "own.part" / "own" / "model.onnx"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(WEIGHTS)
    number = kept.stat().st_ino
    fetch(published.as_uri(), models, models)
    assert (models / "own" / "model.onnx").stat().st_ino == number


def test_what_an_earlier_version_left_behind_does_not_come_along(published: Path, models: Path) -> None:
    stray = models / "own.part" / "own" / "old.onnx"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"old")
    fetch(published.as_uri(), models, models)
    assert not (models / "own" / "old.onnx").exists()


def test_a_manifest_that_names_a_file_outside_its_bundle_is_refused(published: Path, models: Path) -> None:
    text = (published / "model.json").read_text().replace("model.onnx", "../model.onnx")
    (published / "model.json").write_text(text)
    with pytest.raises(Stopped, match=r"inside the bundle, found '\.\./model\.onnx'"):
        fetch(published.as_uri(), models, models)


def test_a_folder_without_a_model_json_is_said_to_be_one(tmp_path: Path, models: Path) -> None:
    with pytest.raises(Stopped, match=r"expected a folder with a model\.json"):
        fetch(tmp_path.as_uri(), models, models)


def _fetch_quietly(url: str, models: Path) -> None:
    fetch(url, models, models)


def test_two_fetches_at_once_leave_one_whole_bundle(published: Path, models: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_fetch_quietly, args=(published.as_uri(), models)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert _files(models) == _bundle(published)


# --- the web


@dataclass
class Server:
    """Files on loopback, with resuming; `break_after` cuts the first answer short."""

    files: dict[str, bytes] = field(default_factory=dict)
    validator: tuple[str, str] | None = ("ETag", '"one"')
    break_after: int | None = None
    answered: list[tuple[str, str | None, int]] = field(default_factory=list)
    """Path, Range header and status of every request."""
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        body = self.files.get(path)
        if body is None:
            self._begin(handler, 404, 0)
            return
        asked = handler.headers.get("Range")
        same = self.validator is not None and handler.headers.get("If-Range") == self.validator[1]
        start = int(asked[6:-1]) if asked and same else 0
        self._begin(handler, 206 if start else 200, len(body) - start, f"bytes {start}-{len(body) - 1}/{len(body)}")
        rest = body[start:] if self.break_after is None else body[start : start + self.break_after]
        self.break_after = None
        handler.wfile.write(rest)

    def _begin(self, handler: BaseHTTPRequestHandler, status: int, length: int, content_range: str = "") -> None:
        self.answered.append((handler.path.partition("?")[0], handler.headers.get("Range"), status))
        handler.send_response(status)
        handler.send_header("Content-Length", str(length))
        if status == 206:
            handler.send_header("Content-Range", content_range)
        if self.validator:
            handler.send_header(*self.validator)
        handler.end_headers()


@contextmanager
def _serving(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_: Any) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{listening.server_port}"
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with _serving(Server()) as server:
        yield server


@pytest.fixture
def download(tmp_path: Path) -> Path:
    return tmp_path / "weights.bin"


def _download(url: str, target: Path, size: int | None = None) -> bytes:
    with Sources() as sources:
        sources.of(url).download(url, target, size)
    return target.read_bytes()


def test_a_bundle_comes_over_http_by_the_files_that_its_manifest_names(
    published: Path, models: Path, server: Server
) -> None:
    server.files = {f"/own/{path.name}": path.read_bytes() for path in published.iterdir()}
    fetch(f"{server.url}/own/model.json", models, models)
    assert _files(models) == {"own/model.json", "own/model.onnx"}


def test_a_broken_download_goes_on_where_it_stopped(server: Server, download: Path) -> None:
    server.files["/w"], server.break_after = WEIGHTS, 500_000
    assert _download(f"{server.url}/w", download) == WEIGHTS
    assert [status for *_, status in server.answered] == [200, 206]


def test_a_later_command_goes_on_where_an_earlier_one_stopped(server: Server, download: Path) -> None:
    server.files["/w"] = WEIGHTS
    download.with_name("weights.bin.partial").write_bytes(WEIGHTS[:1000])
    note = {"url": f"{server.url}/w", "validator": '"one"'}
    download.with_name("weights.bin.partial.json").write_text(json.dumps(note))
    assert _download(f"{server.url}/w", download) == WEIGHTS
    assert server.answered == [("/w", "bytes=1000-", 206)]


def test_a_file_that_has_changed_since_is_fetched_from_its_beginning(server: Server, download: Path) -> None:
    server.files["/w"] = WEIGHTS
    download.with_name("weights.bin.partial").write_bytes(b"of another version")
    note = {"url": f"{server.url}/w", "validator": '"zero"'}
    download.with_name("weights.bin.partial.json").write_text(json.dumps(note))
    assert _download(f"{server.url}/w", download) == WEIGHTS


@pytest.mark.parametrize("validator", [None, ("ETag", 'W/"weak"')])
def test_without_a_strong_validator_a_broken_download_begins_anew(
    validator: tuple[str, str] | None, server: Server, download: Path
) -> None:
    server.files["/w"], server.break_after, server.validator = WEIGHTS, 500_000, validator
    assert _download(f"{server.url}/w", download) == WEIGHTS
    assert [asked for _, asked, _ in server.answered] == [None, None]


def test_nothing_but_the_file_is_left_after_a_download(server: Server, download: Path) -> None:
    server.files["/w"] = WEIGHTS
    _download(f"{server.url}/w", download)
    assert _files(download.parent) == {"weights.bin"}


def test_a_file_of_another_size_than_expected_is_not_even_downloaded(server: Server, download: Path) -> None:
    server.files["/w"] = WEIGHTS
    with pytest.raises(Stopped, match="expected 5 bytes, the server announces 1024000"):
        _download(f"{server.url}/w", download, 5)


def test_a_missing_file_names_the_status(server: Server, download: Path) -> None:
    with pytest.raises(Stopped, match=r"/none: the server answered 404 Not Found$"):
        _download(f"{server.url}/none", download)


def test_a_signature_in_the_url_is_sent_but_never_shown(server: Server, download: Path) -> None:
    with pytest.raises(Stopped) as stopped:
        _download(f"{server.url}/none?signature=secret", download)
    assert "secret" not in str(stopped.value)


def test_a_file_in_a_folder_keeps_the_folders_signature() -> None:
    assert join("https://host/own?sig=1", "a b.onnx") == "https://host/own/a%20b.onnx?sig=1"


def test_a_url_splits_into_its_folder_and_name() -> None:
    assert split("https://host/own/a%20b.onnx?sig=1") == ("https://host/own?sig=1", "a b.onnx")


def test_a_password_is_not_shown() -> None:
    assert shown("https://me:secret@host/x?y#z") == "https://me@host/x"


# --- storage


def test_a_bundle_comes_from_any_storage_that_fsspec_knows(published: Path, models: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    storage = fsspec.filesystem("memory")
    for path in published.iterdir():
        storage.pipe(f"/bucket/own/{path.name}", path.read_bytes())
    fetch("memory://bucket/own", models, models)
    assert _files(models) == _bundle(published)


@pytest.mark.skipif(find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_missing_driver_is_named(models: Path) -> None:
    with pytest.raises(Stopped, match=r"gs: URLs need .*gcsfs"):
        fetch("gs://bucket/own", models, models)


def test_an_unknown_scheme_is_told_the_known_ones(models: Path) -> None:
    with pytest.raises(Stopped, match="unknown scheme 'zz'; expected one of npm, pypi, http"):
        fetch("zz://bucket/own", models, models)


# --- packages


def _tgz(path: Path, files: dict[str, bytes]) -> bytes:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path.read_bytes()


def test_an_archive_gives_only_plain_files_that_lie_inside_it(tmp_path: Path) -> None:
    path = tmp_path / "p.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, kind in [("package/a", "0"), ("package/../../b", "0"), ("/package/c", "0"), ("package/d", "2")]:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind.encode(), "/etc/passwd"
            archive.addfile(entry)
    assert set(Archive(path).members()) == {"a"}


def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "p.tgz").write_bytes(b"<html>")
    with pytest.raises(Stopped, match=r"p\.tgz is not a readable package file"):
        Archive(tmp_path / "p.tgz").members()


def test_a_wanted_member_that_is_not_there_is_named(tmp_path: Path) -> None:
    _tgz(tmp_path / "p.tgz", {"package/a": b"a"})
    with pytest.raises(Stopped, match=r"p\.tgz holds no b"):
        Archive(tmp_path / "p.tgz").extract({"b": tmp_path / "b"})


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the only index there is, with one small wheel in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "weights_of_mine-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("weights_of_mine/model.bin", WEIGHTS)
        wheel.writestr(
            "weights_of_mine-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: weights-of-mine\nVersion: 1.0\n"
        )
        wheel.writestr(
            "weights_of_mine-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("weights_of_mine-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.usefixtures("index")
def test_a_file_comes_out_of_a_package_through_the_users_own_pip(download: Path) -> None:
    assert _download("pypi:weights-of-mine==1.0/weights_of_mine/model.bin", download) == WEIGHTS


@pytest.mark.usefixtures("index")
def test_pips_reason_is_passed_on(download: Path) -> None:
    with pytest.raises(Stopped, match=r"^cannot fetch the package weights-of-mine==2\.0: No matching distribution"):
        _download("pypi:weights-of-mine==2.0/weights_of_mine/model.bin", download)


@pytest.mark.skipif(shutil.which("npm") is None, reason="NOT RUN: npm is not installed")
def test_a_file_comes_out_of_a_package_through_the_users_own_npm(
    tmp_path: Path, server: Server, download: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_registry", server.url)
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    about = {"name": "@me/weights", "version": "1.0.0", "dist": {"tarball": f"{server.url}/weights.tgz"}}
    server.files["/@me%2fweights"] = json.dumps(
        {"name": "@me/weights", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": about}}
    ).encode()
    package = {"package/package.json": json.dumps(about).encode(), "package/models/model.bin": WEIGHTS}
    server.files["/weights.tgz"] = _tgz(tmp_path / "weights.tgz", package)
    assert _download("npm:@me/weights@1.0.0/models/model.bin", download) == WEIGHTS


@pytest.mark.parametrize(
    "url",
    ["npm:weights/model.bin", "npm:--version@1.0/x", "npm:../x@1.0/y", "pypi:weights/model.bin", "pypi:-r==1/x"],
)
def test_a_package_url_without_a_plain_name_and_version_is_refused(url: str, download: Path) -> None:
    with pytest.raises(Stopped, match=r"expected (npm:PACKAGE@VERSION|pypi:PACKAGE==VERSION)"):
        _download(url, download)


def test_a_catalogue_entry_takes_each_file_from_its_own_source(published: Path, models: Path) -> None:
    weights = File("model.onnx", _sha256(WEIGHTS), len(WEIGHTS), (published / "model.onnx").as_uri())
    declared = json.loads((published / "model.json").read_bytes())
    entry = Entry("own", "mine", "detection", "Apache-2.0", (weights,), manifest=declared)
    with Sources() as sources:
        fetch_bundle(catalogued(entry), models, sources)
    assert _files(models) == {"own/model.json", "own/model.onnx"}


# --- the command


def _one_line(text: str) -> bool:
    return text.count("\n") == 1 and "Traceback" not in text


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("coco-ssd-mobilenet-v", "did you mean 'coco-ssd-mobilenet-v2'?"),
        ("file:///there/is/none.onnx", "there is no such file"),
        ("file:///there/is/none/model.json", "there is no such file"),
        ("https://127.0.0.1:9/", "cannot reach the server"),
        ("http://[", "is not a URL: Invalid IPv6 URL"),
        ("pypi:x", "expected pypi:PACKAGE==VERSION"),
    ],
)
def test_a_failure_is_one_line_on_stderr(
    what: str, message: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", what, "--into", str(models)]) == 1
    shown_text = capsys.readouterr()
    assert message in shown_text.err
    assert _one_line(shown_text.err)


def test_nothing_to_fetch_is_a_mistake_of_usage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIP_STORAGE_URI", raising=False)
    with pytest.raises(SystemExit) as stopped:
        main(["fetch"])
    assert stopped.value.code == 2
    assert "AIP_STORAGE_URI" in capsys.readouterr().err


def test_without_a_name_the_folder_of_the_host_is_fetched(
    published: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIP_STORAGE_URI", published.as_uri())
    assert main(["fetch", "--into", str(models)]) == 0
    assert _files(models) == _bundle(published)


def test_a_single_file_is_fetched_under_its_own_name(published: Path, models: Path) -> None:
    assert main(["fetch", (published / "model.onnx").as_uri(), "--into", str(models)]) == 0
    assert _files(models) == {"model.onnx"}


def test_the_command_runs_as_a_module(published: Path, models: Path) -> None:
    command = [sys.executable, "-m", "model_server", "fetch", published.as_uri(), "--into", str(models)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.match(r"own: 3 files, 1\.0 MB, in ", result.stdout)


def test_a_command_that_is_stopped_while_it_is_loaded_says_no_more_than_that(tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("raise KeyboardInterrupt")
    command = [sys.executable, "-m", "model_server", "list"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert (result.returncode, result.stderr) == (130, "stopped\n")
