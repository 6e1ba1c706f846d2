"""One package of a release: laid out, filled, judged, listed and packed."""

from __future__ import annotations

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
        contents = _filled(app, lock, wanted.python, scratch)
        if compiler is not None:
            compile_all(app, compiler)
        write_zip(app, package, checkout.time)
        note = "byte code inside" if compiler else f"NO byte code: no Python {wanted.python} here"
        return [Made(package, note), *_listed(wanted.stem(version), version, checkout, contents, dist)]


def _filled(app: Path, lock: Path, python: str, scratch: Path) -> Contents:
    """Puts the packages in their place, and beside them the list of what they are under."""
    site = app / PLACE
    contents = read_contents(app, site, install(lock, site, python, scratch))
    (app / NAME).write_text(third_party(contents.licences, contents.bundles), encoding="utf-8")
    return contents


def _listed(stem: str, version: str, checkout: Checkout, contents: Contents, dist: Path) -> list[Made]:
    texts = {
        dist / f"{stem}.cdx.json": sbom(stem, version, checkout, contents),
        dist / f"{stem}.licences.md": third_party(contents.licences, contents.bundles),
    }
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return [Made(path, f"{len(contents.packages)} packages, {len(contents.bundles)} model") for path in texts]
