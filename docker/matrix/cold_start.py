"""How long a container takes from its start to its first answers, with what it reads in the page cache and not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import monotonic
from typing import TypeAlias

from docker.matrix import page_cache
from docker.matrix.containers import container
from docker.matrix.engine import Engine
from docker.matrix.variants import Variant
from docker.matrix.weighing import base_image

NOTHING = ("python", "-c", "pass")


@dataclass(frozen=True, slots=True)
class Sample:
    """One start. `memory_mb` is None where it was not asked, which takes a second."""

    health_s: float
    predict_s: float
    memory_mb: float | None


@dataclass(frozen=True, slots=True)
class Woken:
    """One image: medians of its warm starts and of its cold ones, where there were any."""

    name: str
    warm: Sample
    cold: Sample | None


@dataclass(frozen=True, slots=True)
class Floor:
    """A container of `base` that starts Python and ends: what nothing on that engine can be quicker than."""

    base: str
    warm_s: float
    cold_s: float | None


@dataclass(frozen=True, slots=True)
class Start:
    """What is started to measure a variant: `options` are those of `docker create`."""

    variant: Variant
    tag: str
    options: Sequence[str]


Arm: TypeAlias = Callable[[bool], Sample]


def starts(variants: Sequence[Variant], prefix: str, options: Mapping[str, Sequence[str]]) -> list[Start]:
    return [Start(variant, variant.tag(prefix), options.get(variant.name, ())) for variant in variants]


def measure(engine: Engine, started: Sequence[Start], photo: bytes, rounds: int) -> tuple[list[Woken], list[Floor]]:
    """Rounds over all images in turn, after one that is not counted; the cold ones last."""
    images = {one.variant.name: _image(engine, one, photo) for one in started}
    floors = {base: _floor(engine, base) for base in dict.fromkeys(base_image(one.variant) for one in started)}
    arms = images | floors
    _round(arms, cold=False)
    warm = _rounds(arms, rounds, cold=False)
    cold = _rounds(arms, rounds if page_cache.why_not() is None else 0, cold=True)
    woken = [Woken(name, _median(warm[name]), _median_or_none(cold[name])) for name in images]
    return woken, [_of_floor(base, _median(warm[base]), _median_or_none(cold[base])) for base in floors]


def _rounds(arms: Mapping[str, Arm], rounds: int, *, cold: bool) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, sample in _round(arms, cold=cold):
            found[name].append(sample)
    return found


def _round(arms: Mapping[str, Arm], *, cold: bool) -> list[tuple[str, Sample]]:
    return [(name, arm(cold)) for name, arm in arms.items()]


def _image(engine: Engine, one: Start, photo: bytes) -> Arm:
    def start(cold: bool) -> Sample:
        with container(engine, one.tag, one.variant.port, one.options) as made:
            _prepare(engine, cold)
            begin = monotonic()
            made.start()
            made.wait_for("GET", "/health")
            health_s = monotonic() - begin
            made.wait_for("POST", "/predict", photo)
            return Sample(health_s, monotonic() - begin, None if cold else made.memory_mb())

    return start


def _floor(engine: Engine, base: str) -> Arm:
    def start(cold: bool) -> Sample:
        identity = engine.docker("create", "--no-healthcheck", base, *NOTHING)
        try:
            _prepare(engine, cold)
            begin = monotonic()
            engine.docker("start", "--attach", identity)
            took_s = monotonic() - begin
            return Sample(took_s, took_s, None)
        finally:
            engine.docker("rm", "--force", identity)

    return start


def _prepare(engine: Engine, cold: bool) -> None:
    """Empties the page cache; then the engine is asked something, as one that is at work is in memory itself."""
    if cold:
        page_cache.empty()
        engine.docker("version")


def _median(samples: Sequence[Sample]) -> Sample:
    memories = [sample.memory_mb for sample in samples if sample.memory_mb is not None]
    return Sample(
        median(sample.health_s for sample in samples),
        median(sample.predict_s for sample in samples),
        median(memories) if memories else None,
    )


def _median_or_none(samples: Sequence[Sample]) -> Sample | None:
    return _median(samples) if samples else None


def _of_floor(base: str, warm: Sample, cold: Sample | None) -> Floor:
    return Floor(base, warm.predict_s, cold.predict_s if cold else None)
