"""Makes the default detector's TorchScript file from its ONNX file: the very same weights, kernels still float16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from model_server.export.onnx_torch import read, torchscript
from model_server.manifests import write_manifest
from shared.artifacts import sha256_of, verified
from shared.manifest import MANIFEST, NetworkSpec, read_bundle

FILE = "model.ts"
NETWORK = "detector"


def export(folder: Path) -> str:
    """Writes model.ts beside the model.onnx of the bundle in `folder`, enters it in model.json, and says so. Raises
    ConfigurationError where the bundle or its ONNX file is not what it should be, ValueError where that cannot be
    converted."""
    network = read_bundle(folder).network(NETWORK)
    path, _ = verified(network, "onnx")
    part = folder / f"{FILE}.part"
    try:
        part.write_bytes(torchscript(read(path), _examples(network)))
        part.replace(folder / FILE)
    finally:
        part.unlink(missing_ok=True)
    declared = json.loads((folder / MANIFEST).read_text(encoding="utf-8-sig"))
    declared["networks"][NETWORK]["artifacts"]["torchscript"] = artifact(folder / FILE)
    write_manifest(declared, folder)
    return f"{folder.name}: {FILE} made from {path.name} by PyTorch {torch.__version__}"


def artifact(path: Path) -> dict[str, Any]:
    """What model.json says about the exported file."""
    return {"file": FILE, "sha256": sha256_of(path), "source": "made from model.onnx"}


def _examples(network: NetworkSpec) -> list[torch.Tensor]:
    """Black pictures of the declared sizes: the graph has no branch that values could take."""
    return [
        torch.zeros([side or 1 for side in spec.shape], dtype=getattr(torch, spec.dtype)) for spec in network.inputs
    ]
