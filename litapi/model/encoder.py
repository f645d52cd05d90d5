"""SigLIP 2 itself: one tower, from model input to unit float32 vectors.

What computes is an engine (`engines`); here it is chosen, and its rows are made unit length. Knows
nothing of HTTP, and torch only where the engine does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Self

import numpy as np
import numpy.typing as npt

from litapi.checkpoint import Checkpoint
from litapi.model.engines import Engine, Ids, Items, choose_engine
from litapi.model.engines.slots import Collect
from litapi.model.pixels import Pixels
from litapi.model.precision import PRECISIONS as PRECISIONS
from litapi.model.precision import choose_precision as choose_precision
from litapi.model.precision import require_able, require_device, require_known
from litapi.model.probes import Probes

if TYPE_CHECKING:
    from litapi.model.engines.calibration import Calibration

Vectors = npt.NDArray[np.float32]


class Encoder(Generic[Items]):
    """What both towers have in common. `name` is the engine's."""

    def __init__(self, engine: Engine[Items]) -> None:
        self.engine = engine
        self.name: str = engine.name
        self.compiled: bool = engine.compiled
        self.device: str = engine.device
        self.precision: str = engine.precision
        self.arithmetic: str = engine.arithmetic
        self.parameters: int = engine.parameters
        self.dim: int = engine.dim
        self.depth: int = engine.depth

    def probes(self) -> Probes:
        found: Probes = self.engine.probes()
        return found

    def relieve(self) -> None:
        """Give back what the engine keeps of its device's memory and does not use."""
        self.engine.relieve()

    def submit(self, items: Items) -> Collect:
        """Begin with n items; what is returned waits for their unit vectors (n, dim).

        It must be called once, and from the thread that has the batches: `depth` of them are worth
        having under way.
        """
        if not len(items):
            return lambda: np.empty((0, self.dim), np.float32)
        collect = self.engine.submit(items)
        return lambda: unit(collect())

    def embed(self, items: Items) -> Vectors:
        """n items → unit vectors (n, dim)."""
        return self.submit(items)()


class TextEncoder(Encoder[Ids]):
    """The text tower. Its items are token ids (n, 64)."""

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        device: str = "cpu",
        precision: str = "float32",
        threads: int = 0,
        compile: bool = False,  # noqa: A002 - what torch calls it
        *,
        engine: str = "auto",
        cache: Path | None = None,
        calibration: Calibration | None = None,
    ) -> Self:
        """Load the text tower alone. `threads` above 0 sets the engine's threads.

        `cache` is the folder of converted towers (by default the user's), `calibration` what int8
        is calibrated on (by default the drawn pairs). Raises CheckpointError where weights are
        missing or the device, precision, engine or compiler is not there.
        """
        if _chosen(engine, precision, device) == "torch":
            from litapi.model.engines.torch_engine import TorchText

            return cls(TorchText.load(checkpoint, device, precision, threads, compile))
        from litapi.model.engines.making import open_text

        return cls(open_text(checkpoint, precision, threads, cache, calibration))


class ImageEncoder(Encoder[Sequence[Pixels]]):
    """The image tower, of a fixed resolution or NaFlex."""

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        device: str = "cpu",
        precision: str = "float32",
        threads: int = 0,
        compile: bool = False,  # noqa: A002 - what torch calls it
        patches: int = 0,
        *,
        engine: str = "auto",
        cache: Path | None = None,
        calibration: Calibration | None = None,
    ) -> Self:
        """Load the image tower alone, as `TextEncoder.load`. A compiled NaFlex tower pads every
        picture to `patches`, by default the checkpoint's."""
        if _chosen(engine, precision, device) == "torch":
            from litapi.model.engines.torch_engine import TorchImages

            return cls(TorchImages.load(checkpoint, device, precision, threads, compile, patches))
        from litapi.model.engines.making import open_images

        return cls(open_images(checkpoint, precision, threads, cache, calibration))


def _chosen(engine: str, precision: str, device: str) -> str:
    require_known(precision)
    require_device(device)
    chosen = choose_engine(engine, device)
    require_able(precision, device, chosen)
    return chosen


def unit(rows: Vectors) -> Vectors:
    """Unit length in float32, whatever the tower computes in."""
    found: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return found
