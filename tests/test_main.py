"""The command line: one clear line and exit code 2 for what cannot be done."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import httpx
import pytest

from bench.faults.vitals import http_processes
from bench.rig.port import free_port
from bench.rig.server_process import ROOT, ServerProcess
from litapi.__main__ import main
from litapi.checkpoint import fetch
from litapi.demo.heldout import pictures, yardstick
from litapi.devices import automatic_devices
from litapi.preflight import Port
from litapi.settings import StartError
from tests.support.certificate import certify
from tests.support.patience import awaited
from tests.support.picture import picture


def _clean(**environment: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SIGLIT_")}
    return {**clean, "HF_HUB_OFFLINE": "1", **environment}


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command, env = [sys.executable, "-m", "litapi", *arguments], _clean(**environment)
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize(
    ("flags", "environment", "named"),
    [
        (["--threads", "many"], {"SIGLIT_TIMEOUT": "0"}, ["--threads", "SIGLIT_TIMEOUT"]),
        (["--text-worker", "2"], {}, ["--text-worker"]),
        ([], {"SIGLIT_PROT": "8081"}, ["SIGLIT_PROT"]),
        ([], {"SIGLIT_PORT": "tcp://10.96.0.7:8080"}, ["SIGLIT_PORT", "enableServiceLinks"]),
    ],
)
def test_a_wrong_option_stops_the_start_and_names_itself(
    flags: list[str], environment: dict[str, str], named: list[str]
) -> None:
    """Flags and variables, several at once, unknown ones, and what Kubernetes sets."""
    run = _run("serve", *flags, **environment)
    assert run.returncode == 2
    assert all(name in run.stderr for name in named)
    assert "Traceback" not in run.stderr


def _one_line(run: subprocess.CompletedProcess[str]) -> str:
    """What was said by a start that cannot work: one line, exit code 2, no banner, no trace."""
    assert run.returncode == 2, run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    return run.stderr


# Starts that fail are forks of one process: what they import is read once for all of them.
FORKS = """
import json, os, sys, tempfile
import litapi.preflight, litapi.quality.verdict, litapi.server
from litapi.__main__ import main

for words in iter(sys.stdin.readline, ""):
    with tempfile.TemporaryFile() as said:
        if not (pid := os.fork()):
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.exit(main(json.loads(words)))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        print(json.dumps([status, said.read().decode()]), flush=True)
"""


@pytest.fixture(scope="module")
def refused() -> Iterator[Callable[..., str]]:
    """What `serve` says with these flags, and that is one line and exit code 2."""
    command = [sys.executable, "-c", FORKS]
    with subprocess.Popen(
        command, cwd=ROOT, env=_clean(), text=True, bufsize=1, stdin=PIPE, stdout=PIPE
    ) as process:

        def start(*flags: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            words = ["serve", "--port", str(free_port()), *flags]
            print(json.dumps(words), file=process.stdin)
            status, said = json.loads(process.stdout.readline())
            assert status == 2, said
            assert re.fullmatch(r"siglit: [^\n]+\n", said), said
            return str(said)

        yield start


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--api-keys ,", "--api-keys: holds no key"),
        ("--api-keys-file /nowhere", "--api-keys-file: the file cannot be read"),
        ("--api-keys-file /", "--api-keys-file: the file cannot be read"),
        ("--api-keys-file /dev/null", "--api-keys-file: the file holds no key"),
        ("--cache-per-key on", "--cache-per-key: there are no API keys"),
        ("--cors-origins example.org", "--cors-origins: 'example.org' is no origin"),
        ("--otlp-endpoint collector:4318", "--otlp-endpoint: takes an http://"),
        ("--pairs /nowhere", "--pairs: there is no folder"),
        ("--pairs /etc/passwd", "--pairs: there is no folder"),
        ("--calibration /nowhere", "--calibration: /nowhere cannot be read"),
        ("--calibration /etc/passwd", "--calibration: /etc/passwd is no file of"),
        ("--devices cuda:97", "--devices: "),
        ("--devices cuda:0,cuda:97", "--devices: "),
        ("--tls-cert /etc/passwd", "tls_cert and tls_key go together"),
        ("--tls-cert / --tls-key /", "tls_cert: the file cannot be read"),
        ("--tls-cert /nowhere --tls-key /nowhere", "tls_cert: the file cannot be read"),
        ("--tls-cert /etc/passwd --tls-key /etc/passwd", "tls_cert: the file holds no"),
        ("--model /etc/passwd", "There is no folder"),
        ("--model /nowhere/at/all", "There is no folder"),
        ("--model nobody/no-such-model", "nobody/no-such-model"),
        ("--redis-url http://user:secret@cache", "--redis-url: takes redis://"),
        ("--redis-url rediss://h:6379/0?ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs takes"),
        ("--redis-url rediss://h:6379/0?ssl_ca_certs=/nowhere", "ssl_ca_certs cannot be used"),
        ("--redis-url redis://h/zero", "database"),
        ("--redis-url redis://h?colour=red", "colour"),
        ("--redis-url redis://h:70000", "--redis-url: takes redis://"),
        ("--image-urls allowed --image-url-hosts http://a/b", "image_url_hosts"),
    ],
)
def test_a_start_that_cannot_work_ends_in_one_line(
    refused: Callable[..., str], flags: str, said: str
) -> None:
    """Before anything loads, with the option named, and without a password."""
    line = refused(*flags.split())
    assert said in line
    assert "secret" not in line


def test_a_temporary_folder_with_too_long_a_path_is_one_clear_line(tmp_path: Path) -> None:
    """The path of a Unix socket has at most 107 bytes."""
    long = tmp_path / ("a" * 100)
    long.mkdir()
    line = _one_line(_run("serve", "--port", str(free_port()), TMPDIR=str(long)))
    assert "the temporary folder cannot be used: the path is longer than" in line


def test_no_temporary_folder_at_all_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A read-only file system everywhere."""

    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", none)
    assert main(["serve", "--port", str(free_port())]) == 2
    said = capsys.readouterr().err
    assert said.startswith("siglit: the temporary folder cannot be used: No usable")
    assert said.count("\n") == 1


