"""Which scenes are never trained, and the two sets that are judged on them.

- Held out: eight pairs of colour and shape, one of each, are never drawn together in training, so
  these pictures ask for a combination that was never seen. One scene for each pair, size and count.
- Yardstick: scenes grown by changing one attribute of an earlier one, so nearly every picture has
  captions beside its own that differ in a single word. Harder, and finer-grained: for telling
  whether a faster engine still gives the right vectors.

Pictures of both are drawn with seeds that training does not use.
"""

from collections.abc import Sequence
from itertools import product
from random import Random

from PIL import Image

from litapi.demo.caption import CHOICES
from litapi.demo.drawing import BACKGROUNDS, COLOURS, COUNTS, POSITIONS, SHAPES, SIZES, Scene, draw

# 5 has no factor in common with 8, so every colour and every shape is held out once.
PAIRS = tuple((colour, SHAPES[(5 * i + 2) % len(SHAPES)]) for i, colour in enumerate(COLOURS))
YARDSTICK = 800


def heldout_scenes() -> list[Scene]:
    """48 scenes; positions and backgrounds are dealt round so that each comes about as often."""
    kinds = product(PAIRS, SIZES, COUNTS)
    return [
        Scene(*pair, size, count, POSITIONS[i % 5], BACKGROUNDS[(i + i // 4) % 4])
        for i, (pair, size, count) in enumerate(kinds)
    ]


def yardstick(n: int = YARDSTICK) -> list[Scene]:
    """The first n of one fixed sequence: a smaller yardstick is the beginning of a larger one."""
    rng = Random("yardstick")
    grown = [Scene.random(rng)]
    seen = set(grown)
    while len(grown) < n:
        scene = rng.choice(grown).but(rng.choice(list(CHOICES)), rng)
        if scene not in seen:
            seen.add(scene)
            grown.append(scene)
    return grown


def pictures(scenes: Sequence[Scene], name: str) -> list[Image.Image]:
    """One drawing a scene; the name ("heldout", "yardstick") keeps the seeds apart."""
    return [draw(scene, f"{name} {index}") for index, scene in enumerate(scenes)]
