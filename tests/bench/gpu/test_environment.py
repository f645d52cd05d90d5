"""The environment of a run on a bare machine: what was brought stands before what was there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench.gpu.__main__ import environment, main
from bench.rig.server_process import ROOT

LOOK = "import httpx, orjson, wheel_of_tests; print(orjson.__version__, httpx.__name__)"


def wheel(folder: Path, name: str, module: str, text: str) -> Path:
    """One of a single module."""
    path = folder / f"{name}-9.9-py3-none-any.whl"
    about = f"{name}-9.9.dist-info"
    files = {
        f"{module}.py": text,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "".join(f"{one},,\n" for one in (f"{module}.py", f"{about}/RECORD")),
    }  # fmt: skip
    with zipfile.ZipFile(path, "w") as file:
        for name_in, content in files.items():
            file.writestr(name_in, content)
    return path


def test_wheels_come_before_what_this_interpreter_has_and_hide_nothing_else(tmp_path: Path) -> None:
    """A new module, another version of one that is here, and one that is only here."""
    brought = [
        wheel(tmp_path, "wheel_of_tests", "wheel_of_tests", ""),
        wheel(tmp_path, "orjson", "orjson", "__version__ = 'brought'"),
    ]
    python = environment(tmp_path / "venv", brought)
    said = subprocess.run([python, "-c", LOOK], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["brought", "httpx"]


def test_the_run_goes_on_in_that_environment(tmp_path: Path) -> None:
    """Where it looks at the steps that were asked for, and asks for no wheels again."""
    wheel(tmp_path, "wheel_of_tests", "wheel_of_tests", "")
    command = [sys.executable, "-m", "bench.gpu", "--wheels", str(tmp_path), "--only", "dance"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (2, "bench: there is no step dance")


@pytest.mark.parametrize("name", ["torn-1-py3-none-any.whl", "no-wheel"])
def test_wheels_that_cannot_be_installed_end_the_run(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A torn one, or none at all; before anything else, in one line."""
    (tmp_path / name).write_bytes(b"no archive")
    assert main(["--wheels", str(tmp_path)]) == 2
    assert "the wheels were not installed" in capsys.readouterr().err
