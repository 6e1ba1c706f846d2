"""Takes out of installed packages what an image never runs: `prune.py SITE_PACKAGES [BIN]`.

Each rule has its reason. Licences stay, and so does everything that the packages import by themselves. Of BIN, a
virtual environment's commands, only Python and gunicorn are left.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple


class Rule(NamedTuple):
    """What goes, and why; `unless` one of these packages or files is there, which would miss it."""

    reason: str
    patterns: tuple[str, ...]
    unless: tuple[str, ...] = ()


RULES = (
    Rule(
        "for compilers",
        ("**/*.pyi", "**/*.pxd", "**/*.pyx", "**/*.c", "**/*.h", "**/*.hpp", "**/*.cuh", "**/*.a", "**/*.cmake"),
    ),
    Rule("byte code that is compiled anew", ("**/__pycache__",)),
    Rule(
        "numpy's own tests and build tools",
        (
            *("numpy/**/tests", "numpy/_core/include", "numpy/_core/lib", "numpy/_pyinstaller", "numpy/distutils"),
            *("numpy/f2py", "numpy/_core/_simd*.so", "numpy/_core/*_tests*.so"),
        ),
    ),
    Rule(
        "other packages' own tests",
        (
            *("**/conftest.py", "certifi/tests", "h5py/tests", "keras/src/backend/tests", "opt_einsum/tests"),
            *("tensorflow/dtensor/python/tests", "torch/fx/passes/tests"),
        ),
    ),
    Rule(
        "ONNX Runtime's tools for converting and measuring models",
        (
            *("onnxruntime/transformers", "onnxruntime/quantization", "onnxruntime/tools", "onnxruntime/datasets"),
            "onnxruntime/backend",
        ),
    ),
    Rule(
        "ONNX Runtime a second time, for programs in C: Python's module has it inside and is not linked to this one",
        ("onnxruntime/capi/libonnxruntime.so*",),
        unless=("onnxruntime/capi/libonnxruntime_providers_cuda.so",),  # not tried there
    ),
    Rule(
        "what ONNX Runtime's tools import, its sessions do not",
        ("google/protobuf", "google/_upb", "protobuf-*.dist-info", "flatbuffers", "flatbuffers-*.dist-info"),
        unless=("tensorflow", "tritonclient"),
    ),
    Rule(
        "what only gunicorn's gevent workers and ONNX Runtime's tools import",
        ("packaging", "packaging-*.dist-info"),
        unless=("tensorflow", "tritonclient", "torch"),
    ),
    Rule("a kind of picture that is not taken", ("PIL/_avif*.so", "pillow.libs/libavif*")),
    Rule("windows on a screen", ("PIL/_imagingtk*.so", "PIL/ImageTk.py", "PIL/_tkinter_finder.py")),
    Rule(
        "building against PyTorch and testing it",
        ("torch/include", "torch/share", "torch/test", "torch/bin/[!t]*", "torch/bin/test_*", "torch/lib/*_test*.so"),
    ),
    Rule(
        "what PyTorch imports to compile and export, not to run a script",
        (
            *("sympy", "sympy-*.dist-info", "isympy.py", "mpmath", "mpmath-*.dist-info"),
            *("networkx", "networkx-*.dist-info"),
        ),
    ),
    Rule("source for other versions of Python", ("torch/testing/_internal/py3*_intrinsics.py",)),
    Rule("building against TensorFlow", ("tensorflow/include", "clang", "libclang-*.dist-info")),
    Rule(
        "what TensorFlow imports to serve, profile or train across machines",
        ("grpc", "grpcio-*.dist-info"),
        unless=("tritonclient",),
    ),
    Rule(
        "building packages",
        ("setuptools", "setuptools-*.dist-info", "pkg_resources", "_distutils_hack", "distutils-precedence.pth"),
    ),
)
_KEPT_COMMANDS = ("python", "gunicorn")


def prune(packages: Path) -> None:
    """Takes what RULES name out of the folder `packages`; then files that are there twice become one."""
    needed = [rule for rule in RULES if any((packages / name).exists() for name in rule.unless)]
    for rule in RULES:
        if rule not in needed:
            for path in _found(packages, rule.patterns):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    _join_duplicates(packages)


def _found(packages: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """The paths to take out, listed before the first goes."""
    yield from sorted({path for pattern in patterns for path in packages.glob(pattern)}, reverse=True)


def _join_duplicates(packages: Path) -> None:
    """Makes files of equal bytes hard links of the first."""
    by_size: dict[int, list[Path]] = {}
    for path in sorted(packages.rglob("*")):
        if path.is_file() and not path.is_symlink():
            by_size.setdefault(path.stat().st_size, []).append(path)
    for size, paths in by_size.items():
        if size and len(paths) > 1:
            _join_equal(paths)


def _join_equal(paths: list[Path]) -> None:
    firsts: dict[str, Path] = {}
    for path in paths:
        first = firsts.setdefault(sha256(path.read_bytes()).hexdigest(), path)
        if first is not path:
            path.unlink()
            os.link(first, path)


def _prune_commands(folder: Path) -> None:
    for path in folder.iterdir():
        if not path.name.startswith(_KEPT_COMMANDS):
            path.unlink()


if __name__ == "__main__":
    prune(Path(sys.argv[1]))
    for folder in sys.argv[2:]:
        _prune_commands(Path(folder))
