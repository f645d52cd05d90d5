"""transformers' image processor: what own pixels are compared with. Loading it loads torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from litapi.checkpoint import Checkpoint


def values_of(processor: Any, picture: Image.Image) -> npt.NDArray[np.float32]:
    """transformers' values for a picture, without padding: shaped as `Pixels.patches`."""
    made = processor(images=picture, return_tensors="np")
    values: npt.NDArray[np.float32] = made["pixel_values"][0]
    if "pixel_attention_mask" not in made:
        return values.transpose(1, 2, 0)
    return values[: int(made["pixel_attention_mask"][0].sum())]


def load_reference_processor(checkpoint: Checkpoint) -> Any:
    """transformers' PIL image processor for `checkpoint`, with the settings of its folder. Named
    outright: which one AutoImageProcessor takes depends on whether torchvision is installed."""
    if checkpoint.naflex:
        from transformers.models.siglip2 import image_processing_pil_siglip2 as siglip2

        return siglip2.Siglip2ImageProcessorPil.from_pretrained(checkpoint.folder)
    from transformers.models.siglip import image_processing_pil_siglip as siglip

    return siglip.SiglipImageProcessorPil.from_pretrained(checkpoint.folder)
