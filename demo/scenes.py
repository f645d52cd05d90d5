"""Which scenes are trained: all but those that `litapi.demo.heldout` keeps back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from litapi.demo.caption import CHOICES
from litapi.demo.drawing import Scene
from litapi.demo.heldout import PAIRS, yardstick


def all_scenes() -> Iterator[Scene]:
    """Every combination of the attributes."""
    for values in product(*CHOICES.values()):
        yield Scene.of(dict(zip(CHOICES, values, strict=True)))


def is_held_out(scene: Scene) -> bool:
    """Whether its colour and shape are never drawn together in training."""
    return (scene.colour, scene.shape) in PAIRS


def trained_scenes() -> list[Scene]:
    """Those that a training may draw."""
    kept_back = set(yardstick())
    return [scene for scene in all_scenes() if not is_held_out(scene) and scene not in kept_back]
