"""Every setting, read from the environment once. The only file that knows os.environ's names.

`THINLENS_` and the field's name in capitals is the variable. Text becomes the field's type; an unknown variable or a
value out of its range is a ConfigurationError that names the variable, the value and what was expected.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from shared.errors import ConfigurationError
from shared.host import cores
from shared.parameters import RenderFactor, Usual
from shared.server_place import Place
from shared.url_policy import UrlPolicy
from shared.validation import Mismatch, convert, show, suggest

PREFIX = "THINLENS_"
SERVERS = ("triton", "tfserving")
WAITING_PER_SLOT = 4
_OTHER_REQUESTS = 16
_MODELS = Path(__file__).resolve().parent.parent / "model_server" / "models"
_KUBERNETES = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")

Fraction = Annotated[float, Meta(ge=0, le=1)]
Origin = Annotated[str, Meta(pattern=r"^(\*|https?://[^/\s]+)$")]
Route = Annotated[str, Meta(pattern=r"^/[A-Za-z0-9._~/:@-]*$")]
MemoryLimit = Annotated[int, Meta(ge=64, le=100_000_000)] | Literal["auto"]
Embedded = Literal["onnx", "torchscript", "tensorflow", "litert"]
Words = tuple[str, ...]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    backend: Annotated[
        Literal["onnx", "torchscript", "tensorflow", "litert", "triton", "tfserving"],
        Meta(description="what runs the model: in this process, or on a model server"),
    ] = "onnx"
    backend_url: Annotated[
        str | None,
        Meta(description="the model server: `http://host:8000`, `https://…`; for gRPC `grpc://host:8001`"),
    ] = None
    backend_protocol: Annotated[
        Literal["http", "grpc"], Meta(description="how the model server is spoken to; `http` is REST for TF Serving")
    ] = "http"
    backend_token: Annotated[str | None, Meta(description="sent to the model server as `Authorization: Bearer`")] = None
    backend_timeout_s: Annotated[
        float, Meta(description="time for one answer of the model server, inside the request's own", gt=0, le=3600)
    ] = 30.0
    forward: Annotated[
        Literal["tensor", "encoded"],
        Meta(
            description="what Triton is sent: the prepared tensor, or the picture as it came, to do all the work there"
        ),
    ] = "tensor"
    fallback: Annotated[
        Embedded | None, Meta(description="embedded backend (`onnx`, …) that answers while the model server does not")
    ] = None
    retries: Annotated[
        int,
        Meta(description="how often a call is tried again that did not reach the model server or got 503", ge=0, le=10),
    ] = 2
    wake_s: Annotated[
        float,
        Meta(description="how long a request waits for a model server that is asleep or gone; then 503", ge=0, le=3600),
    ] = 10.0
    device: Annotated[
        str,
        Meta(
            description="`cpu`, `cuda` or `cuda:N`, for what runs in this process", pattern=r"^(cpu|cuda(:\d{1,3})?)$"
        ),
    ] = "cpu"
    models: Annotated[str, Meta(description="folder of model bundles")] = str(_MODELS)
    model: Annotated[
        str | None, Meta(description="the default model; unset, the only one there is, or the bundled one of several")
    ] = None
    threads: Annotated[
        int, Meta(description="threads of one inference; 0 is one for each core this process may use", ge=0, le=1024)
    ] = 0
    max_concurrency: Annotated[
        int,
        Meta(
            description="pictures worked on at once; 0 is twice the cores. Four times as many wait, then 429",
            ge=0,
            le=10_000,
        ),
    ] = 0
    timeout_s: Annotated[
        float, Meta(description="time for one request, upload included; then 408 or 504", gt=0, le=3600)
    ] = 60.0
    max_body_mb: Annotated[
        float, Meta(description="largest request body, and largest picture fetched by URL", gt=0, le=2000)
    ] = 20.0
    max_pixels: Annotated[int, Meta(description="largest picture, in pixels, as its header says", ge=1)] = 64_000_000
    score_threshold: Annotated[
        Fraction | None, Meta(description="default of the parameter; unset, the model's own")
    ] = None
    render_factor: Annotated[
        RenderFactor, Meta(description="default of the parameter: a whole number, or `auto` for what the memory bears")
    ] = "auto"
    memory_limit_mb: Annotated[
        MemoryLimit,
        Meta(
            description="what this process may have, in MB of a million bytes; `auto` asks the container and the system"
        ),
    ] = "auto"
    embedding_cache_mb: Annotated[
        float,
        Meta(description="memory for what SAM's encoder has made of pictures, for the next click", ge=0, le=100_000),
    ] = 64.0
    embeddings: Annotated[
        str | None, Meta(description="folder to keep embeddings in, and where `embed` has prepared some")
    ] = None
    url_fetch: Annotated[
        str,
        Meta(description="`public`, `off`, or the only hosts and CIDR ranges to fetch from, separated by commas"),
    ] = "public"
    url_timeout_s: Annotated[
        float,
        Meta(
            description="time for fetching a picture by URL, of which 4 s for the first bytes; then 424", gt=0, le=600
        ),
    ] = 10.0
    api_keys: Annotated[Words, Meta(description="keys of callers, separated by commas; empty lets everyone in")] = ()
    cors_origins: Annotated[
        tuple[Origin, ...], Meta(description="origins whose pages may call, separated by commas; `*` is any")
    ] = ()
    azure_auth_level: Annotated[
        Literal["anonymous", "function", "admin"], Meta(description="Azure's own function keys, beside `API_KEYS`")
    ] = "anonymous"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="what is logged")] = "info"

    # What the hosts set. Not under our prefix.
    visible_devices: str | None = None
    health_route: Route | None = None
    predict_route: Route | None = None
    storage_uri: str | None = None

    @classmethod
    def load(cls) -> Settings:
        """The settings of this process's environment. Raises ConfigurationError."""
        return cls.from_environ(os.environ)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """The settings that `environ` describes. Raises ConfigurationError."""
        raw: dict[str, object] = {
            field: environ[variable] for variable, field in HOST_VARIABLES.items() if environ.get(variable)
        }
        known = {PREFIX + name.upper(): (name, kind) for name, kind in own_fields().items()}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or _of_kubernetes(variable, text):
                continue
            if variable not in known:
                raise ConfigurationError(f"{variable}: unknown setting; {suggest(variable, list(known))}")
            if text:
                field, kind = known[variable]
                raw[field] = _value(variable, text, kind)
        try:
            settings = convert(raw, cls, strict=False)
            UrlPolicy.parse(settings.url_fetch)
            _check_server(settings)
        except Mismatch as error:
            raise ConfigurationError(f"{_variable(error.field)}: {error.what}") from error
        except ValueError as error:
            raise ConfigurationError(f"{PREFIX}URL_FETCH: {error}") from error
        return settings

    @property
    def external(self) -> bool:
        """Whether a model server runs the models."""
        return self.backend in SERVERS

    @property
    def usual(self) -> Usual:
        """What callers' parameters are where they give none."""
        return Usual(self.score_threshold, self.render_factor)

    @property
    def slots(self) -> int:
        """How many pictures are worked on at once."""
        return self.max_concurrency or 2 * cores()

    @property
    def server_threads(self) -> int:
        """How many requests a server has to take at once for those past the queue to be told so, and for questions
        after the process's health to be answered at any load."""
        return self.slots * (1 + WAITING_PER_SLOT) + _OTHER_REQUESTS

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mb * 1_000_000)

    @property
    def embedding_cache_bytes(self) -> int:
        return int(self.embedding_cache_mb * 1_000_000)


