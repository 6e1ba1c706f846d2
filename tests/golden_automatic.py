"""Makes tests/data/automatic_masks.json: what segment-anything's SamAutomaticMaskGenerator makes of a scripted SAM.

`python -m tests.golden_automatic`, with torch, torchvision, segment-anything 1.0, opencv-python-headless and
pycocotools installed. The generator, its predictor and Sam.postprocess_masks are the package's own; the networks are
those of tests/scripted_sam.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.scripted_sam import FRAME, scene

GOLDEN = Path(__file__).parent / "data" / "automatic_masks.json"
CASES: tuple[tuple[tuple[int, int], dict[str, Any]], ...] = (
    ((180, 240), {"points_per_side": 10, "stability_score_thresh": 0.8}),
    ((700, 500), {"points_per_side": 8, "pred_iou_thresh": 0.8, "stability_score_thresh": 0.9}),
    ((180, 240), {"points_per_side": 16, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2,
                  "pred_iou_thresh": 0.76, "stability_score_thresh": 0.6}),
    ((181, 333), {"points_per_side": 9, "crop_n_layers": 2, "crop_nms_thresh": 0.5, "crop_overlap_ratio": 0.2,
                  "pred_iou_thresh": 0.76, "stability_score_thresh": 0.4}),
    ((180, 240), {"points_per_side": 10, "min_mask_region_area": 150, "stability_score_thresh": 0.7}),
    ((300, 200), {"points_per_side": 9, "box_nms_thresh": 0.4, "stability_score_offset": 3.0,
                  "stability_score_thresh": 0.7}),
    ((120, 400), {"points_per_side": 7, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.5}),
)  # fmt: skip
FIELDS = ("bbox", "area", "predicted_iou", "point_coords", "stability_score", "crop_box", "segmentation")


def main() -> None:
    cases = [{"source_hw": hw, "parameters": given, "masks": _masks(hw, given)} for hw, given in CASES]
    GOLDEN.write_text(json.dumps(cases, indent=0) + "\n", encoding="utf-8")


def _masks(hw: tuple[int, int], given: dict[str, Any]) -> list[dict[str, Any]]:
    from segment_anything import SamAutomaticMaskGenerator
    from segment_anything.utils.amg import generate_crop_boxes

    boxes, _ = generate_crop_boxes(hw, given.get("crop_n_layers", 0), given.get("crop_overlap_ratio", 512 / 1500))
    generator = SamAutomaticMaskGenerator(_scripted(hw, boxes), output_mode="coco_rle", **given)
    return [{name: found[name] for name in FIELDS} for found in generator.generate(np.zeros((*hw, 3), np.uint8))]


def _scripted(hw: tuple[int, int], boxes: list[list[int]]) -> Any:
    """As much of a Sam as SamPredictor asks for; its encoder tells the parts of the picture by their order."""
    import torch
    from segment_anything.modeling import Sam

    parts = iter(range(len(boxes)))

    def encoder(pixels: Any) -> Any:
        return torch.full((1, 1, 1, 1), float(next(parts)))

    def prompt_encoder(points: Any, boxes: Any, masks: Any) -> tuple[Any, None]:
        return points[0][:, 0], None

    def mask_decoder(**given: Any) -> tuple[Any, Any]:
        box = boxes[int(given["image_embeddings"].item())]
        planes, estimates = scene(hw, box, given["sparse_prompt_embeddings"].numpy())
        return torch.from_numpy(planes[:, 1:].copy()), torch.from_numpy(estimates[:, 1:].copy())

    encoder.img_size = FRAME  # type: ignore[attr-defined]
    prompt_encoder.get_dense_pe = lambda: None  # type: ignore[attr-defined]
    sam = SimpleNamespace(
        image_encoder=encoder,
        prompt_encoder=prompt_encoder,
        mask_decoder=mask_decoder,
        preprocess=lambda pixels: pixels,
        mask_threshold=0.0,
        image_format="RGB",
        device=torch.device("cpu"),
    )
    sam.postprocess_masks = lambda *sizes, **named: Sam.postprocess_masks(sam, *sizes, **named)
    return sam


if __name__ == "__main__":
    main()
