"""The command line, whole: against a small server, as a child process or in this one."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from bench.load.__main__ import Load, levels, main, parser
from bench.load.level import Level
from bench.load.recording import Recording
from bench.load.summary import Report
from bench.load.summary import main as summary_main
from bench.rig.port import free_port
from tests.support.echo_server import Behaviour, EchoServer
from tests.support.patience import awaited

ROOT = Path(__file__).parent.parent.parent.parent
QUICK = ["--warmup", "0", "--quiet"]


def fields(*arguments: str) -> dict[str, Any]:
    """What a recording would hold of the options."""
    return Load(parser().parse_args(arguments))._fields()


POISSON: dict[str, Any] = {"arrivals": "poisson", "duration": 10.0, "connections": 64}
CLOSED = ((5, 100), (50, 500), (500, 5000))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("--concurrency 10 --requests 100", [Level(1, concurrency=10, requests=100)]),
        ("", [Level(1, concurrency=10, requests=100)]),
        ("--duration 2.5", [Level(1, concurrency=10, duration=2.5)]),  # in place of a number
        (
            "--concurrency 5,50,500",
            [Level(i, concurrency=n, requests=m) for i, (n, m) in enumerate(CLOSED, 1)],
        ),
        (
            "--rate 50,12.5 --arrivals poisson --connections 64",
            [Level(1, rate=50.0, **POISSON), Level(2, rate=12.5, **POISSON)],
        ),
        ("--rate 5 --requests 7", [Level(1, rate=5.0, requests=7)]),
    ],
)
def test_options_become_levels(arguments: str, found: list[Level]) -> None:
    """Numbered from one, each with its own bound; ten in flight unless said otherwise."""
    assert levels(parser().parse_args(arguments.split())) == found


IMPOSSIBLE = (
    "--concurrency 0", "--concurrency 5,,6", "--concurrency many", "--rate -1", "--rate nan",
    "--rate inf", "--duration 0", "--requests 0", "--batch 0", "--repeat 1.5", "--target sound",
    "--route v2", "--concurency 10", "--conc 10",
)  # fmt: skip


@pytest.mark.parametrize("arguments", IMPOSSIBLE)
def test_an_impossible_option_is_refused_by_name(
    arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never ignored, never abbreviated, never guessed."""
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    assert arguments.split()[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--url", "localhost"], "not a URL"),
        (["--seed", "99999999"], "a seed lies between"),
        (["--rate", "5", "--concurrency", "5"], "exclude each other"),
        (["--target", "image", "--images", "{folder}"], "no JPEG and no PNG"),
        (["--out", "{folder}/missing/run.jsonl"], "No such file"),
    ],
)
def test_options_that_cannot_be_met_end_with_a_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, with exit code 2 and no table, before anything is sent."""
    assert main([word.format(folder=tmp_path) for word in arguments]) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.out == ""


def test_a_recording_holds_neither_address_nor_key_nor_path() -> None:
    """Result files are published."""
    secret = ["--key", "hush", "--header", "X-Token: hush", "--out", "/secret/out.jsonl"]
    text = orjson.dumps(fields("--url", "http://hush.example:81", *secret)).decode()
    assert "hush" not in text
    assert "secret" not in text


def test_a_recording_holds_what_bears_on_the_result() -> None:
    """Workload, route, machine and seed, so that each run can be had again."""
    found = fields("--target", "mixed", "--batch", "4", "--route", "raw", "--seed", "9")
    shown = {"target": "mixed", "batch": 4, "route": "raw", "seed": 9, "images": "drawn"}
    assert shown.items() <= found.items()
    assert found["machine"]["cores"] >= 1
    assert len({fields()["seed"] for _ in range(5)}) > 1  # drawn where none is given


def test_a_run_prints_its_table_and_ends_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two levels, all good; the recording gives the same table and the same JSON again."""
    out = tmp_path / "run.jsonl"
    with EchoServer() as server:
        asked_for = ["--concurrency", "2,5", "--requests", "30", "--target", "mixed"]
        code = main(["--url", server.url, *asked_for, "--out", str(out), "--warmup", "4"])
        sent = len(server.items)
    printed = capsys.readouterr()
    assert code == 0
    assert sent == 64
    assert "warm-up" in printed.err
    assert "level 5" in printed.err
    whole = orjson.loads(printed.out.splitlines()[-1])
    assert whole["passed"] is True
    assert [level["requests"] for level in whole["levels"]] == [30, 30]
    assert printed.out.startswith("| concurrency |")
    assert summary_main([str(out)]) == 0
    assert capsys.readouterr().out == printed.out
    assert printed.out == "\n".join(Report.of(Recording.read(out)).lines()) + "\n"


