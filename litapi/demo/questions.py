"""The zero-shot questions that are asked of a scene: its colour, its shape, and both."""

from collections.abc import Sequence

from litapi.demo.caption import article
from litapi.demo.drawing import COLOURS, SHAPES, Scene

PROMPT = "this is a photo of {}."


def questions(scenes: Sequence[Scene]) -> dict[str, tuple[list[str], list[int]]]:
    """For "colour", "shape" and "both": the prompts, and which of them is true of each scene."""
    pairs = [article(f"{colour} {shape}") for colour in COLOURS for shape in SHAPES]
    asked: dict[str, tuple[Sequence[str], list[str]]] = {
        "colour": (COLOURS, [scene.colour for scene in scenes]),
        "shape": (SHAPES, [scene.shape for scene in scenes]),
        "both": (pairs, [article(f"{scene.colour} {scene.shape}") for scene in scenes]),
    }
    return {
        kind: ([PROMPT.format(label) for label in labels], [labels.index(t) for t in truth])
        for kind, (labels, truth) in asked.items()
    }
