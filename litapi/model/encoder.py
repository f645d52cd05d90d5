"""SigLIP 2 itself: one tower, from model input to unit float32 vectors.

What computes is an engine (`engines`); here it is chosen, and its rows are made unit length. Knows
nothing of HTTP, and torch only where the engine does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, Self

import numpy as np

from litapi.checkpoint import Checkpoint
from litapi.messages import Kind
from litapi.model.engines import Engine, Ids, Items, choose_engine
from litapi.model.engines.slots import Collect
from litapi.model.pixels import Pixels
from litapi.model.precision import PRECISIONS as PRECISIONS
from litapi.model.precision import choose_precision as choose_precision
from litapi.model.precision import require_able, require_device, require_known
from litapi.model.probes import Vectors as Vectors
from litapi.model.probes import unit

if TYPE_CHECKING:
    from litapi.model.engines.calibration import Calibration


class Encoder(Generic[Items]):
    """What both towers have in common. `name` is the engine's."""

    kind: ClassVar[Kind]

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
        """Load this tower alone. `threads` above 0 sets the engine's threads.

        A compiled NaFlex tower pads every picture to `patches`, by default the checkpoint's.
        `cache` is the folder of converted towers (by default the user's), `calibration` what int8
        is calibrated on (by default the drawn pairs). Raises CheckpointError where weights are
        missing or the device, precision, engine or compiler is not there.
        """
        require_known(precision)
        require_device(device)
        chosen = choose_engine(engine, device)
        require_able(precision, device, chosen)
        if chosen == "torch":
            from litapi.model.engines.torch_engine import TOWERS

            load = TOWERS[cls.kind].load
            return cls(load(checkpoint, device, precision, threads, compile, patches))
        from litapi.model.engines.making import open_tower

        return cls(open_tower(cls.kind, checkpoint, precision, threads, cache, calibration))

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

    kind = "text"


class ImageEncoder(Encoder[Sequence[Pixels]]):
    """The image tower, of a fixed resolution or NaFlex."""

    kind = "image"
