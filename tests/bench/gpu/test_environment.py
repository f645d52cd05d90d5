"""The environment of a run on a bare machine: what was brought stands before what was there."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from bench.gpu.__main__ import environment, main

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


def test_wheels_come_before_what_this_interpreter_has_and_hide_nothing_else(
    tmp_path: Path,
) -> None:
    """A new module, another version of one that is here, and one that is only here."""
    brought = [
        wheel(tmp_path, "wheel_of_tests", "wheel_of_tests", ""),
        wheel(tmp_path, "orjson", "orjson", "__version__ = 'brought'"),
    ]
    python = environment(tmp_path / "venv", brought)
    said = subprocess.run([python, "-c", LOOK], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["brought", "httpx"]


def test_a_wheel_that_cannot_be_installed_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything else, in one line."""
    monkeypatch.setattr("bench.gpu.__main__.ROOT", tmp_path)
    (tmp_path / "torn-1-py3-none-any.whl").write_bytes(b"no archive")
    assert main(["--wheels", str(tmp_path)]) == 2
    assert "the wheels were not installed" in capsys.readouterr().err
