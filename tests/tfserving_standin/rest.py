"""TensorFlow Serving's REST interface, with its routes, statuses and ways of writing JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2

from tests.tfserving_standin.models import DEFAULT_SIGNATURE, Code, Models, Problem

_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+))?"
_ROUTES = {
    ("POST", "predict"): re.compile(_MODEL + ":predict", re.IGNORECASE),
    ("GET", "status"): re.compile(_MODEL, re.IGNORECASE),
    ("GET", "metadata"): re.compile(_MODEL + "/metadata", re.IGNORECASE),
}
# ToHTTPStatusCode of the real server's http_server.cc; all else is 500.
_STATUSES = {
    Code.INVALID_ARGUMENT: 400, Code.FAILED_PRECONDITION: 400, Code.OUT_OF_RANGE: 400, Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 429, Code.UNIMPLEMENTED: 501, Code.UNAVAILABLE: 503, Code.DEADLINE_EXCEEDED: 504,
}  # fmt: skip
_KINDS = {"float32": "iuf", "float64": "iuf", "bool": "b"}
_INTEGERS = "iu"


def serve(models: Models, port: int, address: str = "127.0.0.1") -> None:
    """Answers on `address` until the process is told to end."""

    class Handler(_Handler):
        served = models

    ThreadingHTTPServer((address, port), Handler).serve_forever()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    served: Models

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def log_message(self, *arguments: object) -> None:
        """The tests have no use for it."""

    def _answer(self, body: bytes) -> None:
        try:
            status, text = 200, self._reply(body)
        except Problem as problem:
            status, text = _STATUSES.get(problem.code, 500), f'{{ "error": {json.dumps(problem.message)} }}'
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _reply(self, body: bytes) -> str:
        for (method, what), route in _ROUTES.items():
            match = route.fullmatch(self.path)
            if match and method == self.command:
                spec = model_pb2.ModelSpec(name=match["name"])
                if match["version"]:
                    spec.version.value = int(match["version"])
                return str(getattr(self, f"_{what}")(spec, body))
        raise Problem(Code.INVALID_ARGUMENT, f"Malformed request: {self.command} {self.path}")

    def _status(self, spec: Any, _body: bytes) -> str:
        return _json(self.served.status(spec))

    def _metadata(self, spec: Any, _body: bytes) -> str:
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        reply = self.served.metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(signatures)
        described = _json(signatures)
        return f'{{\n"model_spec":{_json(reply.model_spec)},\n"metadata": {{"signature_def": {described}}}\n}}\n'

    def _predict(self, spec: Any, body: bytes) -> str:
        asked = _parsed(body)
        spec.signature_name = asked.get("signature_name", "")
        signature = self.served.signature(spec)
        if signature is None:
            name = spec.signature_name or DEFAULT_SIGNATURE
            raise Problem(Code.INVALID_ARGUMENT, f'Serving signature name: "{name}" not found in signature def')
        request = predict_pb2.PredictRequest(model_spec=spec)
        for name, value in _named(asked, signature).items():
            request.inputs[name].CopyFrom(_tensor(name, value, signature.inputs[name].dtype))
        outputs = {key: _nested(tensor) for key, tensor in self.served.predict(request).outputs.items()}
        if "inputs" in asked:
            value = outputs if len(outputs) > 1 else next(iter(outputs.values()))
            return f'{{\n    "outputs": {_pretty(value, 1)}\n}}'
        rows = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
        values = [row if len(row) > 1 else next(iter(row.values())) for row in rows]
        predictions = ", ".join(_pretty(value, 2) for value in values)
        return f'{{\n    "predictions": [{predictions}]\n}}'


def _json(message: Any) -> str:
    text: str = json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return text


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise Problem(Code.INVALID_ARGUMENT, f"JSON Parse error: {error}") from error
    if not isinstance(asked, dict):
        raise Problem(Code.INVALID_ARGUMENT, "JSON Value: Is not object")
    if ("instances" in asked) == ("inputs" in asked):
        raise Problem(Code.INVALID_ARGUMENT, "Missing 'inputs' or 'instances' key")
    return asked


def _named(asked: dict[str, Any], signature: Any) -> dict[str, Any]:
    """The JSON value of each input."""
    value = asked["inputs"] if "inputs" in asked else asked["instances"]
    if "instances" in asked and isinstance(value[0], dict):
        return {name: [row[name] for row in value] for name in signature.inputs}
    if not isinstance(value, dict):
        return {next(iter(signature.inputs)): value}
    missing = [name for name in signature.inputs if name not in value]
    if missing:
        raise Problem(Code.INVALID_ARGUMENT, f"Missing named input: {missing[0]} in 'inputs' object.")
    return {name: value[name] for name in signature.inputs}


def _tensor(name: str, value: Any, dtype: int) -> Any:
    kind = tf.dtypes.as_dtype(dtype).name
    if kind in ("float16", "bfloat16", "string"):
        raise Problem(Code.UNIMPLEMENTED, f"Conversion of JSON Value: ... to type: {kind}")
    try:
        array = np.array(value)
    except ValueError as error:
        raise Problem(Code.INVALID_ARGUMENT, f"{name}: Encountered list at unexpected size: {error}") from error
    if array.size and array.dtype.kind not in _KINDS.get(kind, _INTEGERS):
        raise Problem(Code.INVALID_ARGUMENT, f"JSON Value: ... is not of expected type: {kind}")
    return tf.make_tensor_proto(array.astype(kind))


def _nested(tensor: Any) -> Any:
    """The values, each as its text."""
    array = tf.make_ndarray(tensor)
    texts = np.array(_texts(array.ravel()), object)
    return texts.reshape(array.shape).tolist()


def _texts(values: Any) -> list[str]:
    """Numbers as WriteDecimal of the real server's json_tensor.cc writes them: six digits, or all of them where those
    do not give the same number again."""
    if values.dtype.kind == "b":
        return ["true" if value else "false" for value in values]
    if values.dtype.kind != "f":
        return [str(value) for value in values]
    digits = 17 if values.dtype == np.float64 else 9
    texts = [f"{value:g}" for value in values.tolist()]
    enough = np.array(texts, np.float64).astype(values.dtype) == values
    return [
        _decimal(text if short else f"{value:.{digits}g}")
        for text, short, value in zip(texts, enough.tolist(), values.tolist(), strict=True)
    ]


def _decimal(text: str) -> str:
    if "." in text or "e" in text:
        return text
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text) or f"{text}.0"


def _pretty(value: Any, level: int) -> str:
    """Each value on a line of its own, behind four blanks for each level, as the real server writes columns."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _lines("{}", (f"{json.dumps(key)}: {_pretty(inner, level + 1)}" for key, inner in value.items()), level)
    return _lines("[]", (_pretty(inner, level + 1) for inner in value), level)


def _lines(brackets: str, items: Iterable[str], level: int) -> str:
    indent = "\n" + "    " * (level + 1)
    inside = f",{indent}".join(items)
    return f"{brackets[0]}{indent}{inside}{indent[:-4]}{brackets[1]}" if inside else brackets
