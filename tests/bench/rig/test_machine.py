"""What is told of a machine, and what is not."""

import platform
import re
import socket
from pathlib import Path

import numpy
import orjson

from bench.rig.machine import ROOT, Machine, cores, cpu_model, pinned
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
    text = orjson.dumps(MACHINE.fields()).decode()
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
