"""Family `sam2`: SAM 2's networks for still pictures, `encoder` and `decoder`.

The encoder gives features of three sizes, which the decoder takes by their names; pictures are stretched to 1024 x
1024, and the masks back from the decoder's own size in one step. The padding point is added inside the graph.
Source: sam2/sam2_image_predictor.py and sam2/utils/transforms.py of facebookresearch/sam2, and
samexporter/export_sam2.py of vietanhdev/samexporter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.tasks.mask_decoder import Traits
from shared.tasks.promptable import PromptableTask

if TYPE_CHECKING:
    from shared.manifest import Bundle


def task(bundle: Bundle) -> PromptableTask:
    return PromptableTask(bundle, Traits(padding_point=False, one_mask=False))
