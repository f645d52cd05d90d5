"""What runs a tower: torch (GPUs, and the reference everywhere) or OpenVINO (CPUs).

An engine takes ids or pixels and gives pooled rows, in two halves: the first begins, the second
waits (`slots`). Inputs are prepared and rows normalised above it, in `encoder`. It says which
arithmetic decides its bits, and what transformers makes of a few probes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sized
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from litapi.checkpoint import CheckpointError
from litapi.model.engines.slots import Collect
from litapi.model.engines.slots import Rows as Rows
from litapi.model.probes import Probes

Items = TypeVar("Items", bound=Sized, contravariant=True)
Ids = npt.NDArray[np.int64]


class Engine(Protocol[Items]):
    """One tower, loaded. `arithmetic` says in words what can change the bits of a row."""

    name: str  # "torch" or "openvino"
    compiled: bool
    device: str
    precision: str
    arithmetic: str
    parameters: int
    dim: int
    depth: int  # batches worth having under way at once; 1 where `submit` computes all of it

    def submit(self, items: Items) -> Collect:
        """Begin with n items, at least one; what is returned waits for their pooled output
        (n, dim), not yet of unit length. It must be called once, and the items kept till then."""

    def relieve(self) -> None:
        """Give back what is kept of the device's memory and not used."""

    def probes(self) -> Probes:
        """What transformers' own way makes of the probes of this tower."""


def choose_engine(wanted: str, device: str) -> str:
    """ "torch" or "openvino"; "auto" is OpenVINO on a CPU where its wheel is installed.

    Raises CheckpointError where the engine that was asked for cannot run on `device`.
    """
    installed = importlib.util.find_spec("openvino") is not None
    if wanted == "auto":
        return "openvino" if device == "cpu" and installed else "torch"
    if wanted == "openvino" and device != "cpu":
        raise CheckpointError(f"OpenVINO serves on a CPU, not on {device}; leave --engine at auto.")
    if wanted == "openvino" and not installed:
        raise CheckpointError("--engine openvino: the package openvino is not installed.")
    if wanted not in ("torch", "openvino"):
        raise CheckpointError(f"There is no engine {wanted}; use auto, torch or openvino.")
    return wanted
