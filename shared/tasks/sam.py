"""Family `sam`: SAM, MobileSAM, EfficientSAM and what else speaks its prompts (see shared.tasks.mask_decoder).

Networks `encoder` and `decoder`. SAM's and MobileSAM's pictures are letterboxed at the top left; EfficientSAM's are
stretched. Who gives a point but no box also gives the point [0, 0] with label -1, as segment-anything's ONNX example
does; an export with nested points adds that itself.
Source: segment_anything/utils/onnx.py and notebooks/onnx_model_example.ipynb of facebookresearch/segment-anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.tasks.mask_decoder import Traits
from shared.tasks.promptable import PromptableTask

if TYPE_CHECKING:
    from shared.manifest import Bundle


def task(bundle: Bundle) -> PromptableTask:
    return PromptableTask(bundle, Traits(padding_point=True, one_mask=True))