def test_a_tls_pair_that_does_not_serve_is_one_clear_line(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    """The key of another certificate, garbage, an encrypted key, both the wrong way round."""
    path, key = certify(tmp_path, "one")
    _, other = certify(tmp_path, "other")
    _, locked = certify(tmp_path, "locked", "-passout", "pass:secret")
    garbage = tmp_path / "garbage"
    garbage.write_bytes(bytes(range(256)))
    empty = tmp_path / "empty"
    empty.touch()
    for certificate, own, said in [
        (path, other, "tls_key: the key is that of another certificate"),
        (path, garbage, "tls_key: the file holds no key"),
        (path, empty, "tls_key: the file holds no key"),
        (path, locked, "tls_key: the key is encrypted"),
        (garbage, key, "tls_cert: the file holds no certificate"),
        (key, path, "tls_cert: the file holds no certificate"),
        (path, tmp_path, "tls_key: the file cannot be read"),
    ]:
        assert said in refused("--tls-cert", str(certificate), "--tls-key", str(own))


def _await_name(port: int) -> None:
    """Until somebody holds the port, though nobody listens there yet."""

    def taken() -> bool:
        try:
            Port("127.0.0.1", port).close()
        except StartError:
            return True
        return False

    awaited(taken)


def test_of_two_starts_on_one_port_the_second_gives_way_at_once() -> None:
    """Though the first still loads; it goes on and serves."""
    server = ServerProcess("--redis-private", "off")
    server.start(wait=False)
    try:
        _await_name(server.port)
        line = _one_line(_run("serve", "--port", str(server.port)))
        assert f"port {server.port} is taken" in line
        server.await_ready()
        assert f"port {server.port} is taken" in _one_line(_run("serve", PORT=str(server.port)))
        assert server.stop() == 0
    finally:
        server.kill()


def test_a_port_that_another_program_takes_meanwhile_is_one_clear_line() -> None:
    """No banner of a server that does not listen."""
    server = ServerProcess("--redis-private", "off")
    server.start(wait=False)
    try:
        _await_name(server.port)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("0.0.0.0", server.port))
            other.listen()
            assert server.process is not None
            assert server.process.wait(120) == 2
        assert f"port {server.port} " in server.log()
        assert "taken" in server.log()
        assert "siglit serves" not in server.log()
        assert "Traceback" not in server.log()
    finally:
        server.kill()


