"""A `.tflite` file, by LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from model_server.describe.looked import SIGNATURE, Asked, Looked, Samples, chosen, chosen_signature, spec
from model_server.failures import Stopped
from shared.backends.litert import found


def look(path: Path, asked: Asked, _: Samples) -> Looked:
    """Reads one signature of the file. Raises Stopped."""
    if asked.inputs:
        raise Stopped("--input is for other files: a .tflite says itself what it takes")
    interpreter = _opened(path)
    signature = chosen_signature(list(interpreter.get_signature_list()), asked.signature)
    runner = interpreter.get_signature_runner(signature)
    return Looked(
        inputs=[spec(one) for one in found(runner.get_input_details())],
        outputs=chosen([spec(one) for one in found(runner.get_output_details())], asked.outputs),
        signature=None if signature == SIGNATURE else signature,
    )


def _opened(path: Path) -> Any:
    try:
        return Interpreter(str(path))
    except Exception as error:  # as many ways as a file can be broken
        raise Stopped(f"{path}: LiteRT cannot open it: {error}") from error
