"""From a JPEG to model input: own way ÷ (Pillow's decode + the reference processor), CPU time.

    python -m bench.micro.pixels
    python -m bench.micro.pixels --sizes 640x480 --rounds 3 --seconds 0.2

Both ways begin with the bytes of a file and end with the float32 values that the tower takes; that
they are equal to the bit is asserted before anything is timed. They take turns, slice by slice,
and are compared within each round. Exit code 0: all targets met; 1: not; 2: not equal.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.load.photo import jpeg
from bench.rig.command import Figures, Target, concluded, failing, in_turn, measuring, per_second
from bench.rig.random_checkpoint import SIZES, write_size
from litapi.checkpoint import Checkpoint
from litapi.model.picture import PictureReader
from litapi.model.pixels import PixelMaker

KINDS = {"NaFlex": "so400m-patch16-naflex", "fixed 224": "base-patch16-224"}
SHAPES = ((640, 480), (1920, 1080), (4000, 3000))
LIMITS = {(640, 480): 0.75, (4000, 3000): 0.65}
# No tower is run.
THIN: dict[str, Any] = {"width": 64, "layers": 1, "heads": 1, "mlp": 64, "vocabulary": 1000}
COLUMNS = ("kind", "size", "KB", "own ms", "least", "most", "reference ms", "ratio")

Values = np.ndarray[Any, np.dtype[np.float32]]


class PixelsDiffer(Exception):
    """The two ways do not end with the same values, so their times say nothing."""


class Ways:
    """The two ways from bytes to values, for one checkpoint."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoImageProcessor

        self._reader = PictureReader()
        self._maker = PixelMaker(Checkpoint.open(folder))
        self._processor = AutoImageProcessor.from_pretrained(folder, backend="pil")

    def own(self, data: bytes) -> Values:
        """As a worker does it, with the table that its encoder looks values up in."""
        pixels = self._maker.make(self._reader.read(data))
        values: Values = self._maker.table.take(pixels.patches)
        return values

    def reference(self, data: bytes) -> Values:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        made = self._processor(images=picture, return_tensors="np")
        values: Values = made["pixel_values"][0]
        return values

    def compare(self, data: bytes) -> None:
        """Raises PixelsDiffer unless the values are equal to the bit."""
        own, reference = self.own(data), self.reference(data)
        if self._maker.naflex:
            reference = reference[: len(own)]  # the rest is padding
        else:
            own = own.transpose(2, 0, 1)
        if own.tobytes() != reference.tobytes():
            raise PixelsDiffer("own values are not the reference's")


@dataclass(slots=True)
class Row:
    """One size of picture for one kind of checkpoint: milliseconds of CPU for a picture."""

    kind: str
    shape: tuple[int, int]
    data: bytes
    ways: Ways
    figures: Figures = field(default_factory=lambda: Figures(list))

    @property
    def name(self) -> str:
        return "{} × {}".format(*self.shape)

    @property
    def ratio(self) -> float:
        return self.figures.ratio("own_ms", "reference_ms")

    def measure(self, seconds: float, turned: bool) -> None:
        """A slice of each; `turned` lets the reference go first."""
        slices = [("own_ms", self.ways.own), ("reference_ms", self.ways.reference)]
        for name, way in reversed(slices) if turned else slices:
            rate = per_second(partial(way, self.data), seconds, time.process_time)
            self.figures[name].append(1e3 / rate)  # CPU time of all threads

    def cells(self) -> list[str]:
        own, (reference, *_) = (self.figures.cells(one, ".2f") for one in sorted(self.figures))
        kilobytes = f"{len(self.data) / 1e3:.0f}"
        return [self.kind, self.name, kilobytes, *own, reference, f"{self.ratio:.2f}"]

    def fields(self) -> dict[str, Any]:
        width, height = self.shape
        size = {"kind": self.kind, "width": width, "height": height, "bytes": len(self.data)}
        return {**size, **self.figures.fields(), "ratio": round(self.ratio, 3)}


def compare(shapes: Sequence[tuple[int, int]], rounds: int, seconds: float) -> list[Row]:
    """Measure.

    Raises:
        PixelsDiffer: the values of a way are wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            kind: Ways(write_size(Path(folder, size), replace(SIZES[size], **THIN)))
            for kind, size in KINDS.items()
        }
    files = {shape: jpeg(*shape) for shape in shapes}
    rows = [Row(kind, shape, files[shape], ways[kind]) for kind in KINDS for shape in shapes]
    for row in rows:
        row.ways.compare(row.data)
    for number, row in in_turn(rows, rounds, "pixels"):
        row.measure(seconds, turned=number % 2 == 1)
    return rows


def _shape(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


@failing(PixelsDiffer)
def main(arguments: Sequence[str] | None = None) -> int:
    parser = measuring("bench.micro.pixels", __doc__, 9, 0.5, "CPU time of one slice")
    parser.add_argument("--sizes", type=_shape, nargs="+", default=SHAPES, metavar="WxH")
    options = parser.parse_args(arguments)
    rows = compare(options.sizes, options.rounds, options.seconds)
    targets = [
        Target(f"{row.kind}, {row.name}", row.ratio, at_most=LIMITS[row.shape])
        for row in rows
        if row.shape in LIMITS
    ]
    fields = {"rows": [row.fields() for row in rows]}
    return concluded("pixels", options, [COLUMNS, *(row.cells() for row in rows)], targets, fields)


if __name__ == "__main__":
    sys.exit(main())
