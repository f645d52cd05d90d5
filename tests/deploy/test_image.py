"""The Dockerfile: the linter's word, what it copies, and that its parts run as it says.

No engine is needed: the health check, the entry point and the end by SIGTERM are run by hand.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from bench.rig.port import free_port
from bench.rig.server_process import ServerProcess

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = ROOT / "Dockerfile"
PINNED = re.compile(r"[a-z0-9./-]+:\d+\.\d+\.\d+[a-z0-9.-]*")


@cache
def instructions() -> list[tuple[str, str]]:
    """(word, rest) of each, with continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (x.partition(" ") for x in joined.splitlines() if x)]


def stage(name: str) -> list[tuple[str, str]]:
    """The instructions of a target, those of the stages it is built on before its own."""
    stages: dict[str, list[tuple[str, str]]] = {"": []}
    for word, rest in instructions():
        if word == "FROM":
            parent, _, target = rest.partition(" AS ")
            stages[target] = [*stages.get(parent, [])]
        else:
            stages[[*stages][-1]].append((word, rest))
    return stages[name]


def last(name: str, word: str) -> str:
    return [rest for one, rest in stage(name) if one == word][-1]


def health_check() -> list[str]:
    """The command, with this Python in place of the image's."""
    command: list[str] = json.loads(last("cpu", "HEALTHCHECK").partition("CMD ")[2])
    return [sys.executable, *command[1:]]


def test_the_linter_has_nothing_to_say() -> None:
    """hadolint, with all its rules."""
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint has no build for this machine")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_base_is_pinned() -> None:
    """By its exact version, and every stage stands on it."""
    named = dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG")
    assert PINNED.fullmatch(named["PYTHON"])
    stages = [rest.split(" AS ")[1] for word, rest in instructions() if word == "FROM"]
    bases = {rest.split(" ")[0] for word, rest in instructions() if word == "FROM"}
    assert bases - set(stages) == {"${PYTHON}"}


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_dependencies_come_before_the_source(target: str) -> None:
    """A change of the source leaves the large layer as it was; nothing else is in the context."""
    kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    assert kept == ["!requirements.txt", "!cache/**", "!litapi/**"]
    copies = [rest for word, rest in stage(target) if word == "COPY"]
    assert copies[0] == f"--from=venv-{target} /venv /venv"
    assert copies[1:] == ["cache cache", "litapi litapi"]


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_it_runs_as_a_number_and_without_a_shell(target: str) -> None:
    """Kubernetes sees that it is not root, and signals reach the server; it writes to a volume."""
    volume = json.loads(last(target, "VOLUME"))[0]
    words = [w for one, rest in stage(target) if one == "ENV" for w in shlex.split(rest)]
    environment = dict(word.split("=", 1) for word in words)
    for name in ("HOME", "HF_HOME", "SIGLIT_COMPILE_CACHE"):
        assert environment[name].startswith(volume)
    user = last(target, "USER")
    assert all(part.isdigit() and int(part) > 0 for part in user.split(":"))
    assert json.loads(last(target, "ENTRYPOINT")) == ["python", "-m", "litapi"]
    assert json.loads(last(target, "CMD")) == ["serve"]
    assert last(target, "STOPSIGNAL") == "SIGTERM"


@pytest.mark.parametrize("alive", [True, False])
def test_the_health_check_sees_whether_there_is_a_server(
    server: ServerProcess, alive: bool
) -> None:
    """0 for one that is alive, on whatever port; 1, as the engine wants it, for none."""
    environment = {**os.environ, "PORT": str(server.port if alive else free_port())}
    done = subprocess.run(health_check(), env=environment, capture_output=True, timeout=60)
    assert done.returncode == (0 if alive else 1), done.stderr


def test_the_source_that_is_copied_is_enough(tmp_path: Path) -> None:
    """The entry point works in a folder that holds only what the image does."""
    for name in ("cache", "litapi"):
        (tmp_path / name).symlink_to(ROOT / name)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SIGLIT_", "PYTHONPATH"))}
    command = [sys.executable, "-m", "litapi", "check"]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
