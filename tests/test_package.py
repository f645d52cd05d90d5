"""The wheel, installed into an environment of its own, does what the folder does."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import httpx
import pytest

from bench.rig.child import answers
from bench.rig.port import free_port
from bench.rig.server_process import ROOT
from tests.support.command import output_of
from tests.support.patience import awaited

BUILT_FROM = ("litapi", "cache", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that holds the wheel, and sees what it depends on here."""
    tree, home = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("venv")
    for name in [*BUILT_FROM, *(path.name for path in ROOT.glob("requirements*.txt"))]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    venv.create(home, symlinks=True)
    packages = next(home.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheel = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(home)]
    subprocess.run([*pip, *wheel, str(tree)], check=True, timeout=300)
    (file,) = home.glob("siglit-*.whl")
    install = ["--python", str(home / "bin" / "python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, *install, str(file)], check=True, timeout=300)
    return home / "bin"


def test_the_command_serves_from_any_folder(installed: Path, tmp_path: Path) -> None:
    """The demo checkpoint, the examples of /docs and the answers are in the wheel."""
    port = free_port()
    command = [str(installed / "siglit"), "serve", "--port", str(port), "--precision", "float32"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:

        def ready() -> bool:
            assert process.poll() is None
            return answers(f"http://127.0.0.1:{port}/readyz")()

        awaited(ready, 120)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            vector = http.post("/embed_text", json={"text": "a red circle"}).json()["embedding"]
            assert "/embed_image" in http.get("/openapi.json").json()["paths"]
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
    words = ("embed", "-", "--precision", "float32")
    said = output_of(installed / "siglit", *words, cwd=tmp_path, said="a red circle\n")
    assert json.loads(said)["embedding"] == pytest.approx(vector, abs=1e-6)


def test_the_wheel_is_what_is_imported(installed: Path, tmp_path: Path) -> None:
    """And of this project nothing else: names such as bench and docs are left to others."""
    script = (
        "import importlib.util as u, litapi, cache; print(litapi.__file__, cache.__file__);"
        "print([n for n in ('bench', 'demo', 'deploy', 'notebooks', 'tests') if u.find_spec(n)])"
    )
    files, others = output_of(installed / "python", "-c", script, cwd=tmp_path).splitlines()
    assert all(file.startswith(str(installed.parent)) for file in files.split())
    assert others == "[]"


def test_the_command_names_its_commands(installed: Path, tmp_path: Path) -> None:
    """Each of them, in the order of their use."""
    said = output_of(installed / "siglit", "--help", cwd=tmp_path)
    listed = re.findall(r"^ {4}(\S+)", said, re.MULTILINE)
    assert listed == ["serve", "check", "prepare", "warm", "embed", "compare-spaces", "calibrate"]
