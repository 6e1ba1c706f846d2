"""`profile`: what a bundle takes in time and memory, measured here and written into its model.json."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from model_server.comparison.machine import this_machine
from model_server.comparison.photos import pictures
from model_server.failures import Stopped
from model_server.manifests import declared, needed_files, problems, write_manifest
from model_server.staging.curves import Point, elements, fitted, sizes
from model_server.staging.measuring import Failed, Found, Ran, Reply, Runs, Work
from shared.artifacts import CACHE
from shared.backends import EMBEDDED
from shared.host import LIBRARY_VARIABLES
from shared.manifest import MANIFEST, Bundle, Foreseen, Measured, Profile, read_bundle

_ROOT = Path(__file__).resolve().parent.parent.parent
_FREE_SIDE = 640
_CAMERA = (3000, 4000)
_AT_ONCE = (1, 2)
_MOST_MB, _LONGEST_S = 700.0, 8.0  # of a size after which no larger one is measured


def profile(folder: Path, backend: str | None) -> str:
    """Measures the bundle in `folder` under `backend`, or the first that it has weights for, notes that down in its
    model.json, and says so; also where a model server does the work, which is not here to be measured. Raises
    Stopped."""
    if backend not in (None, *EMBEDDED):
        return f"{folder.name}: not profiled: {backend} runs on a model server"
    bundle = read_bundle(folder.resolve())
    chosen = backend or _usual_backend(bundle)
    if chosen is None or not _has_weights(bundle, chosen):
        raise Stopped(f"{folder.name}: not every network has weights for {chosen or 'any one backend'}")
    for part in (bundle, *bundle.parts.values()):
        for problem in problems(part.folder, backend=chosen):
            raise Stopped(problem)
    found = measured(bundle, chosen)
    write_manifest(declared(folder) | {"profile": json.loads(msgspec.json.encode(found))}, folder)
    return f"{folder.name}: profiled: {_sentence(found)}"


def _has_weights(bundle: Bundle, backend: str) -> bool:
    own = all(backend in network.artifacts for network in bundle.model.networks.values())
    return own and all(_has_weights(part, backend) for part in bundle.parts.values())


def _has_files(bundle: Bundle, backend: str) -> bool:
    own = all((bundle.folder / file).is_file() for file in needed_files(bundle.model, backend))
    return own and all(_has_files(part, backend) for part in bundle.parts.values())


def _usual_backend(bundle: Bundle) -> str | None:
    """The first that every network has weights for, and of those the first whose files are here."""
    known = [name for name in EMBEDDED if _has_weights(bundle, name)]
    here = [name for name in known if _has_files(bundle, name)]
    return next(iter(here or known), None)


def measured(bundle: Bundle, backend: str) -> Profile:
    """What the bundle takes where no earlier start has left anything, as in a new container. Raises Stopped."""
    with TemporaryDirectory() as scratch:
        for part in (bundle, *bundle.parts.values()):
            copy = Path(scratch) / part.folder.name
            _link(part.folder, copy, [MANIFEST, *needed_files(part.model, backend)])
            (copy / CACHE).touch()  # no folder, so that nothing can be kept in it
        folder, picture = str(Path(scratch) / bundle.folder.name), Path(scratch) / "photo.jpg"
        found = []
        for size, concurrency in _cases(bundle):
            _draw(picture, size)
            work = Work(folder, backend, str(picture), concurrency, _parameters(bundle.model.task, size))
            found.append((size, concurrency, _found(bundle, _asked(work))))
        memory = _memory(bundle, folder, backend, found[0][2]) if bundle.model.networks else None
    points = tuple(_point(size, reply, concurrency) for size, concurrency, reply in found)
    first, processor = found[0][2], this_machine().processor
    load_s, first_ms = round(first.load_s, 3), _ms(first.first_ms)
    return Profile(backend, first.runtime, processor, first.threads, load_s, first_ms, points, memory)


def _found(bundle: Bundle, reply: Reply) -> Found:
    if isinstance(reply, Found):
        return reply
    why = reply.why if isinstance(reply, Failed) else "an answer to another question"
    raise Stopped(f"{bundle.folder.name}: cannot be profiled: {why}")


def _point(size: tuple[int, int], reply: Found, concurrency: int) -> Measured:
    return Measured(size, _ms(reply.ms), _ms(reply.infer_ms), _mb(reply.peak_mb), _mb(reply.total_mb), concurrency)


def _cases(bundle: Bundle) -> list[tuple[tuple[int, int], int]]:
    """Sizes of pictures, and how many of them at once: the usual one, alone and twice, and a camera's."""
    usual = _usual_size(bundle)
    return [(usual, 1), (usual, 2), *([] if bundle.model.task == "super-resolution" else [(_CAMERA, 1)])]


