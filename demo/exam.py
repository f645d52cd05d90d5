"""What a saved folder is worth: loaded through AutoModel and AutoProcessor, judged by `judge`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

from litapi.demo.drawing import Scene
from litapi.demo.heldout import heldout_scenes, pictures, yardstick
from litapi.demo.judge import Vectors, retrieval, unit, zero_shot
from litapi.demo.questions import questions
from litapi.scoring import Sigmoid

CHUNK = 32
SHORT = 200  # a yardstick for tests, which cannot wait for the whole

SETS = {
    "heldout": ("heldout", heldout_scenes),
    "yardstick": ("yardstick", yardstick),
    "yardstick_short": ("yardstick", lambda: yardstick(SHORT)),
}


class Exam:
    def __init__(self, folder: Path) -> None:
        self.model = AutoModel.from_pretrained(folder).eval()
        self.processor = AutoProcessor.from_pretrained(folder)

    def figures(self, which: str) -> dict[str, Any]:
        """Retrieval, zero-shot accuracy and verdicts on one of SETS."""
        name, scenes_of = SETS[which]
        scenes = scenes_of()
        images = self.images(pictures(scenes, name))
        texts = self.texts([scene.caption() for scene in scenes])
        return {
            "scenes": len(scenes),
            "retrieval": retrieval(images, texts),
            "zero_shot": self.zero_shot(images, scenes),
            "verdicts": self.verdicts(images, texts),
        }

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> Vectors:
        chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
        rows = [
            self.model.get_image_features(**self.processor(images=chunk, return_tensors="pt"))
            for chunk in chunks
        ]
        return unit(np.concatenate([row.pooler_output.numpy() for row in rows]))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Vectors:
        tokens = self.processor(text=list(texts), return_tensors="pt")["input_ids"]
        return unit(self.model.get_text_features(tokens).pooler_output.numpy())

    def zero_shot(self, images: Vectors, scenes: Sequence[Scene]) -> dict[str, float]:
        """By the labels "red", "circle" and "a red circle"."""
        return {
            kind: zero_shot(images, self.texts(prompts), truth)
            for kind, (prompts, truth) in questions(scenes).items()
        }

    def verdicts(self, images: Vectors, texts: Vectors) -> dict[str, float]:
        """How often the score falls on the right side of one half."""
        sigmoid = Sigmoid(self.model.logit_scale.exp().item(), self.model.logit_bias.item())
        accepted = sigmoid(images @ texts.T) > 0.5
        right = np.eye(len(images), dtype=bool)
        return {
            "right_pairs_accepted": float(accepted[right].mean()),
            "wrong_pairs_refused": float(1 - accepted[~right].mean()),
        }


def examine(folder: Path) -> dict[str, Any]:
    exam = Exam(folder)
    return {which: exam.figures(which) for which in SETS}
