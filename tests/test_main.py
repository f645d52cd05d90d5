"""The command line: one clear line and exit code 2 for what cannot be done."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.rig.port import free_port
from bench.rig.server_process import ROOT, ServerProcess
from tests.conftest import picture


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SIGLIT_")}
    return subprocess.run(
        [sys.executable, "-m", "litapi", *arguments],
        cwd=ROOT,
        env={**clean, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_wrong_option_stops_the_start_and_names_itself() -> None:
    """Flag and environment variable, both at once."""
    run = _run("serve", "--threads", "many", SIGLIT_TIMEOUT="0")
    assert run.returncode == 2
    assert "--threads" in run.stderr
    assert "SIGLIT_TIMEOUT" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_unknown_flag_stops_the_start_and_names_itself() -> None:
    """Also one that is nearly right."""
    run = _run("serve", "--text-worker", "2")
    assert run.returncode == 2
    assert "--text-worker" in run.stderr


def test_an_unknown_variable_stops_the_start_and_names_itself() -> None:
    """With the prefix, a misspelt name is an error."""
    run = _run("serve", SIGLIT_PROT="8081")
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "SIGLIT_PROT" in run.stderr


def test_a_taken_port_is_one_clear_line() -> None:
    """Exit code 2, before anything loads."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        run = _run("serve", PORT=port)
    assert run.returncode == 2
    assert f"port {port} is taken" in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("model", ["/nowhere/at/all", "nobody/no-such-model"])
def test_a_missing_model_is_one_clear_line(model: str) -> None:
    """A folder that is not there, and a name that no hub has."""
    run = _run("serve", MODEL=model, PORT=str(free_port()))
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_a_bad_redis_url_is_one_clear_line_without_its_password() -> None:
    """The URL is refused, and nothing of it is repeated."""
    run = _run("serve", REDIS_URL="http://user:secret@cache", PORT=str(free_port()))
    assert run.returncode == 2
    assert "secret" not in run.stderr
    assert "Traceback" not in run.stderr


def test_check_says_line_by_line_that_the_demo_checkpoint_is_served_right() -> None:
    """Every line passes; exit code 0."""
    run = _run("check")
    lines = run.stdout.strip().splitlines()
    assert run.returncode == 0
    assert len(lines) >= 10
    assert all(line.startswith("pass") for line in lines)


def test_check_fails_for_a_checkpoint_that_would_be_served_wrong(tmp_path: Path) -> None:
    """Left padding is found and named; exit code 1."""
    import json
    import shutil

    from litapi.checkpoint import fetch

    folder = tmp_path / "wrong"
    shutil.copytree(fetch("", None), folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
    run = _run("check", "--model", str(folder))
    assert run.returncode == 1
    assert "FAIL" in run.stdout


def test_warm_fills_the_cache_and_a_second_run_finds_everything_known(
    server: ServerProcess, tmp_path: Path
) -> None:
    """Texts and a folder of images; a damaged image is counted, and stops nothing."""
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"warm text {n}\n" for n in range(150)))
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    for number in range(5):
        (images / "deep" / f"{number}.png").write_bytes(picture(900 + number))
    (images / "bad.jpg").write_bytes(b"no image")
    first = _run("warm", str(texts), str(images), "--url", server.url)
    again = _run("warm", str(texts), str(images), "--url", server.url)
    assert first.returncode == again.returncode == 0
    assert first.stdout.strip() == "0 known, 155 computed, 1 refused"
    assert again.stdout.strip() == "155 known, 0 computed, 1 refused"


def test_warm_says_when_there_is_nobody_to_warm(tmp_path: Path) -> None:
    """No server, or no file: one line, exit code 2."""
    texts = tmp_path / "texts.txt"
    texts.write_text("a\n")
    assert _run("warm", str(texts), "--url", f"http://127.0.0.1:{free_port()}").returncode == 2
    run = _run("warm", str(tmp_path / "none.txt"))
    assert run.returncode == 2
    assert "none.txt" in run.stderr


def test_wrong_hosts_for_images_by_url_are_one_clear_line() -> None:
    """A URL where a host belongs is refused before anything loads."""
    flags = (
        "--image-urls",
        "allowed",
        "--image-url-hosts",
        "http://a/b",
        "--port",
        str(free_port()),
    )
    run = _run("serve", *flags)
    assert run.returncode == 2
    assert "image_url_hosts" in run.stderr
    assert "Traceback" not in run.stderr
