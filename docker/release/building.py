"""One package of a release: laid out, filled, judged, listed and packed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from docker.release.archive import write_zip
from docker.release.byte_code import compile_all
from docker.release.checkout import Checkout
from docker.release.contents import Contents, read_contents
from docker.release.packages import PLACE, install
from docker.release.sbom import sbom
from docker.release.staging import stage
from docker.release.third_party import NAME, third_party
from docker.release.variants import Build

_LOCKS = Path("docker") / "locks"


class Made(NamedTuple):
    """A file of the release, and what there is to say of it."""

    path: Path
    note: str


def build(wanted: Build, version: str, checkout: Checkout, dist: Path, compiler: str | None) -> list[Made]:
    """Makes the zip file of `wanted` in `dist` and, where packages lie in it, the lists of what they are.
    Byte code lies inside where there is a Python, `compiler`, to make it."""
    dist.mkdir(parents=True, exist_ok=True)
    package = dist / f"{wanted.stem(version)}.zip"
    with TemporaryDirectory(prefix="thinlens-release-") as folder:
        scratch = Path(folder)
        app = scratch / "app"
        lock = checkout.root / _LOCKS / wanted.variant.lock if wanted.variant.lock else None
        stage(wanted.variant, checkout, app, lock, scratch)
        if lock is None or wanted.python is None:
            write_zip(app, package, checkout.time)
            return [Made(package, "the cloud installs its requirements.txt")]
        contents, others = _filled(app, lock, wanted.python, scratch)
        if compiler is not None:
            compile_all(app, compiler)
        write_zip(app, package, checkout.time)
        note = "byte code inside" if compiler else f"NO byte code: no Python {wanted.python} here"
        stem = wanted.stem(version)
        texts = {".cdx.json": sbom(stem, version, checkout, contents), ".licences.md": others}
        return [Made(package, note), *_listed(dist / stem, texts, contents)]


def _filled(app: Path, lock: Path, python: str, scratch: Path) -> tuple[Contents, str]:
    """Puts the packages in their place, and beside them the list of what they are under; gives both."""
    site = app / PLACE
    contents = read_contents(app, site, install(lock, site, python, scratch))
    others = third_party(contents.licences, contents.bundles)
    (app / NAME).write_text(others, encoding="utf-8")
    return contents, others


def _listed(stem: Path, texts: Mapping[str, str], contents: Contents) -> list[Made]:
    """Writes the lists beside the package, by the endings of their names."""
    note = f"{len(contents.packages)} packages, {len(contents.bundles)} model"
    made = [Made(stem.with_name(stem.name + ending), note) for ending in texts]
    for each, text in zip(made, texts.values(), strict=True):
        each.path.write_text(text, encoding="utf-8")
    return made
