"""Which devices the workers get: counted without torch, and believed only when torch agrees.

The main process must not import torch. A driver that lists a GPU, or a variable that names one,
says nothing of whether this build of torch can use it: its text says for which kind of GPU it was
built, and a process of its own tries each device, only where there seems to be one.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

from litapi.process import cards
from litapi.settings import Settings, StartError

log = logging.getLogger("siglit.devices")

PATIENCE = 180.0  # seconds for torch to be imported and to open every GPU
_TRY = """
import torch
for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    try:
        torch.zeros(1, device=f"cuda:{index}").item()
    except Exception as error:
        print(f"no cuda:{index} {type(error).__name__}")
    else:
        print(f"yes cuda:{index}")
"""


def visible_devices() -> list[str]:
    """The CUDA devices that there seem to be; else the CPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = cards() if visible is None else visible.split(",")
    count = sum(name.strip() not in ("", "-1") for name in named)
    return [f"cuda:{index}" for index in range(count)] or ["cpu"]


def planned(settings: Settings) -> list[str]:
    return automatic_devices()[0] if settings.devices == "auto" else settings.devices.split(",")


@functools.cache
def automatic_devices() -> tuple[list[str], str]:
    """What `--devices auto` means here, and one public sentence where a GPU is left out."""
    seen = visible_devices()
    if seen == ["cpu"]:
        return seen, ""
    found, why = usable_devices()
    if not found:
        return ["cpu"], f"There seems to be a GPU, yet the CPU serves: {why}."
    if len(found) < len(seen):
        lost = ", ".join(name for name in seen if name not in found)
        return found, f"Not every GPU serves: torch cannot use {lost}."
    return found, ""


@functools.cache
def usable_devices() -> tuple[list[str], str]:
    """The CUDA devices that torch can compute on, and why there is none."""
    if not _built_for_gpus():
        return [], "this build of torch is for the CPU alone"
    command = [sys.executable, "-c", _TRY]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError) as error:
        return [], f"torch could not be asked for it ({type(error).__name__})"
    lines = tried.stdout.splitlines()
    found = [line.removeprefix("yes ") for line in lines if line.startswith("yes ")]
    failed = [line.removeprefix("no ") for line in lines if line.startswith("no ")]
    if tried.returncode:
        log.debug("torch ended with: %s", tried.stderr[-2000:])
    return found, f"torch cannot use {failed[0]}" if failed else "torch finds no GPU it can use"


def _built_for_gpus() -> bool:
    """As torch's own text says, which is read and not run; where it does not, torch is asked."""
    found = importlib.util.find_spec("torch")
    try:
        text = (Path(found.origin or "").parent / "version.py").read_text() if found else ""
    except OSError:
        return True
    built = dict(re.findall(r"^(cuda|hip)\b[^=\n]*=\s*(\S+)", text, re.MULTILINE))
    return not built or any(value != "None" for value in built.values())


def require_devices(names: list[str]) -> None:
    """Raises StartError where a device that was named is not there."""
    if names == ["cpu"]:
        return
    found, why = usable_devices()
    lost = [name for name in names if name not in found]
    if lost and not found:
        raise StartError(f"--devices: {', '.join(lost)} cannot be used: {why}")
    if lost:
        raise StartError(f"--devices: torch cannot use {', '.join(lost)}, but {', '.join(found)}")
