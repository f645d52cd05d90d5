"""The training: sigmoid loss, after a crutch that is taken away.

The sigmoid loss alone starts from vectors that all point one way and stays there long. So training
begins with another question: linear classifiers, shared by both towers, ask each vector for the
attributes, which gives both towers the same axes. Until `CRUTCH` they alone count, then the
sigmoid loss takes over step by step, from `FREE` on it is alone. The classifiers are not saved.

The rest is order, from easy to hard. Shapes are by far the hardest to learn and are learned first
on white; then on every ground; then among near
duplicates. Most steps see the busiest patches of each picture, the last ones all of them, as the
model will.
"""

import math
from collections.abc import Iterator, Sequence
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import Siglip2Model, Siglip2Tokenizer

from demo.batch import IMPOSSIBLE, UNSTATED, Batch, batch, families
from demo.network import WIDTH, image_vectors, text_vectors
from demo.tokenizer import POSITIONS
from litapi.demo.caption import CHOICES
from litapi.demo.drawing import Scene

PICTURES = 64
RATE = 1e-3
WARM_UP = 40
# Shares of the steps: until when white alone is shown, the classifiers alone count, they count at
# all, and from when the rate falls.
WHITE, CRUTCH, FREE, FALL = 0.2, 0.45, 0.75, 0.6
TEXTS_EVERY = 4  # while the classifiers alone count: captions are soon learned
HARDEST = {"shape": 3.0}
# Until a share of the steps: patch budget, patches kept, how often.
SCHEDULE = (
    (WHITE, ((256, 48, 100),)),
    (0.95, ((256, 48, 70), (256, 96, 8), (121, 48, 8), (64, 64, 14))),
    (1.0, ((256, 256, 85), (121, 121, 10), (64, 64, 5))),
)


class Lesson:
    def __init__(
        self, model: Siglip2Model, tokenizer: Siglip2Tokenizer, scenes: Sequence[Scene], seed: int
    ) -> None:
        self.model, self.tokenizer, self.seed = model, tokenizer, seed
        self.scenes = scenes
        self.white = [scene for scene in scenes if scene.background == "white"]
        self.classifiers = nn.ModuleList(nn.Linear(WIDTH, len(v)) for v in CHOICES.values())
        self.optimizer = torch.optim.AdamW(self._groups(), lr=RATE, betas=(0.9, 0.98))

    def steps(self, many: int) -> Iterator[float]:
        """Yields the loss of each step."""
        self.model.train()
        for step in range(many):
            rng = Random(f"lesson {self.seed} {step}")
            done = step / many
            lesson = batch(self._chosen(done, rng), *_view(done, rng), rng)
            self._set_rate(step, done)
            yield self._learn(lesson, _crutch(done), texts=done >= CRUTCH or not step % TEXTS_EVERY)
        self.model.eval()

    def _chosen(self, done: float, rng: Random) -> list[Scene]:
        if done >= CRUTCH:
            return families(self.scenes, PICTURES, rng)
        return rng.sample(self.white if done < WHITE else self.scenes, PICTURES)

    def _learn(self, lesson: Batch, crutch: float, texts: bool) -> float:
        loss = torch.zeros(())
        patches, kept = torch.from_numpy(lesson.patches), torch.from_numpy(lesson.kept)
        images = image_vectors(self.model, patches, lesson.grid, kept)
        if crutch:
            loss = loss + crutch * self._naming(images, lesson.pictured)
        if texts:
            said = text_vectors(self.model, self._tokens(lesson.captions))
            loss = loss + crutch * self._naming(said, lesson.stated)
            matches = torch.from_numpy(lesson.matches)
            loss = loss + (1 - crutch) * sigmoid_loss(self.model, images, said, matches)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimizer.step()
        return loss.item()

    def _naming(self, vectors: Tensor, indices: NDArray[np.int64]) -> Tensor:
        truth = torch.from_numpy(indices)
        truth = truth.where(truth != IMPOSSIBLE, UNSTATED)
        spread = vectors * math.sqrt(WIDTH)
        losses = [
            functional.cross_entropy(classify(spread), wanted, ignore_index=UNSTATED)
            * HARDEST.get(name, 1.0)
            for name, classify, wanted in zip(CHOICES, self.classifiers, truth.T, strict=True)
        ]
        return torch.stack(losses).sum()

    def _tokens(self, captions: list[str]) -> Tensor:
        tokens: Tensor = self.tokenizer(
            captions, padding="max_length", max_length=POSITIONS, return_tensors="pt"
        )["input_ids"]
        return tokens

    def _groups(self) -> list[dict[str, object]]:
        """Scale and bias have far to go; the filters are good already."""
        thresholds = [self.model.logit_scale, self.model.logit_bias]
        filters = list(self.model.vision_model.embeddings.patch_embedding.parameters())
        apart = {id(parameter) for parameter in (*thresholds, *filters)}
        rest = [p for p in self.model.parameters() if id(p) not in apart]
        return [
            {"params": [*rest, *self.classifiers.parameters()], "weight_decay": 1e-3, "by": 1.0},
            {"params": filters, "weight_decay": 0.0, "by": 0.3},
            {"params": thresholds, "weight_decay": 0.0, "by": 5.0},
        ]

    def _set_rate(self, step: int, done: float) -> None:
        rate = RATE * min(1, (step + 1) / WARM_UP, (1 - done) / (1 - FALL))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["by"]


def sigmoid_loss(model: Siglip2Model, images: Tensor, texts: Tensor, matches: Tensor) -> Tensor:
    """Each caption with each picture is a question of its own: do they belong together?"""
    logits = texts @ images.T * model.logit_scale.exp() + model.logit_bias
    signs = matches.float() * 2 - 1
    return -functional.logsigmoid(signs * logits).sum() / images.shape[0]


def _crutch(done: float) -> float:
    return min(1.0, max(0.0, (FREE - done) / (FREE - CRUTCH)))


def _view(done: float, rng: Random) -> tuple[int, int]:
    """Patch budget and how many patches of it are kept."""
    views = next(views for until, views in SCHEDULE if done < until)
    budget, keep, _ = rng.choices(views, [weight for *_, weight in views])[0]
    return budget, keep