def _parameters(task: str, size: tuple[int, int]) -> dict[str, Any]:
    """Those of a usual request: a segmenter is asked for one thing, not for everything in the picture."""
    return {"points": [[size[1] / 2, size[0] / 2]]} if task == "promptable-segmentation" else {}


def _memory(bundle: Bundle, folder: str, backend: str, opened: Found) -> Foreseen:
    """The curves of the bundle's networks. A size that a network refuses, or that would take longer or more than is
    worth while, is left out with all that are larger."""
    curves = {}
    for name, network in bundle.model.networks.items():
        points: list[Point] = []
        for size in sizes(network.inputs, bundle.model.preprocess):
            replies = [_asked(Runs(folder, backend, name, size, concurrency)) for concurrency in _AT_ONCE]
            ran = [(reply, many) for reply, many in zip(replies, _AT_ONCE, strict=True) if isinstance(reply, Ran)]
            count = elements(network.inputs, size, bundle.model.preprocess)
            points += [Point(count, reply.peak_mb / many) for reply, many in ran]
            if points and (not ran or max(reply.peak_mb for reply, _ in ran) > _MOST_MB or ran[0][0].s > _LONGEST_S):
                break
        if not points:
            raise Stopped(f"{bundle.folder.name}: network {name!r} cannot be run on zeros of any size")
        curves[name] = fitted(points)
    return Foreseen(_mb(opened.opening_mb), _mb(opened.resident_mb), curves)


def _sentence(found: Profile) -> str:
    point = found.measured[0]
    return (
        f"{found.runtime}, {found.threads} threads: opened in {found.load_s:g} s, then {found.first_ms:g} ms, then "
        f"{point.ms:g} ms a picture of {point.size[1]}x{point.size[0]}; {point.peak_mb:g} MB, {point.total_mb:g} MB "
        "with what is imported"
    )


def _usual_size(bundle: Bundle) -> tuple[int, int]:
    """[height, width] of a picture that is neither enlarged nor reduced, where the model, or the largest of its parts,
    says."""
    model = bundle.model
    if bundle.parts:
        return max(map(_usual_size, bundle.parts.values()))
    preprocess = model.preprocess
    if preprocess.size is not None:
        return preprocess.size
    row, column = preprocess.layout.index("H"), preprocess.layout.index("W")
    for network in model.networks.values():
        for spec in network.inputs:
            axes = spec.shape if len(spec.shape) == len(preprocess.layout) else ()
            if axes and (height := axes[row]) and (width := axes[column]):
                return height, width
    side = preprocess.side or _FREE_SIDE
    return side, side


def _draw(path: Path, size: tuple[int, int]) -> None:
    """A photograph of that size, so that a detector finds as much as it usually does."""
    try:
        from PIL import Image
    except ImportError as error:
        raise Stopped("profiling needs Pillow: pip install -r requirements.txt") from error
    with Image.open(pictures(None)[0]) as photo:
        photo.convert("RGB").resize((size[1], size[0])).save(path, quality=90)


def _link(folder: Path, target: Path, files: list[str]) -> None:
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # of another file system, or of one without links
            os.link((folder / file).resolve(), target / file)
            continue
        shutil.copyfile(folder / file, target / file)


def _asked(work: Work | Runs) -> Reply:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("THINLENS_")}
    path = os.pathsep.join(filter(None, (str(_ROOT), environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "model_server.staging.measuring"],
        input=msgspec.json.encode(work),
        env=LIBRARY_VARIABLES | environ | {"PYTHONPATH": path},
        capture_output=True,
        check=False,
    )
    if not done.stdout:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
        return Failed(f"its process ended with status {done.returncode}: {words[-1].strip()}")
    reply: Reply = msgspec.json.decode(done.stdout, type=Found | Ran | Failed)
    return reply


def _ms(value: float) -> float:
    return round(value, 2)


def _mb(value: float) -> float:
    return round(max(0.0, value), 1)
