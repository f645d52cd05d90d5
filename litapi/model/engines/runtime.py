"""OpenVINO itself, loaded so that nothing leaves the machine.

Its wheel brings a package that reports every import and conversion over the network. Where that
package cannot be imported, OpenVINO and NNCF do without it by themselves; so it is made so, and
this is the only file that imports OpenVINO first.
"""

from __future__ import annotations

import sys
from typing import Any

from litapi.process import cores

TELEMETRY = "openvino_telemetry"


def openvino() -> Any:
    """The package, without its telemetry."""
    sys.modules.setdefault(TELEMETRY, None)  # type: ignore[arg-type]  # "cannot be imported"
    import openvino

    return openvino


def compiled(model: Any, precision: str, threads: int) -> Any:
    """`model` ready for this CPU; its large products in bfloat16 where `precision` says so.

    One stream: a worker computes one batch at a time. Threads are not pinned, for the workers of
    both towers share the cores, and each would pin to the same ones.
    """
    ov = openvino()
    bfloat16 = precision == "bfloat16"
    options = {
        "INFERENCE_PRECISION_HINT": ov.Type.bf16 if bfloat16 else ov.Type.f32,
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads or cores(),
        "ENABLE_CPU_PINNING": False,
    }
    return ov.Core().compile_model(model, "CPU", options)
