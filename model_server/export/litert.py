"""A SavedModel as a `.tflite` file for LiteRT, TensorFlow's small runtime."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from model_server.export.saved_model import SIGNATURE


def write_litert(folder: Path, path: Path, signature: str = SIGNATURE) -> None:
    """Writes one signature of the SavedModel in `folder` to `path`, under the names that it has there. Raises
    ValueError for what LiteRT's own operations cannot do."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=[signature])
    try:
        path.write_bytes(converter.convert())
    except tf.errors.OpError as error:
        raise ValueError(f"{folder.name!r} cannot be converted: {error.message}") from error
