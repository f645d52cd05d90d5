"""One training step's pictures and captions, and which belong together.

Each picture brings one caption of everything and one of only a part; a part is right for every
picture that agrees with it, so `matches` may have many ones a row. `families` choose scenes for
hard batches: one and three others that each differ from it in one attribute, so that every
difference matters somewhere. All pictures share one canvas and hence one grid of patches; canvas
and patch budget vary from batch to batch.

Most patches are plain paper. A batch may keep only some of each picture, those with something in
them first: a fifth of the work, and what there is to learn is not drowned.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.network import PATCH
from litapi.demo.caption import CHOICES, Stated, stranger, varied
from litapi.demo.drawing import CANVASES, Scene, draw
from litapi.demo.heldout import PAIRS, yardstick
from litapi.model.pixels import grid_for

FAMILY = 4
UNSTATED = -1  # an attribute that the caption leaves open
IMPOSSIBLE = -2  # no picture has it: the caption of a stranger
# Attributes named one by one in "a photo of red" or "circle" are the usual zero-shot question.
FAVOURED = (*CHOICES, "colour", "shape", "colour", "shape")
HOW_MANY = (1, 1, 1, 2, 2, 2, 3, 4, 5)
STRANGE = 0.04


def all_scenes() -> Iterator[Scene]:
    """Every combination of the attributes."""
    for values in product(*CHOICES.values()):
        yield Scene.of(dict(zip(CHOICES, values, strict=True)))


def is_held_out(scene: Scene) -> bool:
    """Whether its colour and shape are never drawn together in training."""
    return (scene.colour, scene.shape) in PAIRS


def trained_scenes() -> list[Scene]:
    """Those that a training may draw: all but those that `litapi.demo.heldout` keeps back."""
    kept_back = set(yardstick())
    return [scene for scene in all_scenes() if not is_held_out(scene) and scene not in kept_back]


@dataclass(frozen=True, slots=True)
class Batch:
    patches: NDArray[np.float32]  # pictures x kept x values, in -1..1
    kept: NDArray[np.int64]  # pictures x kept: their places in the grid
    grid: tuple[int, int]
    captions: list[str]
    pictured: NDArray[np.int64]  # pictures x attributes: the index of each one's value
    stated: NDArray[np.int64]  # captions x attributes

    @property
    def matches(self) -> NDArray[np.bool_]:
        stated, pictured = self.stated[:, None], self.pictured[None]
        agreeing: NDArray[np.bool_] = ((stated == pictured) | (stated == UNSTATED)).all(axis=2)
        return agreeing


def batch(scenes: Sequence[Scene], budget: int, keep: int, rng: Random) -> Batch:
    canvas = rng.choice(CANVASES)
    grid = grid_of(canvas, budget)
    images = [draw(scene, rng.getrandbits(40), canvas) for scene in scenes]
    whole = [(varied(scene.attributes(), rng), scene.attributes()) for scene in scenes]
    parts = [_part(scene, rng) for scene in scenes]
    captions, stated = zip(*whole, *parts, strict=True)
    patches = np.stack([patchify(image, grid) for image in images])
    kept = _busiest(patches, keep, rng)
    return Batch(
        patches=np.take_along_axis(patches, kept[:, :, None], axis=1),
        kept=kept,
        grid=grid,
        captions=list(captions),
        pictured=np.array([_indices(scene.attributes()) for scene in scenes]),
        stated=np.array([_indices(part) for part in stated]),
    )


def families(scenes: Sequence[Scene], size: int, rng: Random) -> list[Scene]:
    allowed = set(scenes)
    chosen: list[Scene] = []
    while len(chosen) < size:
        head = rng.choice(scenes)
        near = (head.but(name, rng) for name in rng.sample(list(CHOICES), len(CHOICES)))
        chosen += [head, *[scene for scene in near if scene in allowed][: FAMILY - 1]]
    return chosen[:size]


def grid_of(canvas: tuple[int, int], budget: int) -> tuple[int, int]:
    """Rows and columns, by the processor's own rule."""
    return grid_for(canvas[1], canvas[0], PATCH, budget)


def patchify(image: Image.Image, grid: tuple[int, int]) -> NDArray[np.float32]:
    rows, columns = grid
    sized = image.resize((columns * PATCH, rows * PATCH), Image.Resampling.BILINEAR)
    pixels = np.asarray(sized, dtype=np.float32) / np.float32(127.5) - np.float32(1)
    cut = pixels.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 1, 3, 4)
    return cut.reshape(rows * columns, -1)


def _busiest(patches: NDArray[np.float32], keep: int, rng: Random) -> NDArray[np.int64]:
    """The places of the patches that vary most; among the plain ones, chance decides."""
    chance = np.random.default_rng(rng.getrandbits(32)).random(patches.shape[:2]) * 0.02
    order = np.argsort(-(patches.std(axis=2) + chance), axis=1, kind="stable")
    return np.sort(order[:, :keep], axis=1)


def _part(scene: Scene, rng: Random) -> tuple[str, Stated | None]:
    if rng.random() < STRANGE:
        return stranger(rng), None
    names = {rng.choice(FAVOURED) for _ in range(rng.choice(HOW_MANY))}
    stated = scene.stating(*names)
    return varied(stated, rng), stated


def _indices(stated: Stated | None) -> list[int]:
    if stated is None:
        return [IMPOSSIBLE] * len(CHOICES)
    return [
        values.index(stated[name]) if name in stated else UNSTATED
        for name, values in CHOICES.items()
    ]
