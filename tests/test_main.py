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
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any
from unittest.mock import Mock

import httpx
import pytest

from bench.faults.vitals import http_processes
from bench.rig.child import answers, started
from bench.rig.port import free_port
from bench.rig.server_process import ROOT, ServerProcess
from litapi.__main__ import main
from litapi.checkpoint import DEMO
from litapi.devices import automatic_devices
from litapi.preflight import Port
from litapi.settings import StartError
from tests.support.certificate import certify
from tests.support.checkpoint import edit_json
from tests.support.command import clean, litapi, one_line
from tests.support.patience import awaited
from tests.support.picture import picture
from tests.support.verdicts import write_pairs


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
    run = litapi("serve", *flags, **environment)
    assert run.returncode == 2
    assert all(name in run.stderr for name in named)
    assert "Traceback" not in run.stderr


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
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs, one whose key is locked, and what is none."""
    folder = tmp_path_factory.mktemp("tls")
    certify(folder, "one")
    certify(folder, "other")
    certify(folder, "locked", "-passout", "pass:secret")
    (folder / "garbage").write_bytes(bytes(range(256)))
    (folder / "empty").touch()
    return folder


@pytest.fixture(scope="module")
def refused() -> Iterator[Callable[..., str]]:
    """What `serve` says with these flags, and that is one line and exit code 2."""
    command, env = [sys.executable, "-c", FORKS], clean(HF_HUB_OFFLINE="1")
    pipes: dict[str, Any] = {"text": True, "bufsize": 1, "stdin": PIPE, "stdout": PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=env, **pipes) as process:

        def start(*flags: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps(["serve", "--port", str(free_port()), *flags]), file=process.stdin)
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
        ("--tls-cert {0}/one.pem --tls-key {0}/other.key", "tls_key: the key is that of another"),
        ("--tls-cert {0}/one.pem --tls-key {0}/garbage", "tls_key: the file holds no key"),
        ("--tls-cert {0}/one.pem --tls-key {0}/empty", "tls_key: the file holds no key"),
        ("--tls-cert {0}/one.pem --tls-key {0}/locked.key", "tls_key: the key is encrypted"),
        ("--tls-cert {0}/one.pem --tls-key {0}", "tls_key: the file cannot be read"),
        ("--tls-cert {0}/garbage --tls-key {0}/one.key", "tls_cert: the file holds no certificate"),
        ("--tls-cert {0}/one.key --tls-key {0}/one.pem", "tls_cert: the file holds no certificate"),
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
    refused: Callable[..., str], certificates: Path, flags: str, said: str
) -> None:
    """Before anything loads, with the option named, and without a password."""
    line = refused(*flags.format(certificates).split())
    assert said in line
    assert "secret" not in line


def test_a_temporary_folder_that_cannot_be_used_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The path of a Unix socket has at most 107 bytes; or a read-only file system everywhere."""
    long = tmp_path / ("a" * 100)
    long.mkdir()
    none = FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")
    for found, said in ([str(long)], "the path is longer than"), (none, "No usable"):
        monkeypatch.setattr("tempfile.gettempdir", Mock(side_effect=found))
        assert main(["serve", "--port", str(free_port())]) == 2
        line = capsys.readouterr().err
        assert line.startswith(f"siglit: the temporary folder cannot be used: {said}")
        assert line.count("\n") == 1


def test_a_port_that_another_program_has_is_one_clear_line(refused: Callable[..., str]) -> None:
    """Before anything loads."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} is taken" in refused("--port", str(port))


@pytest.fixture
def loading() -> Iterator[ServerProcess]:
    """A server that holds its port, though it does not listen there yet."""
    server = ServerProcess("--redis-private", "off")

    def taken() -> bool:
        try:
            Port("127.0.0.1", server.port).close()
        except StartError:
            return True
        return False

    server.start(wait=False)
    try:
        awaited(taken)
        yield server
    finally:
        server.kill()


def test_of_two_starts_on_one_port_the_second_gives_way_at_once(loading: ServerProcess) -> None:
    """Though the first still loads; it goes on and serves."""
    port = loading.port
    assert f"port {port} is taken" in one_line(litapi("serve", "--port", port))
    loading.await_ready()
    assert f"port {port} is taken" in one_line(litapi("serve", PORT=str(port)))
    assert loading.stop() == 0


def test_a_port_that_another_program_takes_meanwhile_is_one_line(loading: ServerProcess) -> None:
    """No banner of a server that does not listen."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("0.0.0.0", loading.port))
        other.listen()
        assert loading.process is not None
        assert loading.process.wait(120) == 2
    assert re.search(rf"port {loading.port} .*taken", loading.log())
    assert not re.search("siglit serves|Traceback", loading.log())


