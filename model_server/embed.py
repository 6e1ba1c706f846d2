"""`embed`: what a model's encoder makes of every picture in a folder, kept for the first click on each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from model_server.failures import Stopped
from model_server.progress import progress_bar
from shared import backends, embedding_files, tasks
from shared.backends import Run
from shared.call import Call
from shared.embeddings import Memo
from shared.errors import Failure, NotAnImage
from shared.images import Decoding
from shared.manifest import Bundle, read_bundle
from shared.settings import Settings
from shared.tasks.promptable import PromptableTask
from shared.tasks.segmenter import ENCODER, Segmenter

_LONGEST_S = 3600.0


class Report(NamedTuple):
    """How many pictures were prepared now and were there before, and what is wrong with the others."""

    made: int
    kept: int
    wrong: tuple[str, ...]


def embed(pictures: Path, bundle: Path, out: Path, settings: Settings) -> Report:
    """Prepares every picture in the folder `pictures`, and below it, into `out`; what is there already stays. A file
    that is no picture, or a broken one, does not stop the others. Raises Stopped, ConfigurationError and OSError."""
    segmenter, encoder = _opened(read_bundle(bundle.resolve()), settings)
    files = _files(pictures, out)
    made, kept, wrong = 0, 0, []
    with progress_bar("embed", len(files), unit=" pictures") as progress:
        for file in files:
            try:
                if _embedded(file, segmenter, encoder, out, settings.max_pixels):
                    made += 1
                else:
                    kept += 1
            except Failure as failure:
                wrong.append(f"{file.relative_to(pictures)}: {failure.message}")
            progress.update(1)
    return Report(made, kept, tuple(wrong))


def _opened(bundle: Bundle, settings: Settings) -> tuple[Segmenter, Run]:
    task = tasks.build(bundle)
    if not isinstance(task, PromptableTask):
        raise Stopped(f"{bundle.model.name}: has no encoder whose work could be kept: it is for {bundle.model.task}")
    return task.segmenter, backends.connect(settings.backend, settings).open(bundle.network(ENCODER))


def _files(pictures: Path, out: Path) -> list[Path]:
    if not pictures.is_dir():
        raise Stopped(f"{pictures}: there is no such folder")
    found = sorted(path for path in _visible(pictures) if out.resolve() not in path.resolve().parents)
    if not found:
        raise Stopped(f"{pictures}: there is no file in it")
    return found


def _visible(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _visible(path)
        elif path.is_file():
            yield path


def _embedded(file: Path, segmenter: Segmenter, encoder: Run, out: Path, max_pixels: int) -> bool:
    """Whether the picture had to be encoded. Raises Failure."""
    try:
        source = file.read_bytes()
    except OSError as error:
        raise NotAnImage(f"cannot be read: {error.strerror}") from error
    picture = Decoding(source, max_pixels, Memo(0))
    key = segmenter.key(picture)
    if embedding_files.read(out, key) is not None:
        return False
    call = Call("embed", _LONGEST_S)
    content_hw = segmenter.place(picture.header.upright_hw).content_hw
    encoded = segmenter.encoded(picture, lambda: picture.image(content_hw, call), {ENCODER: encoder}, call)
    embedding_files.write(out, key, encoded.arrays)
    return True


def sentence(report: Report, out: Path) -> str:
    """What was done, for the person who asked."""
    before = f", {report.kept} were there before" if report.kept else ""
    failed = f", {len(report.wrong)} could not be" if report.wrong else ""
    return f"{out}: {report.made} pictures prepared{before}{failed}"
