"""Small PyTorch detectors: each finds the red, the green and the blue thing in a picture, as those of tests.graphs do,
and answers as a YOLO v8 head, [1, 4 + 3, 3]. A box is right only where names, order, layout and normalisation are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.bundles import manifest
from tests.graphs import LABELS, SCORES, Input

TAKEN = Input(None, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
OUTPUT = ("output0", [1, 7, 3])


def fixed(values: tuple[float, ...], *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values).reshape(shape), requires_grad=False)


class ColourDetector(nn.Module):
    """Takes normalised pixels [1, 3, H, W], RGB. Its first layer is a convolution that sees how much redder (greener,
    bluer) a pixel is than the rest."""

    def __init__(self, taken: Input = TAKEN) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.weight[:, :, 1, 1] = 1.5 * torch.eye(3) - 0.5
        self.mean, self.std, self.scores = fixed(taken.mean, 3, 1, 1), fixed(taken.std, 3, 1, 1), fixed(SCORES, 3)
        self.scale = taken.scale

    def forward(self, image: Tensor) -> Tensor:
        pixels = (image * self.std + self.mean) / self.scale
        return self.found((self.layer(pixels)[0] > 127.0).to(torch.float32))

    def found(self, mask: Tensor) -> Tensor:
        """[3, H, W] 0 or 1 -> [1, 7, 3]."""
        left, right = self.ends(mask.amax(1))
        top, bottom = self.ends(mask.amax(2))
        there = mask.amax((1, 2))
        boxes = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]) * there
        return torch.cat([boxes, torch.eye(3) * self.scores * there])[None]

    def ends(self, line: Tensor) -> tuple[Tensor, Tensor]:
        """The first place of a 1 in each row of [3, N], and the place after the last."""
        places = torch.arange(line.shape[1], device=line.device).to(torch.float32)
        first = torch.where(line > 0, places, torch.full_like(line, 1e6)).amin(1)
        return first, ((places + 1) * line).amax(1)


class NamedAnswers(ColourDetector):
    """Answers with a dict, which has more in it than is declared."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        output = super().forward(image)
        return {"extra": output * 2, OUTPUT[0]: output}


class Unscriptable(ColourDetector):
    """Written as TorchScript's compiler does not take it."""

    def forward(self, image: Tensor, *more: Tensor) -> Tensor:
        output = super().forward(image)
        for each in more:
            output = output + each
        return output


class Surer(ColourDetector):
    """Is surer of everything than the others."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) * 1.01


class OneSize(ColourDetector):
    """Works on 96 x 96 only."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image.reshape(1, 3, 96, 96))


class Coarse(ColourDetector):
    """Answers in a type that numpy does not have."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).to(torch.bfloat16)


class Forgetful(ColourDetector):
    """Misses an attribute."""

    def forward(self, image: Tensor) -> Tensor:
        return image + self.forgotten


def plain() -> nn.Module:
    return ColourDetector()


def raw() -> nn.Module:
    return ColourDetector(Input())


def named() -> nn.Module:
    return NamedAnswers()


def unscriptable() -> nn.Module:
    return Unscriptable()


def surer() -> nn.Module:
    return Surer()


def one_size() -> nn.Module:
    return OneSize()


def coarse() -> nn.Module:
    return Coarse()


def forgetful() -> nn.Module:
    return Forgetful()


def failing() -> nn.Module:
    raise KeyError("weights")


def leaving() -> nn.Module:
    raise SystemExit(3)


def no_module() -> str:
    return "no module"


def write_bundle(folder: Path, taken: Input = TAKEN, **preprocess: Any) -> Path:
    """A folder with a `model.json` that has no artifact yet."""
    declared = manifest(
        "yolo",
        [OUTPUT],
        [*LABELS],
        input_shape=taken.shape,
        preprocess={**taken.preprocess, "size": [96, 128], "resize": "letterbox", **preprocess},
    )
    declared["networks"]["detector"].pop("artifacts")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(declared))
    return folder
