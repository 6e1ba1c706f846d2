"""`compare`: what every backend costs for every bundle, measured: disk, load, first and warm inference, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from model_server.comparison.answering import Failed, NotRun
from model_server.comparison.arms import EXTERNAL, Where, arm, settings, unavailable
from model_server.comparison.machine import this_machine
from model_server.comparison.results import OWN, PICTURES, WEB, Comparison, Row, Section
from model_server.comparison.trial import Trial, figures, tried
from model_server.comparison.weighing import File, Weigh, Weighed
from model_server.failures import Stopped
from model_server.progress import say_on_terminal
from shared.errors import ConfigurationError
from shared.manifest import Bundle, read_bundle

_PASSES = 2
_WEB = ("functions-framework", "werkzeug", "msgspec", "prometheus-client", "requests", "urllib3")
_PICTURES = ("numpy", "pillow")
_OWN: Mapping[str, tuple[str, ...]] = {
    "onnx": ("onnxruntime|onnxruntime-gpu[cuda,cudnn]",),
    "torchscript": ("torch",),
    "tensorflow": ("tensorflow-cpu|tensorflow",),
    "litert": ("ai-edge-litert",),
    "triton-grpc": ("tritonclient[grpc]",),
    "tfserving-grpc": ("grpcio", "protobuf"),
}
_WITHOUT_PIXELS = ("triton-encoded",)


class Plan(msgspec.Struct, frozen=True):
    """What to compare: backends by name, whether each was asked for by name, on which pictures; in how many rounds of
    fresh processes; the processes of model servers by backend, for their memory; and what to say beside."""

    backends: tuple[str, ...]
    named: bool
    pictures: tuple[Path, ...]
    where: Where
    rounds: int
    threads: int = 0
    pids: Mapping[str, int] = {}
    notes: tuple[str, ...] = ()


def compare(folders: Sequence[Path], plan: Plan) -> tuple[Comparison, bool]:
    """What was found, and whether nothing in it is a failure: a backend that was named has to be run. Raises
    Stopped."""
    bundles = [_bundle(folder) for folder in folders]
    sections = tuple(Section(bundle.model.name, _rows(bundle, plan)) for bundle in bundles)
    wrong = {"failed"} | ({"not run"} if plan.named else set())
    pictures = tuple(picture.name for picture in plan.pictures)
    found = Comparison(this_machine(), plan.rounds, _PASSES, pictures, plan.threads, plan.notes, sections)
    return found, not any(row.result in wrong for section in sections for row in section.rows)


def _bundle(folder: Path) -> Bundle:
    try:
        return read_bundle(folder)
    except ConfigurationError as error:
        raise Stopped(str(error)) from error


def _rows(bundle: Bundle, plan: Plan) -> tuple[Row, ...]:
    """The rounds are interleaved, so that what slows the machine for a while slows every backend."""
    costs = {backend: _cost(backend, bundle, plan.where) for backend in plan.backends}
    trials: dict[str, list[Trial]] = {backend: [] for backend in plan.backends}
    ended: dict[str, NotRun | Failed] = {}
    for number in range(plan.rounds + 1):
        for backend in plan.backends:
            if backend in ended:
                continue
            say_on_terminal(f"{bundle.model.name}: {backend}, {f'round {number}' if number else 'rehearsal'}")
            found = _tried(backend, bundle, plan, _PASSES if number else 0)
            if not isinstance(found, Trial):
                ended[backend] = found
            elif number:  # the rehearsal has filled the page cache and the bundle's own
                trials[backend].append(found)
    return tuple(_row(row, ended.get(backend) or trials[backend]) for backend, row in costs.items())


def _tried(backend: str, bundle: Bundle, plan: Plan, passes: int) -> Trial | NotRun | Failed:
    why = unavailable(backend, bundle, plan.where)
    if why is not None:
        return NotRun(why)
    fields = settings(backend, bundle.folder, plan.where, plan.threads)
    return tried(plan.where.pythons.get(backend), fields, plan.pictures, passes, plan.pids.get(backend))


def _row(cost: Row, outcome: Sequence[Trial] | NotRun | Failed) -> Row:
    if isinstance(outcome, NotRun | Failed):
        result = "not run" if isinstance(outcome, NotRun) else "failed"
        return msgspec.structs.replace(cost, result=result, why=outcome.why)
    return msgspec.structs.replace(cost, result="measured", figures=figures(outcome))


def _cost(backend: str, bundle: Bundle, where: Where) -> Row:
    """What is known of the backend before it is run."""
    row = Row(backend, backend in EXTERNAL, "not run", model_mb=_model_mb(backend, bundle))
    weighed = _weighed(backend, bundle, where)
    if isinstance(weighed, Failed):
        return msgspec.structs.replace(row, unweighed=weighed.why)
    return msgspec.structs.replace(row, weighed=weighed)


def _model_mb(backend: str, bundle: Bundle) -> float | None:
    """The size of the files that the backend runs, in MB; None where it runs none, or they are not here."""
    if any(backend not in network.artifacts for network in bundle.specs):
        return None
    paths = [network.folder / file.file for network in bundle.specs for file in network.artifacts[backend].files]
    if not all(path.is_file() for path in paths):
        return None
    return sum(path.stat().st_size for path in paths) / 1e6


def _weighed(backend: str, bundle: Bundle, where: Where) -> Weighed | Failed:
    groups = {WEB: _WEB, PICTURES: () if backend in _WITHOUT_PIXELS else _PICTURES, OWN: _OWN.get(backend, ())}
    files = []
    if _model_mb(backend, bundle) is not None:
        found = [(network.folder, network.artifacts[backend]) for network in bundle.specs]
        files = [File(str((folder / one.file).resolve()), one.signature) for folder, one in found]
    with arm(where.pythons.get(backend)) as process:
        return process.weigh(Weigh(groups, backend, tuple(files)))