def test_a_terminal_neither_stops_what_logs_to_it_nor_cuts_requests_off() -> None:
    """One that stops background writers (`stty tostop`); Ctrl-C there reaches the main process."""
    port, (terminal, inside) = free_port(), os.openpty()
    mode = termios.tcgetattr(terminal)
    mode[3] |= termios.TOSTOP
    termios.tcsetattr(terminal, termios.TCSANOW, mode)
    enter = "import os, sys; os.login_tty(0); os.execv(sys.executable, sys.argv[1:])"
    serve = [sys.executable, "-m", "litapi", "serve", "--access-log", "on", "--port", str(port)]
    server = started([sys.executable, "-c", enter, *serve], stdin=inside)
    try:
        awaited(answers(f"http://127.0.0.1:{port}/readyz"))
        for _ in range(3):
            assert httpx.get(f"http://127.0.0.1:{port}/nowhere", timeout=60).status_code == 404
        os.write(terminal, b"\x03")
        assert server.wait(60) == 0
        assert b"GET other 404" in os.read(terminal, 1 << 16)
    finally:
        server.kill()
        server.wait()
    os.close(terminal)
    os.close(inside)


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
        (problem,), log = info["problems"], server.log()
    assert info["devices"] == ["cpu"]
    assert "the CPU serves" in problem
    assert (log.count(problem), log.count("Traceback")) == (1, 0)


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
    one_line(litapi("serve", "--pairs", "/nowhere", **elsewhere))
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
        assert ["no room for metrics" in problem for problem in problems] == [True]
        assert server.log().count("no room for metrics") == 1
        assert server.stop() == 0
    finally:
        server.kill()
        subprocess.run(["umount", "-l", str(short_path)], capture_output=True, check=False)


def test_a_checkpoint_that_would_be_served_wrong_is_named_and_not_served(tmp_path: Path) -> None:
    """Left padding: `check` finds it, and a start ends without a traceback."""
    folder = shutil.copytree(DEMO, tmp_path / "wrong")
    edit_json(folder / "tokenizer_config.json", padding_side="left")
    run = litapi("check", "--model", folder)
    assert (run.returncode, "FAIL" in run.stdout) == (1, True)
    start = litapi("serve", "--port", free_port(), "--model", folder)
    assert start.returncode == 2
    assert start.stderr.splitlines()[-1].startswith("siglit: this checkpoint would be served wrong")
    assert "Traceback" not in start.stdout + start.stderr


def test_check_holds_the_demo_against_its_published_logits() -> None:
    """Every line passes, and the towers give all 21 numbers; a table shows each beside its own."""
    run = litapi("check", "--golden", "--verbose")
    assert run.returncode == 0, run.stderr
    assert len(re.findall(r"^pass ", run.stdout, re.MULTILINE)) >= 10
    assert "FAIL" not in run.stdout
    assert "21 at 0.001" in run.stdout
    assert "dots 500 × 700" in run.stdout


def test_check_judges_a_running_server(server: ServerProcess, tmp_path: Path) -> None:
    """Logits and recall over HTTP; a folder without captions is refused by its option."""
    folder = write_pairs(tmp_path / "pairs", 8)
    run = litapi("check", "--golden", "--url", server.url, "--retrieval", folder)
    assert run.returncode == 0, run.stderr
    for found in ("pass  golden", "8 captions of 8 pictures", "recall@1"):
        assert found in run.stdout
    run = litapi("check", "--url", server.url, "--retrieval", tmp_path)
    assert (run.returncode, run.stderr[:21]) == (2, "siglit: --retrieval: ")


def test_check_says_where_nobody_has_published_numbers(tmp_path: Path) -> None:
    """No numbers are no failure, and the sentence names the checkpoint."""
    folder = shutil.copytree(DEMO, tmp_path / "mine")
    run = litapi("check", "--golden", "--model", folder)
    assert run.returncode == 0
    assert "There are no published numbers of mine." in run.stdout


def test_warm_fills_the_cache_and_a_second_run_knows_all(
    server: ServerProcess, tmp_path: Path
) -> None:
    """Texts and a folder of images; a damaged image is counted, and stops nothing."""
    texts, images = tmp_path / "texts.txt", tmp_path / "images"
    texts.write_text("".join(f"warm text {n}\n" for n in range(150)))
    (images / "deep").mkdir(parents=True)
    for number in range(5):
        (images / "deep" / f"{number}.png").write_bytes(picture(900 + number))
    (images / "bad.jpg").write_bytes(b"no image")
    for known, computed in ((0, 155), (155, 0)):
        run = litapi("warm", texts, images, "--url", server.url)
        assert run.returncode == 0
        assert run.stdout.strip() == f"{known} known, {computed} computed, 1 refused"


def test_warm_says_when_there_is_nobody_to_warm(tmp_path: Path) -> None:
    """No server, or no file: exit code 2, and the file is named."""
    texts = tmp_path / "texts.txt"
    texts.write_text("a\n")
    assert litapi("warm", texts, "--url", f"http://127.0.0.1:{free_port()}").returncode == 2
    assert "none.txt" in one_line(litapi("warm", tmp_path / "none.txt"))
