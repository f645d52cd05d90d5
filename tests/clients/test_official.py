"""The official clients, unchanged, against a real server: the same vectors, to the bit.

They live in environments of their own under build/clients, made once from the files beside this one
where the package index can be reached; where it cannot, the tests are skipped and say so.
"""

import base64
import io
import json
import re
import shutil
import subprocess
import venv
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import pytest

from bench.rig.server_process import ServerProcess
from litapi.demo.drawing import Scene, draw
from tests.clients.ask import CLIENTS

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
NEWEST, OLDER, NODE = "requirements.txt", "requirements-litellm.txt", "package.json"
SCENES = [Scene.random(Random(seed)) for seed in range(3)]
PINNED = re.compile(r'^ *"?([\w-]+?)(?:==|": ")([\d.]+)', re.M)

pytestmark = pytest.mark.timeout(1200)  # the first run makes the environments


def home_of(file: str) -> Path:
    """Where the clients live that a file pins; made where it is missing."""
    pins = FOLDER / file
    home = ROOT / "build" / "clients" / f"{pins.stem}-{sha256(pins.read_bytes()).hexdigest()[:8]}"
    if not (home / "whole").exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        install = node_install(home) if file == NODE else python_install(home, pins)
        done = subprocess.run(install, cwd=home, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the clients of {file} cannot be installed: {done.stderr.strip()[-200:]}")
        (home / "whole").touch()
    return home


def python_install(home: Path, pins: Path) -> list[str]:
    """What installs them, into an environment that is there."""
    venv.create(home, with_pip=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    return [*pip, "install", "--quiet", "--requirement", str(pins)]


def node_install(home: Path) -> list[str]:
    """The same for Node, whose scripts look for packages beside themselves."""
    for name in (NODE, "ask.mjs"):
        shutil.copy(FOLDER / name, home)
    return ["npm", "install", "--silent", "--no-fund", "--no-audit"]


def answered(command: list[str], sent: dict[str, list[str]]) -> dict[str, Any]:
    """What a client prints that is given texts and images."""
    done = subprocess.run(
        command, input=json.dumps(sent), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return content


@pytest.fixture(scope="module")
def sent() -> dict[str, list[str]]:
    """Captions, and the drawings as data URIs."""
    files = [io.BytesIO() for _ in SCENES]
    for number, (scene, file) in enumerate(zip(SCENES, files, strict=True)):
        draw(scene, f"client {number}").save(file, "PNG")
    images = [base64.b64encode(file.getvalue()).decode() for file in files]
    return {
        "texts": [scene.caption() for scene in SCENES],
        "images": [f"data:image/png;base64,{image}" for image in images],
    }


@pytest.fixture
def expected(client: httpx.Client, sent: dict[str, list[str]]) -> dict[str, Any]:
    """What they must get."""
    items = sent["texts"] + sent["images"]
    data = client.post("/v1/embeddings", json={"input": items}).raise_for_status().json()["data"]
    rows = np.array([one["embedding"] for one in data], np.float32)
    body = {"query": sent["texts"][0], "documents": sent["images"]}
    ranked = client.post("/rerank", json=body).raise_for_status().json()["results"]
    return {
        "texts": rows[:3],
        "images": rows[3:],
        "mixed": rows,
        "rank": [[one["index"], one["relevance_score"]] for one in ranked],
        "likeness": rows[3:].astype(np.float64) @ rows[0],
    }


@pytest.mark.parametrize(
    ("file", "name"), [*((NEWEST, name) for name in CLIENTS), (OLDER, "litellm")]
)
def test_a_client_gets_the_vectors_and_ranks_of_every_other(
    server: ServerProcess,
    sent: dict[str, list[str]],
    expected: dict[str, Any],
    file: str,
    name: str,
) -> None:
    """Of texts and of pictures, in each of the ways that the client has."""
    python = str(home_of(file) / "bin" / "python")
    found = answered([python, str(FOLDER / "ask.py"), name, server.url], sent)
    assert (name, found["version"]) in PINNED.findall((FOLDER / file).read_text())
    for kind in ("texts", "images", "mixed"):
        if kind in found or kind != "mixed":
            assert np.array_equal(np.array(found[kind], np.float32), expected[kind]), kind
    for rank in found.get("ranks", ()):
        assert rank == expected["rank"]
    likeness = found.get("likeness", expected["likeness"])
    assert likeness == pytest.approx(expected["likeness"], abs=1e-6)
    assert found.get("redrawn", expected["images"]) == pytest.approx(expected["images"], abs=1e-5)


@pytest.mark.skipif(shutil.which("npm") is None, reason="Node and npm are not installed")
def test_the_client_for_node_gets_the_same_vectors(
    server: ServerProcess, sent: dict[str, list[str]], expected: dict[str, Any]
) -> None:
    """It asks for base64 by itself, as the one for Python does."""
    found = answered(["node", str(home_of(NODE) / "ask.mjs"), server.url], sent)
    for kind in ("texts", "images"):
        assert np.array_equal(np.array(found[kind], np.float32), expected[kind])


def test_the_document_names_the_versions_that_are_tested() -> None:
    """Each in the row of its client."""
    lines = (ROOT / "docs" / "http-api.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    for file in (NEWEST, OLDER, NODE):
        for name, version in PINNED.findall((FOLDER / file).read_text()):
            found = any(f"`{name}`" in row and version in row for row in rows)
            assert found or name == "pillow", name
