"""What is told of a machine, and what is not."""

import platform
import re
import socket
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import numpy
import orjson
import pytest

from bench.rig.machine import Machine, cores, cpu_model, pinned
from bench.rig.result_file import device, save
from bench.rig.server_process import ROOT
from litapi.process import DECISIVE

MACHINE = Machine.read()


def test_a_machine_names_what_bears_on_speed() -> None:
    """Processor, engine, cores, memory, system, Python, and the versions of pinned packages."""
    assert MACHINE.cpu
    assert set(MACHINE.instructions) <= DECISIVE
    assert MACHINE.engine == f"openvino {MACHINE.packages['openvino']}"
    assert MACHINE.cores == cores() >= 1
    assert 0.1 < MACHINE.memory_gb < 100_000
    assert "kernel" in MACHINE.os
    assert MACHINE.python == platform.python_version()
    names = pinned((ROOT / "requirements.txt").read_text())
    assert {"torch", "numpy", "litserve"} <= set(names)
    assert set(MACHINE.packages) <= set(names)
    assert MACHINE.packages["numpy"] == numpy.__version__
    if MACHINE.commit is not None:  # where it is a checkout
        assert re.fullmatch("[0-9a-f]{40}", MACHINE.commit)
        assert isinstance(MACHINE.dirty, bool)


def test_neither_host_name_nor_path_nor_user_is_told() -> None:
    """Result files are published."""
    text = orjson.dumps(asdict(MACHINE)).decode()
    assert str(ROOT) not in text
    assert str(Path.home()) not in text
    assert "/" not in MACHINE.cpu
    name = socket.gethostname()
    assert len(name) < 4 or name not in text


def test_the_processor_is_read_from_cpuinfo() -> None:
    """The first of all the same ones; the architecture where none is named, as on ARM."""
    text = "processor\t: 0\nmodel name\t: AMD EPYC 9R14 96-Core\nprocessor\t: 1\nmodel name\t: x\n"
    assert cpu_model(text) == "AMD EPYC 9R14 96-Core"
    assert cpu_model("processor\t: 0\nBogoMIPS\t: 50\n") == platform.machine()


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
