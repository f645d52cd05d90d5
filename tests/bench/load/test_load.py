"""The command line, whole: against a small server, as a child process or in this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from bench.load.__main__ import Load, UsageError, levels, main, parser
from bench.load.fleet import FleetError
from bench.load.level import Level
from bench.load.recording import Recording
from bench.load.summary import Report
from bench.load.summary import main as summary_main
from bench.rig.port import free_port
from tests.support.echo_server import Behaviour, EchoServer

ROOT = Path(__file__).parent.parent.parent.parent


def asked(*arguments: str) -> list[Level]:
    """The levels of a command line."""
    return levels(parser().parse_args(arguments))


def fields(*arguments: str) -> dict[str, Any]:
    """What a recording would hold of the options."""
    return Load(parser().parse_args(arguments))._fields()


def test_the_command_of_the_seed() -> None:
    """Ten in flight, a hundred requests."""
    assert asked("--concurrency", "10", "--requests", "100") == [
        Level(1, concurrency=10, requests=100)
    ]


def test_several_levels_in_one_call() -> None:
    """Numbered from one; each has its own number of requests unless one is given."""
    found = asked("--concurrency", "5,50,500")
    assert [one.number for one in found] == [1, 2, 3]
    assert [one.concurrency for one in found] == [5, 50, 500]
    assert [one.requests for one in found] == [100, 500, 5000]


def test_nothing_asked_for_is_ten_in_flight() -> None:
    """And a hundred requests."""
    assert asked() == [Level(1, concurrency=10, requests=100)]


def test_a_duration_takes_the_place_of_a_number_of_requests() -> None:
    """As long as it lasts."""
    assert asked("--duration", "2.5") == [Level(1, concurrency=10, duration=2.5)]


def test_rates_make_open_loops() -> None:
    """Ten seconds each, unless said otherwise."""
    found = asked("--rate", "50,12.5", "--arrivals", "poisson", "--connections", "64")
    assert found == [
        Level(1, rate=50.0, arrivals="poisson", duration=10.0, connections=64),
        Level(2, rate=12.5, arrivals="poisson", duration=10.0, connections=64),
    ]
    assert asked("--rate", "5", "--requests", "7")[0].duration == 0.0


def test_rate_and_concurrency_exclude_each_other() -> None:
    """A loop is open or closed."""
    with pytest.raises(UsageError, match="exclude each other"):
        asked("--rate", "5", "--concurrency", "5")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--concurrency", "0"],
        ["--concurrency", "5,,6"],
        ["--concurrency", "many"],
        ["--rate", "-1"],
        ["--rate", "nan"],
        ["--rate", "inf"],
        ["--duration", "0"],
        ["--requests", "0"],
        ["--batch", "0"],
        ["--repeat", "1.5"],
        ["--target", "sound"],
        ["--route", "v2"],
        ["--concurency", "10"],
        ["--conc", "10"],
    ],
    ids=" ".join,
)
def test_an_impossible_option_is_refused_by_name(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Never ignored, never abbreviated, never guessed."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--url", "localhost"], "not a URL"),
        (["--seed", "99999999"], "a seed lies between"),
        (["--rate", "5", "--concurrency", "5"], "exclude each other"),
    ],
)
def test_options_that_cannot_be_met_end_with_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, with exit code 2 and no table."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.out == ""


def test_a_folder_without_pictures_ends_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is sent."""
    assert main(["--target", "image", "--images", str(tmp_path)]) == 2
    assert "no JPEG and no PNG" in capsys.readouterr().err


def test_a_recording_holds_neither_address_nor_key_nor_path() -> None:
    """Result files are published."""
    secret = ["--key", "hush", "--header", "X-Token: hush", "--out", "/secret/out.jsonl"]
    text = orjson.dumps(fields("--url", "http://hush.example:81", *secret)).decode()
    assert "hush" not in text
    assert "secret" not in text


