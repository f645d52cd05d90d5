"""A start that cannot work ends before anything loads. Ports and certificates: test_server.py."""

from pathlib import Path

import pytest

from litapi.checkpoint import CheckpointError
from litapi.preflight import preflight, require_folders
from litapi.settings import Settings, StartError


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A GPU that `--devices auto` finds, on a machine without compilers."""
    monkeypatch.setattr("litapi.preflight.planned", lambda settings: ["cuda:0"])
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)


def test_a_gpu_without_a_compiler_serves_uncompiled(gpu: None) -> None:
    """As the images of the service are."""
    preflight(Settings())


def test_compiling_for_a_gpu_without_a_compiler_is_refused(gpu: None, tmp_path: Path) -> None:
    """Whoever asked for it learns at once what to install."""
    with pytest.raises(
        CheckpointError, match=r"^Compiling needs a C\+\+ compiler and a C compiler"
    ):
        preflight(Settings(compile="on", compile_cache=str(tmp_path)))


@pytest.mark.parametrize("option", ["precision", "text_precision", "image_precision"])
def test_int8_on_a_gpu_is_refused_uncompiled(gpu: None, option: str) -> None:
    """For whichever tower it was asked."""
    with pytest.raises(CheckpointError, match=r"^int8 on a GPU takes --compile on"):
        preflight(Settings.model_validate({option: "int8"}))


@pytest.mark.parametrize("folder", ["/etc/passwd", "/proc/no"])
def test_compiling_for_a_gpu_needs_a_folder(gpu: None, folder: str) -> None:
    """Which can be made and written to."""
    with pytest.raises(StartError, match=r"^--compile-cache: "):
        require_folders(Settings(compile="on", compile_cache=folder))


def test_a_cpu_needs_neither_compiler_nor_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its engine compiles nothing by C++, whatever the option says."""
    monkeypatch.setattr("litapi.preflight.planned", lambda settings: ["cpu"])
    monkeypatch.setenv("PATH", str(tmp_path))
    preflight(Settings(compile="on", precision="int8", compile_cache="/proc/no"))
