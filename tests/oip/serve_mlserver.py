"""MLServer on a bundle: BUNDLE SCRATCH HTTP_PORT GRPC_PORT METRICS_PORT."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from mlserver import MLModel, MLServer, ModelSettings, Settings  # type: ignore[import-not-found, unused-ignore]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found, unused-ignore]
from mlserver.errors import InferenceError  # type: ignore[import-not-found, unused-ignore]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found, unused-ignore]

from tests.oip.networks import Served, networks


class Network(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        settings = self._settings
        bundle = Path(settings.parameters.uri)
        (self._served,) = [served for served in networks(bundle) if served.name == settings.name]
        self._session = self._served.open()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        try:
            arrays = await asyncio.to_thread(self._served.run, self._session, inputs)
        except Exception as error:
            raise InferenceError(str(error)) from error
        outputs = [NumpyCodec.encode_output(name, array) for name, array in arrays.items()]
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=outputs)


def _settings(served: Served, bundle: Path) -> ModelSettings:
    return ModelSettings(
        name=served.name,
        implementation=Network,
        inputs=served.inputs,
        outputs=served.outputs,
        parameters={"uri": str(bundle)},
    )


def main(bundle: str, scratch: str, http: str, grpc: str, metrics: str) -> None:
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=int(http),
        grpc_port=int(grpc),
        metrics_port=int(metrics),
        parallel_workers=0,
        metrics_dir=scratch,
        grpc_max_message_length=256 * 1024 * 1024,
    )
    models = [_settings(served, Path(bundle)) for served in networks(Path(bundle))]
    asyncio.run(MLServer(settings).start(models))


if __name__ == "__main__":
    main(*sys.argv[1:])
