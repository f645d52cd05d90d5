"""In which numbers a tower computes, and which of them an engine computes in on a device.

- float32, bfloat16, float16   the type of every large product
- int8          on a CPU OpenVINO's: weights by row, activations by one scale a layer, calibrated on
                pictures and texts; on a GPU torch's: weights by row, activations by token
- int8-weights  weights by row only: less memory, no faster; GPUs only
- float8        as int8 on a GPU, in float8; new GPUs only

No scale depends on what else is in a batch: static ones depend on nothing, and those by token on
the token. One scale for a whole batch would let an item's vector depend on its neighbours, so no
such scheme is here. Layers that see one pooled row an item keep their numbers: they gain nothing.
"""

from __future__ import annotations

import re
from typing import Any

from litapi.checkpoint import CheckpointError
from litapi.model.engines import choose_engine
from litapi.process import processor

PRECISIONS = ("float32", "bfloat16", "float16", "int8", "int8-weights", "float8")
CPU_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # x86 by instruction set, then ARM
ON_CPU = {"openvino": ("float32", "bfloat16", "int8"), "torch": ("float32", "bfloat16")}
FLOAT8_CAPABILITY = (8, 9)


def choose_precision(wanted: str, device: str, engine: str = "auto") -> str:
    """The precision to load in, one of PRECISIONS.

    "auto" is bfloat16 where the device computes in it, else float32. Raises CheckpointError for
    a precision, device or engine there is not, and for a precision that would only be emulated.
    """
    require_known(wanted, ("auto", *PRECISIONS))
    require_device(device)
    if wanted == "auto":
        return "bfloat16" if has_bfloat16(device) else "float32"
    require_able(wanted, device, choose_engine(engine, device))
    return wanted


def require_known(precision: str, known: tuple[str, ...] = PRECISIONS) -> None:
    """CheckpointError where there is no such precision."""
    if precision not in known:
        raise CheckpointError(f"There is no precision {precision}; use one of {', '.join(known)}.")


def require_device(name: str) -> None:
    """CheckpointError in one line where there is no device called `name`."""
    if name == "cpu":
        return
    if not re.fullmatch(r"cuda(:\d+)?", name):
        raise CheckpointError(f"There is no kind of device called {name}.")
    if int(name.partition(":")[2] or 0) >= _cuda().device_count():
        raise CheckpointError(f"The device {name} was asked for; this machine does not have it.")


def require_able(precision: str, device: str, engine: str) -> None:
    """CheckpointError where `engine` does not compute in `precision` on `device`."""
    require_known(precision)
    if device == "cpu":
        able = precision in ON_CPU[engine] and (precision != "bfloat16" or has_bfloat16(device))
    else:
        able = precision in ("float32", "float16") or has_bfloat16(device)
        if precision == "float8":
            able = _cuda().get_device_capability(device) >= FLOAT8_CAPABILITY
    if able:
        return
    if precision == "float8":
        raise CheckpointError(
            f"The device {device} does not compute in float8; that takes a GPU of compute "
            "capability 8.9 or more. Use float32, bfloat16 or int8."
        )
    if precision == "int8" and device == "cpu":
        raise CheckpointError(
            f"On a CPU int8 is OpenVINO's; the engine {engine} does not compute in it."
        )
    raise CheckpointError(f"The device {device} does not compute in {precision}; use float32.")


def require_compiled(precision: str, device: str, compiled: bool) -> None:
    """CheckpointError where `precision` would be slower than bfloat16 without compiling."""
    if precision == "int8" and device != "cpu" and not compiled:
        raise CheckpointError(
            "int8 on a GPU takes --compile on: uncompiled, every layer would wait for the card."
        )


def has_bfloat16(device: str) -> bool:
    """Whether `device` computes in bfloat16, and does not only emulate it."""
    if device == "cpu":
        return bool(CPU_BFLOAT16 & set(processor("cpu")))
    return bool(_cuda().get_device_capability(device) >= (8, 0))


def _cuda() -> Any:
    from torch import cuda

    return cuda
