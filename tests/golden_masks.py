"""Makes tests/data/masks.npz and tests/data/masks.json: what the reference implementations make of a few masks.

`python -m tests.golden_masks`, with torch, torchvision, segment-anything, opencv-python-headless and pycocotools
installed. The judges: pycocotools for run lengths, areas and boxes; F.interpolate and F.grid_sample for values;
torchvision's own paste_masks_in_image; segment-anything's own calculate_stability_score and remove_small_regions; the
formulas of segment-anything's Sam.postprocess_masks, Ultralytics' process_mask_native and detectron2's
paste_masks_in_image, each a few calls of PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.geometry import Resize, letterbox, long_side

DATA = Path(__file__).parent / "data"
SAM_SOURCES = ((427, 640), (900, 500), (33, 700), (1500, 2000))
YOLO_CASES = (((427, 640), (100.4, 50.6, 500.2, 400.0)), ((720, 1280), (-10.0, 300.5, 700.5, 800.0)))
ROI_BOXES = (
    (100.3, 50.2, 400.7, 350.1), (-30.5, -12.25, 60.0, 90.5), (580.0, 400.0, 660.75, 500.5), (10.5, 10.5, 11.0, 200.0),
    (300.2, 300.2, 301.1, 300.9),
)  # fmt: skip
ROI_SOURCE = (427, 640)
OFFSET = 1.0


def main() -> None:
    import torch

    torch.set_num_threads(1)
    random = np.random.default_rng(5)
    planes = {
        "sam": _plane(random, 256, 12),
        "rough": _plane(random, 256, 3),
        "yolo": _plane(random, 160, 10),
        "roi": _plane(random, 28, 5),
    }
    cases = {
        "runs": [_run_lengths(random) for _ in range(24)],
        "sam": [_sam(planes[name], name, source) for name in ("sam", "rough") for source in SAM_SOURCES],
        "yolo": [_yolo(planes["yolo"], *case) for case in YOLO_CASES],
        "roi": [_roi(planes["roi"], box) for box in ROI_BOXES],
        "regions": [_regions(random, area) for area in (4, 10, 30, 3000)],
    }
    np.savez_compressed(DATA / "masks.npz", allow_pickle=False, **planes)
    (DATA / "masks.json").write_text(json.dumps(cases, indent=0) + "\n", encoding="utf-8")


def values(stored: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Planes are stored as int16; none of their values is 0, so that no pixel lies on the threshold."""
    return (stored.astype(np.float32) + np.float32(0.37)) / np.float32(32)


def probabilities(stored: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    found: np.ndarray[Any, np.dtype[np.float32]] = np.clip(values(stored) / np.float32(8) + np.float32(0.5), 0, 1)
    return found


def sam_frame(source_hw: tuple[int, int]) -> Resize:
    placed = long_side(source_hw, 1024)
    return Resize(source_hw, placed.content_hw, (1024, 1024))


def yolo_frame(source_hw: tuple[int, int]) -> Resize:
    return letterbox(source_hw, (640, 640), center=True)


def _plane(random: np.random.Generator, side: int, cells: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Logits from -6 to 6 or so with `cells` hills a side."""
    hills = random.normal(size=(1, 1, cells, cells)).astype(np.float32)
    return np.asarray(np.round(_enlarged(hills, (side, side), "bicubic") * 3 * 32)[0, 0], np.int16)


def _enlarged(plane: Any, hw: Sequence[int], mode: str = "bilinear") -> Any:
    from torch import from_numpy
    from torch.nn import functional

    return functional.interpolate(from_numpy(np.ascontiguousarray(plane)), tuple(hw), mode=mode).numpy()


def _judged(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    from pycocotools import mask as coco

    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    x, y, width, height = coco.toBbox(rle).tolist()
    counts, area = rle["counts"].decode(), int(coco.area(rle))
    return {"size": rle["size"], "counts": counts, "area": area, "box": [x, y, x + width, y + height]}


def _run_lengths(random: np.random.Generator) -> dict[str, Any]:
    """A random mask somewhere in a small picture; some fill it, some are empty."""
    height, width = random.integers(1, 30, 2)
    h, w = (int(random.choice([side, (side + 1) // 2])) for side in (height, width))
    top, left = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
    mask = np.zeros((height, width), np.bool_)
    mask[top : top + h, left : left + w] = random.random((h, w)) < random.choice([0, 0.2, 0.8, 1])
    return {"rows": ["".join("01"[int(bit)] for bit in row) for row in mask]} | _judged(mask)


def _sam(stored: np.ndarray[Any, Any], name: str, source_hw: tuple[int, int]) -> dict[str, Any]:
    from segment_anything.utils.amg import calculate_stability_score
    from torch import from_numpy

    frame = sam_frame(source_hw)
    between = _enlarged(values(stored)[None, None], frame.model_hw)
    logits = _enlarged(between[..., : frame.content_hw[0], : frame.content_hw[1]], source_hw)[0, 0]
    stability = float(calculate_stability_score(from_numpy(logits[None]), 0.0, OFFSET)[0])
    above = [int((logits > level).sum()) for level in (OFFSET, 0.0, -OFFSET)]
    return {"plane": name, "source": source_hw, "above": above, "stability": stability} | _judged(logits > 0)


def _yolo(stored: np.ndarray[Any, Any], source_hw: tuple[int, int], box: Sequence[float]) -> dict[str, Any]:
    (mh, mw), (height, width) = stored.shape, source_hw
    gain = min(mh / height, mw / width)
    pad_w, pad_h = (mw - width * gain) / 2, (mh - height * gain) / 2
    rows = slice(round(pad_h - 0.1), mh - round(pad_h + 0.1))
    columns = slice(round(pad_w - 0.1), mw - round(pad_w + 0.1))
    logits = _enlarged(values(stored)[None, None, rows, columns], source_hw)[0, 0]
    y, x = np.mgrid[:height, :width]
    inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
    return {"source": source_hw, "in": box} | _judged((logits > 0) & inside)


def _roi(stored: np.ndarray[Any, Any], box: Sequence[float]) -> dict[str, Any]:
    import torch
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    mask, boxes = torch.from_numpy(probabilities(stored))[None, None], torch.tensor([box])
    pasted = paste_masks_in_image(mask, boxes, ROI_SOURCE)[0, 0].numpy()
    x, y = (
        (torch.arange(side, dtype=torch.float32) + 0.5 - low) / (high - low) * 2 - 1
        for side, low, high in ((ROI_SOURCE[1], boxes[0, 0], boxes[0, 2]), (ROI_SOURCE[0], boxes[0, 1], boxes[0, 3]))
    )
    grid = torch.stack([x[None].expand(ROI_SOURCE), y[:, None].expand(ROI_SOURCE)], dim=2)[None]
    sampled = torch.nn.functional.grid_sample(mask, grid, align_corners=False)[0, 0].numpy()
    return {"in": box, "torchvision": _judged(pasted > 0.5), "detectron2": _judged(sampled >= 0.5)}


def _regions(random: np.random.Generator, least_area: int) -> dict[str, Any]:
    from segment_anything.utils.amg import remove_small_regions

    before = np.asarray(_enlarged(random.normal(size=(1, 1, 20, 30)).astype(np.float32), (60, 90))[0, 0] > 0.1)
    filled, changed = remove_small_regions(before, least_area, "holes")
    after, also = remove_small_regions(filled, least_area, "islands")
    found = {"least_area": least_area, "changed": bool(changed or also)}
    return found | {"before": _judged(before), "after": _judged(after)}


if __name__ == "__main__":
    main()
