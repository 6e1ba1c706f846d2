"""`fetch`: a bundle, or one file, from where it is published into a folder, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from pathlib import Path
from tempfile import TemporaryDirectory

from model_server.catalog import SHIPPED, Download, Entry, find_entry
from model_server.failures import Stopped
from model_server.landing import landing
from model_server.manifests import json_text, needed_files, problems
from model_server.sources import Sources, is_safe_path, join, scheme_of, shown, split
from shared.artifacts import sha256_of
from shared.manifest import MANIFEST, Model
from shared.validation import Mismatch, convert, parse_json


@dataclass(frozen=True, slots=True)
class Item:
    """A file to fetch: its path in the bundle, its URL or its content itself, and what it must be."""

    file: str
    source: str | bytes
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole bundle to fetch."""

    name: str
    items: tuple[Item, ...]


def fetch(what: str, models: Path, files: Path, *, replace: bool = False) -> str:
    """Fetches what is named: a catalogued model or the URL of a bundle's folder into the folder `models`, the URL of
    any other file into `files`. Says what was done; raises Stopped."""
    with Sources() as sources:
        if scheme_of(what) is None:
            plan = catalogued(find_entry(what))
            parts = [catalogued(find_entry(name)) for name in _parts(plan, sources)]
            return _fetch_all([*parts, plan], models, sources, replace=replace)
        folder = _bundle_folder(what, sources)
        if folder is None:
            return fetch_file(what, files, sources, replace=replace)
        plan, place = published(folder, sources), split(folder)[0]
        parts = [replaced(published(join(place, name), sources), name=name) for name in _parts(plan, sources)]
        return _fetch_all([*parts, plan], models, sources, replace=replace)


def catalogued(entry: Entry) -> Plan:
    """How to get the bundle of a catalogue entry."""
    shipped = SHIPPED / entry.name
    if not entry.files:
        raise Stopped(f"{entry.name} is made on your machine: python -m model_server export {entry.name}")
    for file in entry.files:
        if file.source is None and not (shipped / file.file).is_file():
            raise Stopped(
                f"{entry.name} ships with the project, but its {file.file} is gone: "
                f"restore it, or make it anew: python -m model_server export {entry.name}"
            )
    items = [
        Item(file.file, file.source or (shipped / file.file).as_uri(), file.sha256, file.size) for file in entry.files
    ]
    if entry.manifest is not None:
        items.append(Item(MANIFEST, (json_text(entry.manifest) + "\n").encode()))
    return Plan(entry.name, tuple(items))


def published(folder: str, sources: Sources) -> Plan:
    """How to get the bundle that the folder URL `folder` holds: all of it where the source can list its files, else
    what its model.json names."""
    source = sources.of(folder)
    manifest = _read_bytes(join(folder, MANIFEST), sources)
    model = _model(manifest, join(folder, MANIFEST))
    sizes = {file: size for file, size in (source.listing(folder) or {}).items() if is_safe_path(file)}
    needed = needed_files(model)
    for file in needed:
        if not is_safe_path(file):
            raise Stopped(f"{shown(join(folder, MANIFEST))}: expected files inside the bundle, found {file!r}")
    files = [file for file in {**sizes, **needed} if file != MANIFEST]
    items = [Item(file, join(folder, file), needed.get(file), sizes.get(file)) for file in files]
    return Plan(model.name, (*items, Item(MANIFEST, manifest)))


def fetch_bundle(plan: Plan, into: Path, sources: Sources, *, replace: bool = False) -> str:
    """Fetches the bundle of `plan` into its own folder in `into`. One that is there already is verified."""
    target = into / plan.name
    if target.exists() and not replace:
        return _verified(plan, target)
    with landing(target) as place:
        if target.exists() and not replace:
            return _verified(plan, target)
        place.content.mkdir(exist_ok=True)
        for item in plan.items:
            _get(item, place.content / item.file, sources)
        _remove_others(plan, place.content)
        for problem in problems(place.content, beside=into):
            raise Stopped(problem)
        place.land()
    return f"{plan.name}: {len(plan.items)} files, {_megabytes(target)}, in {target}"


