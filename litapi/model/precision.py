"""In which numbers a tower computes, and which of them a device computes in.

float32, bfloat16 and float16 are the type of every weight. The others keep the large matrices of
the transformer layers in 8 bits and all the rest (token table, patches, positions, norms, heads)
in bfloat16 where the device computes in it, else in float32:

- int8          weights by row, activations by token, products of integers
- int8-weights  weights by row only: less memory, no faster
- float8        as int8, in float8; new GPUs only

Every scheme scales an activation by its own token. One scale for a whole batch would let an item's
vector depend on its neighbours, so no such scheme is here. Only matrices that see every token are
quantized: those behind the pooling see one row an item, gain nothing, and CUDA's int8 product
refuses so few rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from litapi.checkpoint import CheckpointError

PRECISIONS = ("float32", "bfloat16", "float16", "int8", "int8-weights", "float8")
CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # x86 by instruction set, then ARM
FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FLOAT8_CAPABILITY = (8, 9)


def choose_precision(wanted: str, device: str) -> str:
    """The precision to load in, one of PRECISIONS.

    "auto" is bfloat16 where the device computes in it, else float32. Raises CheckpointError for
    a precision or device there is not, and for a precision that the device would only emulate.
    """
    require_known(wanted, ("auto", *PRECISIONS))
    place = find_device(device)
    if wanted == "auto":
        return "bfloat16" if _has_bfloat16(place) else "float32"
    refusal = _refusal(wanted, place)
    if refusal:
        raise CheckpointError(refusal)
    return wanted


def require_known(precision: str, known: tuple[str, ...] = PRECISIONS) -> None:
    """CheckpointError where there is no such precision."""
    if precision not in known:
        raise CheckpointError(f"There is no precision {precision}; use one of {', '.join(known)}.")


def find_device(name: str) -> torch.device:
    """The device called `name`, or CheckpointError in one line."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(f"There is no kind of device called {name}.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(f"The device {name} was asked for; this machine does not have it.")
    return device


def _refusal(precision: str, device: torch.device) -> str:
    """Why `device` does not compute in `precision`; empty where it does."""
    able = {
        "bfloat16": _has_bfloat16(device),
        "float16": device.type == "cuda",
        "float8": device.type == "cuda"
        and torch.cuda.get_device_capability(device) >= FLOAT8_CAPABILITY,
        "int8": device.type == "cpu" or _has_bfloat16(device),
        "int8-weights": device.type == "cpu" or _has_bfloat16(device),
    }
    if able.get(precision, True):
        return ""
    if precision == "float8":
        return (
            f"The device {device} does not compute in float8; that takes a GPU of compute "
            "capability 8.9 or more. Use float32, bfloat16 or int8."
        )
    return f"The device {device} does not compute in {precision}; use float32."


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    able = torch.cpu.get_capabilities()
    return any(bool(able.get(name)) for name in CPU_BFLOAT16)


def float_type(precision: str, device: torch.device) -> torch.dtype:
    """The type of whatever is not quantized."""
    if precision in FLOATS:
        return FLOATS[precision]
    able = device.type != "cpu" or _has_bfloat16(device)
    return torch.bfloat16 if able else torch.float32


def arithmetic(precision: str, device: torch.device, compiled: bool) -> str:
    """What can change the bits of a vector, in words: the precision, the type of what is not
    quantized, the range of int8, compiling."""
    words = [precision]
    if precision not in FLOATS and float_type(precision, device) == torch.bfloat16:
        words.append("bfloat16")
    if precision == "int8" and device.type == "cpu" and _reduced():
        words.append("7 bits")
    if precision not in FLOATS and device.type != "cpu":
        words.append(device.type)  # other kernels, and other bits: not those of a CPU's int8
    if compiled:
        words.append("compiled")
    return ", ".join(words)


def quantize(
    body: nn.Module, matrices: Iterable[str], precision: str, device: torch.device
) -> None:
    """Put the Linear modules of `body` named in `matrices` into `precision`, in place.

    Does nothing for a float type. Raises CheckpointError where the device cannot.
    """
    if precision in FLOATS:
        return
    refusal = _refusal(precision, device)
    if refusal:
        raise CheckpointError(refusal)
    if precision == "int8" and device.type == "cpu":
        from litapi.model.int8_linear import Int8Linear

        for name in matrices:
            body.set_submodule(name, Int8Linear(body.get_submodule(name), _reduced()))
        return
    names = set(matrices)
    from torchao.quantization import quantize_

    quantize_(body, _config(precision), filter_fn=lambda _, name: name in names)


def _config(precision: str) -> Any:
    from torchao import quantization as ao

    row = ao.PerRow()
    if precision == "int8-weights":
        return ao.Int8WeightOnlyConfig(granularity=row, set_inductor_config=False)
    if precision == "int8":
        return ao.Int8DynamicActivationInt8WeightConfig(granularity=row, set_inductor_config=False)
    return ao.Float8DynamicActivationFloat8WeightConfig(granularity=row, set_inductor_config=False)


def _reduced() -> bool:
    """Whether int8 products must keep to 7 bits: without VNNI they saturate at 16 bits."""
    from torchao.utils import should_reduce_range

    return bool(should_reduce_range(torch.device("cpu")))
