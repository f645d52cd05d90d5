"""The systems beside siglit: each really runs, gives right vectors, and leaves nobody behind."""

import json
import sys
from pathlib import Path

import pytest
import torch

from bench.compare.baselines.catalogue import SYSTEMS, _environment
from bench.compare.baselines.install import program
from bench.compare.baselines.siglip import Siglip
from bench.compare.baselines.system import Ground
from bench.compare.proof import Proof
from bench.faults.vitals import births, survivors
from bench.rig.child import Absent, StartError, answers, child
from bench.rig.port import free_port
from bench.rig.random_checkpoint import DEMO
from bench.rig.server_process import family
from tests.support.checkpoint import CheckpointMaker
from tests.support.patience import awaited

GROUND = Ground(DEMO, cores=1)
HERE = ("flask-dev", "gunicorn-threads", "gunicorn-gevent", "nginx", "litserve")
# answers to every GET, and has a child that would live on for ever
PARENT = """
import http.server, subprocess, sys
print("one moment", flush=True)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print("loaded", flush=True)
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""


@pytest.fixture(scope="module")
def proof() -> Proof:
    """transformers on the checkpoint that all of them serve."""
    return Proof(DEMO)


@pytest.mark.parametrize("name", HERE)
def test_a_baseline_gives_right_vectors(name: str, proof: Proof) -> None:
    """Texts and images, alone and many together; afterwards none of its processes is left."""
    system = SYSTEMS[name]
    try:
        system.look()
    except Absent as reason:
        pytest.skip(str(reason))
    with system.start(GROUND) as served:
        known = births(one for pid in served.pids for one in family(pid))
        assert proof.fault(served, "text") is None
        assert proof.fault(served, "image") is None
    assert len(known) >= len(served.pids)
    assert awaited(lambda: not survivors(known), 10)


@pytest.mark.parametrize("name", ["gunicorn-openvino", "gunicorn-openvino-float32"])
def test_stock_openvino_gives_right_vectors(name: str, tmp_path: Path) -> None:
    """On a checkpoint of a fixed resolution, in either precision."""
    folder = CheckpointMaker.named("tiny-fixed").write(tmp_path / "fixed")
    proof = Proof(folder)
    with SYSTEMS[name].start(Ground(folder, cores=1)) as served:
        assert proof.fault(served, "text") is None
        assert proof.fault(served, "image") is None


def test_nobody_of_the_family_outlives_it() -> None:
    """A grandchild does not notice that its parent is gone, so the whole group is ended."""
    port = free_port()
    command = [sys.executable, "-c", PARENT, str(port)]
    with child(command, answers(f"http://127.0.0.1:{port}/"), said="loaded") as pid:
        known = births(family(pid))
        assert len(known) == 2
    assert awaited(lambda: not survivors(known), 10)  # an orphan's end takes init a moment


@pytest.mark.parametrize(
    "script",
    ["raise SystemExit('no such model')", "print('ValueError: no such model\\nGood bye.')"],
)
def test_one_that_ends_at_its_start_says_why(script: str) -> None:
    """The last line of its log that names an error, or else the very last."""
    command = [sys.executable, "-c", script]
    with pytest.raises(StartError, match="no such model"), child(command, lambda: False):
        pass


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where infinity's command would be."""
    monkeypatch.setattr("bench.compare.baselines.install.FOLDER", tmp_path)
    command = tmp_path / "infinity" / "bin" / "infinity_emb"
    command.parent.mkdir(parents=True)
    return command


def test_infinity_says_how_to_install_it(installed: Path) -> None:
    """One command."""
    with pytest.raises(Absent, match=r"python -m bench\.compare\.baselines\.install infinity"):
        SYSTEMS["infinity"].look()
    installed.touch()
    assert program("infinity", "infinity_emb") == installed


def test_infinity_that_cannot_serve_a_checkpoint_is_absent(installed: Path, tmp_path: Path) -> None:
    """The reason is the last line it said; its copy of the folder names Gemma's tokenizer."""
    said, name = tmp_path / "said", "tokenizer_config.json"
    copy = f'#!/bin/sh\ncp "$3/{name}" {said}\necho "no such model type"\nexit 1\n'
    installed.write_text(copy)
    installed.chmod(0o755)
    with pytest.raises(Absent, match="no such model type"), SYSTEMS["infinity"].start(GROUND):
        pass
    assert json.loads(said.read_text())["tokenizer_class"] == "GemmaTokenizerFast"
    assert "GemmaTokenizerFast" not in (DEMO / name).read_text()


def test_on_a_gpu_all_compute_in_bfloat16_on_that_card() -> None:
    """The same arithmetic and the same place for each; the cores stay to decode with."""
    ground = Ground(DEMO, cores=4, device="cuda:1")
    assert (ground.gpu, ground.precision, ground.threads(2)) == (True, "bfloat16", 2)
    assert (GROUND.gpu, GROUND.precision) == (False, "float32")
    assert _environment(ground, 1)["DEVICE"] == "cuda:1"


def test_the_towers_of_a_baseline_compute_on_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 on the CPU unless the environment names another; elsewhere in bfloat16."""
    monkeypatch.setenv("CHECKPOINT", str(DEMO))
    monkeypatch.setattr(Siglip, "texts", lambda *_: [])  # a tensor that is nowhere has no numbers
    weights = [next(one._model.parameters()) for one in (Siglip.asked_for(), Siglip(DEMO, "meta"))]
    assert [(str(one.device), one.dtype) for one in weights] == [
        ("cpu", torch.float32),
        ("meta", torch.bfloat16),
    ]