def test_a_recording_holds_what_bears_on_the_result() -> None:
    """Workload, route, seed and machine."""
    found = fields("--target", "mixed", "--batch", "4", "--route", "raw", "--seed", "9")
    assert found["target"] == "mixed"
    assert found["batch"] == 4
    assert found["route"] == "raw"
    assert found["seed"] == 9
    assert found["images"] == "drawn"
    assert found["machine"]["cores"] >= 1


def test_without_a_seed_one_is_drawn_and_recorded() -> None:
    """So that no run meets the cache of the one before, and each can be had again."""
    assert len({fields()["seed"] for _ in range(5)}) > 1


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
    arguments = ["--requests", "30", "--concurrency", "3", "--warmup", "0", "--quiet"]
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
        assert main(["--url", server.url, *how, *what, "--warmup", "0", "--quiet"]) == 0
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
        while len(server.items) < 20 and process.poll() is None:
            time.sleep(0.02)
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


def test_an_open_loop_of_two_processes_keeps_to_its_rate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Together they send the schedule; the table calls the level by its rate."""
    arguments = ["--rate", "80", "--duration", "0.5", "--processes", "2", "--quiet"]
    with EchoServer() as server:
        assert main(["--url", server.url, *arguments, "--route", "raw", "--warmup", "0"]) == 0
        assert len(set(server.items)) == len(server.items) == 40
    out = capsys.readouterr().out
    assert "80/s |" in out
    level = orjson.loads(out.splitlines()[-1])["levels"][0]
    assert (level["rate"], level["concurrency"], level["requests"]) == (80.0, 0, 40)
    assert level["generator"]["processes"] == 2


def test_a_cold_universe_is_not_sent_before(capsys: pytest.CaptureFixture[str]) -> None:
    """Then each of its members is new once."""
    arguments = ["--repeat", "1", "--universe", "10", "--cold", "--warmup", "0", "--quiet"]
    with EchoServer() as server:
        assert main(["--url", server.url, *arguments, "--concurrency", "1", "--seed", "2"]) == 0
        assert len(server.items) == 100
        assert len(set(server.items)) == 10
    level = orjson.loads(capsys.readouterr().out.splitlines()[-1])["levels"][0]
    assert level["cache"] == {"hit-l1": 90, "miss": 10}


def test_a_full_server_is_measured_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """429 has a column of its own."""
    arguments = ["--requests", "40", "--concurrency", "4", "--warmup", "0", "--quiet"]
    with EchoServer(lambda n: Behaviour(status=429 if n % 4 == 1 else 200)) as server:
        assert main(["--url", server.url, *arguments]) == 0
    level = orjson.loads(capsys.readouterr().out.splitlines()[-1])["levels"][0]
    assert (level["good"], level["errors_pct"], level["busy_pct"]) == (30, 0.0, 25.0)


def test_a_run_with_the_same_seed_sends_the_same_again() -> None:
    """And one without a seed sends what was never sent."""
    sent = []
    for seed in (["--seed", "11"], ["--seed", "11"], []):
        arguments = ["--requests", "15", "--concurrency", "3", "--warmup", "0", "--quiet"]
        with EchoServer() as server:
            assert main(["--url", server.url, *arguments, *seed]) == 0
            sent.append(set(server.items))
    assert sent[0] == sent[1]
    assert not sent[0] & sent[2]


def test_a_place_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is sent."""
    with EchoServer() as server:
        out = tmp_path / "missing" / "run.jsonl"
        assert main(["--url", server.url, "--out", str(out), "--quiet"]) == 2
        assert server.heads == []
    assert "No such file" in capsys.readouterr().err


def test_a_generator_that_dies_fails_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured before is shown, and that something is missing."""

    def die(*_: object) -> None:
        raise FleetError("a generator process died")

    monkeypatch.setattr("bench.load.__main__.Fleet.run", die)
    assert main(["--quiet"]) == 1
    printed = capsys.readouterr()
    assert "a generator process died" in printed.err
    assert orjson.loads(printed.out.splitlines()[-1])["passed"] is False
