"""All systems by name."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.compare.baselines.install import program
from bench.compare.baselines.system import LOADED, Ground, Served, System
from bench.rig.balancer import PATIENT_NGINX
from bench.rig.child import Absent, StartError, serving

PATIENCE = "900"  # seconds; a queue of 500 is what is measured, not a reason to end a worker


def _environment(ground: Ground, processes: int) -> dict[str, str]:
    return {
        "CHECKPOINT": str(ground.checkpoint),
        "DEVICE": ground.device,
        "OMP_NUM_THREADS": str(ground.threads(processes)),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


@contextmanager
def alone(module: str, ground: Ground, loads: int = 1) -> Iterator[Served]:
    """One server, by its module; it serves once it has loaded a model so many times."""
    command = [sys.executable, "-m", f"bench.compare.baselines.{module}"]
    how = ("/health", _environment(ground, 1), LOADED, loads)
    with serving(lambda port: [*command, str(port)], *how) as (url, pid):
        yield Served(url, (pid,))


@contextmanager
def gunicorn(ground: Ground, *options: str, workers: int = 2, **model: str) -> Iterator[Served]:
    """The Flask service under Gunicorn, with so many workers, of two that compute in all.

    `model` are ENGINE and PRECISION of its model.
    """
    command = [sys.executable, "-m", "gunicorn", "bench.compare.baselines.flask_app:create_app()"]
    command += ["--workers", str(workers), "--timeout", PATIENCE, *options, "--bind"]
    how = ("/health", _environment(ground, 2) | model, LOADED, workers)
    with serving(lambda port: [*command, f"127.0.0.1:{port}"], *how) as (url, pid):
        yield Served(url, (pid,))


@contextmanager
def behind_nginx(ground: Ground) -> Iterator[Served]:
    """Two instances of one worker each."""
    with ExitStack() as stack:
        started = [gunicorn(ground, *THREADS, workers=1) for _ in range(2)]
        many = [stack.enter_context(one) for one in started]
        ports = [int(one.url.rpartition(":")[2]) for one in many]
        url, pid = stack.enter_context(PATIENT_NGINX.before(ports))
        yield Served(url, (pid, *(one.pids[0] for one in many)))


@contextmanager
def infinity(ground: Ground) -> Iterator[Served]:
    """infinity-emb, from its own environment."""
    with tempfile.TemporaryDirectory() as home:
        folder = _as_the_hub_has_it(ground.checkpoint, Path(home) / "checkpoint")
        command = [str(program("infinity", "infinity_emb")), "v2", "--model-id", str(folder)]
        command += ["--served-model-name", "siglip", "--host", "127.0.0.1"]
        command += ["--device", "cuda" if ground.gpu else "cpu", "--dtype", ground.precision]
        command += ["--no-bettertransformer", "--no-model-warmup", "--port"]  # it would time itself
        quiet = _environment(ground, 1) | {"DO_NOT_TRACK": "1"}
        try:
            with serving(lambda port: [*command, str(port)], "/models", quiet) as (url, pid):
                paths = ("/embeddings", "/embeddings_image")
                yield Served(url, (pid,), "v1", *paths, model="siglip")
        except StartError as error:
            raise Absent(f"it does not serve this checkpoint: {error}") from None


def _as_the_hub_has_it(checkpoint: Path, folder: Path) -> Path:
    """A copy whose tokenizer class is Gemma's: the one that older transformers know."""
    shutil.copytree(checkpoint.resolve(), folder, copy_function=os.symlink)
    path = folder / "tokenizer_config.json"
    renamed = json.loads(path.read_text()) | {"tokenizer_class": "GemmaTokenizerFast"}
    path.unlink()
    path.write_text(json.dumps(renamed))
    return folder


THREADS = ("--worker-class", "gthread", "--threads", "4")
SYSTEMS = {
    one.name: one
    for one in (
        System("flask-dev", partial(alone, "flask_app")),  # its own server: a thread a connection
        System("gunicorn-threads", lambda ground: gunicorn(ground, *THREADS)),
        # Stock OpenVINO, in the precision it chooses and in that of the others; a CPU's rivals.
        System("gunicorn-openvino", lambda on: gunicorn(on, *THREADS, ENGINE="openvino")),
        System(
            "gunicorn-openvino-float32",
            lambda on: gunicorn(on, *THREADS, ENGINE="openvino", PRECISION="float32"),
        ),
        System("gunicorn-gevent", lambda ground: gunicorn(ground, "--worker-class", "gevent")),
        System("nginx", behind_nginx, PATIENT_NGINX.find),
        # A worker for each kind; only one of them computes while one kind is asked.
        System("litserve", partial(alone, "litserve_api", loads=2)),
        System("infinity", infinity, partial(program, "infinity", "infinity_emb")),
    )
}
