"""The pictures: a few equal shapes of one colour on a plain ground.

A `Scene` says what the picture shows; a seed settles everything it leaves open (canvas, exact
place, tilt, shade), so `draw(scene, seed)` is the same picture everywhere. Only Pillow is needed.

    scene = Scene("red", "star", "large", 2, "left", "white")
    draw(scene, seed=7).show()
    scene.caption()  # "two large red stars on the left on a white background"

Radii follow the square root of the area, not the shorter side: a NaFlex processor keeps the area,
so small and large stay apart on every aspect ratio.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import cast

from PIL import Image, ImageDraw

from litapi.demo.caption import CHOICES, Stated, Value, plain, varied

COLOURS = cast("tuple[str, ...]", CHOICES["colour"])
SHAPES = cast("tuple[str, ...]", CHOICES["shape"])
SIZES = cast("tuple[str, ...]", CHOICES["size"])
COUNTS = cast("tuple[int, ...]", CHOICES["count"])
POSITIONS = cast("tuple[str, ...]", CHOICES["position"])
BACKGROUNDS = cast("tuple[str, ...]", CHOICES["background"])

Point = tuple[float, float]
Colour = tuple[int, int, int]

# Width and height, from 8:5 to 5:8, of different areas.
CANVASES = (
    (256, 256), (224, 224), (160, 160), (240, 180), (320, 240), (180, 240),
    (300, 200), (200, 300), (288, 192), (320, 200), (200, 320), (250, 200),
)  # fmt: skip
# Every ink is darker than every paper, so a shape is a dip in brightness whatever the colours.
INKS: dict[str, Colour] = {
    "red": (215, 25, 30), "orange": (240, 125, 10), "yellow": (220, 185, 0),
    "green": (30, 140, 50), "blue": (30, 75, 215), "purple": (125, 35, 165),
    "pink": (240, 95, 165), "brown": (115, 65, 25),
}  # fmt: skip
PAPERS: dict[str, Colour] = {
    "white": (248, 248, 248), "grey": (205, 205, 205), "beige": (240, 222, 185),
    "mint": (185, 238, 212),
}  # fmt: skip
RADII = {"small": (0.060, 0.065), "large": (0.100, 0.107)}
OVERSAMPLING = 2


@dataclass(frozen=True)
class Scene:
    colour: str
    shape: str
    size: str = "large"
    count: int = 1
    position: str = "middle"
    background: str = "white"

    def __post_init__(self) -> None:
        for name, value in self.attributes().items():
            if value not in CHOICES[name]:
                raise ValueError(f"{name} must be one of {CHOICES[name]}, not {value!r}")

    @classmethod
    def of(cls, attributes: Stated) -> "Scene":
        return cls(**attributes)  # type: ignore[arg-type]

    @classmethod
    def random(cls, rng: Random) -> "Scene":
        return cls.of({name: rng.choice(values) for name, values in CHOICES.items()})

    def attributes(self) -> dict[str, Value]:
        return asdict(self)

    def stating(self, *names: str) -> dict[str, Value]:
        """Only these attributes, to caption a scene by a part of it."""
        return {name: value for name, value in self.attributes().items() if name in names}

    def but(self, name: str, rng: Random) -> "Scene":
        """The same scene with one attribute changed: a near duplicate."""
        others = [value for value in CHOICES[name] if value != getattr(self, name)]
        return replace(self, **{name: rng.choice(others)})  # type: ignore[arg-type]

    def caption(self, *names: str) -> str:
        return plain(self.stating(*(names or CHOICES)))


def captions(scene: Scene, seed: int = 0, many: int = 8) -> list[str]:
    """The canonical caption and other full wordings of it, all different."""
    rng = Random(f"captions {seed} {scene}")
    found = {scene.caption(): None}
    while len(found) < many:
        found[varied(scene.attributes(), rng)] = None
    return list(found)


def draw(scene: Scene, seed: int | str = 0, canvas: tuple[int, int] | None = None) -> Image.Image:
    rng = Random(f"drawing {seed} {scene}")
    drawn_canvas = rng.choice(CANVASES)  # drawn even when given, so that the rest stays the same
    width, height = (side * OVERSAMPLING for side in canvas or drawn_canvas)
    paper, ink = _shade(PAPERS[scene.background], rng), _shade(INKS[scene.colour], rng)
    image = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(image)
    radius = rng.uniform(*RADII[scene.size]) * math.sqrt(width * height)
    for centre in _centres(scene, (width, height), radius, rng):
        outline = _placed(OUTLINES[scene.shape], centre, radius, rng.uniform(-0.1, 0.1))
        pen.polygon(outline, fill=ink)
        if scene.shape == "ring":
            pen.polygon(_placed(OUTLINES["circle"], centre, radius * 0.55, 0), fill=paper)
    return image.reduce(OVERSAMPLING)


def _shade(colour: Colour, rng: Random) -> Colour:
    shift = rng.randint(-7, 7)
    red, green, blue = (min(255, max(0, c + shift + rng.randint(-5, 5))) for c in colour)
    return red, green, blue


def _centres(scene: Scene, canvas: tuple[int, int], radius: float, rng: Random) -> list[Point]:
    """Side by side, in a column at the left and right, in a row at the top and bottom."""
    upright = scene.position in ("left", "right")
    if scene.position == "middle":
        upright = rng.random() < 0.5
    along, across = (canvas[1], canvas[0]) if upright else canvas
    fixed = across * _offset(scene.position, rng)
    gap = rng.uniform(0.5, 0.8) * radius
    step = min(2 * radius + gap, (along * 0.98 - 2 * radius) / max(1, scene.count - 1))
    reach = step * (scene.count - 1) / 2
    slack = min(0.08 * along, along / 2 - reach - radius)
    start = along / 2 + rng.uniform(-slack, slack) - reach
    line = [start + step * index for index in range(scene.count)]
    return [(fixed, at) if upright else (at, fixed) for at in line]


def _offset(position: str, rng: Random) -> float:
    jitter = rng.uniform(-0.03, 0.03)
    return {"left": 0.2, "top": 0.2, "middle": 0.5, "right": 0.8, "bottom": 0.8}[position] + jitter


def _placed(
    outline: Sequence[Point], centre: Point, radius: float, tilt: float
) -> list[tuple[float, float]]:
    cos, sin = math.cos(tilt) * radius, math.sin(tilt) * radius
    return [(centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos) for x, y in outline]


def _arc(start: float, stop: float, steps: int = 40) -> list[Point]:
    turns = [start + (stop - start) * index / steps for index in range(steps + 1)]
    return [(math.cos(turn * math.tau), math.sin(turn * math.tau)) for turn in turns]


def _spikes(points: int, inner: float) -> list[Point]:
    tips = [(math.tau * k / (2 * points), 1.0 if k % 2 == 0 else inner) for k in range(2 * points)]
    return [(far * math.sin(turn), -far * math.cos(turn)) for turn, far in tips]


def _heart(steps: int = 40) -> list[Point]:
    turns = [math.tau * index / steps for index in range(steps)]
    waves = (1, 13), (2, -5), (3, -2), (4, -1)
    return [
        (math.sin(t) ** 3, -sum(weight * math.cos(n * t) for n, weight in waves) / 16.5)
        for t in turns
    ]


def _moon() -> list[Point]:
    """An arc of the unit circle, and back along a circle that is shifted to the right."""
    bite = [(0.45 + 0.78 * x, 0.78 * y) for x, y in _arc(0.75, 0.25)]
    return [*_arc(0.185, 0.815), *bite]


OUTLINES: dict[str, list[Point]] = {
    "circle": _arc(0, 1),
    "ring": _arc(0, 1),
    "square": [(x * 0.85, y * 0.85) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))],
    "triangle": [(0, -1), (0.95, 0.75), (-0.95, 0.75)],
    "star": _spikes(5, 0.42),
    "cross": [
        (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3),
        (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3),
    ],
    "heart": _heart(),
    "moon": _moon(),
}  # fmt: skip
