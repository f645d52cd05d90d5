"""torch's part of `precision`: the types, and the 8-bit schemes of GPUs, which are torchao's.

float8's and int8's large matrices are those of the transformer layers; all the rest (token table,
patches, positions, norms, heads) stays in bfloat16. Only matrices that see every token are
quantized: CUDA's int8 product refuses as few rows as those behind the pooling see. Its float8
product takes sides of whole sixteens alone; a matrix with another stays in bfloat16 too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from litapi.model.precision import require_device

log = logging.getLogger("siglit.precision")

FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def find_device(name: str) -> torch.device:
    """The device called `name`, or CheckpointError in one line."""
    require_device(name)
    return torch.device(name)


def float_type(precision: str) -> torch.dtype:
    """The type of whatever is not quantized."""
    return FLOATS.get(precision, torch.bfloat16)


def arithmetic(precision: str, device: torch.device, compiled: bool) -> str:
    """What can change the bits of a vector, in words: the precision, the type of what is not
    quantized, compiling."""
    words = [precision]
    if precision not in FLOATS:
        words += ["bfloat16", device.type]
    if compiled:
        words.append("compiled")
    return ", ".join(words)


def quantize(body: nn.Module, matrices: Iterable[str], precision: str) -> None:
    """Put the Linear modules of `body` named in `matrices` into `precision`, in place.

    Does nothing for a float type.
    """
    if precision in FLOATS:
        return
    from torchao.quantization import quantize_

    names = set(matrices)
    if precision == "float8":
        names -= _left_out(body, names)
    quantize_(body, _config(precision), filter_fn=lambda _, name: name in names)


def _left_out(body: nn.Module, names: set[str]) -> set[str]:
    """What float8's product cannot take; torchao would leave it out without a word."""
    linears: dict[str, Any] = {name: body.get_submodule(name) for name in names}
    found = {name for name, one in linears.items() if any(side % 16 for side in one.weight.shape)}
    if found:
        kinds = {name.split(".", 2)[2] for name in found}  # of layers.0.mlp.fc1: mlp.fc1
        log.warning(
            "float8: %d of %d matrices stay in bfloat16, for a side of theirs is no multiple of "
            "16: %s",
            len(found),
            len(names),
            ", ".join(sorted(kinds)),
        )
    return found


def _config(precision: str) -> Any:
    from torchao import quantization as ao

    row = ao.PerRow()
    if precision == "int8-weights":
        return ao.Int8WeightOnlyConfig(granularity=row, set_inductor_config=False)
    if precision == "int8":
        return ao.Int8DynamicActivationInt8WeightConfig(granularity=row, set_inductor_config=False)
    return ao.Float8DynamicActivationFloat8WeightConfig(granularity=row, set_inductor_config=False)