def fetch_file(url: str, into: Path, sources: Sources, *, replace: bool = False) -> str:
    """Fetches the one file `url` into the folder `into`."""
    name = split(url)[1]
    if not is_safe_path(name):
        raise Stopped(f"{shown(url)}: expected the URL of a file, found no usable file name at its end")
    target = into / name
    with landing(target) as place:
        if target.exists() and not replace:
            raise Stopped(f"{target} exists already; --replace puts the new one in its place")
        sources.of(url).download(url, place.content, None)
        place.land()
    return f"{name}: {_megabytes(target)}, sha256 {sha256_of(target)}, in {target}"


def download(origin: Download, target: Path, sources: Sources) -> None:
    """Writes the published file `origin` to `target`. Raises Stopped where it is not what it should be."""
    _get(Item(target.name, origin.source, origin.sha256, origin.size), target, sources)


def _fetch_all(plans: Sequence[Plan], into: Path, sources: Sources, *, replace: bool) -> str:
    return "\n".join(fetch_bundle(plan, into, sources, replace=replace) for plan in plans)


def _parts(plan: Plan, sources: Sources) -> list[str]:
    """The bundles that the one of `plan` puts together, and so needs beside it."""
    found = next(item.source for item in plan.items if item.file == MANIFEST)
    manifest = found if isinstance(found, bytes) else _read_bytes(found, sources)
    return list(dict.fromkeys(_model(manifest, plan.name).bundles.values()))


def _model(manifest: bytes, name: str) -> Model:
    try:
        return convert(parse_json(manifest), Model)
    except (ValueError, Mismatch) as error:
        raise Stopped(f"{shown(name)}: {error}") from error


def _bundle_folder(url: str, sources: Sources) -> str | None:
    """The folder of the bundle that `url` means; None where it is a single file."""
    folder, name = split(url)
    if name in (MANIFEST, ""):
        return folder
    listing = sources.of(url).listing(url)
    if listing is None:
        return None
    if MANIFEST not in listing:
        raise Stopped(
            f"{shown(url)}: expected a folder with a {MANIFEST}, found {len(listing)} files and none of that name"
        )
    return url


def _read_bytes(url: str, sources: Sources) -> bytes:
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / MANIFEST
        sources.of(url).download(url, path, None)
        return path.read_bytes()


def _get(item: Item, path: Path, sources: Sources) -> None:
    """Writes one file, unless an earlier attempt has left it whole."""
    if item.sha256 is not None and path.is_file() and sha256_of(path) == item.sha256:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(item.source, bytes):
        path.write_bytes(item.source)
        return
    sources.of(item.source).download(item.source, path, item.size)
    if item.sha256 is not None and (found := sha256_of(path)) != item.sha256:
        path.unlink()
        raise Stopped(f"{shown(item.source)}: expected sha256 {item.sha256}, found {found}")


def _remove_others(plan: Plan, content: Path) -> None:
    """An attempt at an earlier version of the bundle may have left files that this one has not."""
    wanted = {content / item.file for item in plan.items}
    for path in content.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()


def _verified(plan: Plan, target: Path) -> str:
    """What there is to say of a bundle that is there already. Raises Stopped where it is not the planned one."""
    for problem in problems(target, {item.file: item.sha256 for item in plan.items}):
        raise Stopped(f"{target} exists but is not whole: {problem}; --replace fetches it anew")
    for item in plan.items:
        if isinstance(item.source, bytes) and (target / item.file).read_bytes() != item.source:
            raise Stopped(f"{target} exists but its {item.file} is another one; --replace fetches it anew")
    return f"{plan.name}: already in {target}, {len(plan.items)} files verified"


def _megabytes(path: Path) -> str:
    files = [path] if path.is_file() else [inner for inner in path.rglob("*") if inner.is_file()]
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"
