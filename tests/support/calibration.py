"""A calibration of the demo checkpoint, with figures nobody measured."""

from litapi.calibration import Calibration, Figures, HeldOut
from litapi.checkpoint import DEMO, Checkpoint

FIGURES = Figures(threshold=0.5, log_loss=0.1, f1=0.9, calibration_error=0.01)


def calibration(scale: float = 5.0, bias: float = -1.0, threshold: float = 0.2) -> Calibration:
    """A sigmoid and a threshold that nobody could take for the model's own."""
    demo = Checkpoint.open(DEMO)
    heldout = HeldOut(pictures=20, pairs=400, matching=20, model=FIGURES, fitted=FIGURES)
    return Calibration(
        model=demo.name,
        space=demo.space,
        scale=scale,
        bias=bias,
        threshold=threshold,
        matching_share=0.05,
        pictures=20,
        pairs=400,
        matching=20,
        heldout=heldout,
    )
