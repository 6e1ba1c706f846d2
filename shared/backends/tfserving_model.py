"""What TensorFlow Serving says of a model, by REST and by gRPC alike, and what is made of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from shared.backends.declared import Found, check_declared
from shared.errors import ConfigurationError, Failure, OutOfMemory, ServerBusy, ServerFailed

if TYPE_CHECKING:
    from shared.call import Call
    from shared.manifest import NetworkSpec

AVAILABLE = "AVAILABLE"
_ON_THE_WAY = {"UNKNOWN", "START", "LOADING"}
_LOADING_RETRY_S = 2
# Of TensorFlow's allocators and of CUDA; Serving gives them a status that means "too many requests" as well.
_NO_MEMORY = re.compile(r"\bOOM\b|out of memory|failed to allocate|unable to allocate", re.IGNORECASE)
_log = logging.getLogger("thinlens")


class Signature(msgspec.Struct, frozen=True):
    """A SignatureDef: the tensors that one of a SavedModel's functions takes and gives."""

    inputs: tuple[Found, ...]
    outputs: tuple[Found, ...]


def signature_name(network: NetworkSpec) -> str:
    """The signature to call: that of the bundle's SavedModel, where it has one."""
    artifact = network.artifacts.get("tensorflow")
    return artifact.signature if artifact is not None else "serving_default"


def check_states(network: NetworkSpec, states: Sequence[str]) -> None:
    """Whether a version of the model answers. Raises ServerBusy while the server loads one, ConfigurationError where
    it has none or could not load any."""
    if AVAILABLE in states:
        return
    if _ON_THE_WAY & set(states):
        raise ServerBusy("the model server is still loading the model", retry_after_s=_LOADING_RETRY_S)
    raise ConfigurationError(
        f"{network.field}: the model server has no version of model {network.served_as!r} loaded, "
        f"only {', '.join(sorted(set(states))) or 'none'}; its own log tells why"
    )


def no_model(network: NetworkSpec) -> ConfigurationError:
    return ConfigurationError(f"{network.field}: the model server has no model {network.served_as!r}")


def check_signature(network: NetworkSpec, signatures: Mapping[str, Signature]) -> None:
    """Whether the signature to call is there and is what model.json declares. Raises ConfigurationError."""
    name = signature_name(network)
    if name not in signatures:
        known = sorted(name for name in signatures if not name.startswith("__"))
        raise ConfigurationError(
            f"{network.field}: model {network.served_as!r} on the model server has no signature {name!r}, only {known}"
        )
    check_declared(network, signatures[name].inputs, signatures[name].outputs, "on the model server")


def failed(network: NetworkSpec, words: str, call: Call) -> Failure:
    """What a caller is told of an error that the server has met, whose words go into the log."""
    _warn(network, f"failed on the model server: {words}", call)
    if _NO_MEMORY.search(words):
        return OutOfMemory("the model server has not enough memory to run the model on this picture")
    return ServerFailed("the model server failed on this picture; the log tells more under the request id")


def untold(network: NetworkSpec, words: str, call: Call) -> ServerFailed:
    """For an answer other than what the model is."""
    _warn(network, f"the model server does not tell of it: {words}", call)
    return ServerFailed("the model server does not tell what the model is; the log tells more")


def unreadable(network: NetworkSpec, error: Exception, call: Call) -> ServerFailed:
    _warn(network, f"the reply cannot be read: {error}", call)
    return ServerFailed("the model server's reply cannot be read; the log tells more under the request id")


def away(network: NetworkSpec) -> ServerBusy:
    """For a model that was there when the network was opened: a server that begins anew, or loads another version."""
    return ServerBusy(f"the model server does not have model {network.bundle!r} loaded now")


def _warn(network: NetworkSpec, words: str, call: Call) -> None:
    _log.warning("%s: %s", network.field, words[:500], extra={"fields": {"request_id": call.request_id}})
