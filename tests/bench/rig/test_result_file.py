"""Where results go, and what stands in each."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import orjson
import pytest

from bench.rig.machine import Machine
from bench.rig.result_file import device, save

MACHINE = Machine.read()


def test_a_result_holds_the_day_the_machine_and_the_figures(tmp_path: Path) -> None:
    """In a folder that is made, in a file named after the device."""
    path = save("lookups", {"rounds": 3}, tmp_path / "results")
    assert path == tmp_path / "results" / f"lookups-{device(MACHINE)}.json"
    result = orjson.loads(path.read_bytes())
    assert date.fromisoformat(result["date"])
    assert result["rounds"] == 3
    assert result["machine"]["cores"] == MACHINE.cores
    assert result["machine"]["packages"]["uvicorn"]


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        (None, "cpu"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("NVIDIA L4\nNVIDIA L4", "nvidia-l4"),
    ],
)
def test_a_device_is_a_word_that_fits_into_a_file_name(gpu: str | None, name: str) -> None:
    """Of several GPUs the first."""
    assert device(replace(MACHINE, gpu=gpu)) == name
