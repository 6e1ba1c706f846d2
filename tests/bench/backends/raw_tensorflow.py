"""TensorFlow's own call of a SavedModel's signature."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.bench.backends.inputs import pixels, sums
from tests.bench.backends.loop import Way


def call(folder: str, threads: str, side: str, *outputs: str) -> Way:
    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    tf.config.threading.set_inter_op_parallelism_threads(int(threads))
    loaded = tf.saved_model.load(folder)
    function, picture = loaded.signatures["serving_default"], pixels(int(side))

    def work() -> dict[str, Any]:
        answer = function(image=tf.constant(picture))
        return {name: answer[name].numpy() for name in outputs}

    work.loaded = loaded  # type: ignore[attr-defined]  # it holds the variables
    return Way(work, sums)
