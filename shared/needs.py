"""What a request will take in memory, foreseen from the picture's header and the bundle's profile.

Each formula walks through the steps of the work as they are written in shared.images and shared.render, and adds up
what is held in each; the most that any step holds is what is foreseen. Measured peaks lie under it (see
tests/unit/test_needs.py, tests/bench/foreseen_memory.py).
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from math import ceil, prod
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from shared import encoding
from shared.manifest import Bundle, Curve, Foreseen, Measured, Profile

if TYPE_CHECKING:
    from pathlib import Path

    from shared.geometry import HW
    from shared.images import Header
    from shared.predictions import Prediction

_STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_PIXEL_BYTES = 4  # Pillow holds three bands as it does four
_ARRAY_BYTES = 3
_DRAFTS = (8, 4, 2, 1)
_REDUCING_GAP = 2.0
_BANDS_BYTES = 10_000_000
_LOOSE_BYTES = 8_000_000  # what an allocator, the coder's own tables and Python's objects take beside the pixels
_NUMBER_BYTES = 40  # a float, its place in a pair, and a share of that
_MB = 1_000_000

UNPROFILED = Curve(32.0, 200.0)
"""What a run of a network that was never profiled is taken for."""
_TENSORS = Curve(32.0, 12.0)  # as numbers, as a request's bytes and once more between the two; answers are small
_OPENING_PER_BYTE, _RESIDENT_PER_BYTE = 6.0, 3.0  # of the files of a network that was never profiled
_FRAMEWORKS = {
    "onnx": ("onnxruntime", 60),
    "torchscript": ("torch", 300),
    "tensorflow": ("tensorflow", 500),
    "litert": ("ai_edge_litert", 60),
}  # the module, and what it holds once imported, in MB


def decode_bytes(header: Header, decode_hw: HW | None, *, alpha: bool = False) -> int:
    """The most that decoding takes, the finished array of `decode_hw` (None: the picture's own size) included, and with
    `alpha` the transparency beside it."""
    target_hw = decode_hw or header.upright_hw
    loaded_hw = _drafted(header, target_hw) if header.format == "JPEG" and decode_hw else header.upright_hw
    loaded, target = prod(loaded_hw), prod(target_hw)
    beside = target if alpha and header.alpha else 0
    copied = header.decoder_bytes if header.format == "PNG" else 0
    return (
        _LOOSE_BYTES
        + copied
        + max(
            _loading(header, loaded),
            _converting(header, loaded) + beside,
            beside + _resizing(loaded_hw, target_hw) if decode_hw else 0,
            beside + (2 * _PIXEL_BYTES * target if header.turned else 0),
            beside + (_PIXEL_BYTES + _ARRAY_BYTES) * target + min(_BANDS_BYTES, 3 * _PIXEL_BYTES * target),
        )
    )


def _loading(header: Header, loaded: int) -> int:
    stored = _STORED_BYTES.get(header.mode, _PIXEL_BYTES) * loaded
    if header.format == "WEBP":  # which comes as a string of bytes first
        return header.decoder_bytes + stored
    turned = stored if header.format == "TIFF" and header.turned else 0
    return stored + max(turned, 0 if header.format == "PNG" else header.decoder_bytes)


def _converting(header: Header, loaded: int) -> int:
    stored = _STORED_BYTES.get(header.mode, _PIXEL_BYTES)
    if header.mode.startswith("I;16"):
        each = 2 + 2 + 2 + 1  # as numbers, moved by eight bits, and those as bytes
    elif header.alpha:
        each = max(stored, _PIXEL_BYTES) + _PIXEL_BYTES + 1
    else:
        each = stored + (0 if header.mode == "RGB" else _PIXEL_BYTES)
    if header.format == "WEBP":
        each = max(each, 2 * _PIXEL_BYTES)  # from a string of bytes
    return each * loaded


def _resizing(loaded_hw: HW, target_hw: HW) -> int:
    """Pillow first averages by whole factors, then goes over the rows, then over the columns."""
    factors = [max(1, int(side / wanted / _REDUCING_GAP)) for side, wanted in zip(loaded_hw, target_hw, strict=True)]
    reduced_hw = [ceil(side / factor) for side, factor in zip(loaded_hw, factors, strict=True)]
    reduced = prod(reduced_hw) if max(factors) > 1 else 0
    rows = reduced_hw[0] * target_hw[1]
    return _PIXEL_BYTES * (prod(loaded_hw) + reduced + rows + prod(target_hw))


def _drafted(header: Header, target_hw: HW) -> HW:
    """The size at which Pillow's JPEG plugin decodes for a picture of `target_hw` (its `draft`)."""
    height, width = header.upright_hw
    most = min(height // max(1, target_hw[0]), width // max(1, target_hw[1]))
    divisor = next((draft for draft in _DRAFTS if draft <= most), 1)
    return -(-height // divisor), -(-width // divisor)


def run_bytes(bundle: Bundle, network: str, elements: int) -> int:
    """The most that one run of `network` takes whose inputs have so many elements together, outputs included."""
    role, _, of_part = network.partition("/")
    if of_part:
        return run_bytes(bundle.parts[role], of_part, elements)
    foreseen = _foreseen(bundle)
    curve = (foreseen and foreseen.networks.get(network)) or UNPROFILED
    return max(0, int((curve.fixed_mb + curve.per_million_mb * elements / 1e6) * _MB))


def opening_bytes(bundle: Bundle, opened: Collection[Path] = ()) -> int:
    """The most that opening the bundle's networks, and its parts', takes; `opened` are folders of those that are."""
    return sum(_opening_bytes(each) for each in _with_parts(bundle) if each.folder not in opened)


def resident_bytes(bundle: Bundle, opened: Collection[Path] = ()) -> int:
    """What the bundle's networks, and its parts', hold once they are open, but for those that are already."""
    return sum(_resident_bytes(each) for each in _with_parts(bundle) if each.folder not in opened)


def folders(bundle: Bundle) -> list[Path]:
    """Where the networks lie that the bundle opens."""
    return [each.folder for each in _with_parts(bundle)]


def _with_parts(bundle: Bundle) -> tuple[Bundle, ...]:
    return (bundle, *bundle.parts.values())


def _opening_bytes(bundle: Bundle) -> int:
    foreseen = _foreseen(bundle)
    return int(foreseen.opening_mb * _MB if foreseen else _OPENING_PER_BYTE * _weights_bytes(bundle))


def _resident_bytes(bundle: Bundle) -> int:
    foreseen = _foreseen(bundle)
    return int(foreseen.resident_mb * _MB if foreseen else _RESIDENT_PER_BYTE * _weights_bytes(bundle))


def framework_bytes(backend: str) -> int:
    """What importing the framework will take; nothing once it is there."""
    module, held_mb = _FRAMEWORKS.get(backend, ("", 0))
    return 0 if module in sys.modules else held_mb * _MB


def under(bundle: Bundle, backend: str) -> Bundle:
    """The bundle as it is foreseen under `backend`: a profile tells nothing of another one, and of a network on a model
    server only its tensors are in this process."""
    parts = {role: under(part, backend) for role, part in bundle.parts.items()}
    return structs.replace(bundle, model=structs.replace(bundle.model, profile=_profile(bundle, backend)), parts=parts)


def _profile(bundle: Bundle, backend: str) -> Profile | None:
    profile = bundle.model.profile
    if backend not in _FRAMEWORKS:
        networks = dict.fromkeys(bundle.model.networks, _TENSORS)
        point = Measured((1, 1), 0, 0, 0, 0)
        return Profile(backend, backend, "", 1, 0, 0, (point,), Foreseen(0, 0, networks))
    return profile if profile is not None and profile.backend == backend else None


def _foreseen(bundle: Bundle) -> Foreseen | None:
    return bundle.model.profile.memory if bundle.model.profile else None


def _weights_bytes(bundle: Bundle) -> int:
    """The size of the first backend's files: each holds the same weights."""
    artifacts = (next(iter(network.artifacts.values()), None) for network in bundle.model.networks.values())
    files = (bundle.folder / file.file for artifact in artifacts if artifact for file in artifact.files)
    return sum(file.stat().st_size for file in files if file.is_file())


def draw_bytes(header: Header, format_: encoding.Format) -> int:
    """The most that drawing on the picture takes, and encoding that, the encoded picture included."""
    canvas = _PIXEL_BYTES * prod(header.upright_hw) + encoding.bytes_needed(header.upright_hw, "RGB", format_)
    return max(decode_bytes(header, None), canvas + _LOOSE_BYTES)


def reply_bytes(prediction: Prediction[Any]) -> int:
    """What a finished prediction and the JSON made of it hold, as far as that is worth counting: pictures, masks and
    arrays, and all once more as base64."""
    arrays = prediction.embedding.arrays.values() if prediction.embedding else ()
    return sum(map(_held_bytes, (*prediction.predictions, *arrays))) * 7 // 3


def _held_bytes(value: object) -> int:
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, float):  # of a polygon there may be a million
        return _NUMBER_BYTES
    parts = structs.astuple(value) if isinstance(value, Struct) else value
    return sum(map(_held_bytes, parts)) if isinstance(parts, tuple) else 0
