"""What each command of docker/images.py does with its options; each gives its exit status."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from docker.matrix import building, cold_report, page_cache, size_report
from docker.matrix.budget import exceeded, read_budget
from docker.matrix.cold_start import measure, starts
from docker.matrix.engine import ROOT, Engine, engine, stand_in
from docker.matrix.servers import servers
from docker.matrix.variants import Variant
from docker.matrix.weighing import check_present, weigh_all

_PHOTO = ROOT / "shared" / "web" / "static" / "samples" / "street.jpg"


def listing(options: argparse.Namespace, variants: Sequence[Variant]) -> int:
    rows = [
        {
            "name": one.name,
            "cloud": one.cloud,
            "runtime": one.runtime,
            "arguments": one.build_arguments,
            "platforms": ",".join(one.platforms),
        }
        for one in variants
    ]
    text = json.dumps(rows) if options.json else "\n".join(f"{row['name']:24} {row['platforms']}" for row in rows)
    sys.stdout.write(text + "\n")
    return 0


def build(options: argparse.Namespace, variants: Sequence[Variant]) -> int:
    here = engine()
    for variant in variants:
        tag = building.build(here, variant, options.tag_prefix, options.progress)
        stood_in = stand_in(here.inspected(tag))
        said = f", on a STAND-IN of {stood_in}, not on the official image" if stood_in else ""
        sys.stderr.write(f"images: {tag} is built{said}\n")
    return 0


def sizes(options: argparse.Namespace, variants: Sequence[Variant]) -> int:
    ceilings = read_budget()
    found = weigh_all(engine(), variants, options.tag_prefix)
    sys.stdout.write(size_report.text(found, ceilings, layers=options.layers) + "\n")
    if options.into:
        size_report.write(found, ceilings, options.into)
    too_large = exceeded(found, ceilings)
    sys.stderr.writelines(f"images: {said}\n" for said in too_large)
    return 1 if too_large else 0


def cold_start(options: argparse.Namespace, variants: Sequence[Variant]) -> int:
    here = engine()
    check_present(here, variants, options.tag_prefix)
    given = {"tensor": options.server_image, "encoded": options.server_image_encoded}
    with servers(here, variants, {forward: tag for forward, tag in given.items() if tag}) as beside:
        figures = measure(
            here, starts(variants, options.tag_prefix, beside.options), _PHOTO.read_bytes(), options.rounds
        )
    notes = [*_stand_ins(here, variants, options.tag_prefix), *beside.notes]
    if (why := page_cache.why_not()) is not None:
        notes.append(f"cold: not measured, {why}")
    found = cold_report.Measured(*figures, options.rounds, notes)
    sys.stdout.write(cold_report.text(found) + "\n")
    if options.into:
        cold_report.write(found, options.into)
    return 0


def _stand_ins(here: Engine, variants: Sequence[Variant], prefix: str) -> list[str]:
    """What has to be said of figures that were not taken on official images."""
    found = {name: one.cloud for one in variants if (name := stand_in(here.inspected(one.tag(prefix))))}
    said = [f"built on a STAND-IN of {name}, not on the official image" for name in sorted(found)]
    if "azure" in found.values():
        said.append("the stand-in of Azure's image has no .NET host, whose own start comes on top of these figures")
    return said


def plot(options: argparse.Namespace, _variants: Sequence[Variant]) -> int:
    from docker.matrix.plots import draw

    draw(options.folder, options.picture)
    return 0
