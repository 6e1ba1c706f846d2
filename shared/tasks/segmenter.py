"""SAM's two networks: `encoder` reads a picture once, `decoder` answers prompts about what the first has made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from shared import needs
from shared.errors import ConfigurationError, InvalidParameter
from shared.geometry import HW, Resize
from shared.masks import enlargement
from shared.predictions import Embedding
from shared.tasks import preparation
from shared.tasks.arrays import packed, unpacked
from shared.tasks.mask_decoder import Decoded, MaskDecoder, Traits
from shared.tasks.prompts import CORNERS

if TYPE_CHECKING:
    from typing import Literal

    from shared.backends import Run
    from shared.call import Call
    from shared.images import Decoding, Image
    from shared.manifest import Bundle, Network
    from shared.masks.enlargement import Enlargement
    from shared.masks.placed import Crop
    from shared.tensors import Float32, Tensors, TensorSpec

ENCODER, DECODER = "encoder", "decoder"
_FLOAT_BYTES = 4
_POINT_ELEMENTS = 2000  # what a further point weighs in a run: what it has to do with 64 x 64 places, 590 kB measured
_LONGEST_KEPT_PX = 32_768
_PICTURES_AT_ONCE = 8  # sizes of pictures whose enlargement is at hand: a click on the same one needs it again


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture, or a `crop` of one, as the encoder has it: `arrays` by the decoder's input names; `resize` brings its
    pixels into the frame of the prompts."""

    arrays: Tensors
    resize: Resize
    crop: Crop | None = None


