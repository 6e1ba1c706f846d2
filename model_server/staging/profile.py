"""`profile`: what a bundle takes in time and memory, measured here and written into its model.json."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from model_server.comparison.machine import this_machine
from model_server.comparison.photos import pictures
from model_server.failures import Stopped
from model_server.manifests import declared, needed_files, problems, write_manifest
from model_server.staging.measuring import Failed, Found, Reply, Work
from shared.artifacts import CACHE
from shared.backends import EMBEDDED
from shared.host import LIBRARY_VARIABLES
from shared.manifest import MANIFEST, Measured, Model, Profile, read_bundle

_ROOT = Path(__file__).resolve().parent.parent.parent
_FREE_SIDE = 640


def profile(folder: Path, backend: str | None) -> str:
    """Measures the bundle in `folder` under `backend`, or the first that it has weights for, notes that down in its
    model.json, and says so; also where a model server does the work, which is not here to be measured. Raises
    Stopped."""
    if backend not in (None, *EMBEDDED):
        return f"{folder.name}: not profiled: {backend} runs on a model server"
    model = read_bundle(folder.resolve()).model
    chosen = backend or _usual_backend(folder, model)
    if chosen is None or any(chosen not in network.artifacts for network in model.networks.values()):
        raise Stopped(f"{folder.name}: not every network has weights for {chosen or 'any one backend'}")
    for problem in problems(folder, backend=chosen):
        raise Stopped(problem)
    found = measured(folder, model, chosen)
    write_manifest(declared(folder) | {"profile": msgspec.to_builtins(found)}, folder)
    return f"{folder.name}: profiled: {_sentence(found)}"


def _usual_backend(folder: Path, model: Model) -> str | None:
    """The first that every network has weights for, and of those the first whose files are here."""
    known = [name for name in EMBEDDED if all(name in network.artifacts for network in model.networks.values())]
    here = [name for name in known if all((folder / file).is_file() for file in needed_files(model, name))]
    return next(iter(here or known), None)


def measured(folder: Path, model: Model, backend: str) -> Profile:
    """What the bundle takes where no earlier start has left anything, as in a new container. Raises Stopped."""
    size = _usual_size(model)
    with TemporaryDirectory() as scratch:
        bundle, picture = Path(scratch) / folder.name, Path(scratch) / "photo.jpg"
        _link(folder, bundle, [MANIFEST, *needed_files(model, backend)])
        (bundle / CACHE).touch()  # no folder, so that nothing can be kept in it
        _draw(picture, size)
        reply = _asked(Work(str(bundle), backend, str(picture)))
    if isinstance(reply, Failed):
        raise Stopped(f"{folder.name}: cannot be profiled: {reply.why}")
    point = Measured(size, _ms(reply.ms), _ms(reply.infer_ms), _mb(reply.peak_mb), _mb(reply.total_mb))
    processor, load_s = this_machine().processor, round(reply.load_s, 3)
    return Profile(backend, reply.runtime, processor, reply.threads, load_s, _ms(reply.first_ms), (point,))


def _sentence(found: Profile) -> str:
    (point,) = found.measured
    return (
        f"{found.runtime}, {found.threads} threads: opened in {found.load_s:g} s, then {found.first_ms:g} ms, then "
        f"{point.ms:g} ms a picture of {point.size[1]}x{point.size[0]}; {point.peak_mb:g} MB, {point.total_mb:g} MB "
        "with what is imported"
    )


def _usual_size(model: Model) -> tuple[int, int]:
    """[height, width] of a picture that is neither enlarged nor reduced, where the model says."""
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


def _asked(work: Work) -> Reply:
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
    reply: Reply = msgspec.json.decode(done.stdout, type=Found | Failed)
    return reply


def _ms(value: float) -> float:
    return round(value, 2)


def _mb(value: float) -> float:
    return round(max(0.0, value), 1)
