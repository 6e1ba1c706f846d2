"""Writes docker/locks: what each image installs, to the version and the hash, for every Python that we support.

    python -m docker.locks [--upgrade | --check]

The requirements files are the one source. An image leaves out the doors of other clouds, the framework that it does not
run, and what only our commands use; one that forwards the picture as it came leaves out pixels, too. Without
`--upgrade` the versions that are locked stay, as far as the requirements allow. Every lock is then resolved for Linux
as old as Azure's base image (manylinux_2_28), on both processors where its wheels exist; a package without such a wheel
stops the command. PyTorch for the processor is on its makers' own index: locks/torch-cpu.txt is kept by hand. Needs uv.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from model_server.staging.packages import flat_requirements

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "docker" / "locks"
PYTHONS = ("3.11", "3.12", "3.13")
DOORS = {"azure": "azure-functions", "google": "gunicorn"}
FILES = {
    "onnx-cpu": "requirements.txt",
    "onnx-gpu": "docker/requirements-onnx-gpu.txt",
    "torchscript-cpu": "requirements-torch.txt",
    "torchscript-gpu": "docker/requirements-torch-gpu.txt",
    "tensorflow-cpu": "requirements-tf.txt",
    "tensorflow-gpu": "docker/requirements-tf-gpu.txt",
    "external-tensor-http": "requirements.txt",
    "external-tensor-grpc": "requirements.txt",
    "external-encoded-http": "requirements.txt",
}
"""Which file each kind of image installs from. Vertex AI's are Google's."""

_COMMANDS_ONLY = {"tqdm"}
_SERVED_WITHOUT = {"functions-framework"}  # gunicorn, which it would start, serves the application itself
_PIXELS = {"numpy", "pillow"}
_X86, _ARM = "x86_64-manylinux_2_28", "aarch64-manylinux_2_28"
_ONE_PROCESSOR = {"onnx-gpu", "torchscript-gpu", "tensorflow-cpu", "tensorflow-gpu"}  # no wheels for aarch64
_TORCH = LOCKS / "torch-cpu.txt"
_TRITON = LOCKS / "triton.txt"
_OF_TRITON = {"flatbuffers", "msgspec", "onnxruntime", "packaging", "pillow", "protobuf"}
_TRITON_HEADER = """\
# What the models of Triton's Python backend import, as google/onnx-cpu.txt has it, but for numpy: Triton's image has
# the one that its backend is built against.
"""
# What the metadata of those wheels asks for; the build of the image checks that nothing is missing.
_TORCH_NEEDS = (
    *("filelock", "fsspec>=0.8.5", "jinja2", "networkx>=2.5.1", "setuptools>=77.0.3", "sympy>=1.13.3"),
    "typing-extensions>=4.10",
)


def chosen(door: str, kind: str) -> list[str]:
    """The requirements of one image, a line each, in ranges."""
    left_out = _COMMANDS_ONLY | _SERVED_WITHOUT | {package for name, package in DOORS.items() if name != door}
    if not kind.startswith("onnx"):
        left_out |= {"onnxruntime"}
    if kind == "external-encoded-http":
        left_out |= _PIXELS
    added = _of_grpc() if kind.endswith("grpc") else []
    lines = [line for line in _lines(ROOT / FILES[kind]) if _name(line) not in left_out | {"tritonclient"}]
    return [*lines, *added]


def _of_grpc() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: list[str] = project["optional-dependencies"]["grpc"]
    return found


def _lines(path: Path) -> Iterator[str]:
    """Every requirement in `path` and in the files that it includes."""
    for line in flat_requirements(path).splitlines():
        if text := line.partition("#")[0].strip():
            yield text


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


def lock(door: str, kind: str, old: str | None) -> str:
    """The text of one lock; versions in `old` are kept where they still fit."""
    source, added = chosen(door, kind), ""
    if kind == "torchscript-cpu":
        source = [line for line in source if _name(line) != "torch"] + [*_TORCH_NEEDS]
        added = _TORCH.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lock.txt"
        if old is not None:
            out.write_text(old, encoding="utf-8")
        _uv(
            *("pip", "compile", "--quiet", "--universal", "--python-version", PYTHONS[0], "--generate-hashes"),
            *("--no-annotate", "--no-header", "--output-file", str(out), "-"),
            given="\n".join(source),
        )
        text = out.read_text(encoding="utf-8")
    return f"# Made by `make locks` from {FILES[kind]}; not to be edited.\n{text}{added}"


def of_triton(onnx: str) -> str:
    """What Triton's Python backend installs, out of the text of the lock of the embedded image."""
    entries = re.split(r"\n(?=\w)", onnx.rstrip("\n"))[1:]
    return _TRITON_HEADER + "".join(f"{entry}\n" for entry in entries if _name(entry) in _OF_TRITON)


def check_wheels(kind: str, path: Path) -> None:
    """Fails where a package of the lock has no wheel for the systems that its images run on."""
    for platform in (_X86,) if kind in _ONE_PROCESSOR else (_X86, _ARM):
        for python in PYTHONS:
            with tempfile.TemporaryDirectory() as folder:
                # PyTorch's own wheels are vouched for by the hashes beside their names.
                _uv(
                    *(
                        "pip",
                        "install",
                        "--quiet",
                        "--dry-run",
                        "--no-deps",
                        "--only-binary",
                        ":all:",
                        "--target",
                        folder,
                    ),
                    *("--python-platform", platform, "--python-version", python, "-r", "-"),
                    given=_without_torch(path.read_text(encoding="utf-8")),
                )


def _without_torch(text: str) -> str:
    return text.partition("# PyTorch")[0]


def _uv(*arguments: str, given: str) -> None:
    done = subprocess.run(["uv", *arguments], input=given, cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"uv {' '.join(arguments)}:\n{done.stderr}")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Writes docker/locks.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that the requirements allow")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a lock does not fit")
    options = parser.parse_args()
    stale = []
    for door, kind in ((door, kind) for door in DOORS for kind in FILES):
        path = LOCKS / door / f"{kind}.txt"
        old = None if options.upgrade else _read(path)
        stale += _settled(path, lock(door, kind, old), write=not options.check)
        check_wheels(kind, path)
    triton = of_triton((LOCKS / "google" / "onnx-cpu.txt").read_text(encoding="utf-8"))
    stale += _settled(_TRITON, triton, write=not options.check)
    if options.check and stale:
        sys.exit(f"docker/locks: {', '.join(stale)} do not fit the requirements; run `make locks`")


def _settled(path: Path, text: str, *, write: bool) -> list[str]:
    """The lock's name where it was not `text`, which is written there if it may."""
    if _read(path) == text:
        return []
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [path.relative_to(LOCKS).as_posix()]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    main()
