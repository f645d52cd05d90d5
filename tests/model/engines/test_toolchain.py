"""What compiling takes is looked for, and what is missing is said in one line."""

import sysconfig
from pathlib import Path

import pytest

from litapi.checkpoint import DEMO, Checkpoint, CheckpointError
from litapi.model.engines import torch_engine
from litapi.model.engines.toolchain import require_toolchain


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with g++, gcc and Python's header files."""
    for name in ("g++", "gcc", "Python.h"):
        (tmp_path / name).touch(mode=0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("g++", "a C++ compiler"),
        ("gcc", "a C compiler"),
        ("Python.h", "Python's header files"),
    ],
)
def test_what_is_missing_is_named_with_the_way_out(tools: Path, gone: str, said: str) -> None:
    """Each of the three is needed for a GPU, and together they are enough."""
    require_toolchain("cuda:0")
    (tools / gone).unlink()
    with pytest.raises(CheckpointError) as refused:
        require_toolchain("cuda:0")
    assert str(refused.value).startswith(f"Compiling needs {said}, and there is none here: install")
    assert "--compile off" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_all_that_is_missing_is_named_at_once(tools: Path) -> None:
    """Nobody should install one thing after the other."""
    for one in tools.iterdir():
        one.unlink()
    with pytest.raises(CheckpointError, match=r"C\+\+ compiler and a C compiler and Python's"):
        require_toolchain("cuda:0")


def test_compilers_may_be_named_by_their_variables(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch and Triton take them; a name that leads nowhere is none."""
    (tools / "g++").rename(tools / "my-cxx")
    (tools / "gcc").rename(tools / "my-cc")
    monkeypatch.setenv("CXX", "my-cxx")
    monkeypatch.setenv("CC", "my-cc")
    require_toolchain("cuda:0")
    monkeypatch.setenv("CC", "nowhere")
    with pytest.raises(CheckpointError, match="a C compiler"):
        require_toolchain("cuda:0")


def test_a_tower_is_refused_before_its_weights_are_read(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be gigabytes."""
    (tools / "g++").unlink()
    monkeypatch.setattr(torch_engine, "_read", None)
    with pytest.raises(CheckpointError, match="Compiling needs"):
        torch_engine.TorchText.load(Checkpoint.open(DEMO), compile=True)
