"""What `python -m litapi calibrate` found on somebody's own pairs, as a file that a server reads.

A file belongs to one embedding space: another model's cosines mean something else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from litapi.checkpoint import Checkpoint
from litapi.scoring import Sigmoid
from litapi.settings import SettingsError

Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Facts(BaseModel):
    """A part of the file: exact types, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Figures(Facts):
    """How good probabilities are on pairs that nothing was fitted to; lower is better but for f1.

    `f1` is at `threshold`. `calibration_error` is how far, on average, a probability is from the
    share of the pairs with about that probability that match.
    """

    threshold: Probability
    log_loss: Number
    f1: Number
    calibration_error: Number


class HeldOut(Facts):
    """Pictures that were kept from the fit: by the model's own probability, and by the fitted."""

    pictures: int
    pairs: int
    matching: int
    model: Figures
    fitted: Figures


class Calibration(Facts):
    """scale and bias of a sigmoid, and the probability from which on a match is claimed.
    `matching_share` is the share of matching pairs among those that will be asked about."""

    model: str
    space: str
    scale: Annotated[Number, Field(gt=0)]
    bias: Number
    threshold: Probability
    matching_share: Share
    pictures: int
    pairs: int
    matching: int
    heldout: HeldOut

    @property
    def sigmoid(self) -> Sigmoid:
        return Sigmoid(self.scale, self.bias)

    @classmethod
    def of(cls, path: str, checkpoint: Checkpoint) -> Self | None:
        """What the file holds; None where no file is named. Raises SettingsError: it cannot be
        read, is no such file, or is another model's."""
        if not path:
            return None
        file = Path(path).expanduser()
        try:
            found = cls.model_validate_json(file.read_bytes())
        except OSError as error:
            raise SettingsError(f"--calibration: {file} cannot be read: {error.strerror}") from None
        except ValidationError as error:
            raise SettingsError(
                f"--calibration: {file} is no file of `python -m litapi calibrate`: {_first(error)}"
            ) from None
        if found.space != checkpoint.space:
            raise SettingsError(
                f"--calibration: {path} was fitted to {found.model} (space {found.space}), and"
                f" {checkpoint.name} (space {checkpoint.space}) is to be served"
            )
        return found

    def write(self, path: Path) -> None:
        """Whole or not at all. Raises OSError."""
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            partial.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def told(self) -> dict[str, Any]:
        """As `/info` has it; which space it is of is said there already."""
        return self.model_dump(exclude={"model", "space"})


def _first(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, fault["loc"]))
    return f"{place}: {fault['msg']}" if place else fault["msg"]
