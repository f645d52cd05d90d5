"""wrk and ab, where they are installed: one command each, the same work."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.rig.server_process import ROOT
from tests.support.echo_server import Behaviour, EchoServer

ARGUMENTS = {"wrk": ("2", "1"), "ab": ("2", "20")}


@pytest.mark.parametrize("script", ARGUMENTS)
@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_texts_are_sent_and_a_server_that_fails_fails_the_run(
    script: str, status: int, code: int
) -> None:
    """The tools' own exit code would be 0. wrk sends distinct texts, ab one past the cache."""
    if shutil.which(script) is None:
        pytest.skip(f"{script} is not installed")
    with EchoServer(lambda n: Behaviour(status=status if n else 200)) as server:
        command = [str(ROOT / "bench" / script / "run.sh"), server.url, *ARGUMENTS[script]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if script == "wrk":
            assert len(set(server.items)) == len(server.items) > 0
        else:
            assert all("cache-control: no-cache" in head for head in server.heads)
    assert done.returncode == code, done.stdout + done.stderr


@pytest.mark.parametrize("script", ARGUMENTS)
def test_a_missing_tool_is_named_with_how_to_install_it(script: str, tmp_path: Path) -> None:
    """In one line."""
    (tmp_path / "nproc").write_text("#!/bin/sh\necho 1\n")
    (tmp_path / "nproc").chmod(0o755)
    command = ["/bin/bash", str(ROOT / "bench" / script / "run.sh")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{script} is missing: sudo apt-get install")