def test_a_gpu_that_cannot_be_used_is_left_out_and_said(tmp_path: Path) -> None:
    """A driver's tool beside a torch without CUDA: the CPU serves, and `/info` says why."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    if automatic_devices()[0] != ["cpu"]:
        pytest.skip("torch can use a GPU here")
    path: dict[str, Any] = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with ServerProcess("--redis-private", "off", **path) as server:
        info = httpx.get(f"{server.url}/info", timeout=60).json()
        log = server.log()
    assert info["devices"] == ["cpu"]
    (problem,) = info["problems"]
    assert "the CPU serves" in problem
    assert log.count(problem) == 1
    assert "Traceback" not in log


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for temporary files whose path has room for a socket's name behind it."""
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as folder:
        yield Path(folder)


def test_what_a_killed_server_leaves_is_cleared_up_by_the_next(short_path: Path) -> None:
    """Its folder of metrics and sockets, even by a start that then fails."""
    elsewhere: dict[str, Any] = {"TMPDIR": str(short_path)}
    killed = ServerProcess("--redis-private", "off", **elsewhere).start()
    (left,) = short_path.glob("siglit-metrics-*")
    killed.kill()
    assert left.is_dir()
    os.utime(left, (0, 0))
    _one_line(_run("serve", "--pairs", "/nowhere", **elsewhere))
    assert not left.exists()
    assert not list(short_path.glob("pymp-*"))


def test_a_full_temporary_folder_costs_metrics_and_nothing_else(short_path: Path) -> None:
    """On a small file system of its own that is filled from outside."""
    small = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(short_path)]
    if subprocess.run(small, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    server = ServerProcess("--redis-private", "off", TMPDIR=str(short_path))
    try:
        server.start()
        before = http_processes(server)
        with contextlib.suppress(OSError), open(short_path / "fill", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for number in range(50):
                body = {"text": f"text {number}"}
                assert client.post("/embed_text", json=body).status_code == 200
                client.get(f"/no/such/{number}")
            assert client.get("/metrics").status_code == 200
            problems = client.get("/info").json()["problems"]
        assert http_processes(server) == before
        assert len(problems) == 1
        assert "no room for metrics" in problems[0]
        assert server.log().count("no room for metrics") == 1
        assert server.stop() == 0
    finally:
        server.kill()
        subprocess.run(["umount", "-l", str(short_path)], capture_output=True, check=False)


def test_a_checkpoint_that_would_be_served_wrong_is_named_and_not_served(tmp_path: Path) -> None:
    """Left padding: `check` finds it, and a start ends without a traceback."""
    folder = tmp_path / "wrong"
    shutil.copytree(fetch("", None), folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
    run = _run("check", "--model", str(folder))
    assert run.returncode == 1
    assert "FAIL" in run.stdout
    start = _run("serve", "--port", str(free_port()), "--model", str(folder))
    assert start.returncode == 2
    assert start.stderr.splitlines()[-1].startswith("siglit: this checkpoint would be served wrong")
    assert "Traceback" not in start.stdout + start.stderr


def test_check_holds_the_demo_against_its_published_logits() -> None:
    """Every line passes, and the towers give all 21 numbers; a table shows each beside its own."""
    run = _run("check", "--golden", "--verbose")
    assert run.returncode == 0, run.stderr
    assert len(re.findall(r"^pass ", run.stdout, re.MULTILINE)) >= 10
    assert "FAIL" not in run.stdout
    assert "21 at 0.001" in run.stdout
    assert "dots 500 × 700" in run.stdout


def test_check_judges_a_running_server(server: ServerProcess, tmp_path: Path) -> None:
    """Logits and recall over HTTP; a folder without captions is refused by its option."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    scenes = yardstick(8)
    for number, (scene, drawn) in enumerate(zip(scenes, pictures(scenes, "t"), strict=True)):
        drawn.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(scene.caption())
    run = _run("check", "--golden", "--url", server.url, "--retrieval", str(folder))
    assert run.returncode == 0, run.stderr
    assert "pass  golden" in run.stdout
    assert "8 captions of 8 pictures" in run.stdout
    assert "recall@1" in run.stdout
    run = _run("check", "--url", server.url, "--retrieval", str(tmp_path))
    assert run.returncode == 2
    assert run.stderr.startswith("siglit: --retrieval: ")


def test_check_says_where_nobody_has_published_numbers(tmp_path: Path) -> None:
    """No numbers are no failure, and the sentence names the checkpoint."""
    folder = tmp_path / "mine"
    shutil.copytree(fetch("", None), folder)
    run = _run("check", "--golden", "--model", str(folder))
    assert run.returncode == 0
    assert "There are no published numbers of mine." in run.stdout


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