class Segmenter:
    """A bundle's encoder and decoder, whatever their export. Holds no state of a request. Raises ConfigurationError
    where the two, or `preprocess`, do not fit together."""

    def __init__(self, bundle: Bundle, traits: Traits) -> None:
        encoder, decoder = _networks(bundle)
        self._bundle = bundle
        self._preprocess = bundle.model.preprocess
        self._image = _picture(encoder)
        preparation.check(self._preprocess, self._image)
        frame_hw = preparation.declared_hw(self._preprocess, self._image)
        if frame_hw is None:
            raise ConfigurationError("preprocess.size: expected [height, width]: the encoder's own size is free")
        self._decoder = MaskDecoder(decoder, frame_hw, traits)
        self._shared = _matched(encoder, self._decoder.embeddings)
        self._frame_hw = frame_hw
        self._ways = lru_cache(_PICTURES_AT_ONCE)(self._way)
        self.model_key = f"{bundle.model.name}@{bundle.model.version}:{bundle.fingerprint}"
        weights = sorted(file.sha256 for artifact in encoder.artifacts.values() for file in artifact.files)
        self._weights_key = " ".join([self.model_key, *weights])

    @property
    def mask_hw(self) -> HW | None:
        """The size of an earlier mask; None where the decoder takes none."""
        return self._decoder.mask_hw

    @property
    def plane_elements(self) -> int:
        """How many logits the decoder gives for a prompt."""
        return self._decoder.plane_elements

    @property
    def embedding_elements(self) -> int:
        """How many numbers the encoder gives for a picture."""
        return sum(prod(side or 1 for side in spec.shape) for _, spec in self._shared.values())

    def check(self, points: int, *, boxes: bool) -> None:
        """Raises InvalidParameter where so many points of a prompt, corners included, are more than are taken."""
        self._decoder.check(points, boxes=boxes)

    def place(self, source_hw: HW) -> Resize:
        """Where a picture, or a crop, of `source_hw` goes in the encoder's input. The prompts' frame is the same
        (segment_anything/utils/transforms.py, apply_coords)."""
        return preparation.place(source_hw, self._preprocess, self._image)

    def key(
        self,
        picture: Decoding,
        crop: Crop | None = None,
        crop_hw: HW | None = None,
        decoded_hw: HW | None = None,
    ) -> str:
        """Of what the encoder makes of this picture, or crop, decoded at `decoded_hw` (None: just as large as it is to
        be), which moves its pixels a little; '' where the picture has no bytes to tell it by."""
        if not picture.digest:
            return ""
        part = "" if crop is None or crop_hw is None else f"{crop.top} {crop.left} {crop_hw[0]} {crop_hw[1]}"
        if decoded_hw not in (None, self.place(picture.header.upright_hw).content_hw):
            part += f" of {decoded_hw}"
        return sha256(f"{picture.digest} {self._weights_key} {part}".encode()).hexdigest()

    def holds(
        self,
        picture: Decoding,
        crop: Crop | None = None,
        crop_hw: HW | None = None,
        decoded_hw: HW | None = None,
    ) -> bool:
        """Whether `encoded` will most likely ask for no pixels."""
        key = self.key(picture, crop, crop_hw, decoded_hw) if picture.memo is not None else ""
        return picture.memo is not None and bool(key) and picture.memo.has(key)

    def encoded(
        self,
        picture: Decoding,
        pixels: Callable[[], Image],
        runs: Mapping[str, Run],
        call: Call,
        *,
        crop: Crop | None = None,
        crop_hw: HW | None = None,
        decoded_hw: HW | None = None,
    ) -> Encoded:
        """The picture, or the part of `crop_hw` at `crop`, through the encoder, or from the picture's memo. `pixels`
        gives those of the whole or of the part, decoded as `key` is told, and is asked only where the encoder has to
        run."""
        resize = self.place(crop_hw or picture.header.upright_hw)
        key = self.key(picture, crop, crop_hw, decoded_hw) if picture.memo is not None else ""

        def make() -> Tensors:
            return self._encode(pixels(), resize, runs[ENCODER], call)

        arrays = picture.memo.kept(key, call, make) if picture.memo is not None and key else make()
        return Encoded(arrays, resize, crop)

    def decode(
        self,
        encoded: Encoded,
        points_xy: Float32,
        labels: Float32,
        runs: Mapping[str, Run],
        call: Call,
        *,
        masks: Float32 | None = None,
    ) -> Decoded:
        """B prompts of N points each: `points_xy` [B, N, 2] float32 in pixels of the picture, or of the crop from its
        top left, `labels` [B, N] (see shared.tasks.prompts), `masks` [B, h, w] float32 logits of an earlier answer."""
        in_frame = encoded.resize.points_to_model(points_xy)
        return self._decoder.decode(encoded.arrays, in_frame, labels, runs[DECODER], call, masks=masks)

    def enlargement(self, encoded: Encoded) -> Enlargement:
        """The way of the decoder's planes to the picture. A stretched picture's planes are stretched back in one step,
        as SAM 2's postprocess_masks does, others over the encoder's frame, as SAM's does."""
        # That of a needle of millions of pixels is itself of some size, and is not kept.
        make = self._ways if sum(encoded.resize.source_hw) <= _LONGEST_KEPT_PX else self._way
        return make(encoded.resize, encoded.crop)

    def encode_bytes(self) -> int:
        """The most memory that the encoder's run takes, with its input and the pixels that it is made from."""
        elements = 3 * prod(self._frame_hw)
        return (3 + _FLOAT_BYTES) * elements + needs.run_bytes(self._bundle, ENCODER, elements)

    def decode_bytes(self, prompts: int, points: int) -> int:
        """The most memory that a decoder's run for so many prompts of so many points takes, answer included."""
        elements = self._decoder.elements(prompts, points)
        own = _FLOAT_BYTES * (elements + 2 * prompts * self._decoder.plane_elements)
        weighed = elements + _POINT_ELEMENTS * prompts * max(0, points - CORNERS)
        return own + needs.run_bytes(self._bundle, DECODER, weighed)

    def embedding(self, encoded: Encoded, dtype: Literal["float16", "float32"]) -> Embedding:
        """What the encoder made, to be sent back by `sent`."""
        arrays = {name: packed(array.astype(np.float32, copy=False), dtype) for name, array in encoded.arrays.items()}
        return Embedding(self.model_key, encoded.resize.source_hw, arrays)

    def sent(self, embedding: Embedding, source_hw: HW) -> Encoded:
        """What an embedding that a request carries says of its picture, of `source_hw`. Raises InvalidParameter where
        it is another model's or another picture's, or not whole."""
        if embedding.model != self.model_key:
            raise _wrong(f"expected one of {self.model_key!r}, found one of {embedding.model[:200]!r}")
        if embedding.size != source_hw:
            raise _wrong(f"it is of a picture of size {list(embedding.size)}, and this one is {list(source_hw)}")
        if embedding.arrays.keys() != self._shared.keys():
            raise _wrong(f"expected arrays {sorted(self._shared)}, found {sorted(embedding.arrays)[:20]}")
        arrays = {}
        for name, (_, spec) in self._shared.items():
            array = embedding.arrays[name]
            if not spec.fits(array.shape):
                raise _wrong(f"expected {name!r} of shape {list(spec.shape)}, found {list(array.shape)}")
            arrays[name] = unpacked(array, f"embedding.arrays.{name}").astype(spec.dtype, copy=False)
        return Encoded(arrays, self.place(source_hw))

    def _way(self, resize: Resize, crop: Crop | None) -> Enlargement:
        if self._preprocess.resize == "stretch":
            return enlargement.stretched(self._decoder.plane_hw, resize.source_hw, crop)
        return enlargement.sam(self._decoder.plane_hw, resize, crop)

    def _encode(self, image: Image, resize: Resize, run: Run, call: Call) -> Tensors:
        with call.stage("preprocess"):
            tensor = preparation.to_tensor(image, resize, self._preprocess, self._image)
        del image
        with call.stage("encode"):
            outputs = run({self._image.name: tensor}, call)
        return {name: outputs[source] for name, (source, _) in self._shared.items()}


