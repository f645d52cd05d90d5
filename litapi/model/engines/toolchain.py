"""What compiling for a GPU takes beside torch. Looked for before anything loads, without torch.

Inductor calls a C++ compiler; Triton, under it, a C compiler on a file that includes Python.h.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from litapi.checkpoint import CheckpointError


def require_toolchain(device: str) -> None:
    """Raises CheckpointError, in one line that says what is missing and what to do."""
    wanted = {"a C++ compiler": _found("CXX", "g++")}
    if device != "cpu":
        wanted["a C compiler"] = _found("CC", "gcc", "clang")
        wanted["Python's header files"] = (
            Path(sysconfig.get_path("include")) / "Python.h"
        ).exists()
    missing = [name for name, there in wanted.items() if not there]
    if missing:
        raise CheckpointError(
            f"Compiling needs {' and '.join(missing)}, and there is none here: install g++ and "
            "python3-dev, or leave --compile off."
        )


def _found(variable: str, *names: str) -> bool:
    """By the variable, or else by name, as torch and Triton look for it."""
    named = os.environ.get(variable)
    return any(map(shutil.which, [named] if named else names))
