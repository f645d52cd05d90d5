"""The towers as `settings` would have them served: engine, precision, compiling, calibration.

For a worker, the quality gate, and whoever wants the service's vectors without its HTTP.
"""

from __future__ import annotations

from typing import Any

from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.messages import Kind
from litapi.model.encoder import ImageEncoder, TextEncoder
from litapi.model.engines import choose_engine
from litapi.model.engines.calibration import Calibration
from litapi.model.precision import choose_precision
from litapi.settings import Settings


def text_encoder(
    settings: Settings, checkpoint: Checkpoint, device: str = "cpu", threads: int = 0
) -> TextEncoder:
    """The text tower. Raises CheckpointError, which names the option that cannot be met."""
    return TextEncoder.load(checkpoint, device, **_options(settings, "text", device, threads))


def image_encoder(
    settings: Settings, checkpoint: Checkpoint, device: str = "cpu", threads: int = 0
) -> ImageEncoder:
    """The image tower. Raises CheckpointError, which names the option that cannot be met."""
    options = _options(settings, "image", device, threads)
    return ImageEncoder.load(checkpoint, device, patches=settings.max_num_patches, **options)


def precision_of(settings: Settings, kind: Kind, device: str) -> str:
    """What one tower computes in. Raises CheckpointError, which names the option."""
    try:
        return choose_precision(settings.precision_of(kind), device, settings.engine)
    except CheckpointError as error:
        raise CheckpointError(f"{settings.precision_option(kind)}: {error}") from None


def compiles(settings: Settings, device: str) -> bool:
    """Whether the tower is compiled: on a CPU there is nothing to gain."""
    return settings.compile == "on" and device != "cpu"


def calibration_of(settings: Settings) -> Calibration:
    """What int8 is calibrated on."""
    return Calibration(settings.pairs, settings.max_num_patches)


def _options(settings: Settings, kind: Kind, device: str, threads: int) -> dict[str, Any]:
    engine = choose_engine(settings.engine, device)
    if compiles(settings, device):
        from litapi.model.engines.compiled import keep_in

        keep_in(settings.compile_folder / "inductor")
    return {
        "precision": precision_of(settings, kind, device),
        "threads": threads,
        "compile": compiles(settings, device),
        "engine": engine,
        "cache": settings.compile_folder,
        "calibration": calibration_of(settings),
    }