def _networks(bundle: Bundle) -> tuple[Network, Network]:
    networks = bundle.model.networks
    if networks.keys() != {ENCODER, DECODER}:
        raise ConfigurationError(f"networks: expected {ENCODER!r} and {DECODER!r}, found {sorted(networks)}")
    return networks[ENCODER], networks[DECODER]


def _picture(encoder: Network) -> TensorSpec:
    if len(encoder.inputs) != 1:
        raise ConfigurationError(
            f"networks.{ENCODER}.inputs: expected the picture alone, found {[spec.name for spec in encoder.inputs]}"
        )
    return encoder.inputs[0]


def _matched(encoder: Network, wanted: Mapping[str, TensorSpec]) -> dict[str, tuple[str, TensorSpec]]:
    """For each of the decoder's inputs that are `wanted` of the encoder, by name: the output that it is, and how the
    decoder declares it. They go by their names, and the last one of each by being left over."""
    outputs = {spec.name: spec for spec in encoder.outputs}
    found = {name: name for name in wanted if name in outputs}
    left = [name for name in wanted if name not in found]
    spare = [name for name in outputs if name not in found]
    if len(left) == len(spare) == 1:
        found[left[0]] = spare[0]
        left = []
    if left:
        raise ConfigurationError(
            f"networks.{DECODER}.inputs: {left[0]!r} is no prompt and none of the encoder's outputs {sorted(outputs)}"
        )
    for name, source in found.items():
        if not _agree(wanted[name], outputs[source]):
            raise ConfigurationError(
                f"networks.{DECODER}.inputs: {name!r} is {wanted[name].dtype} {list(wanted[name].shape)}, but the "
                f"encoder gives {outputs[source].dtype} {list(outputs[source].shape)}"
            )
    return {name: (source, _fixed(wanted[name], outputs[source])) for name, source in found.items()}


def _agree(wanted: TensorSpec, given: TensorSpec) -> bool:
    return (
        wanted.dtype == given.dtype
        and len(wanted.shape) == len(given.shape)
        and all(None in (one, other) or one == other for one, other in zip(wanted.shape, given.shape, strict=True))
    )


def _fixed(wanted: TensorSpec, given: TensorSpec) -> TensorSpec:
    """`wanted` with what the encoder declares of its shape, so that an embedding of a free shape is still checked."""
    shape = tuple(one or other for one, other in zip(wanted.shape, given.shape, strict=True))
    return type(wanted)(wanted.name, wanted.dtype, shape)


def _wrong(why: str) -> InvalidParameter:
    return InvalidParameter(f"embedding: {why}", parameter="embedding")
