"""All systems by name."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from bench.compare.baselines.install import program
from bench.compare.baselines.system import LOADED, Ground, Served, System
from bench.rig.balancer import PATIENT_NGINX
from bench.rig.child import Absent, StartError, answers, child
from bench.rig.port import free_port

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
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", f"bench.compare.baselines.{module}", str(port)]
    with child(command, answers(f"{url}/health"), _environment(ground, 1), LOADED, loads) as pid:
        yield Served(url, (pid,))


class FlaskDev(System):
    """Flask's own server: a thread for each connection."""

    name = "flask-dev"

    def start(self, ground: Ground) -> AbstractContextManager[Served]:
        return alone("flask_app", ground)


@contextmanager
def gunicorn(
    ground: Ground, options: Sequence[str], workers: int, processes: int
) -> Iterator[Served]:
    """The Flask service under Gunicorn, with so many workers, of so many that compute in all."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}"]
    command += ["--workers", str(workers), "--timeout", PATIENCE, *options]
    command.append("bench.compare.baselines.flask_app:create_app()")
    environment = _environment(ground, processes)
    with child(command, answers(f"{url}/health"), environment, LOADED, workers) as pid:
        yield Served(url, (pid,))


class Gunicorn(System):
    def __init__(self, name: str, *options: str) -> None:
        self.name = name
        self._options = options

    def start(self, ground: Ground) -> AbstractContextManager[Served]:
        return gunicorn(ground, self._options, workers=2, processes=2)


class BehindNginx(System):
    """Two instances of one worker each, behind nginx."""

    name = "nginx"

    def look(self) -> None:
        PATIENT_NGINX.find()

    @contextmanager
    def start(self, ground: Ground) -> Iterator[Served]:
        with ExitStack() as stack:
            many = [
                stack.enter_context(gunicorn(ground, THREADS, workers=1, processes=2))
                for _ in range(2)
            ]
            ports = [int(one.url.rpartition(":")[2]) for one in many]
            url, pid = stack.enter_context(PATIENT_NGINX.before(ports))
            yield Served(url, (pid, *(one.pids[0] for one in many)))


class PlainLitServe(System):
    """LitServe alone. A worker for each kind; only one of them computes while one kind is asked."""

    name = "litserve"

    def start(self, ground: Ground) -> AbstractContextManager[Served]:
        return alone("litserve_api", ground, loads=2)


class Infinity(System):
    """infinity-emb, from its own environment."""

    name = "infinity"

    def look(self) -> None:
        program(self.name, "infinity_emb")

    @contextmanager
    def start(self, ground: Ground) -> Iterator[Served]:
        with tempfile.TemporaryDirectory() as home:
            folder = _as_the_hub_has_it(ground.checkpoint, Path(home) / "checkpoint")
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            command = [str(program(self.name, "infinity_emb")), "v2", "--model-id", str(folder)]
            command += ["--served-model-name", "siglip", "--host", "127.0.0.1", "--port", str(port)]
            device = "cuda" if ground.gpu else "cpu"
            command += ["--device", device, "--dtype", ground.precision]
            command += ["--no-bettertransformer", "--no-model-warmup"]  # it would time itself
            quiet = _environment(ground, 1) | {"DO_NOT_TRACK": "1"}
            try:
                with child(command, answers(f"{url}/models"), quiet) as pid:
                    paths = ("/embeddings", "/embeddings_image")
                    yield Served(url, (pid,), "v1", *paths, model="siglip")
            except StartError as error:
                raise Absent(f"it does not serve this checkpoint: {error}") from None


def _as_the_hub_has_it(checkpoint: Path, folder: Path) -> Path:
    """A copy whose tokenizer class is Gemma's: the one that older transformers know."""
    shutil.copytree(checkpoint, folder, copy_function=_link)
    path = folder / "tokenizer_config.json"
    renamed = json.loads(path.read_text()) | {"tokenizer_class": "GemmaTokenizerFast"}
    path.unlink()
    path.write_text(json.dumps(renamed))
    return folder


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(Path(source).resolve())


THREADS = ("--worker-class", "gthread", "--threads", "4")
SYSTEMS: dict[str, System] = {
    one.name: one
    for one in (
        FlaskDev(),
        Gunicorn("gunicorn-threads", *THREADS),
        Gunicorn("gunicorn-gevent", "--worker-class", "gevent"),
        BehindNginx(),
        PlainLitServe(),
        Infinity(),
    )
}
