"""wrk and ab, where they are installed: one command each, the same work."""

import shutil
import subprocess
from pathlib import Path

import orjson
import pytest

from tests.support.echo_server import Behaviour, EchoServer, well

BENCH = Path(__file__).parent.parent.parent / "bench"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script to its end; skips where its tool is missing."""
    if shutil.which(script) is None:
        pytest.skip(f"{script} is not installed")
    command = [str(BENCH / script / "run.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_wrk_sends_distinct_texts_and_ends_in_json() -> None:
    """As the load generator does."""
    with EchoServer() as server:
        done = run("wrk", server.url, "2", "1")
        assert len(set(server.items)) == len(server.items) > 0
    assert done.returncode == 0, done.stderr
    last = orjson.loads(done.stdout.splitlines()[-1])
    assert last["requests"] > 0
    assert (last["failed"], last["busy"]) == (0, 0)


def test_wrk_fails_when_the_server_does() -> None:
    """Its own exit code would be 0."""
    with EchoServer(lambda n: Behaviour(status=503 if n == 3 else 200)) as server:
        done = run("wrk", server.url, "2", "1")
    assert done.returncode == 1
    assert orjson.loads(done.stdout.splitlines()[-1])["failed"] == 1


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_ab_sends_a_text_past_the_cache(status: int, code: int) -> None:
    """And fails when the server does."""
    behave = well if status == 200 else lambda _: Behaviour(status=status)
    with EchoServer(behave) as server:
        done = run("ab", server.url, "2", "20")
        assert len(server.heads) >= 20
        assert all("cache-control: no-cache" in head for head in server.heads)
    assert done.returncode == code, done.stdout + done.stderr


@pytest.mark.parametrize("script", ["wrk", "ab"])
def test_a_missing_tool_is_named_with_how_to_install_it(script: str, tmp_path: Path) -> None:
    """In one line."""
    (tmp_path / "nproc").write_text("#!/bin/sh\necho 1\n")
    (tmp_path / "nproc").chmod(0o755)
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    command = ["/bin/bash", str(BENCH / script / "run.sh")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{script} is missing: sudo apt-get install")