HOST_VARIABLES = {
    "CUDA_VISIBLE_DEVICES": "visible_devices",
    "AIP_HEALTH_ROUTE": "health_route",
    "AIP_PREDICT_ROUTE": "predict_route",
    "AIP_STORAGE_URI": "storage_uri",
}


def _check_server(settings: Settings) -> None:
    """What the settings of a model server must be together. Raises Mismatch."""
    backend, url, protocol = settings.backend, settings.backend_url, settings.backend_protocol
    if not settings.external:
        if settings.fallback is not None:
            raise Mismatch("fallback", f"only for a model server ({', '.join(SERVERS)}), found backend {backend!r}")
        if settings.forward == "encoded":
            raise Mismatch("forward", f"encoded needs BACKEND=triton, found {backend!r}")
        if url is not None:
            raise Mismatch("backend_url", f"only for a model server ({', '.join(SERVERS)}), found backend {backend!r}")
        return
    if url is None:
        raise Mismatch("backend_url", f"backend {backend!r} needs the model server's URL, found none")
    try:
        place = Place.of(url)
    except ValueError as error:
        raise Mismatch("backend_url", str(error)) from error
    if place.protocol != protocol:
        raise Mismatch(
            "backend_url", f"expected {protocol}://… for BACKEND_PROTOCOL={protocol}, found {place.protocol}"
        )
    if place.prefix and protocol == "grpc":
        raise Mismatch("backend_url", "expected no path for gRPC, found one")
    token = settings.backend_token or ""
    if not (token.isascii() and token.isprintable()):
        raise Mismatch("backend_token", "expected printable ASCII characters, found others")
    if settings.forward == "encoded" and (backend, protocol) != ("triton", "http"):
        raise Mismatch("forward", f"encoded needs BACKEND=triton and BACKEND_PROTOCOL=http, found {backend} {protocol}")


def own_fields() -> dict[str, type]:
    """The fields that THINLENS_ variables set, with their types."""
    hints = get_type_hints(Settings, include_extras=True)
    return {name: hints[name] for name in Settings.__struct_fields__ if name not in HOST_VARIABLES.values()}


def _value(variable: str, text: str, kind: type) -> object:
    """`text` as a value that msgspec's lax conversion can finish."""
    bare = get_args(kind)[0]
    if get_origin(bare) is not tuple:
        return text
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:  # a slip of the pen must not let everyone in
        raise ConfigurationError(f"{variable}: expected words separated by commas, found {show(text)}")
    return words


def _variable(path: str) -> str:
    """The variable that set the field at `path`."""
    field = path.partition("[")[0]
    hosts = [variable for variable, name in HOST_VARIABLES.items() if name == field]
    return hosts[0] if hosts else PREFIX + field.upper()


def _of_kubernetes(variable: str, text: str) -> bool:
    """Whether Kubernetes set it: it writes THINLENS_SERVICE_HOST and the like into every pod beside a Service that is
    called thinlens (or thinlens-something)."""
    return _KUBERNETES.fullmatch(variable) is not None or (variable.endswith("_PORT") and "://" in text)


def table() -> str:
    """The settings as a Markdown table: variable, default, meaning."""
    defaults = {field.encode_name: field.default for field in msgspec.structs.fields(Settings)}
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, kind in own_fields().items():
        meta = next(m for m in get_args(kind) if isinstance(m, Meta))
        choices = get_args(get_args(kind)[0])
        named = f" (`{'`, `'.join(choices)}`)" if choices and all(isinstance(c, str) for c in choices) else ""
        default = "`model_server/models`" if name == "models" else _shown(defaults[name])
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {meta.description}{named} |")
    return "\n".join(rows) + "\n"


def _shown(value: object) -> str:
    if value is None or value == ():
        return "unset"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
