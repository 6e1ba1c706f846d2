"""The second click on a picture: a whole prediction, three masks as run lengths among it, against the decoder alone.

Both in this process, on the same session and the same prompt: the raw arm is ONNX Runtime's own `run` with inputs that
were made before. What ours may cost more pays for reading the picture's header and its checksum, looking its embedding
up, the prompt, and the masks of the reply.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.backends import connect
from shared.backends.onnx import OnnxRun
from shared.call import Call
from shared.embeddings import Memo
from shared.local import LocalPredictor
from shared.manifest import NetworkSpec, read_bundle
from shared.settings import Settings
from tests.bench.arms import CONTROL, interleaved, timed
from tests.bench.pictures import photo
from tests.bench.report import Result, row

if TYPE_CHECKING:
    from shared.tensors import Tensors

_BUNDLE = "mobile-sam"
_OURS, _RAW = "ours, second click", "raw decoder call"
_TARGET = 1.1
_MEMO_BYTES = 64_000_000
_CLICKS: dict[str, dict[str, Any]] = {
    "second click, three masks": {"points": [[900, 540]]},
    "second click, one mask": {"points": [[900, 540]], "multimask": False},
}


def run(rounds: int) -> Result:
    settings = Settings.from_environ({})
    bundle = read_bundle(Path(settings.models) / _BUNDLE)
    backend = _Remembering(settings)
    memo = Memo(_MEMO_BYTES)
    predictor = LocalPredictor(bundle, lambda: backend, max_pixels=settings.max_pixels, memo=memo)
    predictor.open(warm_up=False)
    picture, rows = photo(1280, 720), []
    for name, given in _CLICKS.items():
        click = _click(predictor, picture, given)
        click()
        arms = {_OURS: timed(click), _OURS + CONTROL: timed(click), _RAW: timed(backend.again)}
        rows.append(row(name, interleaved(arms, rounds), _OURS, _RAW, "wall_ms", at_most=_TARGET))
    return Result(rows)


def _click(predictor: LocalPredictor, picture: bytes, given: dict[str, Any]) -> Callable[[], None]:
    def click() -> None:
        params = predictor.parse(given)
        found = predictor.predict(picture, params, Call("bench", 60), None, lambda call: None).prediction
        assert len(found.predictions) == (3 if params.multimask else 1)

    return click


class _Remembering:
    """A Backend whose decoder remembers what it was given last."""

    def __init__(self, settings: Settings) -> None:
        self._backend = connect("onnx", settings)
        self._decoder: OnnxRun | None = None
        self._inputs: Tensors = {}

    def open(self, network: NetworkSpec) -> Any:
        run = self._backend.open(network)
        if network.network != "decoder":
            return run
        assert isinstance(run, OnnxRun)
        self._decoder = run
        return self

    def __call__(self, inputs: Tensors, call: Call) -> Tensors:
        assert self._decoder is not None
        self._inputs = inputs
        return self._decoder(inputs, call)

    def ready(self) -> bool:
        return True

    def close(self) -> None: ...

    def again(self) -> None:
        """The decoder's session on what it was given last, and nothing else."""
        assert self._decoder is not None
        session = self._decoder._session
        assert session is not None
        session.run(self._decoder._outputs, self._inputs)
