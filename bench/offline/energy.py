"""Joules that a GPU has used, by NVIDIA's own counter."""

from __future__ import annotations

import pynvml
import torch


class EnergyMeter:
    """Of one device; a device without such a counter has no reading."""

    def __init__(self, device: torch.device) -> None:
        self._handle = _handle(device) if device.type == "cuda" else None

    def joules(self) -> float | None:
        """Since the driver was loaded."""
        if self._handle is None:
            return None
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        except pynvml.NVMLError:  # cards before Volta count none
            return None


def _handle(device: torch.device) -> object | None:
    """By its UUID, for CUDA_VISIBLE_DEVICES may number devices otherwise."""
    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        handle: object = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        return None
    return handle
