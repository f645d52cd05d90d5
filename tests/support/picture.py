"""Drawn pictures as files, the input of most tests of images."""

import io
from random import Random

from litapi.demo.drawing import Scene, draw


def picture(number: int, form: str = "PNG") -> bytes:
    """An encoded drawn picture; each number is a picture of its own."""
    buffer = io.BytesIO()
    draw(Scene.random(Random(number)), seed=number).save(buffer, form)
    return buffer.getvalue()