def test_a_failed_point_fails_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One 500 among thirty; judged again from its recording with an allowance, it passes."""
    out = tmp_path / "run.jsonl"
    arguments = ["--requests", "30", "--concurrency", "3", *QUICK]
    with EchoServer(lambda n: Behaviour(status=500 if n == 20 else 200)) as server:
        assert main(["--url", server.url, *arguments, "--out", str(out)]) == 1
    assert "\nlevel 3: 3.33 % errors: 1 × status 500\n" in capsys.readouterr().out
    assert summary_main([str(out)]) == 1
    assert summary_main([str(out), "--allow-errors", "5"]) == 0


def test_repeats_hit_a_cache_as_often_as_aimed(capsys: pytest.CaptureFixture[str]) -> None:
    """The universe is sent first; the last column of the table shows the share."""
    arguments = ["--repeat", "0.8", "--universe", "20", "--requests", "400", "--seed", "1"]
    with EchoServer() as server:
        assert main(["--url", server.url, *arguments, "--quiet"]) == 0
        assert len(server.items) == 420
    level = orjson.loads(capsys.readouterr().out.splitlines()[-1])["levels"][0]
    assert level["hits_pct"] == pytest.approx(80, abs=10)
    assert set(level["cache"]) == {"miss", "hit-l1"}


def test_a_server_of_the_seed_is_driven_by_its_own_paths(tmp_path: Path) -> None:
    """Its form, its paths, its answers without unit length, pictures from a folder, a key."""
    Image.new("RGB", (20, 20), "red").save(tmp_path / "red.png")
    paths = ["--text-path", "/flask/embed_text", "--image-path", "/flask/embed_image"]
    how = ["--route", "embed", *paths, "--any-length", "--key", "k", "--header", "X-Run: 7"]
    what = ["--target", "mixed", "--images", str(tmp_path), "--requests", "20"]
    with EchoServer(lambda _: Behaviour(spoilt="long", old=True)) as server:
        assert main(["--url", server.url, *how, *what, *QUICK]) == 0
        assert set(server.paths) == {"/flask/embed_text", "/flask/embed_image"}
        assert all(
            "authorization: bearer k" in head and "x-run: 7" in head for head in server.heads
        )


def test_a_server_that_is_not_there_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    """After the warm-up, with the reason; no level is tried."""
    assert main(["--url", f"http://127.0.0.1:{free_port()}", "--quiet"]) == 1
    out = capsys.readouterr().out
    assert "warm-up: no good answer: 10 × refused" in out
    assert orjson.loads(out.splitlines()[-1])["levels"] == []


@pytest.mark.parametrize("wish", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_with_what_was_measured(tmp_path: Path, wish: signal.Signals) -> None:
    """Table, JSON and recording, all marked as partial; exit code 130."""
    out = tmp_path / "run.jsonl"
    with EchoServer(lambda _: Behaviour(delay=0.005)) as server:
        command = [sys.executable, "-m", "bench.load", "--url", server.url, "--duration", "300"]
        process = subprocess.Popen(
            [*command, "--out", str(out), "--warmup", "2", "--concurrency", "2,4"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        awaited(lambda: len(server.items) >= 20 or process.poll() is not None)
        os.killpg(process.pid, wish if wish == signal.SIGINT else 0)  # a terminal tells them all
        process.send_signal(wish if wish == signal.SIGTERM else 0)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()
    assert b"Traceback" not in errors
    whole = orjson.loads(printed.splitlines()[-1])
    assert whole["partial"] is True
    assert [level["level"] for level in whole["levels"]] == ["2"]
    assert b"cut off: what is shown is partial" in printed
    assert Recording.read(out).partial
